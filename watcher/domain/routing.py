"""Which sinks an event goes to, and with which others: globs over types, labels and pipelines."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from uuid import uuid5

from watcher.domain.envelope import NAMESPACE
from watcher.domain.event import Event, EventKey, EventType, Group, OutboxEntry
from watcher.domain.watch import Watch

_LABEL = "labels."


@dataclass(frozen=True, slots=True)
class GroupRules:
    """Which events go together: those alike in each of `by` (`pipeline`, `account`, `type`, `labels.NAME`).

    Each waits `wait_s` from its recording; at most `max_count` go in one request. With `problems` what opens or closes
    a problem of an execution goes with others, too.
    """

    by: tuple[str, ...]
    wait_s: float
    max_count: int
    problems: bool = True

    def group_of(self, event: Event) -> Group | None:
        """Return what an event goes with; `None` if it goes alone.

        What tells of a problem of a pipeline, an account or a sink goes alone, and so does what lacks a field.
        """
        is_grouped = event.type.startswith("execution.") or event.type == EventType.PIPELINE_GAP
        if not is_grouped or not (self.problems or event.problem is None):
            return None
        values = [self._value(event, name) for name in self.by]
        if None in values:
            return None
        return Group(uuid5(NAMESPACE, "\0".join(["group", *map(str, values)])).bytes, self.wait_s)

    def _value(self, event: Event, name: str) -> str | None:
        if name.startswith(_LABEL):
            return event.labels.get(name.removeprefix(_LABEL))
        return {"pipeline": event.pipeline, "account": event.account, "type": event.type}[name]


@dataclass(frozen=True, slots=True)
class Route:
    """What one sink wants: event types, and labels and pipelines that restrict events of a pipeline; how to group."""

    types: frozenset[EventType]
    labels: Mapping[str, str]
    pipelines: frozenset[str]
    group: GroupRules | None = None


def types_matching(globs: tuple[str, ...]) -> frozenset[EventType]:
    """Return the event types that any of the globs names."""
    return frozenset(type_ for type_ in EventType if any(fnmatchcase(type_, glob) for glob in globs))


class Router:
    """The routes of all sinks, by name."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Keep the routes in the order of the configuration."""
        self.replace(routes)

    def replace(self, routes: Mapping[str, Route]) -> None:
        """Take these routes from now on, and no others."""
        self._routes = dict(routes)

    def entry_of(
        self,
        event: Event,
        *,
        watch: Watch | None = None,
        but: str | None = None,
        with_sinks_of: EventKey | None = None,
    ) -> OutboxEntry:
        """Return an event with the sinks it goes to, and in which of them with others.

        `watch` is absent for events without a pipeline, which pass by their type. The sink `but` is left out: it is not
        sent its own trouble.
        """
        sinks: list[str] = []
        groups: dict[str, Group] = {}
        for name, route in self._routes.items():
            if name == but or event.type not in route.types:
                continue
            if watch is not None:
                in_pipeline = not route.pipelines or watch.pipeline in route.pipelines
                if not in_pipeline or not route.labels.items() <= watch.labels.items():
                    continue
            sinks.append(name)
            if route.group is not None and (group := route.group.group_of(event)) is not None:
                groups[name] = group
        return OutboxEntry(event, tuple(sinks), with_sinks_of, groups)
