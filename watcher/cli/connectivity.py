"""Trying the keys, watches, sinks and store of a configuration: does the API take the key, do the others answer.

Each watch costs one request for its pipeline's list, at the account's pace. A sink is only connected to, unless a test
event is to be sent. What is shown of a URL is scheme, host and port.
"""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

from watcher.clerk.api import ClerkApi, Reply
from watcher.config.models import Settings, StoreSettings
from watcher.daemon.build import open_client
from watcher.domain.errors import Exit, StoreError, TransportFailedError
from watcher.domain.execution import Outcome
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.pacing import SHARE
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
_UNKNOWN = ("does not know pipeline {}", Exit.NOT_FOUND, "correct its id in watch")
_PIPELINE_FAILS = {
    Outcome.NOT_FOUND: _UNKNOWN,
    Outcome.REJECTED: _UNKNOWN,
    Outcome.FORBIDDEN: ("refuses pipeline {} to this key", Exit.UNREACHABLE, "let this key read it"),
}
"""What is answered of one pipeline; any other failure would meet the next request, too."""


async def try_everything(settings: Settings, *, clock: Clock, send: bool) -> Sequence[Trial]:
    """Try every account with all it watches, every sink but stdout, and the store, at the same time.

    With `send` a sink is sent a `watcher.test`, else connected to.
    """
    accounts = (_try_account(settings, name, clock=clock) for name in settings.accounts)
    sinks = (_try_sink(name, sink, clock=clock, send=send) for name, sink in settings.sinks.items() if sink.target)
    return [*chain.from_iterable(await asyncio.gather(*accounts, *sinks, try_store(settings.store, clock=clock)))]


async def _try_account(settings: Settings, name: str, *, clock: Clock) -> list[Trial]:
    """Try a key with each of its watches; return what is to be said of the key, and then of single watches."""
    account, of_key = settings.accounts[name], f"accounts.{name}"
    place, took_ms = shown_url(account.base_url), 0.0

    def said(words: str, code: Exit = Exit.DONE, hint: str = "", *, target: str = of_key) -> Trial:
        return Trial(target, place, code, words, took_ms, hint)

    def refused(answer: Reply) -> Trial:
        words, hint = _KEY_FAILS[answer.outcome]
        words = f"{words} ({answer.status_code})" if answer.status_code and "(" not in words else words
        key = f"{of_key}.{'api_key_file' if account.api_key_file else 'api_key'}"
        hint = REMEDIES.get(answer.reason or "", hint).format(key=key)
        return said(words.format(cause=answer.reason), Exit.UNREACHABLE, hint)

    watched = [
        (f"watch[{nth}]", str(watch.pipeline)) for nth, watch in enumerate(settings.watch) if watch.account == name
    ]
    troubles: list[Trial] = []
    async with open_client(account, connections=1) as client:
        api = ClerkApi(client, base_url=account.base_url, clock=clock)
        for nth, (target, pipeline) in enumerate(watched or [(of_key, str(uuid.uuid4()))]):
            if nth:
                await asyncio.sleep(1 / (account.rate_limit * SHARE))
            began_at = clock.monotonic()
            answer = await api.list(pipeline=pipeline, page=1)
            took_ms = (clock.monotonic() - began_at) * 1000
            if answer.outcome in _PIPELINE_FAILS:
                words, code, remedy = _PIPELINE_FAILS[answer.outcome]
                remedy += ", or watch it with the key of its own account"
                troubles.append(said(f"{words.format(pipeline)} ({answer.status_code})", code, remedy, target=target))
            elif answer.outcome is not Outcome.OK:
                return [refused(answer), *troubles]
    if len(troubles) == max(1, len(watched)) and all(trial.code is Exit.UNREACHABLE for trial in troubles):
        return [refused(answer), *(troubles if watched else ())]
    return [said("accepts the key"), *troubles] if watched else [said("accepts the key; nothing is watched with it")]


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
