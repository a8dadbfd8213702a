"""Trying the keys, watches, sinks and store of a configuration: does the API take the key, do the others answer.

Each watch costs one request, a second one in doubt, at the account's pace. A sink is only connected to, unless a test
event is to be sent. What is shown of a URL is scheme, host and port.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from watcher.clerk.api import Answer, ClerkApi
from watcher.config.models import AccountSettings, Settings, StoreSettings, WatchSettings
from watcher.daemon.build import open_client
from watcher.domain.errors import Exit, StoreError, TransportFailedError
from watcher.domain.execution import Outcome
from watcher.domain.timestamps import Monotonic
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.pacing import SHARE, Pacer
from watcher.runtime.settings import shown_url
from watcher.runtime.threads import run_detached
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.settings import SinkSettings
from watcher.store.store_url import is_postgresql


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


_KEY_FAILS = {
    Outcome.UNAUTHORIZED: ("refuses this key (401)", "copy the key again from Clerk Chat; it is read from {key}"),
    Outcome.FORBIDDEN: ("refuses this key (403)", "this key may not read the pipeline; it is read from {key}"),
    Outcome.RATE_LIMITED: ("gets too many requests with this key", "try again later, or lower rate_limit"),
    Outcome.TIMEOUT: ("no answer in time", "raise timeout, or try again later"),
    Outcome.CONNECTION: ("cannot be reached ({cause})", ""),  # what helps is said by the cause
    Outcome.REDIRECT: ("answers with a redirect, which is never followed", "correct base_url"),
    Outcome.INVALID: ("does not answer as Clerk Chat's API does", "correct base_url"),
    Outcome.SERVER_ERROR: ("answers with a server error", "try again later"),
}
_OF_THE_WATCH = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED, Outcome.FORBIDDEN})
"""What is answered of one pipeline or execution; any other failure would meet the next request, too."""

_UNKNOWN = frozenset({Outcome.NOT_FOUND, Outcome.REJECTED})


async def try_everything(settings: Settings, *, clock: Clock, send: bool) -> Sequence[Trial]:
    """Try every account with all it watches, every sink but stdout, and the store, at the same time.

    With `send` a sink is sent a `watcher.test`, else connected to.
    """
    accounts = (_try_account(settings, name, clock=clock) for name in settings.accounts)
    sinks = (_try_sink(name, sink, clock=clock, send=send) for name, sink in settings.sinks.items() if sink.target)
    return [*chain.from_iterable(await asyncio.gather(*accounts, *sinks, try_store(settings.store, clock=clock)))]


async def _try_account(settings: Settings, name: str, *, clock: Clock) -> list[Trial]:
    """Try a key with each of its watches; return what is to be said of the key, and then of single watches."""
    account = settings.accounts[name]
    watches = [(f"watch[{index}]", watch) for index, watch in enumerate(settings.watch) if watch.account == name]
    async with open_client(account, connections=1) as client:
        key = _Key(name, account, clock, ClerkApi(client, base_url=account.base_url, clock=clock))
        if not watches:
            return [await key.try_alone()]
        troubles = list[Trial]()
        for target, watch in watches:
            answer, trouble = await key.try_watch(watch, target=target)
            if answer.outcome is not Outcome.OK and answer.outcome not in _OF_THE_WATCH:
                return [key.fails(answer), *troubles]
            troubles += [trouble] if trouble else []
        if all(trial.code is Exit.UNREACHABLE for trial in troubles) and len(troubles) == len(watches):
            return [key.fails(answer), *troubles]
        return [key.trial(Exit.DONE, "accepts the key"), *troubles]


class _Key:
    """One account while it is tried, at its pace."""

    def __init__(self, name: str, account: AccountSettings, clock: Clock, api: ClerkApi) -> None:
        self._target = f"accounts.{name}"
        self._account = account
        self._clock = clock
        self._api = api
        # The first request may go at once: nobody waits a minute for it because of a rate of 1/m.
        self._pacer = Pacer(account.rate_limit, now=Monotonic(clock.monotonic() - 1 / (account.rate_limit * SHARE)))
        self._took_ms = 0.0

    async def try_alone(self) -> Trial:
        """Try a key nothing is watched with, by an execution that does not exist: a 404 takes a good key too."""
        nothing = str(uuid.uuid4())
        answer = await self._ask(self._api.get(pipeline=nothing, execution=nothing))
        if answer.outcome in {Outcome.OK, *_UNKNOWN}:
            return self.trial(Exit.DONE, "accepts the key; nothing is watched with it")
        return self.fails(answer)

    async def try_watch(self, watch: WatchSettings, *, target: str) -> tuple[Answer, Trial | None]:
        """Ask for the pipeline's list, or for the first execution that is named; if that is not known, for both.

        Return the answer, and what is to be said of this watch alone.
        """
        pipeline = str(watch.pipeline)
        page = partial(self._api.list, pipeline=pipeline, page=1)
        if not watch.executions:
            answer: Answer = await self._ask(page())
        else:
            execution = watch.executions[0]
            answer = await self._ask(self._api.get(pipeline=pipeline, execution=execution))
            if answer.outcome in _UNKNOWN and (await self._ask(page())).outcome is Outcome.OK:
                words = f"knows pipeline {pipeline}, but not execution {execution} ({answer.status_code})"
                return answer, self.trial(Exit.DONE, words, target=target)
        if answer.outcome not in _OF_THE_WATCH:
            return answer, None
        remedy, code = "let this key read it", Exit.UNREACHABLE
        words = f"refuses pipeline {pipeline} to this key (403)"
        if answer.outcome in _UNKNOWN:
            remedy, code = "correct its id in watch", Exit.NOT_FOUND
            words = f"does not know pipeline {pipeline} ({answer.status_code})"
        hint = f"{remedy}, or watch it with the key of its own account"
        return answer, self.trial(code, words, hint, target=target)

    def fails(self, answer: Answer) -> Trial:
        """Return the trial of a key that failed by this answer."""
        words, hint = _KEY_FAILS[answer.outcome]
        words = f"{words} ({answer.status_code})" if answer.status_code and "(" not in words else words
        words = words.format(cause=answer.reason)
        place = f"{self._target}.{'api_key_file' if self._account.api_key_file else 'api_key'}"
        return self.trial(Exit.UNREACHABLE, words, REMEDIES.get(answer.reason or "", hint).format(key=place))

    def trial(self, code: Exit, words: str, hint: str = "", *, target: str = "") -> Trial:
        """Return a trial that took as long as the last request."""
        place = shown_url(self._account.base_url)
        return Trial(target or self._target, place, code, words, self._took_ms, hint)

    async def _ask(self, request: Awaitable[Answer]) -> Answer:
        """Send a request at the account's pace."""
        await asyncio.sleep(max(0.0, self._pacer.ready_at - self._clock.monotonic()))
        began_at = self._clock.monotonic()
        self._pacer.spend(began_at)
        answer = await request
        self._took_ms = (self._clock.monotonic() - began_at) * 1000
        return answer


