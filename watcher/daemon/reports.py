"""The reports of the configuration: each is recorded once at its moment, by whoever has the lease of the upkeep."""

from datetime import timedelta

import structlog

from watcher.config.models import Settings
from watcher.daemon.supervisor import OwnerDependencies
from watcher.domain.event import EventType
from watcher.domain.history import HOUR_US, beginning
from watcher.domain.report import shortened
from watcher.domain.timestamps import to_us
from watcher.store.maintenance_store import MaintenanceStore
from watcher.web.report import make_report
from watcher.web.shown import Console

log = structlog.get_logger()

LATE_AFTER = timedelta(hours=12)
"""A report that could not be made for longer than this is left out."""


class Reports:
    """Makes the reports that are due. What they say is read as `console` shows it."""

    def __init__(self, shared: OwnerDependencies, console: Console) -> None:
        self._clock, self._events, self._metrics = shared.clock, shared.events, shared.metrics
        self._console = console

    async def tick(self, store: MaintenanceStore, settings: Settings) -> None:
        """Record each report that is due, and note the last moment of a new one. Raises `StoreError`.

        A report that the configuration no longer has is forgotten.
        """
        now, known = self._clock.now(), await store.reports()
        await store.forget_reports(row for name, row in known.items() if name not in settings.reports)
        for name, report in settings.reports.items():
            before, moment, _ = report.schedule.around(now)
            if (row := known.get(name)) is None:
                await store.add_report(name, to_us(moment))
            # Of a clock that was set back later on, the moment that was noted may be after now.
            elif not to_us(moment) <= row.moment_at <= to_us(now) and now - moment <= LATE_AFTER:
                times = {"since": to_us(before), "until": beginning(to_us(moment), HOUR_US)}
                made = shortened(await make_report(self._console, **times, name=name, timezone=report.timezone))
                how = {"sinks": report.sinks, "moment": moment, "after": row.sequence, "at": now}
                if await store.record_report(row, to_us(moment), self._events.report(name, made, **how)):
                    self._metrics.events.labels(EventType.WATCHER_REPORT).inc()
                    log.info("report.recorded", report=name, sinks=len(report.sinks))
