"""The wait for the end of one execution: it polls by the daemon's rules, without a store and without sinks.

With `--next` a search finds the execution first, in the list of its pipeline. `Poller` polls, `Progress` holds what is
known so far, `View` shows it. Texts of the API are never read as markup, and their control characters never reach the
terminal.
"""

import asyncio
import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from rich.live import Live
from rich.text import Text

from watcher.clerk.api import ClerkApi, Reply
from watcher.cli.next_execution import NextSearch
from watcher.cli.shell import put, put_all_out, put_error
from watcher.config.models import Settings
from watcher.daemon.from_settings import open_client, poll_rules_of, watches_of
from watcher.domain.errors import Exit
from watcher.domain.event import AccountTrouble, Event, EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import LOST, ExecutionRecord, ExecutionSnapshot, Outcome, Status
from watcher.domain.problems import Problem
from watcher.domain.routing import Router
from watcher.domain.timestamps import NEVER, Micros, Monotonic
from watcher.polling.circuit_breaker import AccountCircuitBreaker
from watcher.polling.evaluator import ReplyEvaluator
from watcher.polling.poll_item import TrackedExecution
from watcher.runtime.clock import Clock
from watcher.runtime.pacing import SHARE
from watcher.runtime.tasks import stop_task
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import sign_of
from watcher.sinks.stdout import reason_of
from watcher.store.changes import AccountRecord, Lease

_MISSING = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_REACHED = _MISSING | {Outcome.OK, Outcome.RATE_LIMITED}
"""The outcomes of answers by the API itself: no gateway before the API gives such answers."""

_WORDS = {
    Outcome.CONNECTION: "no connection",
    Outcome.TIMEOUT: "no answer in time",
    Outcome.INVALID: "unreadable answers",
}


class StatusPeriod(NamedTuple):
    """The start of a period in which the execution has one status."""

    status: str
    since_us: Micros
    """The time (steady clock) at which the status was first seen; at the first poll, the start by the API's date."""


class PollFailure(NamedTuple):
    """The failure of the last poll."""

    outcome: Outcome
    word: str
    """The status code of the answer, or words for the outcome."""
    since: datetime
    """Time of the first failure since the last success (wall clock)."""


@dataclass(frozen=True, slots=True)
class WaitResult:
    """The result of a wait that is over."""

    code: Exit
    problem: str = ""
    """The reason why the wait ended before the execution; empty if the execution has ended."""
    key_refused: bool = False


