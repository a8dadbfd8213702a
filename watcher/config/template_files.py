"""Templates of one's own: `template` of a webhook names a file, which is read and tried before anything uses it."""

from pathlib import Path as FilePath

from watcher.config.document import Document, quoted
from watcher.config.file_stamp import Cause, FileError
from watcher.config.secret_files import FILE_REMEDIES
from watcher.config.unsupported_keys import later_value
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.template_file import TemplateFile
from watcher.delivery.sinks.webhook_settings import PRESETS
from watcher.runtime.settings import did_you_mean

TEMPLATE_BYTES = 64 * 1024

_FILE_REMEDIES = {
    **FILE_REMEDIES,
    Cause.NO_PATH: "write a path such as ./chat.json.j2",
    Cause.MISSING: "correct the path, which begins beside this file",
    Cause.DIRECTORY: "name a file",
    Cause.TOO_LARGE: "name a Jinja2 file",
}


def read_templates(document: Document, *, directory: FilePath) -> None:
    """Put in the templates that files hold. Relative paths start at `directory`, that of the configuration file."""
    for name in document.table(("sinks",)):
        path = ("sinks", name, "template")
        given = document.text(path)
        is_file = given is not None and given not in PRESETS and not later_value(path, given)
        if given is not None and is_file and document.get((*path[:-1], "type")) == "webhook":
            _read(document, path, directory / given)


def _read(document: Document, path: Path, file: FilePath) -> None:
    try:
        source = document.read(file, limit=TEMPLATE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        document.report(path, f"{document.subject(path)} is not UTF-8 text", remedy="name a Jinja2 file")
        return
    except FileError as error:
        _refuse(document, path, error)
        return
    template = TemplateFile(document.written(path), source)
    if failure := template.check():
        line = f":{failure.line}" if failure.line else ""
        place = f"{quoted(template.path)[1:-1]}{line}"
        document.report(path, f"{place}: {failure.reason}", remedy=failure.remedy)
    else:
        document.table(path[:-1])[str(path[-1])] = template


def _refuse(document: Document, path: Path, error: FileError) -> None:
    """Report a file that cannot be read; what does not look like one is rather a word that is misspelt."""
    subject, given = document.subject(path), document.text(path) or ""
    if document.is_hidden(path) or "/" in given or "." in given:
        document.report(path, f"cannot read {subject} ({error})", remedy=_FILE_REMEDIES[error.cause])
        return
    words = ", ".join(PRESETS)
    rest = f"write {words} or the path of a Jinja2 file"
    remedy = did_you_mean(given, list(PRESETS), rest=rest)
    document.report(path, f"{subject} is neither {words} nor a readable file", remedy=remedy)
