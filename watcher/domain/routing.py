"""Which sinks an event goes to: globs over types, labels and pipelines."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from watcher.domain.event import EventType
from watcher.domain.watch import Watch


@dataclass(frozen=True, slots=True)
class Route:
    """What one sink wants: event types, and labels and pipelines that restrict events of a pipeline."""

    types: frozenset[EventType]
    labels: Mapping[str, str]
    pipelines: frozenset[str]

    def wants(self, type_: EventType, watch: Watch | None) -> bool:
        """Return whether an event goes there; `watch` is absent for events without a pipeline, which pass by type."""
        if type_ not in self.types:
            return False
        if watch is None:
            return True
        in_pipeline = not self.pipelines or watch.pipeline in self.pipelines
        return in_pipeline and all(watch.labels.get(key) == value for key, value in self.labels.items())


def types_matching(globs: tuple[str, ...]) -> frozenset[EventType]:
    """Return the event types that any of the globs names."""
    return frozenset(type_ for type_ in EventType if any(fnmatchcase(type_, glob) for glob in globs))


class Router:
    """The routes of all sinks, by name."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        """Keep the routes in the order of the configuration."""
        self._routes = dict(routes)

    def replace(self, routes: Mapping[str, Route]) -> None:
        """Take these routes from now on, and no others."""
        self._routes = dict(routes)

    def sinks_for(self, type_: EventType, *, watch: Watch | None = None, but: str | None = None) -> tuple[str, ...]:
        """Return the sinks an event goes to, leaving out `but`: a sink is not sent its own trouble."""
        return tuple(name for name, route in self._routes.items() if name != but and route.wants(type_, watch))
