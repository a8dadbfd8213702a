"""The daemon: it builds its parts from a configuration, runs them until it must stop, and drains them."""

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from socket import gethostname
from traceback import extract_tb
from typing import Any

import structlog

import watcher
from watcher.config.loader import ConfigSource
from watcher.config.models import Settings, StoreSettings
from watcher.daemon.build import OwnerDependencies
from watcher.daemon.health import Heartbeat, Readiness
from watcher.daemon.maintenance import FLUSH_EVERY_S, Maintenance, ProgressLog, waiting_count
from watcher.daemon.operations import Operations
from watcher.daemon.ownership import Ownership
from watcher.daemon.reload import ConfigFollower
from watcher.daemon.reports import Reports
from watcher.daemon.supervisor import DRAIN_S, Supervisor
from watcher.domain.errors import ListenDeniedError, ListenError, StoreError, StoreNotReadyError, StoreUnusableError
from watcher.domain.event_factory import EventFactory
from watcher.domain.routing import Router, Silences
from watcher.runtime.clock import Clock
from watcher.runtime.logs import configure_logs
from watcher.runtime.metrics import Metrics
from watcher.runtime.scheduler import Schedule
from watcher.runtime.tasks import wait_at_most
from watcher.runtime.units import parse_address
from watcher.runtime.version import VERSION
from watcher.sinks.output import StdoutOutput
from watcher.store.operator_store import OperatorStore
from watcher.store.sql_store import SqlStore, open_store
from watcher.store.store_url import is_postgresql
from watcher.web.access import access
from watcher.web.console import Console
from watcher.web.health import Checks, health_routes
from watcher.web.pages import page_routes
from watcher.web.routes import api_routes
from watcher.web.server import HttpServer, why_not_bound

log = structlog.get_logger()

CLOSE_S = 0.5
"""The longest time for each of two steps at the end: counting the pending deliveries, and closing the store."""


class Pages:
    """The HTTP surface: `/livez`, `/readyz` and `/metrics` use `checks`, the API and the pages use `console`."""

    def __init__(self, metrics: Metrics, follower: ConfigFollower, *, clock: Clock) -> None:
        """Serve nothing yet. `address` stays empty until something is served."""
        closed = ["the store cannot be used yet"]
        self.checks = Checks(lambda: (), unready=lambda: asyncio.sleep(0, closed), refresh=lambda: asyncio.sleep(0))
        self.console: Console | None = None
        self._follower = follower
        self.address = ""
        self._metrics = metrics
        self._clock = clock
        self._server: HttpServer | None = None

    async def serve(self, listen: str) -> None:
        """Start serving at `listen`, unless that is done already. Raises `ListenError` if the address is not usable."""
        if self._server is not None:
            return
        clock, settings = self._clock, lambda: self._follower.settings
        routes = [
            *health_routes(lambda: self.checks, self._metrics.text, clock=clock),
            *api_routes(lambda: self.console),
            *page_routes(lambda: self.console, settings, clock),
        ]
        server = HttpServer(routes, clock=clock, access=[access(settings, listen=listen, clock=clock)])
        try:
            port = await server.listen(parse_address(listen))
        except (OSError, UnicodeError) as error:
            await server.close()
            kind = ListenDeniedError if isinstance(error, PermissionError | UnicodeError) else ListenError
            text = f"http.listen: cannot listen on {listen} ({why_not_bound(error)}); choose another address or port"
            raise kind(text) from None
        self._server = server
        self.address = f"{listen.rpartition(':')[0]}:{port}"

    async def close(self) -> None:
        """Stop serving."""
        self.console = None
        server, self._server = self._server, None
        if server is not None:
            await server.close()


