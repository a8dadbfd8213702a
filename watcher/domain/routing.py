"""Routes, groups and silences: the sinks of an event, the events sent together, the silenced deliveries.

Pure functions. docs/alerts.md describes routes and silences.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from fnmatch import fnmatchcase
from uuid import uuid5
from zoneinfo import ZoneInfo

from watcher.domain.delivery import Delivery, Part
from watcher.domain.envelope import NAMESPACE
from watcher.domain.event import Event, EventType, Group, OutboxEntry
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS
from watcher.domain.timestamps import from_us
from watcher.domain.watch import Watch

_LABEL = "labels."


@dataclass(frozen=True, slots=True)
class GroupRules:
    """The rules by which a sink gets events together: those that are equal in each field of `by`."""

    by: tuple[str, ...]
    """Any of `pipeline`, `account`, `type` and `labels.NAME`."""
    wait_s: float
    """The wait of each event, from its recording."""
    max_count: int
    """The most events in one request."""
    problems: bool = True
    """Whether an event that opens or closes a problem of an execution is grouped, too."""

    def group_of(self, event: Event) -> Group | None:
        """Return the group of an event; `None` if it is sent alone.

        Events about problems of a pipeline, an account or a sink are sent alone, and so are events that lack a field.
        """
        is_grouped = event.type.startswith("execution.") or event.type == EventType.PIPELINE_GAP
        if not is_grouped or not (self.problems or event.problem is None):
            return None
        fields = {"pipeline": event.pipeline, "account": event.account, "type": event.type}
        values = _values(self.by, fields, event.labels)
        return None if values is None else Group(uuid5(NAMESPACE, "\0".join(["group", *values])).bytes, self.wait_s)


@dataclass(frozen=True, slots=True)
class IncidentRules:
    """The rules by which a pager shows problems as one incident: those that are equal in each field of `by`."""

    by: tuple[str, ...]
    """Any of `pipeline`, `account` and `labels.NAME`."""
    wait_s: float
    """The wait of an opening for others, from its recording."""

    def group_of(
        self, sink: str, *, account: str | None, pipeline: str | None, labels: Mapping[str, str]
    ) -> bytes | None:
        """Return the group whose incidents a problem joins at a sink; `None` if the problem lacks a field."""
        values = _values(self.by, {"pipeline": pipeline and f"{account}/{pipeline}", "account": account}, labels)
        return None if values is None else uuid5(NAMESPACE, "\0".join(["incident", sink, *self.by, *values])).bytes


def _values(by: Sequence[str], fields: Mapping[str, str | None], labels: Mapping[str, str]) -> Sequence[str] | None:
    """Return the values of the fields and labels in `by`; `None` if one of them is missing."""
    values = [fields[name] if name in fields else labels.get(name.removeprefix(_LABEL)) for name in by]
    return None if None in values else [str(value) for value in values]


@dataclass(frozen=True, slots=True)
class Route:
    """The events that one sink gets. `labels` and `pipelines` only restrict the events of pipelines."""

    types: frozenset[EventType]
    labels: Mapping[str, str]
    pipelines: frozenset[str]
    group: GroupRules | None = None
    opening_wait_s: float = 0.0
    """The wait of an opening, from its recording."""


def types_matching(globs: tuple[str, ...]) -> frozenset[EventType]:
    """Return the event types that match any of the globs."""
    return frozenset(type_ for type_ in EventType if any(fnmatchcase(type_, glob) for glob in globs))


class Router:
    """The routes of all sinks, by the sink's name. `routes` may be replaced at any time."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Keep the routes in the order of the configuration."""
        self.routes = routes

    def entry_of(self, event: Event, *, watch: Watch | None = None, without_sink: str | None = None) -> OutboxEntry:
        """Return an event with its sinks and its group at each of them.

        Without `watch` the event has no pipeline, so only its type is matched. `without_sink` is left out.
        """
        sinks: list[str] = []
        groups: dict[str, Group] = {}
        for name, route in self.routes.items():
            if name == without_sink or event.type not in route.types:
                continue
            if watch is not None:
                in_pipeline = not route.pipelines or watch.pipeline in route.pipelines
                if not in_pipeline or not route.labels.items() <= watch.labels.items():
                    continue
            sinks.append(name)
            if route.opening_wait_s and event.type in PROBLEM_KINDS:
                groups[name] = Group(None, route.opening_wait_s)
            elif route.group is not None and (group := route.group.group_of(event)) is not None:
                groups[name] = group
        return OutboxEntry(event, tuple(sinks), groups)


@dataclass(frozen=True, slots=True)
class WeeklyHours:
    """The hours from `from_minute` until `to_minute` of each of `days` (Monday is 0), in a time zone.

    Minutes count from midnight; minutes from 1440 on are of the next day.
    """

    days: frozenset[int]
    from_minute: int
    to_minute: int
    zone: ZoneInfo

    def window(self, at: datetime) -> tuple[datetime, datetime]:
        """Return the start and end (UTC) of the window that contains `at`, else of the next window.

        A start or end that the clock shows twice, or skips, makes the window longer rather than shorter.
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

    A `weekly` silence is active in each of its windows. `during` returns it with the times of one window.
    """

    starts_at: datetime
    ends_at: datetime
    types: Collection[EventType] | None = None
    accounts: Collection[str] = ()
    pipelines: Collection[str] = ()
    sinks: Collection[str] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    weekly: WeeklyHours | None = None

    def during(self, at: datetime) -> "Silence":
        """Return this silence with the times of the window that contains `at`, else of the next window."""
        if self.weekly is None:
            return self
        starts_at, ends_at = self.weekly.window(at)
        return replace(self, starts_at=starts_at, ends_at=ends_at)

    def matches(self, delivery: Delivery) -> bool:
        """Return whether this delivery is silenced while the silence is active.

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
    """All silences. `all` may be replaced at any time. Times are of the wall clock."""

    def __init__(self, silences: Sequence[Silence] = ()) -> None:
        self.all = silences

    def active(self, sink: str, *, at: datetime) -> tuple[Silence, ...]:
        """Return the silences that are active for this sink at that time."""
        return tuple(
            now
            for each in self.all
            if (each.sinks is None or sink in each.sinks) and (now := each.during(at)).starts_at <= at < now.ends_at
        )


def is_over(delivery: Delivery) -> bool:
    """Return whether a replayed dead letter reports a problem as open although it has closed meanwhile."""
    return delivery.replayed and not (delivery.closes or delivery.is_problem_open)


def part_to_send(delivery: Delivery, silences: Sequence[Silence], *, at: datetime) -> Part | None:
    """Return the part of a delivery that is to be sent while these silences are active; `None` if nothing is.

    The end of a problem goes to each sink that got the opening, silenced or not. A current acknowledgement does, too. A
    reminder is not sent once its problem has closed or is acknowledged. A silence stops no delivery that was tried, and
    no replayed dead letter, because somebody asked for that one.
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
    # A delivery that was tried before the silence began is retried unchanged.
    begun_by = from_us(delivery.recorded_at) if delivery.attempts else None
    is_silenced = any(each.matches(delivery) for each in silences if begun_by is None or each.starts_at <= begun_by)
    if not is_silenced:
        return part
    if delivery.closes and delivery.is_opening_sent:
        return Part.CLOSING
    return part if delivery.attempts else None
