"""From a file to `Settings`, or to all that is wrong with it at once."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from watcher.config.cross_checks import check, fill_in
from watcher.config.document import Document
from watcher.config.error_messages import translate
from watcher.config.file_stamp import CONFIG_BYTES, Cause, FileError
from watcher.config.locate import DEFAULTS
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError
from watcher.config.secret_files import read_twins
from watcher.config.template_files import read_templates
from watcher.config.tls_files import read_tls_files
from watcher.config.yaml_errors import BadYamlError, decode
from watcher.config.yaml_tree import Node, Scalar, Table, compose

TRANSLATED_COUNT = 1_000
"""So many problems are explained: nobody reads more, and hundreds of thousands would take minutes."""

_CORRECT = "correct the path or its permissions"
_REMEDIES = {
    Cause.NO_PATH: "correct the path",
    Cause.MISSING: _CORRECT,
    Cause.DENIED: _CORRECT,
    Cause.DIRECTORY: "name the file in it",
    Cause.NOT_REGULAR: "name a regular file",
    Cause.TOO_LARGE: "is it the configuration? 100,000 executions take 4 MiB",
    Cause.HANGS: "see why its file system does not answer",
    Cause.SILENT: "name a regular file, or see why what writes it does not",
    Cause.OTHER: "see what is wrong with its file system",
}


def load_config(
    path: Path,
    *,
    environ: Mapping[str, str],
    only: Collection[str] | None = None,
    document: Document | None = None,
) -> Settings:
    """Read the file and the files it names. Raises `ConfigProblemsError` with everything that is wrong.

    Of the top-level keys `only` these are read, if given; what the others need (secrets, variables) may be absent.
    `document` knows afterwards which files were read.
    """
    document = document or Document(file=str(path))
    settings = _read(path, document=document, environ=environ, only=only)
    if settings is None or document.problems:
        raise ConfigProblemsError(document.problems, file=document.file, source=document.source)
    return settings


def _read(
    path: Path, *, document: Document, environ: Mapping[str, str], only: Collection[str] | None
) -> Settings | None:
    root = _compose(path, document=document)
    if not isinstance(root, Table):
        return None
    if only is not None:
        root = replace(root, entries={key: entry for key, entry in root.entries.items() if key in only})
    document.load(root, environ=environ)
    for variable, key in DEFAULTS.items():
        if (only is None or key[0] in only) and (value := environ.get(variable)):
            document.put_from_environment(key, value, variable=variable)
    read_twins(document, directory=path.parent)
    read_tls_files(document, directory=path.parent)
    read_templates(document, directory=path.parent)
    fill_in(document)
    settings = _validate(document)
    check(document)
    return settings


def _compose(path: Path, *, document: Document) -> Node | None:
    """Return the tree of the file, or `None` once it is reported why there is none."""
    try:
        text = decode(document.read(path, limit=CONFIG_BYTES, pipe=True))
        document.source = text
        root = compose(text, report=document.report_at)
    except FileError as error:
        remedy = _REMEDIES[error.cause]
        document.report_at(Scalar(None, 0, 0), (), f"cannot read this file ({error})", remedy)
        return None
    except BadYamlError as error:
        document.report_at(Scalar(None, error.line, error.column), (), error.problem, error.remedy)
        return None
    if isinstance(root, Scalar) and root.text is None:
        return Table({}, root.line, root.column)
    if not isinstance(root, Table):
        document.report_at(Scalar(None, root.line, root.column), (), "no keys", "begin with a key such as accounts:")
    return root


def _validate(document: Document) -> Settings | None:
    try:
        return Settings.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        translate(errors[:TRANSLATED_COUNT], document=document)
        if len(errors) > TRANSLATED_COUNT:
            count = len(errors) - TRANSLATED_COUNT
            document.report_at(Scalar(None, 0, 0), (), f"{count:,} problems more", "correct those below first")
        return None
