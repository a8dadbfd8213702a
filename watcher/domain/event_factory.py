"""Makes, numbers and routes every event that is recorded, for polling and delivery alike.

It knows neither how something came about nor how it is recorded or sent. `watcher.test` is recorded nowhere and has
neither number nor route: `cloudevents` alone makes it.
"""

from datetime import datetime

from watcher.domain.cloudevents import (
    ExecutionEventParams,
    GapEventParams,
    account_event,
    execution_event,
    gap_event,
    sink_event,
)
from watcher.domain.models import AccountTrouble, EventType, OutboxEntry
from watcher.domain.routing import Router


class EventFactory:
    """The events of one process. `after` is the last sequence of the same stream, `at` when it was seen (wall clock).

    Routes may change as it runs: an event goes to whom `router` knows when it is made.
    """

    def __init__(self, router: Router) -> None:
        self.router = router

    def execution(self, params: ExecutionEventParams) -> OutboxEntry:
        """Return an event of an execution, which its status change numbers."""
        event = execution_event(params)
        return OutboxEntry(event, self.router.sinks_for(event.type, watch=params.watch))

    def gap(self, params: GapEventParams, *, after: int, at: datetime) -> OutboxEntry:
        """Return `pipeline.gap`."""
        event = gap_event(params, sequence=after + 1, at=at)
        return OutboxEntry(event, self.router.sinks_for(event.type, watch=params.watch))

    def account(
        self, type_: EventType, *, account: str, reason: AccountTrouble, cause: str | None, after: int, at: datetime
    ) -> OutboxEntry:
        """Return `account.degraded` or `account.recovered`."""
        event = account_event(type_, account=account, reason=reason, cause=cause, sequence=after + 1, at=at)
        return OutboxEntry(event, self.router.sinks_for(type_))

    def sink(self, type_: EventType, *, sink: str, answer: str, after: int, at: datetime) -> OutboxEntry:
        """Return an event of a sink itself, for all the other sinks."""
        event = sink_event(type_, sink=sink, answer=answer, sequence=after + 1, at=at)
        return OutboxEntry(event, self.router.sinks_for(type_, but=sink))
