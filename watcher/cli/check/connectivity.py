"""Trying the keys, watches and sinks of a configuration: does the API take the key and know them, do sinks answer.

Each watch costs one request, a second one in doubt, at the account's pace. A sink is only connected to, unless a test
event is to be sent. What is shown of a URL is scheme, host and port.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from watcher.clerk.api import ClerkApi
from watcher.clerk.protocol import Answer
from watcher.config.models import AccountSettings, Settings, WatchSettings
from watcher.daemon.build import open_client
from watcher.delivery.sinks.protocol import SendOutcome, SinkContext
from watcher.delivery.sinks.settings import SinkSettings
from watcher.domain.cloudevents import trial_event
from watcher.domain.delivery import Delivery
from watcher.domain.errors import Exit, TransportFailedError
from watcher.domain.event import Event, EventType
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import NEVER, Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.rate_limiter import SHARE, Pacer
from watcher.runtime.settings import shown_url
from watcher.runtime.transport_failures import REMEDIES


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one try. `target` is the path of its block, `place` its scheme, host and port."""

    target: str
    place: str
    code: Exit
    words: str
    took_ms: float
    hint: str = ""

    @property
    def works(self) -> bool:
        """Whether it did what it should."""
        return self.code is Exit.DONE


class _TrialResult(NamedTuple):
    code: Exit
    words: str
    hint: str = ""


_KEY_FAILS = {
    Outcome.UNAUTHORIZED: ("refuses this key (401)", "copy the key again from Clerk Chat; it is read from {key}"),
    Outcome.FORBIDDEN: ("refuses this key (403)", "this key may not read the pipeline; it is read from {key}"),
    Outcome.RATE_LIMITED: ("gets too many requests with this key", "try again later, or lower rate_limit"),
    Outcome.TIMEOUT: ("no answer in time", "raise timeout, or try again later"),
    Outcome.CONNECTION: ("cannot be reached ({cause})", ""),  # what helps is said by the cause
    Outcome.REDIRECT: ("answers with a redirect, which is never followed", "correct base_url"),
    Outcome.INVALID: ("does not answer with {wanted}", "correct base_url"),
    Outcome.SERVER_ERROR: ("answers with a server error", "try again later"),
}
_OF_THE_WATCH = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED, Outcome.FORBIDDEN})
"""What is answered of one pipeline or execution; of it alone, once the key is known to be good."""

_OF_THE_KEY = frozenset({Outcome.UNAUTHORIZED, Outcome.RATE_LIMITED, Outcome.CONNECTION, Outcome.REDIRECT})
"""What the next request would be answered, too."""

_UNKNOWN = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})
MOST_TROUBLES = 3
"""After so many watches in trouble, and none that was answered for, the account is in trouble."""

LONGEST_PAUSE_S = 15.0
"""How long a 429 may ask to wait before the one other try."""


def trial_deliveries(settings: Settings, *, clock: Clock) -> Mapping[str, Delivery]:
    """Return a `watcher.test` for each sink but stdout, by its name."""
    names = (name for name, sink in settings.sinks.items() if sink.target is not None)
    return {name: _trial_delivery(trial_event(sink=name, at=clock.now()), sink=name) for name in names}


async def try_everything(
    settings: Settings, *, clock: Clock, deliveries: Mapping[str, Delivery], tried: Callable[[], None] = lambda: None
) -> Sequence[Trial]:
    """Try every account with all it watches, and every sink but stdout, at the same time.

    A sink with a delivery is sent it, another one connected to. `tried` is called after each watch.
    """
    accounts = [_try_account(settings, name, clock=clock, tried=tried) for name in settings.accounts]
    sinks = [
        _try_sink(name, sink, target=target, clock=clock, delivery=deliveries.get(name))
        for name, sink in settings.sinks.items()
        if (target := sink.target) is not None
    ]
    of_accounts, of_sinks = await asyncio.gather(asyncio.gather(*accounts), asyncio.gather(*sinks))
    return [*(trial for trials in of_accounts for trial in trials), *of_sinks]


