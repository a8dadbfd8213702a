"""The lookup of a pipeline, account, problem, sink or execution by a word of the command line."""

from collections.abc import Iterable

from watcher.cli.daemon_client import Answer
from watcher.domain.errors import DaemonError, Exit, UsageError
from watcher.runtime.settings import did_you_mean
from watcher.runtime.terminal import harmless


def one_of(
    items: Iterable[Answer], word: str, *, kind: str, listed_by: str = "watcher status", same: str = ""
) -> Answer:
    """Return the item that has `word` as its id, name or title, or the only item that has one beginning with `word`.

    Upper and lower case are the same. An id may have its account before it, such as `eu/0b5c8f1e`. Items with equal
    values of the field `same` count as one item. Raises `DaemonError` with a suggestion if no item fits, `UsageError`
    with the candidates if several items fit.
    """
    known = [(_texts(item), item) for item in items]
    wanted = word.casefold()
    fits = [each for each in known if wanted and any(text.casefold().startswith(wanted) for text in each[0])]
    found = [each for each in fits if wanted in map(str.casefold, each[0])] or fits
    if not found:
        remedy = did_you_mean(word, [texts[min(1, len(texts) - 1)] for texts, _ in known]) or f"{listed_by} lists them"
        raise DaemonError(harmless(f'no {kind} "{word}"; {remedy}'), code=Exit.NOT_FOUND)
    if len(found) > 1 and (not same or len({item[same] for _, item in found}) > 1):
        which = "; ".join(" ".join(texts[:2]) for texts, _ in found[:5])
        raise UsageError(harmless(f'"{word}" fits several {kind}s; write more of one of these: {which}'))
    return found[0][1]


def _texts(item: Answer) -> list[str]:
    """Return the texts that name an item: `account/id`, name, title and id, as far as the item has them."""
    names = [str(item[key]) for key in ("name", "title") if key in item]
    if "id" not in item:
        return names
    return [f"{item['account']}/{item['id']}" if "account" in item else item["id"], *names, item["id"]]
