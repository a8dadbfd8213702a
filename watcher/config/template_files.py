"""The operator's own templates: `template` of a webhook names a file, which is read and tried before it is used."""

from pathlib import Path as FilePath

from watcher.config.document import Document, quoted
from watcher.config.files import FileError
from watcher.config.yaml_tree import Path
from watcher.runtime.settings import did_you_mean
from watcher.sinks.webhook import PRESETS, TemplateFile

TEMPLATE_BYTES = 64 * 1024


def read_templates(document: Document, *, directory: FilePath) -> None:
    """Put in the templates that files hold. Relative paths start at `directory`, that of the configuration file."""
    for name in document.table(("sinks",)):
        path = ("sinks", name, "template")
        given = document.text(path)
        if given is not None and given not in PRESETS and document.get((*path[:-1], "type")) == "webhook":
            _read(document, path, directory / given)


def _read(document: Document, path: Path, file: FilePath) -> None:
    try:
        source = document.read(file, limit=TEMPLATE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        document.report(path, f"{document.subject(path)} is not UTF-8 text", remedy="name a Jinja2 file")
        return
    except FileError as error:
        given = document.text(path) or ""
        is_path = document.is_hidden(path) or "/" in given or "." in given
        words = f"write {', '.join(PRESETS)} or the path of a Jinja2 file, which begins beside this file"
        remedy = words if is_path else did_you_mean(given, list(PRESETS), rest=words)
        document.report(path, f"cannot read {document.subject(path)} ({error})", remedy=remedy)
        return
    template = TemplateFile(document.written(path), source)
    if failure := template.check(with_group=document.get((*path[:-1], "group")) is not None):
        line = f":{failure.line}" if failure.line else ""
        place = f"{quoted(template.path)[1:-1]}{line}"
        document.report(path, f"{place}: {failure.reason}", remedy=failure.remedy)
    else:
        document.table(path[:-1])[str(path[-1])] = template
