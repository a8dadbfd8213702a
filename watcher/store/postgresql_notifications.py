"""Tells other processes that something was recorded, and hears it from them, by LISTEN and NOTIFY.

It only makes things sooner. A word that is lost, as through a pooler, costs what a sink waits until it looks by itself.
"""

import asyncio
import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector
from threading import Event, Lock
from time import monotonic
from typing import Any

import psycopg

from watcher.runtime.threads import begin
from watcher.store.database import OnRecorded
from watcher.store.postgresql_connector import RECONNECT_BASE_S, Connector
from watcher.store.postgresql_leases import CHANNEL as LEASES_CHANNEL

CHANNEL = "clerk_watcher"

SPACING_S = 0.01
"""NOTIFY holds a lock that every other one waits for: at most one in this time, whatever was recorded meanwhile."""

NAMES_COUNT = 100
"""More names of sinks may not fit into one."""


class Notifications:
    """One thread, which sends and listens. A connection that breaks is made anew, as long as it takes."""

    def __init__(self, connector: Connector, *, on_recorded: OnRecorded, on_released: Callable[[], None]) -> None:
        """Call `on_recorded`, in this event loop, with the names of sinks that others have recorded something for.

        And `on_released` when they have released leases.
        """
        self._connector = connector
        self._on_recorded = on_recorded
        self._on_released = on_released
        self._loop = asyncio.get_running_loop()
        self._lock = Lock()
        self._names: set[str] = set()
        self._closed = Event()
        self._wake_end, self._thread_end = socket.socketpair()
        for end in (self._wake_end, self._thread_end):
            end.setblocking(False)
        self._thread = begin(self._run, name="store-notifications")

    def recorded(self, names: Collection[str]) -> None:
        """Pass it on here, and tell the others soon."""
        self._on_recorded(names)
        with self._lock:
            self._names.update(names)
        self._wake()

    async def close(self) -> None:
        """Send and hear nothing more."""
        self._closed.set()
        self._wake()
        await asyncio.wrap_future(self._thread)
        for end in (self._wake_end, self._thread_end):
            end.close()

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # full: it is awake
            self._wake_end.send(b"x")

    def _run(self) -> None:
        while not self._closed.is_set():
            with suppress(psycopg.Error), self._connector.connect() as connection:
                self._serve(connection)
            self._closed.wait(RECONNECT_BASE_S)

    def _serve(self, connection: psycopg.Connection[Any]) -> None:
        own_pid = connection.info.backend_pid

        def hear(channel: str, pid: int, payload: str) -> None:
            if pid == own_pid:
                return
            with suppress(RuntimeError):  # the loop is closed: nobody is left to hear
                if channel == CHANNEL:
                    self._loop.call_soon_threadsafe(self._on_recorded, payload.split(","))
                else:
                    self._loop.call_soon_threadsafe(self._on_released)

        connection.add_notify_handler(lambda notify: hear(notify.channel, notify.pid, notify.payload))  # by an answer
        for channel in (CHANNEL, LEASES_CHANNEL):
            connection.execute(f"LISTEN {channel}".encode())
        next_at = 0.0
        with DefaultSelector() as selector:
            selector.register(connection.fileno(), EVENT_READ)
            selector.register(self._thread_end, EVENT_READ)
            while not self._closed.is_set():
                selector.select(max(0.0, next_at - monotonic()) if self._names else None)
                with suppress(BlockingIOError):
                    self._thread_end.recv(4096)
                connection.pgconn.consume_input()
                while (heard := connection.pgconn.notifies()) is not None:
                    hear(heard.relname.decode(), heard.be_pid, heard.extra.decode())
                if self._names and monotonic() >= next_at:
                    self._send(connection)
                    next_at = monotonic() + SPACING_S

    def _send(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            names, self._names = self._names, set()
        payload = ",".join(sorted(names)[:NAMES_COUNT])
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))
