"""A wait for one execution: the daemon's account poller, with nothing to remember and nobody to send to.

An API that is listened to and a store without memory stand in for the daemon's. `Progress` takes in replies and
changes. What the API said is text and nothing else: never markup, and no character of it is obeyed by a terminal.
"""

import asyncio
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from rich.live import Live
from rich.text import Text

from watcher.clerk.api import ClerkApi, Reply
from watcher.cli.shell import put, put_all_out, put_error
from watcher.config.models import PollingSettings, Settings
from watcher.daemon.build import AccountOwnerDependencies, build_account, routes_of, watches_of
from watcher.domain.errors import Exit
from watcher.domain.event import Event, EventKey
from watcher.domain.event_factory import EventFactory
from watcher.domain.execution import LOST, ExecutionRecord, ExecutionSnapshot, Outcome, Status
from watcher.domain.routing import Router
from watcher.domain.rules import RuleState
from watcher.domain.snapshots import AccountSnapshot
from watcher.domain.timestamps import Micros, Monotonic
from watcher.polling.account_poller import AccountPoller
from watcher.polling.evaluator import Cadence
from watcher.polling.failures import ERROR_JITTER
from watcher.runtime.clock import Clock, SystemClock
from watcher.runtime.http_client import Client
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration
from watcher.sinks.alert import SIGNS
from watcher.sinks.stdout import why
from watcher.store.changes import BackoffState, Change, ChangeSet, ExecutionChange, Lease, SingleChange, SourceChange
from watcher.store.leases import HeldLease
from watcher.store.records import AccountRecord, PipelineRecord, RulesRecord

_MISSING = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
_REACHED = _MISSING | {Outcome.OK, Outcome.RATE_LIMITED}
"""Answers that only the API itself gives."""


_WORDS = {
    Outcome.CONNECTION: "no connection",
    Outcome.TIMEOUT: "no answer in time",
    Outcome.INVALID: "unreadable answers",
}


class StatusPeriod(NamedTuple):
    """A status, and since when (microseconds UTC, steady): as it was seen, or as the API dates a start."""

    status: str
    since_us: Micros


class PollFailure(NamedTuple):
    """Why the last poll failed: its outcome, a code or word for people, and when that began (wall clock)."""

    outcome: Outcome
    word: str
    since: datetime


@dataclass(frozen=True, slots=True)
class WaitResult:
    """Why a wait is over. `problem` is there where the execution itself does not say it."""

    code: Exit
    problem: str = ""
    key_refused: bool = False


class Progress:
    """What is known of the one execution that is waited for, at `now_us` (microseconds UTC, steady).

    `polled_us` is when the last answer came, `next_s` the seconds to the next poll unless one is under way, `execution`
    what the last successful poll said, `why` the reason that the last event gave.
    """

    def __init__(self, pipeline_id: str, execution_id: str, *, lost_after: int) -> None:
        """Know nothing. So many times in a row not known, before it was ever seen, is not found."""
        self.pipeline_id = pipeline_id
        self.execution_id = execution_id
        self.lost_after = lost_after
        self.now_us = Micros(0)
        self.next_s: float | None = None
        self.poll_count = 0
        self.polled_us: Micros | None = None
        self.missing_count = 0
        self.execution: ExecutionSnapshot | None = None
        self.periods: tuple[StatusPeriod, ...] = ()
        self.why = ""
        self.failure: PollFailure | None = None
        self.ending: WaitResult | None = None
        self._degraded = False
        self._reached = False

    @property
    def status(self) -> str | None:
        """Return the last status, `lost` for what is, or `None` before the first sight."""
        return self.periods[-1].status if self.periods else None

    @property
    def has_ended(self) -> bool:
        """Return whether the execution has ended, rather than the wait for it."""
        return self.ending is not None and self.ending.code in (Exit.DONE, Exit.FAILED)

    def answered(self, reply: Reply, *, clock: Clock) -> None:
        """Take in one reply, which came just now."""
        self.poll_count += 1
        self.polled_us = clock.steady_us()
        self._reached = self._reached or reply.outcome in _REACHED
        if reply.execution is not None:
            self.execution, self.failure = reply.execution, None
            return
        since = self.failure.since if self.failure else clock.now()
        code = reply.status_code
        word = _WORDS.get(reply.outcome, reply.outcome) if code in {None, 200} else str(code)
        self.failure = PollFailure(reply.outcome, word, since)
        if self.execution is None:
            self.missing_count += reply.outcome in _MISSING
            self._consider()

    def recorded(self, change: Change) -> None:
        """Take in one change, of the execution or of the account."""
        if isinstance(change, ExecutionChange):
            known = change.known
            status = LOST if known.lost else str(known.status)
            if status != self.status:
                since_us = known.since_at if known.lost_at is None else known.lost_at
                self.periods = (*self.periods, StatusPeriod(status, since_us))
            if known.lost is not None or known.ended_at is not None:
                self.ending = WaitResult(Exit.DONE if status == Status.SUCCESS else Exit.FAILED)
            for entry in change.entries:
                self.why = why(json.loads(entry.event.body)["data"])
        elif isinstance(change, SourceChange):
            self._degraded = change.state is not None
            self._consider()

    def _consider(self) -> None:
        """End what cannot begin. Once the execution was seen no failed poll ends the wait, however many there are."""
        if self.execution is not None or self.failure is None:
            return
        outcome, word, _ = self.failure
        if self.missing_count >= self.lost_after:
            self.ending = WaitResult(Exit.NOT_FOUND, f"Clerk Chat knows no such execution ({word})")
        elif self._degraded and (
            outcome is Outcome.UNAUTHORIZED or (outcome is Outcome.FORBIDDEN and not self._reached)
        ):
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat refuses this key ({word})", key_refused=True)
        elif self._degraded and not self._reached:
            self.ending = WaitResult(Exit.UNREACHABLE, f"Clerk Chat cannot be reached ({word})")


