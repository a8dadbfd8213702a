"""What the API saw of replicas: who asked for an account after whom, and how soon. Every function only looks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from e2e.chaos import Loss, Spell

from watcher.simulator.server import LoggedRequest, RequestLog

Outage = tuple[float, float]

TENURE_S = 3.0
"""Nobody has an account for less than this: it is taken from who is silent, after 9 s, or handed over and kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and the account and the place of the replica that its key is of."""

    entry: LoggedRequest
    account: int
    place: int


def by_account(log: RequestLog, *, places_count: int) -> dict[int, list[Asked]]:
    """Return who asked for each account, in the order the requests came."""
    asked: dict[int, list[Asked]] = {}
    for entry in log.entries:
        assert entry.key is not None, "a request had no key of ours"
        account, place = divmod(entry.key, places_count)
        asked.setdefault(account, []).append(Asked(entry, account, place))
    return asked


def overlapping(log: RequestLog, *, places_count: int) -> list[Asked]:
    """Return the requests that came from a replica while another had the account: asked just before and just after."""
    return among_others(by_account(log, places_count=places_count).values(), within_s=TENURE_S)


def among_others(accounts: Iterable[Sequence[Asked]], *, within_s: float) -> list[Asked]:
    """Return the requests for each account that came between two of another replica, in less than so long."""
    return [each for requests in accounts for run in _between_others(requests, within_s=within_s) for each in run]


def _between_others(requests: Sequence[Asked], *, within_s: float) -> Iterator[list[Asked]]:
    runs = [list(run) for _, run in groupby(requests, key=lambda each: each.place)]
    for before, run, after in zip(runs, runs[1:], runs[2:], strict=False):
        if before[-1].place == after[0].place and after[0].entry.at - before[-1].entry.at < within_s:
            yield run


def nobody_able(spells: Sequence[Spell], outages: Sequence[Outage], *, since: float, until: float) -> list[Outage]:
    """Return when no replica could have taken an account: none had started and ran, or none could reach its database.

    What is returned does not overlap.
    """
    bounds = {each for spell in spells for each in (spell.since, spell.to)} | {
        each for pair in outages for each in pair
    }
    times = [since, *sorted(each for each in bounds if since < each < until), until]
    return [
        (begins_at, ends_at)
        for begins_at, ends_at in pairwise(times)
        if any(start <= begins_at < end for start, end in outages)
        or not any(spell.since <= begins_at < spell.to for spell in spells)
    ]


def delays(
    log: RequestLog, losses: Sequence[Loss], *, places_count: int, outages: Sequence[Outage] = (), until: float
) -> list[tuple[float, int, Loss]]:
    """Return for how many seconds at least each account was not asked for that lost its replica, and which that was.

    At least: up to the moment in which its next replica was lost before it had asked, or to the end. The time of an
    outage does not count, in which nobody can take it, nor an account whose last answer was no good: it waits for other
    reasons.
    """
    asked = by_account(log, places_count=places_count)
    found = []
    for nth, loss in enumerate(losses):
        for account in loss.accounts:
            requests = asked.get(account, [])
            if not _was_well(requests, loss.at):
                continue
            lost_again_at = next((each.at for each in losses[nth + 1 :] if account in each.accounts), until)
            end = min(_next_at(requests, loss, otherwise=until), lost_again_at)
            without = sum(max(0.0, min(to, end) - max(since, loss.at)) for since, to in outages)
            found.append((end - loss.at - without, account, loss))
    return found


def _was_well(requests: Sequence[Asked], at: float) -> bool:
    last = next((each.entry for each in reversed(requests) if each.entry.at < at and each.entry.code), None)
    return last is not None and bool(last.answered or last.rows)


def _next_at(requests: Sequence[Asked], loss: Loss, *, otherwise: float) -> float:
    """Return when the account was asked for again.

    What a stopped replica was about to send does not count. If nobody has taken its lease, it goes on by itself.
    """
    later = [each for each in requests if each.entry.at > loss.at]
    stale = [each for each in later if each.place == loss.place][:1] if loss.is_stop else []
    return next((each.entry.at for each in later if each not in stale), otherwise)
