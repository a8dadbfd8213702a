"""Wiring, in one straight line: what the configuration asks for is built, run until it is to stop, and drained."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from traceback import extract_tb
from typing import Any

import structlog

import watcher
from watcher.config.models import Settings, StoreSettings
from watcher.daemon.heartbeat import Heartbeat
from watcher.daemon.maintenance import FLUSH_EVERY_S, Maintenance
from watcher.daemon.operations import Operations
from watcher.daemon.ownership import Ownership, new_identity
from watcher.daemon.pages import Pages, Readiness
from watcher.daemon.progress_log import PROGRESS_EVERY_S, ProgressLog, waiting_count
from watcher.daemon.reload import ConfigFollower, Reloading
from watcher.daemon.supervisor import DRAIN_S, OwnerDependencies, Supervisor
from watcher.domain.errors import StoreError, StoreNotReadyError, StoreUnusableError
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router, Silences
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule
from watcher.runtime.version import VERSION
from watcher.sinks.output import StdoutOutput
from watcher.store.account_store import SqlAccountStore
from watcher.store.open import open_store
from watcher.store.sql_store import SqlStore
from watcher.store.store_url import is_postgresql
from watcher.web.health import Checks

log = structlog.get_logger()

STOP_S = 8
"""A stop takes no longer: what is in flight has `DRAIN_S`, flushing and closing have the rest."""

LET_GO_S = 0.5
"""How long the store may take to say what waits, and to finish and let go of its file."""

OURS = f"{Path(watcher.__file__).parent}{os.sep}"
"""Where our own code is."""


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    started: Callable[[str], None] = lambda _address: None,
    reloading: Reloading | None = None,
) -> None:
    """Run the daemon until `stop` is set, then finish what is in flight, for at most 8 s.

    `started` is given the address of its pages once it runs, `reloading` says from where other settings may come.
    Raises what ended it otherwise: `StoreError`, `ListenError`, `OutputClosedError`.
    """
    clock, metrics = Clock(), Metrics()
    metrics.reloaded(well=True, at=clock.now())
    waiting: int | None = None
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    async with AsyncExitStack() as stack:
        stack.enter_context(_nothing_unseen(fail))
        output = StdoutOutput(1)
        stack.callback(output.close)
        follower = ConfigFollower(reloading, settings, metrics=metrics, clock=clock, fatal=fail)
        stack.push_async_callback(follower.end)
        pages = Pages(metrics, settings=lambda: follower.settings, clock=clock)
        stack.push_async_callback(pages.close)
        if is_postgresql(settings.store.url):  # it may be away for long: probes ask, and files change meanwhile
            await pages.serve(settings.http.listen)
            follower.begin()
        store = await open_when_ready(settings.store, clock=clock, stop=stop)
        if store is not None:
            stack.push_async_callback(_let_go, store)
            store.show_on(metrics)
            clock.advance(store.ahead_us)  # what is recorded as due now is due now for every replica
            shared = OwnerDependencies(
                account_store=partial(SqlAccountStore, store),
                clock=clock,
                metrics=metrics,
                events=EventFactory(Router({})),
                schedule=Schedule(clock=clock, fatal=fail, lag=metrics.loop_lag.set),
                fatal=fail,
                store=store,
                silences=Silences(),
                output=output,
            )
            await _work(shared, settings, pages=pages, follower=follower, stop=stop, started=started)
            with suppress(TimeoutError):
                async with asyncio.timeout(LET_GO_S):
                    waiting = await waiting_count(store)
    log.info("stopped", waiting=waiting)
    if failures:
        raise failures[0]


async def _work(
    shared: OwnerDependencies,
    settings: Settings,
    *,
    pages: Pages,
    follower: ConfigFollower,
    stop: asyncio.Event,
    started: Callable[[str], None],
) -> None:
    """Poll and send until `stop` is set, then drain."""
    store, schedule, replica = shared.store, shared.schedule, new_identity()
    ownership = Ownership(store.leases, replica=replica, clock=shared.clock, metrics=shared.metrics, fatal=shared.fatal)
    supervisor = Supervisor(shared, ownership)
    operations = Operations(shared, supervisor, follower)
    maintenance = Maintenance(shared, supervisor, ownership)
    readiness = Readiness(store, schedule, ownership, clock=shared.clock)
    heartbeat = Heartbeat(schedule.stalled, readiness.store_problem)

    async def apply(changed: Settings) -> None:
        store.database.use_password(password_of(changed.store))
        await supervisor.apply(changed)
        configure_logs(level=changed.log.level, format_=changed.log.format)
        await heartbeat.go_by(changed.heartbeat)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(supervisor.stop)
        await _read_silences(operations, stop=stop)
        await supervisor.apply(settings)
        schedule.repeat("operations", operations.tick, every_s=operations.every_s)
        schedule.repeat("maintenance", maintenance.tick, every_s=FLUSH_EVERY_S)
        schedule.repeat("progress", ProgressLog(shared, supervisor).tick, every_s=PROGRESS_EVERY_S)
        stack.push_async_callback(heartbeat.go_by, None)
        pages.console = operations.console()
        pages.checks = Checks(schedule.stalled, readiness.problems, maintenance.refresh_gauges)
        stack.push_async_callback(pages.close)  # before what they ask is closed
        await pages.serve(settings.http.listen)  # after a file was opened: its holder is named rather than its port
        _say_started(settings, store, address=pages.address, replica=replica)
        schedule.start()
        await heartbeat.go_by(settings.heartbeat)
        started(pages.address)
        follower.apply = apply
        follower.begin()
        await stop.wait()
        await follower.end()
        log.info("draining", at_most_s=STOP_S)
        await asyncio.gather(supervisor.stop(), _stop_schedule(schedule))


async def _read_silences(operations: Operations, *, stop: asyncio.Event) -> None:
    """Know of the silences before anything is sent: a start within one sends nothing."""
    while not stop.is_set():
        try:
            await operations.read_silences()
            break
        except StoreUnusableError:
            raise
        except StoreError:  # the store says so in the log
            await asyncio.sleep(TRY_AGAIN_AFTER_S)


@contextmanager
def _nothing_unseen(fatal: Callable[[BaseException], None]) -> Iterator[None]:
    """Let an error of ours that nobody catches end the daemon: of a callback, or of a task that nobody waits for.

    What a library leaves behind, such as a broken connection, is only logged, as asyncio does.
    """

    def see(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        error = context.get("exception")
        if error is not None and any(frame.filename.startswith(OURS) for frame in extract_tb(error.__traceback__)):
            fatal(error)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(see)
    try:
        yield
    finally:
        loop.set_exception_handler(None)


def _say_started(settings: Settings, store: SqlStore, *, address: str, replica: str) -> None:
    url = settings.store.url.partition("?")[0]
    if store.created:
        log.info("store.created", store=url, note="new and empty: right for a first start; else check store.url")
    log.info(
        "started",
        version=VERSION,
        accounts=len(settings.accounts),
        watches=len(settings.watch),
        sinks=len(settings.sinks),
        store=url,
        http=address,
        replica=replica,
    )


async def _stop_schedule(schedule: Schedule) -> None:
    with suppress(TimeoutError):  # maintenance that hangs on the store has nothing that would be lost
        async with asyncio.timeout(DRAIN_S):
            await schedule.stop()


async def _let_go(store: SqlStore) -> None:
    """Close the store. What a disk that hangs keeps from being written comes again; the end of the process lets go."""
    try:
        async with asyncio.timeout(LET_GO_S):
            await store.close()
    except TimeoutError:
        log.warning("store.stuck", at_most_s=LET_GO_S)


TRY_AGAIN_AFTER_S = 0.5


async def open_when_ready(settings: StoreSettings, *, clock: Clock, stop: asyncio.Event) -> SqlStore | None:
    """Return the store; `None` if it was not ready by the time the daemon is to stop. Raises `StoreError`."""
    said = ""
    while not stop.is_set():
        try:
            password = password_of(settings)
            store = await open_store(settings.url, clock=clock, password=password)
        except StoreNotReadyError as error:
            if str(error) != said:
                log.error("store.failed", problem=str(error), note="tried again until it works")  # noqa: TRY400 (its text says all)
            said = str(error)
            with suppress(TimeoutError):
                async with asyncio.timeout(TRY_AGAIN_AFTER_S):
                    await stop.wait()
        else:
            if said:
                log.info("store.recovered")
            return store
    return None


def password_of(settings: StoreSettings) -> str | None:
    """Return the password of the store's database, if one is given."""
    return None if settings.password is None else settings.password.get_secret_value()
