"""The trials of `watcher check --online`.

Each watch costs one request for its pipeline's list, whatever its rules. Only with `--send` a sink gets a message.
Only scheme, host and port of a URL are shown.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain

from yarl import URL

from watcher.clerk.api import PAGE_ROWS, ClerkApi, Reply
from watcher.cli.daemon_client import DaemonClient
from watcher.cli.local_daemon import local_url
from watcher.config.models import Settings, StoreSettings
from watcher.daemon.from_settings import open_client, watches_of
from watcher.domain.errors import DaemonError, Exit, StoreError, TransportFailedError
from watcher.domain.execution import Outcome, Status
from watcher.rules.slow import Slow
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.pacing import SHARE
from watcher.runtime.settings import redact_url
from watcher.runtime.threads import run_detached
from watcher.runtime.units import Address, parse_address
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.settings import SinkSettings
from watcher.store.store_url import is_postgresql
from watcher.web.server import why_not_bound


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one trial.

    `target` is the path of the tried block in the configuration file, `place` the scheme, host and port of its address.
    """

    target: str
    place: str
    code: Exit
    words: str
    took_ms: float
    hint: str = ""


TryOutcome = tuple[Exit, str, str]
"""The fields `code`, `words` and `hint` of a `CheckResult`."""

_KEY_FAILS = {
    Outcome.UNAUTHORIZED: ("refuses this key (401)", "copy the key again from Clerk Chat; it is read from {key}"),
    Outcome.FORBIDDEN: ("refuses this key (403)", "this key may not read the pipeline; it is read from {key}"),
    Outcome.RATE_LIMITED: ("gets too many requests with this key", "try again later, or lower rate_limit"),
    Outcome.TIMEOUT: ("no answer in time", "raise timeout, or try again later"),
    Outcome.CONNECTION: ("cannot be reached ({cause})", ""),  # `REMEDIES` has the hint for each cause
    Outcome.REDIRECT: ("answers with a redirect, which is never followed", "correct base_url"),
    Outcome.INVALID: ("does not answer as Clerk Chat's API does", "correct base_url"),
    Outcome.SERVER_ERROR: ("answers with a server error", "try again later"),
}
_UNKNOWN = ("does not know pipeline {}", Exit.NOT_FOUND, "correct its id in watch, or the path in base_url")
_PIPELINE_FAILS = {
    Outcome.NOT_FOUND: _UNKNOWN,
    Outcome.REJECTED: _UNKNOWN,
    Outcome.FORBIDDEN: ("refuses pipeline {} to this key", Exit.UNREACHABLE, "let this key read it"),
}
"""Failures that concern one pipeline. Any other failure concerns the key, and requests for all its pipelines."""


async def try_everything(settings: Settings, *, clock: Clock, send: bool) -> Sequence[CheckResult]:
    """Try all accounts, all sinks but stdout, a PostgreSQL store, the heartbeat and the port, all at the same time.

    A store in SQLite and a port 0 are not tried. With `send` each sink gets a `watcher.test`; without `send` a sink is
    only connected to.
    """
    timed = partial(_timed, clock=clock)
    accounts = (_try_account(settings, name, clock=clock) for name in settings.accounts)
    remote = {name: sink for name, sink in settings.sinks.items() if sink.target}
    others = [timed(f"sinks.{name}", each.target, _try_sink(name, each, clock, send)) for name, each in remote.items()]
    if is_postgresql(url := settings.store.url):
        others.append(timed("store.url", url.partition("?")[0], _try_store(settings.store, clock=clock)))
    if settings.heartbeat is not None:
        from watcher.daemon.health import ping  # noqa: PLC0415 (it imports most of the daemon)

        url = settings.heartbeat.url.get_secret_value()
        others.append(timed("heartbeat.url", redact_url(url), _try_heartbeat(ping(URL(url)))))
    if (address := parse_address(settings.http.listen)).port:
        others.append(timed("http.listen", settings.http.listen, _try_listen(address)))
    of_accounts, of_others = await asyncio.gather(asyncio.gather(*accounts), asyncio.gather(*others))
    return [*chain.from_iterable(of_accounts), *of_others]


async def _timed(target: str, place: str | None, trying: Awaitable[TryOutcome], *, clock: Clock) -> CheckResult:
    began_at = clock.monotonic()
    code, words, hint = await trying
    return CheckResult(target, place or "", code, words, (clock.monotonic() - began_at) * 1000, hint)


