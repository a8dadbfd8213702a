"""Routes, groups and silences. Pure functions.

They decide which sinks get an event, which events are sent together, and which deliveries are silenced. docs/sinks.md
and docs/silences.md describe them.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from enum import Enum, auto
from fnmatch import fnmatchcase
from uuid import uuid5
from zoneinfo import ZoneInfo

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import NAMESPACE
from watcher.domain.event import EVENT_KINDS, Event, EventType, Group, OutboxEntry
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS
from watcher.domain.timestamps import from_us
from watcher.domain.watch import Watch

_LABEL = "labels."


class Grouped(Enum):
    """The events that a rule groups."""

    EXECUTIONS = auto()
    """Events of executions, and `pipeline.gap`."""
    WITHOUT_PROBLEMS = auto()
    """The same without the events that are about a problem."""
    PROBLEMS = auto()
    """The openings of problems, the acknowledgements, and the closings: each of the three is a group of its own. With
    the openings go the events in `GROUPED_WITH_OPENINGS`."""


GROUPED_WITH_OPENINGS = frozenset(type_ for type_, kind in EVENT_KINDS.items() if kind.with_openings)
"""Events that people are to see as soon as the opening of a problem, although nothing closes them."""

ONE_MESSAGE_OF_PIPELINE = GROUPED_WITH_OPENINGS | {EventType.EXECUTION_OVERDUE}
"""Events that go in one message if they are about one pipeline."""

APART_COUNT = 3
"""The most openings of problems, acknowledgements or closings that are sent as a message each."""


@dataclass(frozen=True, slots=True)
class GroupRules:
    """The rules of a sink for groups. Events that are equal in each field of `by` are sent together."""

    by: tuple[str, ...]
    """Any of `pipeline`, `account`, `type` and `labels.NAME`."""
    wait_s: float
    """The seconds from the recording of an event until it is due."""
    max_count: int
    """The most events in one request."""
    of: Grouped = Grouped.EXECUTIONS

    def group_of(self, event: Event) -> Group | None:
        """Return the group of an event; `None` if it is not grouped, or lacks a field of `by`."""
        part = self._part_of(event)
        fields = {"pipeline": event.pipeline, "account": event.account, "type": event.type}
        values = _values(self.by, fields, event.labels)
        if part is None or values is None:
            return None
        return Group(uuid5(NAMESPACE, "\0".join(["group", *part, *values])).bytes, self.wait_s)

    def _part_of(self, event: Event) -> Sequence[str] | None:
        """Return what distinguishes the groups of this rule, besides the fields of `by`; `None`: it is not grouped."""
        if self.of is Grouped.PROBLEMS:
            if event.closes:
                return ["closings"]
            if event.type == EventType.PROBLEM_ACKNOWLEDGED:
                return ["acknowledgements"]
            return ["openings"] if event.type in PROBLEM_KINDS | GROUPED_WITH_OPENINGS else None
        is_grouped = event.type.startswith("execution.") or event.type == EventType.PIPELINE_GAP
        return [] if is_grouped and (self.of is Grouped.EXECUTIONS or event.problem is None) else None


def messages_of(group: Sequence[Delivery]) -> Sequence[Sequence[Delivery]]:
    """Return the deliveries of a group at a chat, by the message that is to show them.

    A problem has its own message, but overdue and expensive executions and new errors of one pipeline share one, and so
    do events of a group that are about no problem. If that were more than three messages, or if the group has more than
    three problems, all of it is one message.
    """
    messages: dict[object, list[Delivery]] = {}
    for each in group:
        about = (each.account, each.pipeline) if each.type in ONE_MESSAGE_OF_PIPELINE else each.problem
        messages.setdefault(about, []).append(each)
    count = max(len(messages), len({each.problem for each in group} - {None}))
    return list(messages.values()) if count <= APART_COUNT else [group]


@dataclass(frozen=True, slots=True)
class IncidentRules:
    """The rules of a pager for incidents. Problems that are equal in each field of `by` are shown as one incident."""

    by: tuple[str, ...]
    """Any of `pipeline`, `account` and `labels.NAME`."""
    wait_s: float
    """The seconds from the recording of an opening until it is due. Meanwhile other problems may join its incident."""

    def group_of(
        self, sink: str, *, account: str | None, pipeline: str | None, labels: Mapping[str, str]
    ) -> bytes | None:
        """Return the key of a problem's group at a sink. Only problems of one group share incidents.

        The key is `None` if the problem lacks a field of `by`.
        """
        values = _values(self.by, {"pipeline": pipeline and f"{account}/{pipeline}", "account": account}, labels)
        return None if values is None else uuid5(NAMESPACE, "\0".join(["incident", sink, *self.by, *values])).bytes


def _values(by: Sequence[str], fields: Mapping[str, str | None], labels: Mapping[str, str]) -> Sequence[str] | None:
    """Return the values of the fields and labels in `by`; `None` if one of them is missing."""
    values = [fields[name] if name in fields else labels.get(name.removeprefix(_LABEL)) for name in by]
    return None if None in values else [str(value) for value in values]


@dataclass(frozen=True, slots=True)
class Route:
    """The events that one sink gets. `labels` and `pipelines` restrict only those events that have a pipeline."""

    types: frozenset[EventType]
    labels: Mapping[str, str]
    pipelines: frozenset[str]
    group: GroupRules | None = None
    problem_group: GroupRules | None = None
    """The rules for the openings, acknowledgements and closings of problems. They come before `group`."""
    opening_wait_s: float = 0.0
    """The seconds from the recording of an opening until it is due."""

    def refuses(self, type_: EventType, watch: Watch | None) -> str | None:
        """Return the key that keeps an event from the sink, `events` or `match`; `None` if the sink gets the event.

        Without `watch` the event has no pipeline, so only its type is matched.
        """
        if type_ not in self.types:
            return "events"
        if watch is None:
            return None
        is_named = not self.pipelines or watch.pipeline in self.pipelines
        return None if is_named and self.labels.items() <= watch.labels.items() else "match"

    def wait_of(self, event: Event) -> Group | None:
        """Return the wait of an event, and its group; `None` if it is sent at once."""
        rules = [each for each in (self.problem_group, self.group) if each is not None]
        if not self.opening_wait_s or event.type not in PROBLEM_KINDS:
            return next(filter(None, (each.group_of(event) for each in rules)), None)
        group = self.problem_group.group_of(event) if self.problem_group else None
        key, wait_s = group or (None, 0.0)
        return Group(key, self.opening_wait_s + wait_s)


def types_matching(globs: tuple[str, ...]) -> frozenset[EventType]:
    """Return the event types that match any of the globs."""
    return frozenset(type_ for type_ in EventType if any(fnmatchcase(type_, glob) for glob in globs))


class Router:
    """The routes of all sinks, by sink name. `routes` may be replaced at any time."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Take the routes. An event names its sinks in the same order."""
        self.routes = routes

    def entry_of(self, event: Event, *, watch: Watch | None = None, without_sink: str | None = None) -> OutboxEntry:
        """Return an event with its sinks, and with its wait at each sink that does not send it at once.

        Without `watch` the event has no pipeline. The sink `without_sink` is left out.
        """
        sinks = []
        for name, route in self.routes.items():
            if name != without_sink and route.refuses(event.type, watch) is None:
                sinks.append(name)
        return self.entry_to(event, sinks)

    def entry_to(self, event: Event, sinks: Sequence[str] = ()) -> OutboxEntry:
        """Return an event with these sinks, and with its wait at each sink that does not send it at once.

        To a closing or an acknowledgement the store adds the sinks that got the opening. Of these, only those that
        group problems let it wait.
        """
        waits = {name: self.routes[name].wait_of(event) for name in sinks}
        if event.closes or event.type == EventType.PROBLEM_ACKNOWLEDGED:
            rules = {name: route.problem_group for name, route in self.routes.items() if name not in waits}
            waits |= {name: group.group_of(event) for name, group in rules.items() if group is not None}
        return OutboxEntry(event, tuple(sinks), {name: wait for name, wait in waits.items() if wait is not None})