ECHO_COLUMNS = 2
"""Left free at the end of a line: there a terminal shows the `^C` that was typed, which must not begin a new line."""

SIGN_OF_LIFE_US = 60_000_000
_FEW_S = 10.0


class View:
    """Four lines redrawn in place; without `live` one line per change, or with `as_json` each event.

    After a minute without a line there is a sign of life on stderr.
    """

    def __init__(self, live: Live | None = None, *, as_json: bool = False) -> None:
        """Draw there, once it is started; else nothing was written yet."""
        self._live = live
        self._as_json = as_json
        self._sign_us: int | None = None

    def on_event(self, event: Event) -> None:
        """Write an event. The account's trouble is no line of its own, but part of a sign of life."""
        if self._live is not None:
            return
        if self._as_json:
            put(event.body.decode())
        elif event.type.startswith("execution."):
            put(change_line(event))
        put_all_out()
        self._sign_us = None

    def show(self, progress: Progress) -> None:
        """Redraw, or say how it stands if nothing was said for a minute."""
        if self._live is not None:
            self._live.update(picture(progress, columns=self._live.console.width), refresh=True)
            return
        if self._sign_us is not None and progress.now_us >= self._sign_us:
            put_error(sign_of_life(progress))
            self._sign_us = None
        if self._sign_us is None:
            self._sign_us = progress.now_us + SIGN_OF_LIFE_US


def change_line(event: Event) -> str:
    """Return one change for programs and people: when, which status, seconds it has run or `-`, and why it failed."""
    body = json.loads(event.body)
    data, at = body["data"], datetime.fromisoformat(body["time"])
    execution = data["execution"]
    ran_s = execution.get("durationSeconds")
    if ran_s is None and "startedAt" in execution:
        ran_s = max(0.0, (at - datetime.fromisoformat(execution["startedAt"])).total_seconds())
    ran = "-" if ran_s is None else f"{ran_s:.1f}"
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {harmless(execution['status'])} {ran} {why(data)}".rstrip()


def picture(progress: Progress, *, columns: int) -> Text:
    """Return up to four lines: where it stands, how it came there, the polls, and what else there is to say."""
    lines = (
        _standing(progress),
        Text(_history(progress.periods)),
        Text(_polls(progress), style="dim"),
        _remark(progress),
    )
    shown = [Text("  " if index else "").append_text(line) for index, line in enumerate(lines) if line]
    for line in shown:
        line.truncate(columns - ECHO_COLUMNS, overflow="ellipsis")
    return Text("\n", no_wrap=True, overflow="ignore").join(shown)


def sign_of_life(progress: Progress) -> str:
    """Return one line that says what is waited for, for whoever has read nothing for a minute."""
    parts = ["waiting: not seen yet"]
    if progress.status is not None:
        parts = [f"waiting: {harmless(progress.status)} {_elapsed(progress)}"]
    parts.append(f"polls {progress.poll_count}")
    if progress.failure is not None:
        parts.append(_complaint(progress.failure, progress))
    return " · ".join(parts)


