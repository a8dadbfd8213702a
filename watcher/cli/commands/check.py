"""`watcher check`: it validates the file, prints the plan, and with `--online` tries keys, sinks, store and more."""

import asyncio
import math
import os
import sys
import uuid
from collections.abc import Awaitable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from yarl import URL

from watcher.clerk.api import PAGE_ROWS, ClerkApi, Reply
from watcher.cli.config_loading import WARNING, load_or_exit, print_problems
from watcher.cli.console import console_on, say
from watcher.cli.daemon_client import DaemonClient, DaemonError, local_url
from watcher.cli.shell import ConfigOption, put, put_error
from watcher.config.checks import find_warnings
from watcher.config.document import Document
from watcher.config.loader import load_config, require_usable
from watcher.config.locate import find_config
from watcher.config.models import PollingSettings, Settings, StoreSettings
from watcher.daemon.from_settings import open_client, watches_of
from watcher.domain.errors import Exit, StoreError, TransportFailedError
from watcher.domain.execution import Outcome, Status
from watcher.polling.evaluator import BACKOFF_SHARE
from watcher.polling.poll_item import LIST_WEIGHT
from watcher.rules.slow import Slow
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import REMEDIES
from watcher.runtime.logs import configure_logs
from watcher.runtime.pacing import SHARE
from watcher.runtime.settings import redact_url
from watcher.runtime.threads import run_detached
from watcher.runtime.units import Address, counted, parse_address, write_duration
from watcher.sinks.protocol import SendOutcome, SinkContext
from watcher.sinks.settings import SinkSettings
from watcher.store.store_url import is_postgresql
from watcher.web.server import why_not_bound

TYPICAL_STATUS_S = 60.0
"""The plan gives the delay of a change after this time in one status: with `backoff` the delay grows with that time."""

_ROUNDING = 1 + 1e-9
"""Factor on a limit in comparisons: a value that equals the limit must not exceed it by a rounding error."""

EXPLAINED = (
    "needed: a poll of each named execution every max_interval (fixed: min_interval), a page of each whole pipeline's "
    f"list every min_interval; delay: the mean for a change after {write_duration(TYPICAL_STATUS_S)} in a status"
)


def check(
    file: Annotated[Path | None, typer.Argument(help="The YAML file, as with --config.", show_default=False)] = None,
    *,
    config: ConfigOption = None,
    online: Annotated[
        bool, typer.Option("--online", help="Poll each watch once; connect to sinks and store; ping the heartbeat.")
    ] = False,
    send: Annotated[bool, typer.Option("--send", help="As --online, and send each sink a test message.")] = False,
    without_secrets: Annotated[
        bool, typer.Option("--without-secrets", help="Only warn of unset variables and absent secret files: for CI.")
    ] = False,
) -> None:
    """Validate the file and print the plan.

    The plan says how many requests per second each account needs, its budget, and how soon changes are seen. Piped, the
    plan is a tab-separated row per account, in seconds and requests per second. With --online a second table shows what
    was tried: a row per key and sink, one per watch that does not work, and one each for a PostgreSQL store, the
    heartbeat, which is pinged once, and http.listen. A watch with the rule slow has a row that says how often the rule
    would have reported the successes on the first page of the list: at most 50, and those that were paused, too. No
    message is sent without --send, and nothing is written into a store. The requests to Clerk Chat keep to rate_limit,
    and are added to those of a daemon with the same key. Likely mistakes are warnings on stderr. The plan ends with the
    silences, and with when each report is due next; piped, they are notes on stderr. Exit codes: 2 the file cannot be
    used, 4 what was tried does not work, 5 a pipeline is not known.

    Examples:
      watcher check watcher.yaml --without-secrets
      watcher check --online --send

    """
    if file is not None and config is not None:
        raise typer.BadParameter("FILE and --config are the same; give one of them")
    if without_secrets and (online or send):
        raise typer.BadParameter("--online and --send need the secrets; leave out --without-secrets")
    path = find_config(file or config, environ=os.environ)
    document = Document(file=str(path), without_secrets=without_secrets)
    settings = load_or_exit(partial(load_config, path, environ=os.environ, document=document))
    require_usable(settings)
    now = Clock().now()
    notes = [("‖ ", line) for line in silence_lines(settings, at=now)]
    notes += [("→ ", line) for line in report_lines(settings, at=now)]
    if sys.stdout.isatty():
        print_plan(plan(settings), settings, file=str(path), console=console_on(sys.stdout))
        for sign, line in notes:
            say(console_on(sys.stdout), (sign, "yellow"), line)
    else:
        print_plan_rows(plan(settings))
        for _, line in notes:
            put_error(f"note: {line}")
        for each in plan(settings):
            if each.advice:
                put_error(f"warning: {each.account}: {each.advice}")
    warnings = find_warnings(document, settings)
    if sys.stderr.isatty():
        print_problems(warnings, source=document.source, console=console_on(sys.stderr), word=WARNING)
    else:
        for warning in warnings:
            put_error(f"warning: {warning}")
    if online or send:
        configure_logs(level="error", format_="auto")  # sinks log to stderr, as in the daemon
        trials = asyncio.run(try_everything(settings, clock=Clock(), send=send))
        if sys.stdout.isatty():
            for trial in trials:
                print_trial(trial, console=console_on(sys.stdout))
        else:
            print_trial_rows(trials)
        if codes := {trial.code for trial in trials} - {Exit.DONE}:
            raise typer.Exit(min(codes))


