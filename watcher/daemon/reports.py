"""The reports of the configuration. The owner of the maintenance lease records each report once when it is due."""

from datetime import timedelta

import structlog

from watcher.config.models import Settings
from watcher.daemon.build import OwnerDependencies
from watcher.domain.event import EventType
from watcher.domain.history import HOUR_US, period_start
from watcher.domain.report import shorten_report
from watcher.domain.timestamps import to_us
from watcher.store.maintenance_store import MaintenanceStore
from watcher.web.console import Console
from watcher.web.report import make_report

log = structlog.get_logger()

LATE_AFTER = timedelta(hours=12)
"""The longest time from the moment of a report to its recording. A later report is left out."""


class Reports:
    """The reports that are due. They show the same figures as API and pages."""

    def __init__(self, shared: OwnerDependencies, console: Console) -> None:
        self._shared = shared
        self._console = console

    async def tick(self, store: MaintenanceStore, settings: Settings) -> None:
        """Record each report that is due. Raises `StoreError`.

        A report new in the configuration is first due at its next scheduled time. Rows of removed reports are deleted.
        """
        now, known = self._shared.clock.now(), await store.reports()
        await store.forget_reports(row for name, row in known.items() if name not in settings.reports)
        for name, report in settings.reports.items():
            before, moment = report.schedule.last_two(now)
            if (row := known.get(name)) is None:
                await store.add_report(name, to_us(moment))
            # If the clock was set back, the stored moment may be after now. It does not delay the report then.
            elif not to_us(moment) <= row.moment_at <= to_us(now) and now - moment <= LATE_AFTER:
                times = {"since": to_us(before), "until": period_start(to_us(moment), HOUR_US)}
                async with self._console.reporting:
                    made = await make_report(
                        self._console, **times, name=name, timezone=report.timezone, match=report.match
                    )
                how = {"sinks": report.sinks, "moment": moment, "after": row.sequence, "at": now}
                if await store.record_report(
                    row, to_us(moment), self._shared.events.report(name, shorten_report(made), **how)
                ):
                    self._shared.metrics.events.labels(EventType.WATCHER_REPORT).inc()
                    log.info("report.recorded", report=name, sinks=len(report.sinks))
