"""What the contract (SPEC 3) promises for later versions: a key of theirs is an error that says so."""

from collections.abc import Mapping
from importlib.metadata import version

from watcher.config.yaml_tree import Path

VERSION = ".".join(version("clerk-watcher").split(".")[:2])
NOT_YET = f"not in this version ({VERSION})"

CONSOLE = "comes with the console"
INSIGHT = "comes with insight into pipelines"
CADENCE = "comes with the adaptive cadence"

_KEYS = {
    ("heartbeat",): CONSOLE,
    ("watch", "*", "rules", "slow"): INSIGHT,
    ("watch", "*", "rules", "tokens"): INSIGHT,
    ("watch", "*", "rules", "goal"): INSIGHT,
    ("watch", "*", "rules", "new_error"): INSIGHT,
    ("watch", "*", "rules", "loop"): INSIGHT,
    ("http", "public_url"): CONSOLE,
    ("http", "token"): CONSOLE,
    ("http", "token_file"): CONSOLE,
}

_VALUES: Mapping[tuple[tuple[str, ...], str], str] = {(("polling", "cadence"), "adaptive"): CADENCE}


def later_key(path: Path) -> str | None:
    """Return when this key comes, if a later version has it."""
    return _KEYS.get(_pattern(path))


def later_value(path: Path, value: str) -> str | None:
    """Return when this value of a key comes, if a later version has it."""
    return _VALUES.get((_pattern(path), value))


def _pattern(path: Path) -> tuple[str, ...]:
    named = path[:1] in {("watch",), ("sinks",)}
    return tuple("*" if named and index == 1 else str(part) for index, part in enumerate(path))
