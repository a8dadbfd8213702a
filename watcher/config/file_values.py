"""Values from files that the configuration names: secrets, certificates, the operator's templates.

For `check --without-secrets`, stand-ins replace absent secrets, so that the rest of the file can be checked.
"""

import re
from hashlib import sha256
from pathlib import Path

from watcher.config.document import Document, KeyPath, first_scalar, quoted
from watcher.config.error_messages import field_at, model_at
from watcher.config.files import SECRET_BYTES, FileError
from watcher.runtime.settings import did_you_mean, file_twins
from watcher.sinks.settings import PemFile, TlsSettings
from watcher.sinks.webhook import PRESETS, TemplateFile

PEM_BYTES = 1024 * 1024
"""The largest PEM file. All CAs that a usual system trusts take 220 KiB."""

TEMPLATE_BYTES = 64 * 1024

_PATH = re.compile(
    r"(?:/|\.\.?/).*|\.\.?|\$\{\w+(?::-[a-z/_]+)?\}(?:/.*)?|[A-Za-z_-]+(?:\.[a-z]+)*(?:/[A-Za-z_-]+(?:\.[a-z]+)*)*"
)
"""The form of a path that begins with `/`, `./`, `../` or a variable, or of a path without digits. Any other text may
be a secret in the wrong place."""

_STAND_INS = {
    "secret": "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAw",
    "token": "xoxb-absent-absent",
    "routing_key": "0" * 32,
}
"""The stand-ins for secrets that must have a certain form. Other secrets get the example of their key."""


def read_files(document: Document, *, directory: Path) -> None:
    """Read the files that the document names, and put their contents into the document."""
    named: list[KeyPath] = [(block, name) for block in ("accounts", "sinks") for name in document.table((block,))]
    for block in (*named, ("store",), ("http",), ("heartbeat",)):
        model = model_at(document, block)
        for key in file_twins(model) if model else ():
            _read_secret(document, (*block, key), directory)
    for name in document.table(("sinks",)):
        type_ = document.text(("sinks", name, "type")) or ""
        for block in (("sinks", name), ("sinks", name, "tls")):
            if (model := model_at(document, block)) and "ca_file" in model.model_fields:
                _read_tls(document, block, directory)
        given = document.text(("sinks", name, "template"))
        if type_ == "webhook" and given is not None and given not in PRESETS:
            _read_template(document, ("sinks", name, "template"), directory / given)


def _read_secret(document: Document, path: KeyPath, directory: Path) -> None:
    """Read a secret from the file in its key's twin, if that is given. Report a problem if both keys are given."""
    twin = (*path[:-1], f"{path[-1]}_file")
    if document.get(twin) is None:
        return
    if document.get(path) is not None:
        problem = f"both {path[-1]} and {twin[-1]} are given"
        document.report(twin, problem, remedy="keep one", key=True, block=True)
        return
    data = _read(document, twin, directory, limit=SECRET_BYTES)
    if twin in document.excused:
        return
    if data is not None and (value := _secret(document, data, twin, is_list=path[-1] == "secret")):
        document.put_from_file(path, value)
    else:
        document.mark_reported(path)


def _read_tls(document: Document, block: KeyPath, directory: Path) -> None:
    for key in TlsSettings.model_fields:
        given = document.text((*block, key))
        content = _read(document, (*block, key), directory, limit=PEM_BYTES)
        if given is not None and content is not None:
            document.table(block)[key] = PemFile(given, directory / given, sha256(content).hexdigest())


def _read_template(document: Document, path: KeyPath, file: Path) -> None:
    try:
        source = document.read(file, limit=TEMPLATE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        document.report(path, f"{document.subject(path)} is not UTF-8 text", remedy="name a Jinja2 file")
        return
    except FileError as error:
        given = document.text(path) or ""
        word = "" if document.is_hidden(path) or re.search(r"[./]", given) else given
        rest = f"write {', '.join(PRESETS)} or the path of a Jinja2 file, which begins beside this file"
        remedy = did_you_mean(word, list(PRESETS), rest=rest)
        document.report(path, f"cannot read {document.subject(path)} ({error})", remedy=remedy)
        return
    from watcher.sinks.own_template import check  # noqa: PLC0415 (it imports jinja2, which few need)

    template = TemplateFile(document.written(path), source)
    if failure := check(source, with_group=document.get((*path[:-1], "group")) is not None):
        line = f":{failure.line}" if failure.line else ""
        document.report(path, f"{quoted(template.path)[1:-1]}{line}: {failure.reason}", remedy=failure.remedy)
    else:
        document.table(path[:-1])[str(path[-1])] = template


def _read(document: Document, path: KeyPath, directory: Path, *, limit: int) -> bytes | None:
    """Return the content of the file named at `path`; `None` if no file is named, or after reporting a problem."""
    given = document.text(path)
    if given is None:
        return None
    try:
        return document.read(directory / given, limit=limit)
    except FileError as error:
        document.report_absent(path, f"cannot read {_shown(document, path)} ({error})", remedy=error.remedy)
        if path in document.excused:
            stand_in(document, path)
    return None


def _secret(document: Document, data: bytes, twin: KeyPath, *, is_list: bool) -> str | list[str] | None:
    """Return the secret, or the list of secrets, in a file; `None` after reporting a problem."""
    shown = _shown(document, twin)
    try:
        text = data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        document.report(twin, f"{shown} is not UTF-8 text", remedy="write the secret into it as text")
        return None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        document.report(twin, f"{shown} is empty", remedy="write the secret into it")
    elif not is_list and re.search(r"[\r\n]", text):
        document.report(twin, f"{shown} holds more than one line", remedy="write the secret alone into it")
    else:
        return lines if is_list else text
    return None


def _shown(document: Document, twin: KeyPath) -> str:
    """Return words for the file in a twin: its path, or `this file` if the text may be a secret instead of a path.

    A variable is shown filled in only at the start of a path: a variable alone may hold the secret itself.
    """
    written = document.written(twin)
    if not _PATH.fullmatch(written):
        return "this file"
    shown, filled = (quoted(each, limit=1024)[1:-1] for each in (written, document.get(twin)))
    return f"{filled}, from {shown}" if "}/" in written and filled.startswith("/") else shown


def stand_in(document: Document, path: KeyPath) -> None:
    """Replace an excused value by a stand-in. Remove TLS files and values with a default instead."""
    if "tls" in path or path[-1] == "ca_file":  # `tls` goes as a whole: a key needs its certificate
        document.table(path[:2]).pop(str(path[2]), None)
        return
    if str(path[-1]).endswith("_file"):
        document.table(path[:-1]).pop(str(path[-1]), None)
        path = (*path[:-1], str(path[-1]).removesuffix("_file"))
        document.excused.add(path)
    if (block := document.get(path[:-1])) is not None:
        block[path[-1]] = _value_for(document, path)


def _value_for(document: Document, path: KeyPath) -> str | None:
    key = next(part for part in reversed(path) if isinstance(part, str))
    if key == "url" and document.get((*path[:-1], "type")) == "apprise":
        return "json://absent.invalid"
    if key in _STAND_INS:
        return _STAND_INS[key]
    field = field_at(document, path)
    if field is not None and not field.is_required() and field.default is not None:
        return None
    fields = (field_at(document, path[:end]) for end in range(len(path), 0, -1))
    example = next((field.examples[0] for field in fields if field and field.examples), None)
    return example and first_scalar(example)
