"""Trying the keys and sinks of a configuration, once each: whether the API takes a key, whether a webhook answers.

What is told of a URL is scheme and host. An account is asked for one execution; a webhook is only connected to,
unless a test event is to be sent.
"""

import asyncio
import socket
import ssl
import uuid
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from yarl import URL

from watcher.assembly import open_client, watches_of
from watcher.clerk import ClerkApi
from watcher.clock import Clock
from watcher.config.models import AccountSettings, Settings
from watcher.errors import Exit
from watcher.events import trial_event
from watcher.models import Delivery, EventType, Outcome
from watcher.ports.api import Answer
from watcher.ports.sinks import Verdict
from watcher.proxy import proxy_for
from watcher.sinks.webhook import WebhookSettings, WebhookSink, shown_url


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one try. `target` is the path of its block, `place` its scheme and host."""

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


class _Verdict(NamedTuple):
    code: Exit
    words: str
    hint: str = ""


_KEY_WORKS = {
    Outcome.OK: "takes the key",
    Outcome.NOT_FOUND: "takes the key, but does not know the execution it was asked for",
}
_PIPELINE_UNKNOWN = _Verdict(
    Exit.NOT_FOUND,
    "takes the key, but does not know pipeline {pipeline}",
    "correct its id in watch, or watch it with the key of its own account",
)
_KEY_FAILS = {
    Outcome.UNAUTHORIZED: ("refuses this key (401)", "copy the key again from Clerk Chat; it is read from {key}"),
    Outcome.FORBIDDEN: ("refuses this key (403)", "this key may not read the pipeline; it is read from {key}"),
    Outcome.RATE_LIMITED: ("answers 429: too many requests with this key", "try again later, or lower rate_limit"),
    Outcome.TIMEOUT: ("no answer in time", "raise timeout, or try again later"),
    Outcome.CONNECTION: ("cannot be reached", "correct base_url, or let this machine reach it (HTTPS_PROXY)"),
    Outcome.REDIRECT: ("answers with a redirect, which is never followed", "correct base_url"),
    Outcome.INVALID: ("answers with something else than {wanted}", "correct base_url"),
    Outcome.REJECTED: ("rejects the request", "correct base_url, or the ids"),
    Outcome.SERVER_ERROR: ("is in trouble", "try again later"),
}
_WANTED = {"execution": "an execution", "list": "a list of executions"}
_SINK_HINTS = {
    "401": "correct headers or secret",
    "403": "correct headers or secret",
    "404": "the receiver no longer knows this webhook: make a new one and set url",
    "410": "the receiver no longer knows this webhook: make a new one and set url",
    "dns": "there is no such host: correct url",
    "tls": "its certificate is not trusted here: SSL_CERT_FILE names others to trust",
    "connection": "correct url, or let this machine reach it (HTTPS_PROXY)",
    "timeout": "it may be busy, or a firewall may swallow the request",
}


async def try_everything(settings: Settings, *, clock: Clock, send: bool) -> Sequence[Trial]:
    """Try every account and every webhook at the same time. With `send` each webhook gets a `watcher.test`."""
    accounts = [_try_account(settings, name, clock=clock) for name in settings.accounts]
    hooks = [
        _try_webhook(name, sink, clock=clock, send=send)
        for name, sink in settings.sinks.items()
        if isinstance(sink, WebhookSettings)
    ]
    return await asyncio.gather(*accounts, *hooks)


async def _timed(work: Awaitable[_Verdict], *, target: str, place: str, clock: Clock) -> Trial:
    began_at = clock.monotonic()
    verdict = await work
    took_ms = (clock.monotonic() - began_at) * 1000
    return Trial(target, place, verdict.code, verdict.words, took_ms, verdict.hint)


async def _try_account(settings: Settings, name: str, *, clock: Clock) -> Trial:
    account = settings.accounts[name]
    return await _timed(
        _ask(settings, name, clock=clock),
        target=f"accounts.{name}",
        place=shown_url(account.base_url),
        clock=clock,
    )


async def _ask(settings: Settings, name: str, *, clock: Clock) -> _Verdict:
    """Ask for the list of the first pipeline that is watched whole, else for the first execution that is named.

    Where nothing is watched, for an execution that does not exist: a 404 takes a good key too.
    """
    account = settings.accounts[name]
    watches = sorted(watches_of(settings, name), key=lambda watch: not watch.whole)
    pipeline = watches[0].pipeline if watches else str(uuid.uuid4())
    execution = next(iter(watches[0].executions), None) if watches else str(uuid.uuid4())
    async with open_client(account, connections=1) as client:
        api = ClerkApi(client, base_url=account.base_url, clock=clock)
        if execution is None:
            reply = await api.list(pipeline=pipeline, page=1)
            if reply.outcome is Outcome.NOT_FOUND:
                return _PIPELINE_UNKNOWN._replace(words=_PIPELINE_UNKNOWN.words.format(pipeline=pipeline))
            return _judge(reply, "list", name=name, account=account)
        return _judge(await api.get(pipeline=pipeline, execution=execution), "execution", name=name, account=account)


def _judge(answer: Answer, wanted: str, *, name: str, account: AccountSettings) -> _Verdict:
    if words := _KEY_WORKS.get(answer.outcome):
        return _Verdict(Exit.DONE, words)
    words, hint = _KEY_FAILS[answer.outcome]
    key = "api_key_file" if account.api_key_file else "api_key"
    if answer.status_code and "(" not in words:
        words = f"{words} ({answer.status_code})"
    hint = hint.format(key=f"accounts.{name}.{key}")
    return _Verdict(Exit.UNREACHABLE, words.format(wanted=_WANTED[wanted]), hint)


async def _try_webhook(name: str, settings: WebhookSettings, *, clock: Clock, send: bool) -> Trial:
    return await _timed(
        _send(name, settings, clock=clock) if send else _connect(settings),
        target=f"sinks.{name}",
        place=shown_url(settings.url.get_secret_value()),
        clock=clock,
    )


async def _send(name: str, settings: WebhookSettings, *, clock: Clock) -> _Verdict:
    now = clock.now()
    event = trial_event(sink=name, at=now, now_ms=int(now.timestamp() * 1000))
    delivery = Delivery(
        sink=name,
        event_id=event.id,
        type=EventType.WATCHER_TEST,
        stream=event.stream,
        sequence=event.sequence,
        body=event.body,
        recorded_at=0,
        due_at=0,
    )
    sink = WebhookSink(settings, clock=clock)
    try:
        receipt = await sink.send(delivery)
    finally:
        await sink.close()
    if receipt.verdict is Verdict.DELIVERED:
        return _Verdict(Exit.DONE, f"took a watcher.test ({receipt.answer})")
    return _failed(receipt.answer)


async def _connect(settings: WebhookSettings) -> _Verdict:
    """Connect to the host, or to the proxy that leads there, and say nothing."""
    target = URL(settings.url.get_secret_value())
    proxy = proxy_for(target).url
    end = proxy or target
    context = ssl.create_default_context() if end.scheme == "https" else None
    try:
        async with asyncio.timeout(settings.timeout_s):
            _, writer = await asyncio.open_connection(end.raw_host, end.port, ssl=context)
    except (OSError, TimeoutError) as error:
        return _failed(_kind(error))
    writer.transport.abort()
    return _Verdict(Exit.DONE, "proxy connected, nothing sent" if proxy else "connected, nothing sent")


def _kind(error: OSError) -> str:
    """Name what went wrong, in the words of `failure_kind`."""
    kinds = ((TimeoutError, "timeout"), (socket.gaierror, "dns"), (ssl.SSLError, "tls"))
    return next((kind for type_, kind in kinds if isinstance(error, type_)), "connection")


def _failed(answer: str) -> _Verdict:
    words = f"answers {answer}" if answer.isdigit() else f"fails ({answer})"
    return _Verdict(Exit.UNREACHABLE, words, _SINK_HINTS.get(answer, ""))
