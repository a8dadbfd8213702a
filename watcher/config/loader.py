"""From a file to `Settings`, or to all that is wrong with it at once."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from watcher.config.cross_checks import check, fill_in
from watcher.config.document import Document
from watcher.config.error_messages import translate
from watcher.config.files import CONFIG_BYTES, FileError
from watcher.config.locate import DEFAULTS
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError
from watcher.config.secret_files import read_twins, stand_in
from watcher.config.template_files import read_templates
from watcher.config.tls_files import read_tls_files
from watcher.config.yaml_tree import BadYamlError, compose, decode

TRANSLATED_COUNT = 1_000
"""So many problems are explained: nobody reads more, and a hundred thousand would take a minute."""


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
    root = _compose(path, document=document)
    settings = None if root is None else _read(path, root, document=document, environ=environ, only=only)
    if settings is None or document.problems:
        raise ConfigProblemsError(document.problems, file=document.file, source=document.source)
    return settings


def _compose(path: Path, *, document: Document) -> yaml.MappingNode | None:
    """Return the root of the file, or `None` once it is reported why there is none."""
    try:
        document.source = decode(document.read(path, limit=CONFIG_BYTES))
        return compose(document.source)
    except FileError as error:
        document.report_file(f"cannot read this file ({error})", remedy=error.remedy)
    except BadYamlError as error:
        document.report_file(error.problem, remedy=error.remedy, line=error.line, column=error.column)
    return None


def _read(
    path: Path,
    root: yaml.MappingNode,
    *,
    document: Document,
    environ: Mapping[str, str],
    only: Collection[str] | None,
) -> Settings | None:
    if only is not None:
        root.value = [(key, value) for key, value in root.value if key.value in only]
    try:
        document.load(root, environ=environ)
    except RecursionError:
        remedy = "check brackets and indentation"
        document.report_file("nested deeper than anything in this file can be", remedy=remedy)
        return None
    for absent in tuple(document.excused):
        stand_in(document, absent)
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


def _validate(document: Document) -> Settings | None:
    try:
        return Settings.model_validate(document.data)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        translate(errors[:TRANSLATED_COUNT], document=document)
        if (more := len(errors) - TRANSLATED_COUNT) > 0:
            document.report_file(f"{more:,} problems more", remedy="correct those below first")
        return None