def _standing(progress: Progress) -> Text:
    if progress.status is None:
        line = Text("· not seen yet")
    else:
        glyph, style = SIGNS.get(f"execution.{progress.status}", SIGNS["execution.unrecognized"])
        line = Text(f"{glyph} {harmless(progress.status)} {_elapsed(progress)}", style=f"bold {style}")
    name = harmless(first_visible(progress.execution.pipeline_name if progress.execution else None))
    return Text.assemble(line, f"   {name or 'pipeline ' + progress.pipeline_id[:8]} · {progress.execution_id}")


def _elapsed(progress: Progress) -> str:
    """Return how long it has been so; of an end, how long it all took."""
    periods, execution = progress.periods, progress.execution
    if not progress.has_ended:
        return _between(periods[-1].since_us, progress.now_us)
    if execution and execution.started_at and execution.finished_at:
        return f"after {spell_duration((execution.finished_at - execution.started_at).total_seconds())}"
    return f"after {_between(periods[0].since_us, periods[-1].since_us)}"


def _between(begin_us: Micros, end_us: Micros) -> str:
    return spell_duration(max(0, end_us - begin_us) / 1_000_000)


def _history(periods: tuple[StatusPeriod, ...]) -> str:
    """Return every status there was, with how long it lasted."""
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
    return f"{seconds:.1f} s" if seconds < _FEW_S else spell_duration(seconds)


def _remark(progress: Progress) -> Text:
    """Return why it failed, or what keeps it from being seen."""
    if progress.has_ended:
        return Text("Clerk Chat no longer knows it" if progress.status == LOST else progress.why, style="red")
    if progress.failure is None or progress.ending is not None:  # how a wait ended without it is reported as an error
        return Text()
    return Text(_complaint(progress.failure, progress), style="yellow")


def _complaint(failure: PollFailure, progress: Progress) -> str:
    seen = progress.execution is not None
    if not seen and progress.missing_count and failure.outcome in (Outcome.NOT_FOUND, Outcome.REJECTED):
        return f"not known yet ({failure.word}), {progress.missing_count} of {progress.lost_after} answers"
    never = " (a passing error never ends this)" if seen else ""
    return f"API {failure.word} since {failure.since.astimezone():%H:%M}, retrying{never}"


REDRAW_EVERY_S = 0.25
PATIENT_AFTER_S = 3600.0
PATIENT_INTERVAL_S = 10.0
"""After an hour nobody needs to know within two seconds."""

Heard = asyncio.Queue[Reply | SingleChange | BaseException]
"""What goes on in the account, in order; an exception is what would end the daemon."""


async def wait_for(
    progress: Progress,
    view: View,
    *,
    settings: Settings,
    interval_s: float,
    timeout_s: float | None,
    stop: asyncio.Event,
) -> WaitResult | None:
    """Follow the execution until it, the time or the patience is over, or `stop` (then `None`).

    `settings` have one account, which watches this execution alone. Of their polling only what decides that an
    execution is lost or an account degraded is used.
    """
    heard, clock = Heard(), SystemClock()
    async with AsyncExitStack() as stack:
        poller = await _start(settings, heard, interval_s=interval_s, stack=stack, clock=clock)
        ends_at = None if timeout_s is None else clock.monotonic() + timeout_s
        while not stop.is_set():
            now = clock.monotonic()
            if progress.ending is None and ends_at is not None and now >= ends_at:
                progress.ending = timed_out(progress, timeout_s or 0.0)
            next_at = poller.next_poll_at(now)
            progress.now_us, progress.next_s = clock.steady_us(), None if next_at is None else max(0.0, next_at - now)
            view.show(progress)
            if progress.ending is not None:
                return progress.ending
            try:
                async with asyncio.timeout(REDRAW_EVERY_S if ends_at is None else min(REDRAW_EVERY_S, ends_at - now)):
                    one = await heard.get()
            except TimeoutError:
                continue
            take(one, progress, view, clock=clock)
        return None


def take(heard: Reply | SingleChange | BaseException, progress: Progress, view: View, *, clock: Clock) -> None:
    """Take in what was heard, and pass its events on."""
    if isinstance(heard, BaseException):
        raise heard
    if isinstance(heard, Reply):
        progress.answered(heard, clock=clock)
        return
    progress.recorded(heard)
    for entry in heard.entries:
        view.on_event(entry.event)


def timed_out(progress: Progress, timeout_s: float) -> WaitResult:
    """Return what a wait ends with once its time is over."""
    status = f"still {progress.status}" if progress.status else "not seen"
    waited = f"{timeout_s:g} s" if timeout_s % 1 else spell_duration(timeout_s)
    last = f"; the last poll failed: {progress.failure.word}" if progress.failure else ""
    return WaitResult(Exit.TIMEOUT, f"{status} after {waited} (--timeout){last}")