@dataclass(frozen=True, slots=True)
class WeeklyHours:
    """The hours from `from_minute` to `to_minute` on each of `days` (Monday is 0), in a time zone.

    Minutes count from midnight. Minute 1440 is the midnight at the end of the day, and later minutes follow it.
    """

    days: frozenset[int]
    from_minute: int
    to_minute: int
    zone: ZoneInfo

    def window(self, at: datetime) -> tuple[datetime, datetime]:
        """Return the start and end (UTC) of the window that contains `at`, else of the next window.

        If the clock shows a start or an end twice, or skips it, the longest possible window counts.
        """
        today = at.astimezone(self.zone).date()
        days = (today + timedelta(days=count) for count in range(-1, 8))
        windows = (
            (min(self._moments(day, self.from_minute)), max(self._moments(day, self.to_minute)))
            for day in days
            if day.weekday() in self.days
        )
        return next(window for window in windows if window[1] > at)

    def _moments(self, day: date, minute: int) -> list[datetime]:
        local = datetime.combine(day, time()) + timedelta(minutes=minute)
        return [local.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1)]


@dataclass(frozen=True, slots=True)
class Silence:
    """A silence: from `starts_at` until `ends_at` (wall clock), deliveries that match all given fields are silenced.

    With `weekly` the silence is active in each window of these hours; `during` sets its times to one window.
    """

    starts_at: datetime
    ends_at: datetime
    types: Collection[EventType] | None = None
    accounts: Collection[str] = ()
    pipelines: Collection[str] = ()
    sinks: Collection[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    weekly: WeeklyHours | None = None
    comment: str = ""

    def during(self, at: datetime) -> "Silence":
        """Return a weekly silence with the times of the window that contains `at`, else of the next window.

        Any other silence is returned unchanged.
        """
        if self.weekly is None:
            return self
        starts_at, ends_at = self.weekly.window(at)
        return replace(self, starts_at=starts_at, ends_at=ends_at)

    def matches(self, delivery: Delivery) -> bool:
        """Return whether the silence, while it is active, silences this delivery.

        Events that only close a problem are never silenced, nor are reports, which name their own sinks.
        """
        return (
            delivery.type not in CLOSINGS
            and delivery.type != EventType.WATCHER_REPORT
            and (self.types is None or delivery.type in self.types)
            and (not self.accounts or delivery.account in self.accounts)
            and (not self.pipelines or delivery.pipeline in self.pipelines)
            and all(delivery.labels.get(key) == value for key, value in self.labels.items())
        )


class Silences:
    """All silences. `all` may be replaced at any time. Times are on the wall clock."""

    def __init__(self, silences: Sequence[Silence] = ()) -> None:
        self.all = silences

    def active(self, sink: str, *, at: datetime) -> tuple[Silence, ...]:
        """Return the silences that are active for this sink at `at`. Weekly ones have the times of their window."""
        return tuple(
            now
            for each in self.all
            if (each.sinks is None or sink in each.sinks) and (now := each.during(at)).starts_at <= at < now.ends_at
        )


def is_over(delivery: Delivery) -> bool:
    """Return whether a delivery is a replayed dead letter that reports an open problem, but the problem has closed."""
    return delivery.replayed and not (delivery.closes or delivery.is_problem_open)


def part_to_send(delivery: Delivery, silences: Sequence[Silence], *, at: datetime) -> Part | None:
    """Return the part of a delivery that is to be sent while these silences are active; `None` if nothing is sent.

    The closing of a problem is sent if the sink was sent the opening, even during a silence. `problem.acknowledged` is
    sent on the same condition while the acknowledgement lasts. A reminder is not sent once its problem is closed or
    acknowledged. A silence stops neither a delivery that was tried, nor a replayed dead letter: somebody asked for it.
    """
    if delivery.type == EventType.PROBLEM_ACKNOWLEDGED:
        return Part.WHOLE if delivery.is_opening_sent and delivery.is_acknowledged(at) else None
    if delivery.type == EventType.PROBLEM_REMINDER and (delivery.is_acknowledged(at) or not delivery.is_problem_open):
        return None
    part = Part.WHOLE
    if delivery.closes and not delivery.is_opening_sent:
        if delivery.type in CLOSINGS or delivery.only_closes:
            return None
        part = Part.NEWS
    if delivery.replayed or not silences:
        return part
    # If a delivery was tried, it is retried unchanged during silences that began after its recording.
    begun_by = from_us(delivery.recorded_at) if delivery.attempts else None
    is_silenced = any(each.matches(delivery) for each in silences if begun_by is None or each.starts_at <= begun_by)
    if not is_silenced:
        return part
    if delivery.closes and delivery.is_opening_sent:
        return Part.CLOSING
    return part if delivery.attempts else None