async def run(
    settings: Settings,
    *,
    stop: asyncio.Event,
    started: Callable[[str], None] = lambda _address: None,
    source: ConfigSource | None = None,
) -> None:
    """Run the daemon until `stop` is set, then drain it. The drain takes at most 8 s.

    `started` is called with the address of the pages once the daemon runs. Changed settings come from `source`. Raises
    the error that ended the daemon, such as `StoreError`, `ListenError` or `OutputClosedError`.
    """
    clock, metrics = Clock(), Metrics()
    metrics.record_reload(well=True, at=clock.now())
    waiting: int | None = None
    failures: list[BaseException] = []

    def fail(error: BaseException) -> None:
        failures.append(error)
        stop.set()

    async with AsyncExitStack() as stack:
        stack.enter_context(_fatal_errors(fail))
        output = StdoutOutput(1)
        stack.callback(output.close)
        follower = ConfigFollower(source, settings, metrics=metrics, clock=clock, fatal=fail)
        stack.push_async_callback(follower.end)
        pages = Pages(metrics, follower, clock=clock)
        stack.push_async_callback(pages.close)
        if is_postgresql(settings.store.url):  # the server may be away for long, while probes ask and files change
            await pages.serve(settings.http.listen)
            follower.begin()
        store = await open_when_ready(settings.store, clock=clock, stop=stop)
        if store is not None:
            stack.push_async_callback(_close_store, store)
            metrics.store_up.set_function(lambda: store.monitor.failing_since is None)
            store.monitor.on_failure = metrics.store_failures.inc
            clock.advance(store.server_ahead_us)  # to the server's clock, so that all replicas agree on what is due
            events = EventFactory(Router({}))
            shared = OwnerDependencies(
                clock=clock,
                metrics=metrics,
                events=events,
                schedule=Schedule(clock=clock, fatal=fail, lag=metrics.loop_lag.set),
                fatal=fail,
                store=store,
                operator=OperatorStore(store, events),
                silences=Silences(),
                output=output,
            )
            await _work(shared, settings, pages=pages, follower=follower, stop=stop, started=started)
            waiting = await wait_at_most(CLOSE_S, waiting_count(store))
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
    store, schedule, replica = shared.store, shared.schedule, f"{gethostname()}-{os.getpid()}-{token_hex(4)}"
    ownership = Ownership(store.leases, replica=replica, clock=shared.clock, metrics=shared.metrics, fatal=shared.fatal)
    supervisor = Supervisor(shared, ownership)
    operations = Operations(shared, supervisor, follower)
    console = operations.console()
    maintenance = Maintenance(shared, supervisor, ownership, Reports(shared, console))
    readiness = Readiness(shared, ownership)
    heartbeat = Heartbeat(schedule, readiness)

    async def apply(changed: Settings) -> None:
        store.database.use_password(password_of(changed.store))
        await supervisor.apply(changed)
        configure_logs(level=changed.log.level, format_=changed.log.format)
        await heartbeat.apply(changed.heartbeat)

    async with AsyncExitStack() as stack:
        stack.push_async_callback(pages.close)
        stack.push_async_callback(heartbeat.apply, None)
        stack.push_async_callback(_drain, schedule, supervisor)
        stack.push_async_callback(follower.end)
        await _read_silences(operations, stop=stop)
        await supervisor.apply(settings)
        schedule.repeat("operations", operations.tick, every_s=operations.every_s)
        schedule.repeat("maintenance", maintenance.tick, every_s=FLUSH_EVERY_S)
        schedule.repeat("progress", ProgressLog(shared, supervisor).tick, every_s=FLUSH_EVERY_S)
        pages.console = console
        pages.checks = Checks(schedule.stalled_jobs, readiness.problems, maintenance.refresh_gauges)
        await pages.serve(settings.http.listen)  # after the store: a second daemon fails at that, not at the port
        _log_start(settings, store, http=pages.address, replica=replica)
        schedule.start()
        await heartbeat.apply(settings.heartbeat)
        started(pages.address)
        follower.apply = apply
        follower.begin()
        await stop.wait()
        log.info("draining", at_most_s=8)


def _log_start(settings: Settings, store: SqlStore, *, http: str, replica: str) -> None:
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
        http=http,
        replica=replica,
    )


async def _read_silences(operations: Operations, *, stop: asyncio.Event) -> None:
    """Load the stored silences, and try again until that succeeds or `stop` is set.

    Nothing is sent before, because the daemon may start during a silence.
    """
    while not stop.is_set():
        try:
            await operations.read_silences()
            break
        except StoreUnusableError:
            raise
        except StoreError:  # the store logs the error
            await asyncio.sleep(TRY_AGAIN_AFTER_S)


@contextmanager
def _fatal_errors(fatal: Callable[[BaseException], None]) -> Iterator[None]:
    """Call `fatal` with errors of our code that nobody catches, in callbacks and in tasks that nobody awaits.

    An error in a library, such as a broken connection, is only logged, as asyncio does by default.
    """
    ours = f"{Path(watcher.__file__).parent}{os.sep}"

    def see(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        loop.default_exception_handler(context)
        error = context.get("exception")
        if error is not None and any(frame.filename.startswith(ours) for frame in extract_tb(error.__traceback__)):
            fatal(error)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(see)
    try:
        yield
    finally:
        loop.set_exception_handler(None)


async def _drain(schedule: Schedule, supervisor: Supervisor) -> None:
    """Start nothing new, and wait for work in flight. Work that takes too long is cancelled, and is due again later."""
    # Maintenance that hangs on the store is done after the next start.
    await asyncio.gather(supervisor.stop(), wait_at_most(DRAIN_S, schedule.stop()))


async def _close_store(store: SqlStore) -> None:
    """Close the store. If the disk hangs, the end of the process releases the file, and unwritten work is due again."""
    try:
        async with asyncio.timeout(CLOSE_S):
            await store.close()
    except TimeoutError:
        log.warning("store.stuck", at_most_s=CLOSE_S)


TRY_AGAIN_AFTER_S = 0.5


async def open_when_ready(settings: StoreSettings, *, clock: Clock, stop: asyncio.Event) -> SqlStore | None:
    """Open the store. Try again while it is not ready; return `None` if `stop` is set. Raises other `StoreError`s."""
    logged = ""
    while not stop.is_set():
        try:
            store = await open_store(settings.url, clock=clock, password=password_of(settings))
        except StoreNotReadyError as error:
            if str(error) != logged:
                log.error("store.failed", problem=str(error), note="tried again until it works")  # noqa: TRY400 (the text is enough)
            logged = str(error)
            await wait_at_most(TRY_AGAIN_AFTER_S, stop.wait())
        else:
            if logged:
                log.info("store.recovered")
            return store
    return None


def password_of(settings: StoreSettings) -> str | None:
    """Return the password of the store's database, if there is one."""
    return None if settings.password is None else settings.password.get_secret_value()