# The plan is computed from the settings alone. It counts every named execution as open, and one page for each whole
# pipeline, because the number of open executions on later pages is not known beforehand


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """The plan of one account, as `EXPLAINED` describes it. An account that watches nothing has no `delay_s`."""

    account: str
    needed_per_s: float
    budget_per_s: float
    delay_s: float | None = None
    longest_s: float | None = None
    """Longest time between two polls of an execution."""
    advice: str | None = None
    """The settings to change if an interval is too short for the budget."""


def plan(settings: Settings) -> Sequence[AccountPlan]:
    """Return the plans of all accounts, in the order of the file."""
    plans = []
    for name, account in settings.accounts.items():
        counts = [len(watch.executions) for watch in settings.watch if watch.account == name]
        watched = (sum(counts), counts.count(0))
        plans.append(plan_account(name, *watched, rate_limit=account.rate_limit, polling=settings.polling))
    return plans


def plan_account(name: str, named: int, whole: int = 0, *, rate_limit: float, polling: PollingSettings) -> AccountPlan:
    """Return the plan of an account. `named` is its number of named executions, `whole` that of whole pipelines.

    The budget is 98 % of `rate_limit`, in requests per second (docs/guarantees.md). If the budget suffices for
    `max_interval`, named executions and lists alternate: each of the two kinds gets at least half of the budget, or all
    that it needs. Otherwise they take turns, and a list has three turns while an execution has one
    (`watcher/polling/poll_queue.py`).
    """
    budget_per_s = rate_limit * SHARE
    if not (named or whole):
        return AccountPlan(name, 0.0, budget_per_s)
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    rarest_s = min_s if polling.cadence == "fixed" else max_s
    turn_s = (named + LIST_WEIGHT * whole) / budget_per_s
    if not named:
        turn_s = whole / budget_per_s
    elif turn_s < LIST_WEIGHT * max_s:  # a list has three turns, but at most one in each `max_interval`
        turn_s = named / (budget_per_s - whole / max_s)
    return AccountPlan(
        account=name,
        needed_per_s=named / rarest_s + whole / min_s,
        budget_per_s=budget_per_s,
        delay_s=_delay_s(named, whole, polling, budget_per_s=budget_per_s, turn_s=turn_s),
        longest_s=max(rarest_s if named else 0.0, turn_s, max_s if whole else 0.0),
        advice=_advice(named, whole, polling, budget_per_s=budget_per_s),
    )


def _delay_s(named: int, whole: int, polling: PollingSettings, *, budget_per_s: float, turn_s: float) -> float:
    """Return the mean delay in seconds: that of named executions or that of lists, whichever is longer.

    Lists get the part of the budget that named executions leave.
    """
    min_s, max_s = polling.min_interval_s, polling.max_interval_s
    if not named:
        return max(min_s, turn_s) / 2
    typical_s = min_s if polling.cadence == "fixed" else min(max_s, max(min_s, TYPICAL_STATUS_S * BACKOFF_SHARE))
    # The rate that named executions get in any case: half of the budget, or more if lists need less than half.
    share_per_s = max(budget_per_s / 2, budget_per_s - whole / min_s)
    named_s = max(typical_s, min(named / share_per_s, max(max_s, turn_s)))
    list_s = max(min_s, whole / (budget_per_s - named / named_s)) if whole else 0.0
    return max(named_s, list_s) / 2


def _advice(named: int, whole: int, polling: PollingSettings, *, budget_per_s: float) -> str | None:
    """Return the settings to change, `None` if the budget suffices for every interval.

    A list only has to be read once per `max_interval`.
    """
    fixed = polling.cadence == "fixed" and named > 0
    interval_s = polling.min_interval_s if fixed else polling.max_interval_s
    in_turns = min(2 * named, named + whole) if fixed else 0
    needed_per_s = max(in_turns / polling.min_interval_s, named / interval_s + whole / polling.max_interval_s)
    if needed_per_s <= budget_per_s * _ROUNDING:
        return None
    together_s = (named + whole) / budget_per_s
    longer_s = in_turns / budget_per_s if fixed and together_s <= polling.max_interval_s else together_s
    step_s = 1 if longer_s <= 60 else 30  # a round number, as people write it: 84 becomes 90
    longer_s = float(math.ceil(longer_s / step_s) * step_s)
    keys = ["min_interval"] if fixed else []
    if longer_s > polling.max_interval_s:
        keys.append("max_interval")
    return (
        f"over {keys[0]} {write_duration(interval_s)}: "
        f"raise rate_limit to {math.ceil(needed_per_s / SHARE * 10) / 10:.10g}/s, "
        f"or {' and '.join(f'polling.{key}' for key in keys)} to {write_duration(longer_s)}"
    )


