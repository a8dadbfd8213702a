"""Loading a file or a folder into `Settings`, or reporting all of its problems at once."""

import asyncio
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import ValidationError
from yarl import URL

from watcher.config.checks import check, fill_in, find_warnings
from watcher.config.document import ConfigProblem, ConfigProblemsError, Document
from watcher.config.error_messages import translate
from watcher.config.file_values import read_files, stand_in
from watcher.config.files import DEFAULTS, Stamps
from watcher.config.models import Settings, WatchSettings
from watcher.domain.errors import ConfigError
from watcher.rules import RulesSettings
from watcher.runtime.http_client import proxy_for
from watcher.runtime.settings import LABELS_COUNT, key_of


def load_config(
    path: Path, *, environ: Mapping[str, str], only: Collection[str] | None = None, document: Document | None = None
) -> Settings:
    """Read the file or folder and the files that it names. Raises `ConfigProblemsError` with all problems.

    With `only`, all other top-level keys are ignored, so their secrets and variables may be absent. A given `document`
    is filled: afterwards its `files` are those that were read.
    """
    document = document or Document(file=str(path))
    settings = None
    if document.open(path, environ=environ, only=only):
        for absent in tuple(document.excused):
            stand_in(document, absent)
        for variable, key in DEFAULTS.items():
            if (only is None or key[0] in only) and (value := environ.get(variable)):
                document.put_from_environment(key, value, variable=variable)
        read_files(document, directory=document.directory)
        fill_in(document)
        try:
            settings = _with_defaults(Settings.model_validate(document.data), document)
        except ValidationError as error:
            translate(error.errors(include_url=False, include_input=False), document=document)
        check(document)
    if settings is None or document.problems:
        raise ConfigProblemsError(document.problems, file=document.file, sources=document.sources)
    return settings


def _with_defaults(settings: Settings, document: Document) -> Settings:
    """Return the settings with `defaults` filled in at each watch. Report a watch that then has too many labels."""
    defaults, watches = settings.defaults, list[WatchSettings]()
    for index, watch in enumerate(settings.watch):
        filled = {name: getattr(defaults, name) for name in defaults.model_fields_set - watch.model_fields_set}
        if defaults.rules is not None:
            own = document.table(("watch", index, "rules"))  # also those without a value, which turn a default off
            names = {each for each in defaults.rules.model_fields_set if key_of(RulesSettings, name=each) not in own}
            names -= {"silent_s"} if watch.executions else set()
            rules = {name: getattr(defaults.rules, name) for name in names}
            filled["rules"] = (watch.rules or RulesSettings()).model_copy(update=rules) if rules else watch.rules
        if defaults.labels:
            labels = filled["labels"] = {**defaults.labels, **watch.labels}
            if len(labels) > LABELS_COUNT:
                problem = f"has {len(labels)} labels with those of defaults"
                document.report(("watch", index, "labels"), problem, remedy=f"keep at most {LABELS_COUNT}")
        watches.append(watch.model_copy(update=filled))
    return settings.model_copy(update={"watch": tuple(watches)})


class ConfigSource:
    """The configuration at one path, for the first load and every reload.

    `files` has the stamps of the files that the last load read, `warnings` the warnings of the last successful load. If
    `asked` is set, the configuration is loaded again even if no file has changed.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str]) -> None:
        """Keep the path and the environment. No file is read yet."""
        self.warnings: tuple[ConfigProblem, ...] = ()
        self.asked = asyncio.Event()
        self._path = path
        self._environ = environ
        self.files: Stamps = {}

    def load(self) -> Settings:
        """Read the file and the files that it names. Raises `ConfigError` if the configuration cannot be used."""
        document = Document(file=str(self._path))
        self.files = document.files  # keep the stamps, not the document: the nodes of 100,000 executions take 40 MB
        settings = load_config(self._path, environ=self._environ, document=document)
        require_usable(settings)
        self.warnings = find_warnings(document, settings)
        return settings


def require_usable(settings: Settings) -> None:
    """Raise `ConfigError` if there is nothing to watch, or if the environment names a proxy that cannot be used.

    The proxies of all targets are checked here: this replica may later become the owner of any account or sink.
    """
    if not settings.watch:
        raise ConfigError("nothing to watch: add a watch entry with a pipeline")
    targets = [account.base_url for account in settings.accounts.values()]
    targets += [sink.target for sink in settings.sinks.values() if sink.target is not None]
    targets += [settings.heartbeat.url.get_secret_value()] if settings.heartbeat else []
    for target in targets:
        proxy_for(URL(target))


def changes_between(before: Settings, after: Settings) -> list[str]:
    """Return a text such as `sinks changed` for each changed top-level key, without values: these may be secrets."""
    return [f"{name} changed" for name in Settings.model_fields if getattr(before, name) != getattr(after, name)]
