"""A configuration file that is read again whenever it, or a file it names, has changed, and what differs then."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from yarl import URL

from watcher.config.document import Document
from watcher.config.files import Stamp, stamp_of
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.warnings import warnings_of
from watcher.domain.errors import ConfigError
from watcher.runtime.http_client import proxy_for
from watcher.runtime.settings import key_of

Stamps = Mapping[Path, Stamp | None]


class ConfigSource:
    """Reads the configuration at `path` and remembers which files that took, and their stamps."""

    def __init__(self, path: Path, *, environ: Mapping[str, str]) -> None:
        """Read nothing yet. `warnings` are of what was loaded last."""
        self.warnings: tuple[Problem, ...] = ()
        self._path = path
        self._environ = environ
        self._read: Stamps = {}

    def load(self) -> Settings:
        """Read the file and the files it names.

        Raises `ConfigError` with everything that is wrong; what `require_usable` refuses is wrong, too.
        """
        document = Document(file=str(self._path))
        self._read = document.files  # and nothing else of it: the nodes of 100,000 executions take 40 MB
        settings = load_config(self._path, environ=self._environ, document=document)
        require_usable(settings)
        self.warnings = warnings_of(document, settings)
        return settings

    def stamps(self) -> Stamps:
        """Return what the files that were tried last time are now: a few microseconds each."""
        return {path: stamp_of(path) for path in self._read}

    def changed(self) -> bool:
        """Return whether any of them is another than was read, has come or has gone."""
        return self.stamps() != self._read


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