def wait_cadence(clock: Clock, *, interval_s: float) -> Cadence:
    """Return the cadence of a wait that begins now: every `interval_s`, however old the execution is; slower later."""
    began_at = clock.monotonic()

    def interval(_dwell_s: float) -> float:
        patient = clock.monotonic() - began_at >= PATIENT_AFTER_S
        return max(interval_s, PATIENT_INTERVAL_S) if patient else interval_s

    return interval


def wait_polling(polling: PollingSettings, *, interval_s: float, rate_limit: float) -> PollingSettings:
    """Return how to poll: after an error hardly more rarely than without, for somebody waits, and never sooner.

    A rate limit that allows less is no trouble to report: `max_interval` is what it allows.
    """
    retry_s = interval_s / (1 - ERROR_JITTER)
    return polling.model_copy(update={"min_interval_s": retry_s, "max_interval_s": max(retry_s, 2 / rate_limit)})


async def _start(
    settings: Settings, heard: Heard, *, interval_s: float, stack: AsyncExitStack, clock: Clock
) -> AccountPoller:
    """Let the account be watched until `stack` closes; what is in flight then is given up."""
    metrics = Metrics()
    schedule = Schedule(clock=clock, fatal=heard.put_nowait, lag=metrics.loop_lag.set)
    events = EventFactory(Router(routes_of(settings)))
    shared = AccountOwnerDependencies(
        lambda lease: EphemeralStore(lease, heard.put_nowait),
        clock,
        metrics,
        events,
        schedule,
        heard.put_nowait,
    )
    ((name, account),) = settings.accounts.items()
    poller = await build_account(
        shared,
        stack,
        HeldLease(Lease("account", name, 1), clock=clock),
        settings=account,
        polling=wait_polling(settings.polling, interval_s=interval_s, rate_limit=account.rate_limit),
        cadence=wait_cadence(clock, interval_s=interval_s),
        retention_s=settings.store.retention_s,
        open_api=partial(ObservedApi, heard.put_nowait),
    )
    await poller.watch(watches_of(settings, name))
    schedule.add(f"account:{name}", poller.tick)
    stack.push_async_callback(poller.cancel)
    stack.push_async_callback(schedule.stop)
    schedule.start()
    return poller


class ObservedApi(ClerkApi):
    """An API of which somebody hears every reply about an execution."""

    def __init__(self, heard: Callable[[Reply], None], client: Client, **settings: Any) -> None:
        """Call `heard` with every reply; the rest is as for any API."""
        super().__init__(client, **settings)
        self._heard = heard

    async def get(self, *, pipeline: str, execution: str, known_hash: int | None = None) -> Reply:
        """Fetch one execution. Each answer is read: who listens wants to know it."""
        reply = await super().get(pipeline=pipeline, execution=execution)
        self._heard(reply)
        return reply


@dataclass(slots=True)
class EphemeralStore:
    """A store for a program that needs no memory: each change is passed on at once and kept nowhere."""

    lease: Lease
    heard: Callable[[SingleChange], None]
    failing_since: Monotonic | None = None

    async def load_account(self) -> AccountRecord:
        """Return that nothing is known."""
        return AccountRecord(0, None, BackoffState())

    async def load_executions(self, executions: Collection[str]) -> Mapping[str, ExecutionRecord]:
        """Return that nothing is known."""
        return {}

    async def load_pipeline(self, pipeline: str) -> PipelineRecord:
        """Return that nothing is known."""
        return PipelineRecord(0, None)

    async def load_rules(self, pipeline: str) -> RulesRecord:
        """Return that nothing is known."""
        return RulesRecord(0, RuleState(), {}, ())

    async def load_events(self, keys: Collection[EventKey]) -> Mapping[EventKey, bytes]:
        """Return that nothing is known."""
        return {}

    async def load_open(self, pipelines: Collection[str]) -> Sequence[ExecutionRecord]:
        """Return that nothing is known."""
        return ()

    async def record(self, change: Change) -> None:
        """Pass a change on."""
        for each in change.changes if isinstance(change, ChangeSet) else (change,):
            self.heard(each)

    async def save_poll_times(self, polled_at: Mapping[str, Micros]) -> None:
        """Keep nothing."""

    async def save_backoff(self, backoff: BackoffState) -> None:
        """Keep nothing."""

    async def save_snapshot(self, snapshot: AccountSnapshot) -> None:
        """Keep nothing."""
