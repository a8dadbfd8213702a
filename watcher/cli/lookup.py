"""Finding what a person names on the command line among the things that the daemon knows."""

from collections.abc import Iterable

from watcher.cli.daemon_client import Answer, DaemonError
from watcher.domain.errors import Exit, UsageError
from watcher.runtime.settings import did_you_mean
from watcher.runtime.terminal import harmless


def one_of(items: Iterable[Answer], word: str, *, kind: str, listed_by: str = "watcher status") -> Answer:
    """Return the item whose id, name or title is `word` or, as the only one, begins with it. Case does not matter.

    Raises `DaemonError` with what is near if there is none, `UsageError` with the candidates if there are several.
    """
    known = [([str(item[key]) for key in ("id", "name", "title") if key in item], item) for item in items]
    wanted = word.casefold()
    fits = [each for each in known if wanted and any(text.casefold().startswith(wanted) for text in each[0])]
    found = [each for each in fits if wanted in map(str.casefold, each[0])] or fits
    if not found:
        remedy = did_you_mean(word, [texts[-1] for texts, _ in known]) or f"{listed_by} lists them"
        raise DaemonError(harmless(f'no {kind} "{word}"; {remedy}'), code=Exit.NOT_FOUND)
    if len(found) > 1:
        which = "; ".join(" ".join([*texts, item.get("account", "")]).strip() for texts, item in found[:5])
        raise UsageError(harmless(f'"{word}" fits several {kind}s; write more of one of these: {which}'))
    return found[0][1]