@dataclass(slots=True)
class Progress:
    """The state of a wait. Times are in microseconds UTC, by the steady clock."""

    pipeline_id: str
    execution_id: str
    """Empty while there is a `search`."""
    lost_after: int
    """The wait ends with `NOT_FOUND` once `missing_count` is this number."""
    search: NextSearch | None = None
    """The search for the execution, `None` once it is found, or if the command line names it."""
    now_us: Micros = NEVER
    next_s: float | None = None
    """Seconds until the next poll, `None` while a poll is under way."""
    poll_count: int = 0
    polled_us: Micros | None = None
    """Time of the last answer."""
    missing_count: int = 0
    """Number of answers so far that do not know the execution or, while it is searched, its pipeline."""
    is_listed: bool = False
    """Whether a page of the pipeline's list was read: the pipeline exists, and the key is valid."""
    execution: ExecutionSnapshot | None = None
    """The execution as the last successful poll showed it."""
    periods: tuple[StatusPeriod, ...] = ()
    why: str = ""
    """The error in the last event of the execution, empty without an error."""
    failure: PollFailure | None = None
    ending: WaitResult | None = None
    is_degraded: bool = False
    is_reached: bool = False
    """Whether an answer has come from the API itself, not only from a gateway before it."""

    @property
    def status(self) -> str | None:
        """Return the last status, `lost` if the execution is lost, `None` if the execution was never seen."""
        return self.periods[-1].status if self.periods else None

    @property
    def unseen(self) -> str:
        """Return in words what has not happened yet while the execution was never seen."""
        return "not seen" if self.search is None else "no execution has started"

    @property
    def has_ended(self) -> bool:
        """Return whether the execution itself has ended, not only the wait."""
        return self.ending is not None and self.ending.code in (Exit.DONE, Exit.FAILED)

    def take_reply(self, reply: Reply, *, clock: Clock) -> None:
        """Update the state by the reply to the poll that has just ended."""
        self.poll_count += 1
        self.polled_us = clock.steady_us()
        self.is_reached = self.is_reached or reply.outcome in _REACHED
        if reply.outcome is Outcome.OK:
            self.execution, self.failure = reply.execution, None
            self.is_listed = self.is_listed or reply.rows is not None
            return
        since = self.failure.since if self.failure else clock.now()
        code = reply.status_code
        word = _WORDS.get(reply.outcome, reply.outcome) if code in {None, 200} else str(code)
        self.failure = PollFailure(reply.outcome, word, since)
        if self.execution is None:
            self.missing_count += reply.outcome in _MISSING and (self.search is None or not self.is_listed)
            self._end_if_hopeless()

    def take_page(self, search: NextSearch, reply: Reply) -> bool:
        """Update the state by a page of the list. Return whether the search has found the execution."""
        if (found := search.take(reply)) is not None:
            self.execution_id, self.search, self.missing_count = found, None, 0
        return found is not None

    def take_change(self, known: ExecutionRecord, events: Sequence[Event]) -> None:
        """Update the state by a changed record of the execution and the events of the change."""
        status = LOST if known.lost else str(known.status)
        if status != self.status:
            since_us = known.since_at if known.lost_at is None else known.lost_at
            self.periods = (*self.periods, StatusPeriod(status, since_us))
        if known.lost is not None or known.end_seen_at is not None:
            self.ending = WaitResult(Exit.DONE if status == Status.SUCCESS else Exit.FAILED)
        for event in events:
            self.why = reason_of(json.loads(event.body)["data"])

    def take_trouble(self, trouble: AccountTrouble | None) -> None:
        """Update the state by the trouble of the account, `None` if it has none."""
        self.is_degraded = trouble is not None
        self._end_if_hopeless()

    def _end_if_hopeless(self) -> None:
        """End the wait if the execution was never seen, and the failures so far leave no hope of seeing it."""
        if self.execution is not None or self.failure is None:
            return
        outcome, word, _ = self.failure
        if self.missing_count >= self.lost_after:
            what = "execution" if self.search is None else "pipeline"
            self.ending = WaitResult(Exit.NOT_FOUND, f"Clerk Chat knows no such {what} ({word})")
        elif self.is_listed or not self.is_degraded:
            return
        elif outcome is Outcome.UNAUTHORIZED or (outcome is Outcome.FORBIDDEN and not self.is_reached):
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat refuses this key ({word})", key_refused=True)
        elif not self.is_reached:
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat cannot be reached ({word})")


SIGN_OF_LIFE_US = 60_000_000
"""After this time without a printed line the state is printed to stderr (microseconds)."""


class View:
    """The output of a wait: four lines that are redrawn in place, or without `live` a line per change.

    With `as_json` every event is printed as JSON instead. Without `live` the state is printed to stderr after a minute
    without a line.
    """

    def __init__(self, live: Live | None = None, *, as_json: bool = False) -> None:
        self._live = live
        self._as_json = as_json
        self._said_us: Micros | None = None

    def on_found(self, execution_id: str) -> None:
        """Print the id that the search has found. With `as_json` the events have it."""
        if self._live is not None:
            self._live.console.print(execution_id, highlight=False, soft_wrap=True)
        elif not self._as_json:
            put(execution_id)
            put_all_out()
        self._said_us = None

    def on_event(self, event: Event) -> None:
        """Print an event of the execution, with `as_json` also an event of its account. A live view prints no event."""
        if self._live is not None:
            return
        if self._as_json:
            put(event.body.decode())
        elif event.type.startswith("execution."):
            put(change_line(event))
        put_all_out()
        self._said_us = None

    def show(self, progress: Progress) -> None:
        """Redraw the state of a live view. Otherwise print it to stderr if no line was printed for a minute."""
        if self._live is not None:
            self._live.update(picture(progress, columns=self._live.console.width), refresh=True)
            return
        if self._said_us is None:
            self._said_us = progress.now_us
        elif progress.now_us >= self._said_us + SIGN_OF_LIFE_US:
            put_error(sign_of_life(progress))
            self._said_us = progress.now_us