# The trials of `--online`. Each watch costs one request for its pipeline's list, whatever its rules. Only with `--send`
# a sink gets a message. Only scheme, host and port of a URL are shown


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


# The output


def print_plan(plans: Sequence[AccountPlan], settings: Settings, *, file: str, console: Console) -> None:
    """Print the plan for people."""
    counts = (("account", settings.accounts), ("watch", settings.watch), ("sink", settings.sinks))
    say(console, ("✓ ", "green"), (file, "bold"), "  ", ", ".join(counted(len(items), word) for word, items in counts))
    headings = ("account", "needed", "budget", "expected delay", "longest interval")
    table = Table(*headings, box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for each in plans:
        seconds = ("-" if figure is None else f"{roughly(figure)} s" for figure in (each.delay_s, each.longest_s))
        table.add_row(each.account, f"{roughly(each.needed_per_s)}/s", f"{roughly(each.budget_per_s)}/s", *seconds)
    console.print(table)
    for each in plans:
        if each.advice:
            say(console, ("! ", "yellow"), f"{each.account}: {each.advice}")
    say(console, (EXPLAINED, "dim"))


def silence_lines(settings: Settings, *, at: datetime) -> list[str]:
    """Return a line for each silence of the configuration file that ends after `at`."""
    lines = []
    for silence in settings.silences:
        begin, end = silence.window(at)
        if end > at:
            match = silence.match
            labels = (f"{key}={value}" for key, value in match.labels.items())
            what = ", ".join((*labels, *match.events, *map(str, match.pipelines), *match.accounts, *match.sinks))
            first = "silent now" if begin <= at else f"silent from {begin:%Y-%m-%d %H:%M}"
            why = f" ({silence.comment})" if silence.comment else ""
            lines.append(f"{first} until {end:%Y-%m-%d %H:%M} UTC: {what}{why}")
    return lines


def report_lines(settings: Settings, *, at: datetime) -> list[str]:
    """Return a line for each report: when it is due next after `at`, in its own time zone, and its sinks."""
    lines = []
    for name, report in settings.reports.items():
        near = chain.from_iterable(report.schedule.last_two(at + timedelta(days=count)) for count in range(1, 9))
        due = next(moment for moment in near if moment > at).astimezone(report.schedule.zone)
        lines.append(f"report {name}: next {due:%a %Y-%m-%d %H:%M} {report.timezone}, to {', '.join(report.sinks)}")
    return lines


def print_plan_rows(plans: Sequence[AccountPlan]) -> None:
    """Print the plan for programs: seconds and rates, separated by tabs. If nothing is watched, fields are empty."""
    put("account", "needed", "budget", "delay", "interval")
    for each in plans:
        figures = (each.needed_per_s, each.budget_per_s, each.delay_s, each.longest_s)
        put(each.account, *("" if figure is None else exactly(figure) for figure in figures))


def roughly(figure: float) -> str:
    """Return a figure with as many digits as people read: 0.017, 3.6, 84."""
    digits = next((digits for digits, below in ((3, 0.1), (2, 1.0), (1, 20.0)) if figure < below), 0)
    return exactly(round(figure, digits))


def exactly(figure: float) -> str:
    """Return a figure with at most three decimals."""
    return f"{figure:.3f}".rstrip("0").rstrip(".")


def print_trial(trial: CheckResult, *, console: Console) -> None:
    """Print the result of a trial for people."""
    sign, style = ("✓ ", "green") if trial.code is Exit.DONE else ("✕ ", "red")
    say(console, (sign, style), (trial.target, "bold"), f"  {trial.place}  {trial.words} ({trial.took_ms:.0f} ms)")
    if trial.hint:
        say(console, "  ", ("hint: ", "bold"), trial.hint)


def print_trial_rows(trials: Iterable[CheckResult]) -> None:
    """Print the results of trials for programs: a second table below the plan; hints go to stderr."""
    put()
    put("target", "works", "ms", "answer")
    for trial in trials:
        put(trial.target, "yes" if trial.code is Exit.DONE else "no", f"{trial.took_ms:.0f}", trial.words)
        if trial.hint:
            put_error(f"hint: {trial.target}: {trial.hint}")
