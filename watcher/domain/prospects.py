"""A forecast of what each sink is sent of an event that does not exist yet. Pure functions.

They ask the functions that decide about real events: the `Router` and `judge_delivery`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from uuid import UUID

from watcher.domain.delivery import Delivery
from watcher.domain.event import Event, EventType
from watcher.domain.judgement import Receiver, judge_delivery
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS
from watcher.domain.routing import Router, Silence, Silences
from watcher.domain.timestamps import NEVER, Micros, to_us
from watcher.domain.watch import Watch

_ABOUT = UUID(int=0)
_OPENING_OF = {closing: opening for opening, closing in CLOSED_BY.items()}


@dataclass(frozen=True, slots=True)
class Prospect:
    """A forecast of what happens to an event at one sink."""

    refused_by: str | None = None
    """The key of the sink that keeps the event from it, `events` or `match`; `opening` for a closing whose opening is
    silenced. The other fields mean nothing then."""
    wait_s: float = 0.0
    """The seconds from the recording until the event is sent."""
    is_grouped: bool = False
    """Whether it may be sent together with others."""
    silenced_until: datetime | None = None
    """The end of the silences that keep it back (wall clock); `None` if it is sent."""
    silenced_for: str = ""
    """The comment of the silence that ends last."""

    @property
    def is_sent(self) -> bool:
        """Return whether the sink is sent the event."""
        return self.refused_by is None and self.silenced_until is None


def prospects_of(
    type_: EventType,
    *,
    account: str,
    watch: Watch | None,
    router: Router,
    after_s: Mapping[str, float],
    silences: Silences,
    at: datetime,
) -> dict[str, Prospect]:
    """Return what each sink would be sent, by sink name, if an event of this type were recorded at `at` (wall clock).

    Without `watch` the event is one of the account. `after_s` is the setting `after` of each sink. A closing is judged
    as if its problem had opened at `at`, too, and had been reported to the sinks that are sent openings.
    """
    pipeline, labels = (watch.pipeline, watch.labels) if watch else (None, {})
    opening = _OPENING_OF.get(type_)
    problem = _ABOUT if opening or type_ in PROBLEM_KINDS else None
    event = Event(_ABOUT, type_, b"", 1, b"{}", b"", problem, opening is not None, account, pipeline, labels)
    opened = (
        prospects_of(opening, account=account, watch=watch, router=router, after_s=after_s, silences=silences, at=at)
        if opening
        else {}
    )
    entry = router.entry_of(event, watch=watch)
    found = {}
    for name, route in router.routes.items():
        opened_here = opened.get(name)
        is_opening_recorded = opened_here is not None and opened_here.refused_by is None
        refused_by = route.refuses(type_, watch)
        if refused_by and not is_opening_recorded:
            found[name] = Prospect(refused_by)
            continue
        group = entry.groups.get(name)
        wait_s = group.wait_s if group else 0.0
        recorded_at, due = to_us(at), at + timedelta(seconds=wait_s)
        delivery = Delivery(
            name,
            0,
            event.ordering_key,
            event.id,
            type_,
            event.body,
            recorded_at,
            to_us(due),
            account=account,
            pipeline=pipeline,
            labels=labels,
            problem=problem,
            closes=event.closes,
            only_closes=refused_by is not None,
            is_opening_sent=opened_here is None or opened_here.silenced_until is None,
        )
        receiver, active = Receiver(False, round(after_s[name] * 1e6), NEVER), silences.active(name, at=due)
        judged = judge_delivery(delivery, receiver, active, at=due, now=Micros(recorded_at + round(wait_s * 1e6)))
        if isinstance(judged, Delivery):
            found[name] = Prospect(None, wait_s, bool(group and group.key))
        else:
            found[name] = prospect_during(active, delivery) or Prospect("opening")
    return found


def prospect_during(active: Sequence[Silence], delivery: Delivery) -> Prospect | None:
    """Return the prospect of a delivery that one of these silences silences; `None` if none of them does."""
    last = max((each for each in active if each.matches(delivery)), key=attrgetter("ends_at"), default=None)
    return None if last is None else Prospect(silenced_until=last.ends_at, silenced_for=last.comment)
