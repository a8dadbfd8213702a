"""The requests of operators to the running daemon: stored silences, and actions for the owners of accounts and sinks.

Replicas that share a store read the requests from it every second. A process reads them at once after it has received a
request itself.
"""

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import structlog
from pydantic import ValidationError

from watcher.config.models import SilenceSettings
from watcher.daemon.build import OwnerDependencies
from watcher.daemon.reload import ConfigFollower
from watcher.daemon.supervisor import Supervisor
from watcher.domain.errors import OwnershipLostError, StoreError, TransportFailedError
from watcher.domain.event import EventType, Severity
from watcher.sinks.protocol import SinkContext
from watcher.store.operator_store import ActionKind, StoredSilence
from watcher.web.console import Console
from watcher.web.models import TestResult
from watcher.web.overview import Need
from watcher.web.silences import silence_of
from watcher.web.status import find_status

log = structlog.get_logger()

LOOK_EVERY_S = 1.0
ALONE_EVERY_S = 20.0
"""The interval of ticks if no other process uses the store. All requests come through this process and are read at
once, so these ticks only show that the job runs."""


class Operations:
    """The requests of operators that this process carries out, whichever replica received them."""

    def __init__(self, shared: OwnerDependencies, supervisor: Supervisor, follower: ConfigFollower) -> None:
        self._shared = shared
        self._supervisor = supervisor
        self._follower = follower
        self._operator = shared.operator
        self._operator.on_acknowledged = shared.metrics.events.labels(EventType.PROBLEM_ACKNOWLEDGED).inc
        self._rows: Sequence[StoredSilence] = ()
        self.every_s = ALONE_EVERY_S if shared.store.exclusive else LOOK_EVERY_S  # the interval of ticks
        self._active: list[dict[str, Any]] = []  # silences whose beginning is logged, but not their end

    def console(self) -> Console:
        """Return the console, through which the API and the pages work."""
        return Console(
            settings=lambda: self._follower.settings,
            store=self._shared.store,
            operator=self._operator,
            clock=self._shared.clock,
            routes=lambda: self._shared.events.router.routes,
            silences=self._shared.silences,
            find_status=find_status,
            troubles=self.troubles,
            test_sink=self.test_sink,
            changed=self._shared.schedule.waker("operations"),
        )

    async def tick(self) -> None:
        """Apply the stored silences, log each silence that begins or ends, and carry out the actions for owners here.

        If the store fails, the actions stay in the store for the next tick, and the applied silences do not change.
        """
        with suppress(StoreError):
            await self.read_silences()
        self._log_silences()
        with suppress(StoreError):
            for kind, name in await self._operator.load_actions():
                with suppress(OwnershipLostError):  # the new owner carries out the action
                    await self._do(kind, name)

    async def read_silences(self) -> None:
        """Load the stored silences, and apply them together with those of the file. Raises `StoreError`."""
        rows = await self._operator.silences()
        if rows == self._rows:
            return
        self._rows, stored = rows, list[SilenceSettings]()
        for row in rows:
            try:
                stored.append(silence_of(row))
            except ValidationError:
                log.warning("silence.unreadable", id=row.id, note="a later version made it; it silences nothing here")
        self._supervisor.apply_silences(stored)

    async def test_sink(self, name: str) -> TestResult:
        """Send a test message to a sink of the current configuration."""
        clock = self._shared.clock
        began_at = clock.monotonic()
        try:
            result = await self._follower.settings.sinks[name].send_test(name, SinkContext(clock, self._shared.output))
            is_taken, answer, remedy = result.outcome.is_taken, result.answer, result.remedy
        except TransportFailedError as error:
            is_taken, answer, remedy = False, error.kind, error.remedy
        took_ms = (clock.monotonic() - began_at) * 1000
        return TestResult(delivered=is_taken, answer=answer, took_ms=round(took_ms, 1), remedy=remedy or None)

    def troubles(self) -> list[Need]:
        """Return the troubles of this process: the store takes no writes, or the configuration is refused."""
        found: list[Need] = []
        monitor, clock, problems = self._shared.store.monitor, self._shared.clock, self._follower.problems
        if monitor.failing_since is not None:
            since = clock.now() - timedelta(seconds=clock.monotonic() - monitor.failing_since)
            title = "The store takes no writes"
            its = {"severity": Severity.CRITICAL, "title": title, "reason": monitor.problem, "since": since}
            found.append(Need(kind="store", page="/", **its))
        if problems:
            title, refused_at = "The configuration is refused, the old one stays in use", self._follower.refused_at
            its = {"severity": Severity.ERROR, "title": title, "reason": problems[0], "since": refused_at}
            found.append(Need(kind="config", page="/", count=len(problems), **its))
        return found

    async def _do(self, kind: ActionKind, name: str) -> None:
        """Carry out an action if this process owns its account or sink.

        The store deletes an action that no owner has carried out for a day.
        """
        if kind == "enable":
            for worker in self._supervisor.workers():
                if worker.sink == name:
                    await worker.enable()
            return
        account, _, pipeline = name.rpartition("/")
        for poller in self._supervisor.accounts():
            if poller.account == account:
                await self._operator.finish_action(kind, name)  # first: a later request asks for another scan
                poller.read_list(pipeline)

    def _log_silences(self) -> None:
        now = self._shared.clock.now()
        active = []
        for each in (*self._follower.settings.silences, *self._supervisor.stored):
            starts_at, ends_at = each.window(now)
            if starts_at <= now < ends_at:
                match = each.match.model_dump(mode="json", exclude_unset=True)
                active.append({"match": match, "comment": each.comment, "until": ends_at.isoformat()})
        for event, these, others in (("silence.ended", self._active, active), ("silence.began", active, self._active)):
            for about in these:
                if about not in others:
                    log.info(event, **about)
        self._active = active
