"""The rule `new_error`: an execution fails with an error of a kind that was not seen for 30 days."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from watcher.domain.envelope import Json, cut, present
from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, EndedExecution, ErrorKind, kind_without_node
from watcher.domain.problems import Problem
from watcher.domain.rule import Judged, News, Past, Rule, RuleEvent
from watcher.domain.timestamps import Micros

KNOWN_FOR_US = 30 * DAY_US
"""The time for which a kind of error stays known after it was last seen."""


@dataclass(frozen=True, slots=True)
class NewError(Rule):
    """The rule `new_error`: an event for each kind of error that was not seen within the last 30 days.

    A kind is known, too, if its text alone was seen: list rows, by which the history is counted, name no node.
    """

    key: ClassVar[str] = "new_error"
    judges_ends: ClassVar[bool] = True

    is_wanted: bool = True
    """The value of the key. A rule that is not wanted is not made."""

    async def load(self, news: News, past: Past) -> Mapping[bytes, int]:
        """Return how often each kind of error was recorded within 30 days before the end, by fingerprint."""
        return {
            kind.fingerprint: await past.count_errors(_same(kind), Micros(end.ended_at - KNOWN_FOR_US))
            for end, kind in _first_of_each_kind(news.ends)
        }

    def judge(self, state: None, news: News, problem: Problem | None) -> Judged:
        """Report each kind that was never recorded before: the ends that are `held` were counted already."""
        held, events = Counter(end.error.fingerprint for end in news.held if end.error), list[RuleEvent]()
        for end, kind in _first_of_each_kind(news.ends):
            if (count := news.loaded[kind.fingerprint]) and count > sum(held[each] for each in _same(kind)):
                continue
            error = {"node": cut(kind.node), "text": cut(kind.text), "fingerprint": kind.fingerprint.hex()}
            more: Json = {"error": present(error)}
            events.append(RuleEvent(EventType.PIPELINE_NEW_ERROR, more, end.execution))
        return Judged(state, events)


def _same(kind: ErrorKind) -> set[bytes]:
    """Return the fingerprints of a kind of error: of its node and text, and of its text alone."""
    return {kind.fingerprint, kind_without_node(kind.text).fingerprint}


def _first_of_each_kind(ends: Iterable[EndedExecution]) -> Iterator[tuple[EndedExecution, ErrorKind]]:
    seen = set[bytes]()
    for end in ends:
        if end.error is not None and end.error.text and seen.isdisjoint(_same(end.error)):
            seen.add(end.error.fingerprint)
            yield end, end.error