async def _try_account(settings: Settings, name: str, *, clock: Clock, tried: Callable[[], None]) -> list[Trial]:
    """Try a key with each of its watches; return what is to be said of the key, and then of single watches."""
    account = settings.accounts[name]
    watches = [(index, watch) for index, watch in enumerate(settings.watch) if watch.account == name]
    async with open_client(account, connections=1) as client:
        key = _Key(name, account, clock, ClerkApi(client, base_url=account.base_url, clock=clock))
        if not watches:
            return [await key.try_alone()]
        for index, watch in watches:
            await key.try_watch(watch, target=f"watch[{index}]")
            tried()
            if key.is_settled:
                break
        return key.trials(len(watches))


class _Key:
    """One account while it is tried, at its pace."""

    def __init__(self, name: str, account: AccountSettings, clock: Clock, api: ClerkApi) -> None:
        self._name = name
        self._account = account
        self._clock = clock
        self._api = api
        # The first request may go at once: nobody waits a minute for it because of a rate of 1/m.
        self._pacer = Pacer(account.rate_limit, now=Monotonic(clock.monotonic() - 1 / (account.rate_limit * SHARE)))
        self._replies: list[tuple[Answer, str]] = []  # to each watch, and what was wanted
        self._of_watches: list[Trial] = []
        self._took_ms: list[float] = []

    @property
    def is_settled(self) -> bool:
        """Whether more requests would show no more."""
        failures = [reply for reply, _ in self._failures()]
        in_doubt = [reply for reply in failures if reply.outcome not in _OF_THE_WATCH]
        return any(reply.outcome in _OF_THE_KEY for reply in failures) or len(in_doubt) == MOST_TROUBLES

    async def try_alone(self) -> Trial:
        """Try a key nothing is watched with, by an execution that does not exist: a 404 takes a good key too."""
        nothing = str(uuid.uuid4())
        reply = await self._ask(lambda: self._api.get(pipeline=nothing, execution=nothing))
        if reply.outcome in {Outcome.OK, *_UNKNOWN}:
            return self._trial(_TrialResult(Exit.DONE, "accepts the key; nothing is watched with it"))
        return self._trial(self._fails(reply, "an execution"))

    async def try_watch(self, watch: WatchSettings, *, target: str) -> None:
        """Ask for the pipeline's list, or for the first execution that is named; if that is not known, for both."""
        pipeline, wanted = str(watch.pipeline), "an execution" if watch.executions else "a list of executions"
        if not watch.executions:
            reply = await self._list(pipeline)
        else:
            execution = watch.executions[0]
            reply = await self._ask(lambda: self._api.get(pipeline=pipeline, execution=execution))
            if reply.outcome in _UNKNOWN:
                listed = await self._list(pipeline)
                if listed.outcome is Outcome.OK:
                    words = f"knows pipeline {pipeline}, but not execution {execution} ({reply.status_code})"
                    self._of_watches.append(self._trial(_TrialResult(Exit.DONE, words), target=target))
                reply = listed if listed.outcome in {Outcome.OK, *_UNKNOWN} else reply
        self._replies.append((reply, wanted))
        if reply.outcome is not Outcome.OK and reply.outcome not in _OF_THE_KEY:
            self._of_watches.append(self._trial(self._of_watch(reply, pipeline, wanted), target=target))

    def trials(self, watch_count: int) -> list[Trial]:
        """Return the trial of the key and those of its watches."""
        known = [reply.outcome for reply, _ in self._replies].count(Outcome.OK)
        result = _TrialResult(Exit.DONE, f"accepts the key and knows its {known} pipelines")
        if not known == watch_count > 1:
            result = result._replace(words="accepts the key")
        for reply, wanted in self._failures()[:1]:
            result = self._fails(reply, wanted)
            if (left := watch_count - len(self._replies)) > 0:
                result = result._replace(words=f"{result.words}; {left} more of its pipelines were not tried")
            if watch_count == 1 and reply.outcome not in _OF_THE_WATCH:  # it would say the same twice
                self._of_watches = []
        return [self._trial(result, took_ms=self._took_ms[0]), *self._of_watches]

    def _failures(self) -> list[tuple[Answer, str]]:
        """Return what speaks against the key: what any watch would be answered, else, if no watch is known, all."""
        of_key = [each for each in self._replies if each[0].outcome in _OF_THE_KEY]
        is_known = any(reply.outcome in {Outcome.OK, *_UNKNOWN} for reply, _ in self._replies)
        return of_key or ([] if is_known else self._replies)

    def _of_watch(self, reply: Answer, pipeline: str, wanted: str) -> _TrialResult:
        if reply.outcome in _UNKNOWN:
            hint = "correct its id in watch, or watch it with the key of its own account"
            return _TrialResult(Exit.NOT_FOUND, f"does not know pipeline {pipeline} ({reply.status_code})", hint)
        if reply.outcome is Outcome.FORBIDDEN:
            hint = "let this key read it, or watch it with the key of its own account"
            return _TrialResult(Exit.UNREACHABLE, f"refuses pipeline {pipeline} to this key (403)", hint)
        fails = self._fails(reply, wanted)
        return fails._replace(words=f"pipeline {pipeline}: {fails.words}")

    def _fails(self, reply: Answer, wanted: str) -> _TrialResult:
        words, hint = _KEY_FAILS[reply.outcome]
        words = f"{words} ({reply.status_code})" if reply.status_code and "(" not in words else words
        hint = REMEDIES.get(reply.reason or "", hint)
        return _TrialResult(
            Exit.UNREACHABLE, words.format(wanted=wanted, cause=reply.reason), hint.format(key=self._place_of_key())
        )

    def _place_of_key(self) -> str:
        return f"accounts.{self._name}.{'api_key_file' if self._account.api_key_file else 'api_key'}"

    def _trial(self, result: _TrialResult, *, target: str = "", took_ms: float | None = None) -> Trial:
        place, took_ms = shown_url(self._account.base_url), self._took_ms[-1] if took_ms is None else took_ms
        return Trial(target or f"accounts.{self._name}", place, result.code, result.words, took_ms, result.hint)

    async def _list(self, pipeline: str) -> Answer:
        return await self._ask(lambda: self._api.list(pipeline=pipeline, page=1))

    async def _ask(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        """Send a request at the account's pace; once more if there were too many of them, when that is over."""
        reply = await self._send(request)
        pause_s = 1.0 if reply.retry_after_s is None else reply.retry_after_s
        if reply.outcome is Outcome.RATE_LIMITED and pause_s <= LONGEST_PAUSE_S:
            await asyncio.sleep(pause_s)
            reply = await self._send(request)
        return reply

    async def _send(self, request: Callable[[], Awaitable[Answer]]) -> Answer:
        await asyncio.sleep(max(0.0, self._pacer.ready_at - self._clock.monotonic()))
        began_at = self._clock.monotonic()
        self._pacer.spend(began_at)
        reply = await request()
        self._took_ms.append((self._clock.monotonic() - began_at) * 1000)
        return reply


async def _try_sink(
    name: str, settings: SinkSettings, *, target: str, clock: Clock, delivery: Delivery | None
) -> Trial:
    began_at = clock.monotonic()
    try:
        sent = None if delivery is None else await _send(delivery, settings, clock=clock)
        result = sent or _TrialResult(Exit.DONE, await settings.connect())
    except TransportFailedError as error:
        result = _failed(error.kind, remedy=error.remedy)
    took_ms = (clock.monotonic() - began_at) * 1000
    return Trial(f"sinks.{name}", target, result.code, result.words, took_ms, result.hint)


def _trial_delivery(event: Event, *, sink: str) -> Delivery:
    return Delivery(
        sink=sink,
        event_id=event.id,
        type=EventType.WATCHER_TEST,
        stream=event.stream,
        sequence=event.sequence,
        body=event.body,
        recorded_at=NEVER,
        due_at=NEVER,
    )


async def _send(delivery: Delivery, settings: SinkSettings, *, clock: Clock) -> _TrialResult:
    sink = settings.open(SinkContext(clock))
    try:
        sent = await sink.send([delivery])
    finally:
        await sink.close()
    if sent.outcome is SendOutcome.DELIVERED:
        return _TrialResult(Exit.DONE, f"accepted a watcher.test ({sent.answer})")
    if sent.outcome is SendOutcome.ACCEPTED:
        return _TrialResult(Exit.DONE, f"accepted a watcher.test, and has yet to show it ({sent.answer})")
    return _failed(sent.answer, remedy=sent.remedy)


def _failed(answer: str, *, remedy: str) -> _TrialResult:
    words = f"answers {answer}" if answer[:1].isdigit() else f"fails ({answer})"
    return _TrialResult(Exit.UNREACHABLE, words, remedy)