async def _try_sink(name: str, settings: SinkSettings, *, clock: Clock, send: bool) -> list[Trial]:
    began_at = clock.monotonic()
    code, hint = Exit.DONE, ""
    try:
        sent = await settings.send_test(name, SinkContext(clock)) if send else None
        if sent is None:
            words = await settings.connect()
        elif sent.outcome is SendOutcome.DELIVERED:
            words = f"accepted a watcher.test ({sent.answer})"
        elif sent.outcome is SendOutcome.ACCEPTED:
            words = f"accepted a watcher.test, and has yet to show it ({sent.answer})"
        else:
            code, words, hint = Exit.UNREACHABLE, _failed(sent.answer), sent.remedy
    except TransportFailedError as error:
        code, words, hint = Exit.UNREACHABLE, _failed(error.kind), error.remedy
    took_ms = (clock.monotonic() - began_at) * 1000
    return [Trial(f"sinks.{name}", settings.target or "", code, words, took_ms, hint)]


def _failed(answer: str) -> str:
    return f"answers {answer}" if answer[:1].isdigit() else f"fails ({answer})"


async def try_store(settings: StoreSettings, *, clock: Clock) -> list[Trial]:
    """Try the store if that is a PostgreSQL database: log in and look, writing nothing."""
    if not is_postgresql(settings.url):
        return []
    from watcher.store.postgresql import is_empty_database  # noqa: PLC0415 (what it needs is of an extra)

    began_at, where = clock.monotonic(), settings.url.partition("?")[0]
    code, hint = Exit.DONE, ""
    try:
        password = None if settings.password is None else settings.password.get_secret_value()
        look = partial(is_empty_database, settings.url, password=password, clock=clock)
        words = "can be used; it is empty" if await run_detached(look, name="store") else "can be used"
    except StoreError as error:
        code = Exit.UNREACHABLE
        words, _, hint = str(error).removeprefix(f"{where} ").rpartition("; ")
    return [Trial("store.url", where, code, words, (clock.monotonic() - began_at) * 1000, hint)]