def change_line(event: Event) -> str:
    """Return the line of a change: time, status, seconds of the run or `-`, and the error."""
    body = json.loads(event.body)
    data, at = body["data"], datetime.fromisoformat(body["time"])
    execution = data["execution"]
    ran_s = execution.get("durationSeconds")
    if ran_s is None and "startedAt" in execution:
        ran_s = max(0.0, (at - datetime.fromisoformat(execution["startedAt"])).total_seconds())
    ran = "-" if ran_s is None else f"{ran_s:.1f}"
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {harmless(execution['status'])} {ran} {reason_of(data)}".rstrip()


def picture(progress: Progress, *, columns: int) -> Text:
    """Return up to four lines: the status, all statuses so far, the polls, and a remark."""
    lines = (
        _standing(progress),
        Text(_history(progress.periods)),
        Text(_polls(progress), style="dim"),
        _remark(progress),
    )
    shown = [Text("  " if index else "").append_text(line) for index, line in enumerate(lines) if line]
    for line in shown:
        line.truncate(columns, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="ignore").join(shown)


def sign_of_life(progress: Progress) -> str:
    """Return the state in one line: the status, the number of polls, and the failure of the last poll."""
    parts = [f"waiting: {progress.unseen} yet"]
    if progress.status is not None:
        parts = [f"waiting: {harmless(progress.status)} {_elapsed(progress)}"]
    parts.append(f"polls {progress.poll_count}")
    if progress.failure is not None:
        parts.append(_complaint(progress.failure, progress))
    return " · ".join(parts)


def _standing(progress: Progress) -> Text:
    if progress.status is None:
        line = Text(f"· {progress.unseen} yet")
    else:
        type_ = f"execution.{progress.status}"
        glyph, style = sign_of(EventType(type_) if type_ in {*EventType} else EventType.EXECUTION_UNRECOGNIZED)
        line = Text(f"{glyph} {harmless(progress.status)} {_elapsed(progress)}", style=f"bold {style}")
    name = harmless(first_visible(progress.execution.pipeline_name if progress.execution else None))
    whose = f"   {name or 'pipeline ' + progress.pipeline_id[:8]}"
    return Text.assemble(line, f"{whose} · {progress.execution_id}" if progress.execution_id else whose)


def _elapsed(progress: Progress) -> str:
    """Return the time in the present status; after the end return the duration of the whole execution."""
    periods, execution = progress.periods, progress.execution
    if not progress.has_ended:
        return _between(periods[-1].since_us, progress.now_us)
    if execution and execution.started_at and execution.finished_at:
        return f"after {spell_duration((execution.finished_at - execution.started_at).total_seconds())}"
    return f"after {_between(periods[0].since_us, periods[-1].since_us)}"


def _between(begin_us: Micros, end_us: Micros) -> str:
    return spell_duration(max(0, end_us - begin_us) / 1_000_000)


def _history(periods: tuple[StatusPeriod, ...]) -> str:
    """Return all statuses so far; each but the last is followed by its duration."""
    before = [f"{period.status} {_between(period.since_us, after.since_us)}" for period, after in pairwise(periods)]
    return harmless(" → ".join((*before, *(period.status for period in periods[-1:]))))


def _polls(progress: Progress) -> str:
    polls = f"polls {progress.poll_count}"
    if progress.ending is not None:
        return f"{polls} · exit {progress.ending.code.value}"
    if progress.polled_us is not None:
        polls += f" · last {_few((progress.now_us - progress.polled_us) / 1_000_000)} ago"
    return f"{polls} · polling" if progress.next_s is None else f"{polls} · next in {_few(progress.next_s)}"


