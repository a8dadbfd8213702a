"""A configuration file that is read again whenever it, or a file it names, may have changed, and what differs then."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from yarl import URL

from watcher.config.document import Document
from watcher.config.file_stamp import HANGS, Files, Stamp
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.warnings import warnings_of
from watcher.domain.errors import ConfigError
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import proxy_for
from watcher.runtime.settings import key_of


class ConfigSource:
    """Reads the configuration at `path` and remembers which files that took, and their stamps.

    Everything here takes as long as the file system does, at most a few seconds: it is no work for an event loop.
    """

    def __init__(self, path: Path, *, environ: Mapping[str, str], clock: Clock, reader: Files | None = None) -> None:
        """Read nothing yet. `reader` reads all files; `warnings` are of what was loaded last."""
        self.warnings: tuple[Problem, ...] = ()
        self._path = path
        self._environ = environ
        self._clock = clock
        self._reader = reader or Files()
        self._files: Mapping[Path, Stamp | None] = {}

    def load(self) -> Settings:
        """Read the file and the files it names.

        Raises `ConfigError` with everything that is wrong; what `require_usable` refuses is wrong, too.
        """
        document = Document(file=str(self._path), files=self._reader)
        self._files = document.files  # and nothing else of it: the tree of 100,000 executions takes 25 MB
        settings = load_config(self._path, environ=self._environ, document=document)
        require_usable(settings)
        self.warnings = warnings_of(document, settings, environ=self._environ, now=self._clock.now())
        return settings

    @property
    def hangs(self) -> bool:
        """Return whether one of the files that were tried last time gave no answer."""
        return HANGS in self._files.values()

    def stamps(self) -> Mapping[Path, Stamp | None]:
        """Return what the files that were tried last time are now."""
        return self._reader.stamps(self._files)

    def changed(self) -> bool:
        """Return whether any of them is another than was read, has come or has gone."""
        return self.stamps() != self._files

    def directories(self) -> set[Path]:
        """Return where such a change would show: a file, or a link to it, is replaced in its directory."""
        return self._reader.directories(self._files)


def require_usable(settings: Settings) -> None:
    """Raise `ConfigError` if there is nothing to do, or if the environment names a proxy that cannot be used.

    That is judged here, for all accounts and sinks: a replica may come to own any of them later.
    """
    if not settings.watch:
        raise ConfigError("nothing to watch: add a watch entry with a pipeline")
    targets = [account.base_url for account in settings.accounts.values()]
    targets += [sink.target for sink in settings.sinks.values() if sink.target is not None]
    for target in targets:
        proxy_for(URL(target))


def changes_between(before: Settings, after: Settings) -> list[str]:
    """Return what was added, removed or changed, such as `sinks.ops changed` and `polling.max_interval changed`.

    Shows no values: they may be secrets.
    """
    old, new = dict(_blocks(before)), dict(_blocks(after))
    return [
        *(f"{key} removed" for key in old if key not in new),
        *(f"{key} {'changed' if key in old else 'added'}" for key in new if key not in old or old[key] != new[key]),
    ]


def _blocks(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield what changes as one: an account, a watch, a sink, all silences, or a key of the other blocks."""
    yield from ((f"accounts.{name}", account) for name, account in settings.accounts.items())
    yield from ((f"watch of {watch.pipeline} by {watch.account}", watch) for watch in settings.watch)
    yield from ((f"sinks.{name}", sink) for name, sink in settings.sinks.items())
    yield "silences", settings.silences
    for block in ("polling", "store", "http", "log"):
        model = getattr(settings, block)
        for name, value in model:
            yield f"{block}.{key_of(type(model), name=name)}", value
