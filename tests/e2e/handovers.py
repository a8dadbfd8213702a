"""What the API saw of replicas: who asked for an account after whom. Every function only looks."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from e2e.chaos import Loss

from watcher.simulator.server import LoggedRequest, RequestLog

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


def not_asked_again(log: RequestLog, losses: Sequence[Loss], *, places_count: int) -> list[tuple[int, Loss]]:
    """Return the accounts that lost their replica and that nobody asked for any more.

    The first request of a stopped replica does not count: it was about to send that one.
    """
    asked, found = by_account(log, places_count=places_count), []
    for loss in losses:
        for account in loss.accounts:
            later = [each for each in asked.get(account, []) if each.entry.at > loss.at]
            stale = [each for each in later if each.place == loss.place][:1] if loss.is_stop else []
            if len(later) == len(stale):
                found.append((account, loss))
    return found
