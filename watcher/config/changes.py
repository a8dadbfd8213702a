"""What differs between two configurations, in the words of the file. Shows no values: they may be secrets."""

from collections.abc import Iterator

from watcher.config.models import Settings
from watcher.runtime.settings import key_of


def changes_between(before: Settings, after: Settings) -> list[str]:
    """Return what was added, removed or changed, such as `sinks.ops changed` and `polling.max_interval changed`."""
    old, new = dict(_blocks(before)), dict(_blocks(after))
    return [
        *(f"{key} removed" for key in old if key not in new),
        *(f"{key} {'changed' if key in old else 'added'}" for key in new if key not in old or old[key] != new[key]),
    ]


def _blocks(settings: Settings) -> Iterator[tuple[str, object]]:
    """Yield what changes as one: an account, a watch, a sink, or a key of the other blocks."""
    yield from ((f"accounts.{name}", account) for name, account in settings.accounts.items())
    yield from ((f"watch of {watch.pipeline} by {watch.account}", watch) for watch in settings.watch)
    yield from ((f"sinks.{name}", sink) for name, sink in settings.sinks.items())
    for block in ("polling", "store", "http", "log"):
        model = getattr(settings, block)
        for name, value in model:
            yield f"{block}.{key_of(type(model), name=name)}", value