def _few(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else spell_duration(seconds)


def _remark(progress: Progress) -> Text:
    """Return the error of an execution that has ended, else the failure of the last poll."""
    if progress.has_ended:
        return Text("Clerk Chat no longer knows it" if progress.status == LOST else progress.why, style="red")
    if progress.failure is None or progress.ending is not None:  # the command prints why a wait ended early
        return Text()
    return Text(_complaint(progress.failure, progress), style="yellow")


def _complaint(failure: PollFailure, progress: Progress) -> str:
    seen = progress.execution is not None
    if not seen and progress.missing_count and failure.outcome in (Outcome.NOT_FOUND, Outcome.REJECTED):
        return f"not known yet ({failure.word}), {progress.missing_count} of {progress.lost_after} answers"
    never = " (a passing error never ends this)" if seen or progress.is_listed else ""
    return f"API {failure.word} since {failure.since.astimezone():%H:%M}, retrying{never}"


SLOW_AFTER_S = 3600.0
SLOW_INTERVAL_S = 10.0
"""Shortest time between two polls once a wait has lasted `SLOW_AFTER_S`, in seconds."""


async def wait_for(
    progress: Progress,
    view: View,
    stop: asyncio.Event,
    *,
    settings: Settings,
    interval_s: float,
    timeout_s: float | None,
) -> WaitResult | None:
    """Poll an execution until the wait is over; return the result, `None` if `stop` was set.

    The wait is over when the execution ends, when `timeout_s` have passed, or when it is clear that the execution
    cannot be seen. `settings` must have one account, with one watch that names only this execution, or none if the
    progress has a search. The polling settings decide when the execution is lost and when the account is degraded, but
    not on the interval.
    """
    clock = Clock()
    ((_, account),) = settings.accounts.items()
    async with open_client(account, connections=1) as client:
        api = ClerkApi(client, base_url=account.base_url, clock=clock)
        poller = Poller(progress, view, api=api, settings=settings, interval_s=interval_s, clock=clock)
        ends_at = math.inf if timeout_s is None else clock.monotonic() + timeout_s
        following = asyncio.create_task(poller.follow())
        while not stop.is_set():
            now = clock.monotonic()
            poller.check()
            if progress.ending is None and now >= ends_at:
                progress.ending = make_timeout(progress, timeout_s or 0.0)
            progress.now_us = clock.steady_us()
            progress.next_s = None if poller.is_asking else max(0.0, poller.next_at - now)
            view.show(progress)
            if progress.ending is not None or following.done():
                break
            await asyncio.wait([following], timeout=min(0.25, ends_at - now))
        await stop_task(following)
    if not following.cancelled():
        following.result()
    return None if stop.is_set() else progress.ending


def make_timeout(progress: Progress, timeout_s: float) -> WaitResult:
    """Return the result of a wait that has lasted `timeout_s`."""
    status = f"still {progress.status}" if progress.status else progress.unseen
    waited = f"{timeout_s:g} s" if timeout_s % 1 else spell_duration(timeout_s)
    last = f"; the last poll failed: {progress.failure.word}" if progress.failure else ""
    return WaitResult(Exit.TIMEOUT, f"{status} after {waited} (--timeout){last}")


class Poller:
    """The poller of one execution, or of its pipeline's list while the execution is searched.

    It polls every `interval_s`, and after an hour never more often than every 10 s. It keeps to the rate limit. As in
    the daemon, the polling settings decide when the execution is lost and when its account is degraded.
    """

    def __init__(
        self, progress: Progress, view: View, *, api: ClerkApi, settings: Settings, interval_s: float, clock: Clock
    ) -> None:
        ((self._account, account),) = settings.accounts.items()
        (watch,) = watches_of(settings)
        self._progress, self._view, self._api, self._clock = progress, view, api, clock
        self._pace_s = 1 / (account.rate_limit * SHARE)
        self._interval_s = max(interval_s, self._pace_s)
        self._began_at = self._due_at = clock.monotonic()
        known = ExecutionRecord(next(iter(watch.executions), ""), watch.pipeline)
        self._entry = TrackedExecution(known=known, watch=watch)
        rules = poll_rules_of(settings, account=self._account)
        rules = replace(rules, min_interval_s=interval_s, max_interval_s=interval_s)
        self._breaker = AccountCircuitBreaker(rules, AccountRecord(), clock=clock, jitter=random.random)
        self._events = EventFactory(Router({}))
        lease = Lease("account", self._account, 1)
        self._evaluator = ReplyEvaluator(lease, self._events, clock, cadence=lambda _: interval_s, link=account.link)
        self._trouble: AccountTrouble | None = None
        self._problem: Problem | None = None
        self._sequence = 0
        self.is_asking = False
        """Whether a poll is under way."""

    @property
    def next_at(self) -> Monotonic:
        """Return the time at which the next poll is due."""
        return max(self._due_at, self._breaker.opens_at())

    async def follow(self) -> None:
        """Poll whenever a poll is due, until the wait is over."""
        while self._progress.ending is None:
            if (wait_s := self.next_at - self._clock.monotonic()) > 0:
                await asyncio.sleep(wait_s)
            else:
                await self.poll()

    async def poll(self) -> None:
        """Poll once; update the progress by the answer, and hand the events to the view."""
        entry, breaker, asked_at = self._entry, self._breaker, self._clock.monotonic()
        is_slow = asked_at - self._began_at >= SLOW_AFTER_S
        self._due_at = Monotonic(asked_at + max(self._interval_s, SLOW_INTERVAL_S if is_slow else 0.0))
        breaker.last_probe_at, self.is_asking = asked_at, True
        pipeline, search = entry.watch.pipeline, self._progress.search
        if search is None:
            reply = await self._api.get(pipeline=pipeline, execution=entry.known.execution)
        else:
            reply = await self._api.list(pipeline=pipeline, page=search.page)
        now, self.is_asking = self._clock.monotonic(), False
        self._progress.take_reply(reply, clock=self._clock)
        if self._progress.ending is not None:
            return
        if search is not None:
            breaker.note(entry, reply, now=now, alone=True)
            self.check()
            if self._progress.take_page(search, reply):
                entry.known, entry.failures = ExecutionRecord(self._progress.execution_id, pipeline), None
                self._view.on_found(self._progress.execution_id)
            if self._progress.search is None or search.page > 1:  # the next request only has to keep to the rate limit
                self._due_at = Monotonic(asked_at + self._pace_s)
            return
        if reply.execution is not None:
            evaluation = self._evaluator.success(entry, reply.execution, sent_at=reply.sent_at)
            breaker.note(entry, reply, now=now)
        else:
            reason = breaker.note(entry, reply, now=now, alone=True)
            evaluation = self._evaluator.failure(entry, reason, next_s=self._interval_s)
        self.check()
        entry.known, entry.polled_at = evaluation.known, evaluation.polled_at or entry.polled_at
        if evaluation.change is not None:
            entry.is_recorded = True
            events = [emitted.event for emitted in evaluation.change.entries]
            self._progress.take_change(entry.known, events)
            for event in events:
                self._view.on_event(event)

    def check(self) -> None:
        """Hand an event to the view if the account has become degraded, or has recovered.

        Call it also between polls: an account becomes degraded once its failures have lasted long enough.
        """
        breaker, now = self._breaker, self._clock.monotonic()
        breaker.check(now)
        if breaker.trouble is self._trouble:
            return
        problem, after, at = self._problem, self._sequence, self._clock.now()
        emitted, change = self._events.account(
            self._account, breaker.trouble, self._trouble, cause=breaker.cause, problem=problem, after=after, at=at
        )
        self._trouble, self._sequence = breaker.trouble, emitted.event.sequence
        self._problem = change.problem if change is not None and self._trouble else None
        self._progress.take_trouble(self._trouble)
        self._view.on_event(emitted.event)