async def _try_account(settings: Settings, name: str, *, clock: Clock) -> list[CheckResult]:
    """Try the key of an account for each watch.

    Return the result of the key, then one of each watch that fails or has the rule `slow`.
    """
    account, key_path = settings.accounts[name], f"accounts.{name}"
    place, took_ms = redact_url(account.base_url), 0.0

    def result(words: str, code: Exit = Exit.DONE, hint: str = "", *, target: str = key_path) -> CheckResult:
        return CheckResult(target, place, code, words, took_ms, hint)

    def key_failure(answer: Reply) -> CheckResult:
        words, hint = _KEY_FAILS[answer.outcome]
        words = f"{words} ({answer.status_code})" if answer.status_code and "(" not in words else words
        key = f"{key_path}.{'api_key_file' if account.api_key_file else 'api_key'}"
        hint = REMEDIES.get(answer.reason or "", hint).format(key=key)
        return result(words.format(cause=answer.reason), Exit.UNREACHABLE, hint)

    watched = {f"watch[{nth}]": watch for nth, watch in enumerate(watches_of(settings)) if watch.account == name}
    pipelines = {target: watch.pipeline for target, watch in watched.items()} or {key_path: str(uuid.uuid4())}
    of_watches: list[CheckResult] = []
    async with open_client(account, connections=1) as client:
        api = ClerkApi(client, base_url=account.base_url, clock=clock)
        for nth, (target, pipeline) in enumerate(pipelines.items()):
            if nth:
                await asyncio.sleep(1 / (account.rate_limit * SHARE))
            began_at = clock.monotonic()
            answer = await api.list(pipeline=pipeline, page=1)
            took_ms = (clock.monotonic() - began_at) * 1000
            if answer.outcome in _PIPELINE_FAILS:
                words, code, remedy = _PIPELINE_FAILS[answer.outcome]
                remedy += ", or watch it with the key of its own account"
                words = f"{words.format(pipeline)} ({answer.status_code})"
                of_watches.append(result(words, code, remedy, target=target))
            elif answer.outcome is not Outcome.OK:
                return [key_failure(answer), *of_watches]
            elif watched and (slow := next((each for each in watched[target].rules if isinstance(each, Slow)), None)):
                words = slow_words(slow, answer, executions=watched[target].executions)
                of_watches.append(result(words, target=target))
    if len(of_watches) == len(pipelines) and all(trial.code is Exit.UNREACHABLE for trial in of_watches):
        key_result = key_failure(answer)
    else:
        key_result = result("accepts the key" if watched else "accepts the key; nothing is watched with it")
    return [key_result, *(of_watches if watched else ())]


def slow_words(rule: Slow, page: Reply, *, executions: Collection[str] = ()) -> str:
    """Return in words how often the rule `slow` would have reported the successes on the first page of a list.

    With `executions` only those count. A page does not say which executions were paused, so these count, too.
    """
    rows = page.rows or ()
    rows_count = len(rows) + page.skipped
    is_part = rows_count >= PAGE_ROWS or (page.total or 0) > rows_count
    shown = "the first page of the list shows" if is_part else "the list shows"
    successes = [
        (row.started_at, round(row.duration_s * 1_000_000))
        for row in rows
        if row.status == Status.SUCCESS and (not executions or row.id in executions)
        if row.started_at is not None and row.duration_s  # the rule does not count a duration of 0 either
    ]
    durations_us = [duration_us for _, duration_us in sorted(successes)]
    return f"slow: {rule.trial_in_words(durations_us, shown=shown)}"


async def _try_sink(name: str, settings: SinkSettings, clock: Clock, send: bool) -> TryOutcome:
    try:
        sent = await settings.send_test(name, SinkContext(clock)) if send else None
        if sent is None:
            return Exit.DONE, await settings.connect(), ""
    except TransportFailedError as error:
        return Exit.UNREACHABLE, _failed(error.kind), error.remedy
    if sent.outcome is SendOutcome.DELIVERED:
        return Exit.DONE, f"accepted a watcher.test ({sent.answer})", ""
    if sent.outcome is SendOutcome.ACCEPTED:
        return Exit.DONE, f"accepted a watcher.test, and has yet to show it ({sent.answer})", ""
    return Exit.UNREACHABLE, _failed(sent.answer), sent.remedy


def _failed(answer: str) -> str:
    return f"answers {answer}" if answer[:1].isdigit() else f"fails ({answer})"


async def _try_store(settings: StoreSettings, *, clock: Clock) -> TryOutcome:
    """Log in to the PostgreSQL database and read whether it is empty; write nothing."""
    from watcher.store.postgresql import is_empty_database  # noqa: PLC0415 (its driver is optional)

    try:
        password = None if settings.password is None else settings.password.get_secret_value()
        look = partial(is_empty_database, settings.url, password=password, clock=clock)
        words = "can be used; it is empty" if await run_detached(look, name="store") else "can be used"
    except StoreError as error:
        words, _, hint = str(error).removeprefix(f"{settings.url.partition('?')[0]} ").rpartition("; ")
        return Exit.UNREACHABLE, words, hint
    return Exit.DONE, words, ""


async def _try_heartbeat(ping: Awaitable[tuple[str, str]]) -> TryOutcome:
    answer, hint = await ping
    return (Exit.UNREACHABLE, _failed(answer), hint) if answer else (Exit.DONE, "accepts a ping", "")


async def _try_listen(address: Address) -> TryOutcome:
    """Listen for a moment at the daemon's address. An address at which a daemon runs already counts as good."""
    try:
        loop = asyncio.get_running_loop()
        (await loop.create_server(asyncio.Protocol, address.host or None, address.port)).close()
    except (OSError, UnicodeError) as error:
        ask = partial(DaemonClient(local_url(address), None, timeout_s=5.0).send, "GET", "/metrics")
        with suppress(DaemonError):
            if b"watcher_build_info" in (await run_detached(ask, name="listen"))[1]:
                return Exit.DONE, "is in use by a daemon that runs already", ""
        return Exit.UNREACHABLE, f"cannot be listened on ({why_not_bound(error)})", "choose another address or port"
    return Exit.DONE, "is free", ""
