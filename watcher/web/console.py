"""The console: the stores, settings and actions that handlers and pages work with."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from watcher.config.models import Settings, WatchSettings
from watcher.domain.routing import Route, Silences
from watcher.runtime.clock import Clock
from watcher.store.changes import Backlog
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import SqlStore
from watcher.web import models
from watcher.web.health import Recent
from watcher.web.overview import Need, PipelineState, StatusView


@dataclass(slots=True, eq=False)
class Console:
    """The stores, settings and actions that handlers and pages need; a process has one once its store is open."""

    settings: Callable[[], Settings]
    store: SqlStore
    """Handlers and pages only read from it."""
    operator: OperatorStore
    clock: Clock
    routes: Callable[[], Mapping[str, Route]]
    """Returns the routes of all sinks, by sink name."""
    silences: Silences
    find_status: Callable[["Console"], Awaitable[StatusView]]
    """Returns the overview, and sets `pipelines`, `backlog` and `problem_counts`."""
    troubles: Callable[[], Sequence[Need]]
    """Returns the troubles of this process: a refused reload, a store that takes no writes."""
    test_sink: Callable[[str], Awaitable[models.TestResult]]
    """Sends a test message to a sink of the configuration."""
    changed: Callable[[], None]
    """Makes this process read silences and requested actions from the store at once."""
    status: Recent[StatusView] = field(init=False)
    """The overview without its pipelines, which are in `pipelines`: the models of all of them take long to make."""
    pipelines: Mapping[str, PipelineState] = field(default_factory=dict)
    """The pipelines of the last `status`, by `account/id`. Await `status.get()` before you read them."""
    backlog: Mapping[str, Backlog] = field(default_factory=dict)
    """The backlog of each sink, from the last `status`."""
    problem_counts: Mapping[str, int] = field(default_factory=dict)
    """The number of open problems of each pipeline, from the last `status`."""
    reporting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a report is made: one at a time."""

    def __post_init__(self) -> None:
        self.status = Recent(partial(self.find_status, self), fresh_s=1.0, clock=self.clock)

    def watches(self) -> Mapping[str, WatchSettings]:
        """Return the watches of the configuration, by `account/id`."""
        return {f"{each.account}/{each.pipeline}": each for each in self.settings().watch}
