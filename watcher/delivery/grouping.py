"""Which deliveries go together, and when a group is complete. Pure; its queue reads and writes the store."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from watcher.domain.event import EventKey, EventType
from watcher.domain.event_ids import group_id
from watcher.domain.silences import DeliveryFields
from watcher.domain.timestamps import NEVER, Micros
from watcher.sinks.protocol import GroupRules

MEMBERS_COUNT = 20_000
"""In all open groups of a sink at most, so that what is collected takes a few megabytes: then the oldest is closed."""

_LABEL = "labels."

GroupKey = tuple[str, ...]


class Member(NamedTuple):
    """A delivery in an open group, by what a group is ordered and named by. Its body stays in the store."""

    recorded_at: Micros
    event: EventKey
    event_id: UUID
    fields: DeliveryFields
    replayed: bool


@dataclass(slots=True, eq=False)
class OpenGroup:
    """Deliveries that will go together, alike in `key`; `closes_at` is when that is complete (µs UTC, steady)."""

    key: GroupKey | None
    closes_at: Micros
    members: list[Member] = field(default_factory=list)


class OpenGroups:
    """The groups of one sink that are not complete yet."""

    def __init__(self, rules: GroupRules) -> None:
        self._rules = rules
        self._groups: dict[OpenGroup, None] = {}  # in the order they were opened
        self._growing: dict[GroupKey, OpenGroup] = {}
        self._places: dict[EventKey, OpenGroup] = {}

    def __contains__(self, event: EventKey) -> bool:
        return event in self._places

    @property
    def is_full(self) -> bool:
        """Whether there is no room for more."""
        return len(self._places) >= MEMBERS_COUNT

    def add(self, member: Member, *, earlier: int | None, now: Micros) -> bool:
        """Take a delivery into the group it belongs to; return `False` if it has to wait.

        It does if the one before it in its stream, whose sequence is `earlier`, waits anywhere but in that group.
        """
        alike = key_of(member.fields, self._rules.by)
        key = None if alike is None else (str(member.replayed), *alike)
        group = None if key is None else self._growing.get(key)
        if earlier is not None:
            ahead = self._places.get(EventKey(member.event.stream, earlier))
            if ahead is None or ahead is not group:
                return False
        if group is None:
            group = self._open(key, opened_at=min(member.recorded_at, now))
        group.members.append(member)
        self._places[member.event] = group
        if key is not None and len(group.members) >= self._rules.max_count:
            group.closes_at = now
            del self._growing[key]
        return True

    def complete(self, now: Micros) -> list[OpenGroup]:
        """Return the groups that are complete, as they were opened; else the oldest, if there is no room for more."""
        due = [group for group in self._groups if group.closes_at <= now]
        if not due and self.is_full:
            return [next(iter(self._groups))]
        return due

    def next_at(self) -> Micros | None:
        """Return when the next group is complete, unless more comes before."""
        return NEVER if self.is_full else min((group.closes_at for group in self._groups), default=None)

    def remove(self, groups: Iterable[OpenGroup]) -> None:
        """Forget groups that are settled or fixed."""
        for group in groups:
            del self._groups[group]
            for member in group.members:
                del self._places[member.event]
            if group.key is not None and self._growing.get(group.key) is group:
                del self._growing[group.key]

    def clear(self) -> None:
        """Forget everything: it is collected again."""
        self._groups.clear()
        self._growing.clear()
        self._places.clear()

    def _open(self, key: GroupKey | None, *, opened_at: Micros) -> OpenGroup:
        """Open a group; one without a key is complete at once."""
        group = OpenGroup(key, opened_at if key is None else Micros(opened_at + round(self._rules.wait_s * 1e6)))
        self._groups[group] = None
        if key is not None:
            self._growing[key] = group
        return group


def key_of(fields: DeliveryFields, by: Iterable[str]) -> GroupKey | None:
    """Return what deliveries of one group have in common; `None` for one that goes alone.

    What tells of a problem of a pipeline, an account or a sink goes alone, and so does what lacks a field.
    """
    if not (fields.type.startswith("execution.") or fields.type == EventType.PIPELINE_GAP):
        return None
    values = [_value(fields, name) for name in by]
    return None if None in values else tuple(map(str, values))


def fixed(members: Collection[Member]) -> tuple[UUID, list[EventKey]]:
    """Return the id of a complete group, and its deliveries."""
    ordered = sorted(members)
    return group_id(member.event_id for member in ordered), [member.event for member in ordered]


def _value(fields: DeliveryFields, name: str) -> str | None:
    if name.startswith(_LABEL):
        return fields.labels.get(name.removeprefix(_LABEL))
    return {"pipeline": fields.pipeline, "account": fields.account, "type": fields.type}[name]
