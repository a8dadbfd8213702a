"""Loading a file into `Settings`, or reporting all of its problems at once."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError
from yarl import URL

from watcher.config.checks import check, fill_in, find_warnings
from watcher.config.document import ConfigProblem, ConfigProblemsError, Document
from watcher.config.error_messages import translate
from watcher.config.file_values import read_files, stand_in
from watcher.config.files import FileError, Stamps
from watcher.config.locate import DEFAULTS
from watcher.config.models import Settings
from watcher.domain.errors import ConfigError
from watcher.runtime.http_client import proxy_for


def load_config(
    path: Path,
    *,
    environ: Mapping[str, str],
    only: Collection[str] | None = None,
    document: Document | None = None,
) -> Settings:
    """Read the file and the files that it names. Raises `ConfigProblemsError` with all problems.

    With `only`, other top-level keys are ignored, and their secrets and variables may be absent. Afterwards `document`
    has the files that were read.
    """
    document = document or Document(file=str(path))
    settings = None
    try:
        document.open(path, environ=environ, only=only)
    except FileError as error:
        problem = str(error) if document.source or any(error.place) else f"cannot read this file ({error})"
        document.report_file(problem, remedy=error.remedy, place=error.place)
    else:
        for absent in tuple(document.excused):
            stand_in(document, absent)
        for variable, key in DEFAULTS.items():
            if (only is None or key[0] in only) and (value := environ.get(variable)):
                document.put_from_environment(key, value, variable=variable)
        read_files(document, directory=path.parent)
        fill_in(document)
        try:
            settings = Settings.model_validate(document.data)
        except ValidationError as error:
            translate(error.errors(include_url=False, include_input=False), document=document)
        check(document)
    if settings is None or document.problems:
        raise ConfigProblemsError(document.problems, file=document.file, source=document.source)
    return settings


class ConfigSource:
    """The configuration at one path, which may be loaded again.

    `files` are the stamps of the files that were read last, `warnings` those of the last load. If `asked` is set, the
    configuration is loaded again even if no file has changed.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str]) -> None:
        """Read nothing yet."""
        self.warnings: tuple[ConfigProblem, ...] = ()
        self.asked = asyncio.Event()
        self._path = path
        self._environ = environ
        self.files: Stamps = {}

    def load(self) -> Settings:
        """Read the file and the files that it names. Raises `ConfigError` with all problems."""
        document = Document(file=str(self._path))
        self.files = document.files  # keep only this of the document: the nodes of 100,000 executions take 40 MB
        settings = load_config(self._path, environ=self._environ, document=document)
        require_usable(settings)
        self.warnings = find_warnings(document, settings)
        return settings


def require_usable(settings: Settings) -> None:
    """Raise `ConfigError` if there is nothing to watch, or if the environment names a proxy that cannot be used.

    The proxies of all accounts, sinks and the heartbeat are checked here: a replica may own any of them later.
    """
    if not settings.watch:
        raise ConfigError("nothing to watch: add a watch entry with a pipeline")
    targets = [account.base_url for account in settings.accounts.values()]
    targets += [sink.target for sink in settings.sinks.values() if sink.target is not None]
    targets += [settings.heartbeat.url.get_secret_value()] if settings.heartbeat else []
    for target in targets:
        proxy_for(URL(target))


def changes_between(before: Settings, after: Settings) -> list[str]:
    """Return a text for each changed block, such as `sinks changed`, without values: they may be secrets."""
    return [f"{name} changed" for name in Settings.model_fields if getattr(before, name) != getattr(after, name)]
