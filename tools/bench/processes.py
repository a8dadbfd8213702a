"""The processes of a measurement: who runs on which core, and what one of them costs while it is watched."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.bare import ask_for_ever
from bench.counters import Counters, new_counters, spawning

PATIENCE_S = 120.0
_SLICE_S = 0.005
_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORES = _CORES[:1]
MEASURED_CORES = _CORES[1:2] or _CORES
"""The measured program has one core to itself, where there are two: else its ratio to the bare loop is luck."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What went by while a process was watched. Times in seconds."""

    served_count: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        """Return how many were served a second."""
        return self.served_count / self.wall_s

    @property
    def cpu_s_each(self) -> float:
        """Return the CPU time of one."""
        return self.cpu_s / self.served_count


def wait_until(condition: Callable[[], bool]) -> None:
    """Return once it holds. Raises `TimeoutError` if that takes two minutes."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > give_up_at:
            raise TimeoutError
        time.sleep(_SLICE_S)


def observe_cost(process: psutil.Process, counters: Counters, *, wait: Callable[[], None]) -> Cost:
    """Watch a process until `wait` returns while the server of these counters counts what it asks for."""
    before_s, served, began_at = cpu_s(process), counters.served_count, time.monotonic()
    wait()
    return Cost(counters.served_count - served, time.monotonic() - began_at, cpu_s(process) - before_s)


def cpu_s(*processes: psutil.Process) -> float:
    """Return the CPU time of these so far."""
    return sum(times.user + times.system for times in (each.cpu_times() for each in processes))


@contextmanager
def _spawned(target: Callable[..., None], *arguments: object, cores: Sequence[int]) -> Iterator[psutil.Process]:
    process = spawning.Process(target=target, args=arguments, daemon=True)
    process.start()
    running = psutil.Process(process.pid)
    running.cpu_affinity(list(cores))
    try:
        yield running
    finally:
        process.kill()
        process.join()


@contextmanager
def server(target: Callable[[Counters], None]) -> Iterator[Counters]:
    """Run a server in a process of its own, and give its counters once it listens."""
    counters = new_counters()
    with _spawned(target, counters, cores=SERVER_CORES):
        wait_until(lambda: counters.port > 0)
        yield counters


def bare_loop(base_url: str, *, executions: tuple[str, ...], workers: int) -> AbstractContextManager[psutil.Process]:
    """Run the bare loop in a process of its own."""
    return _spawned(ask_for_ever, base_url, executions, workers, cores=MEASURED_CORES)


def events_of(config: Path) -> Path:
    """Return the file that a daemon of this configuration writes its events to, one a line."""
    return config.with_name("events.jsonl")


def commits_in(config: Path) -> int:
    """Return how many transactions wrote to a daemon's SQLite file: the index of its log counts them (`iChange`)."""
    with config.with_name("watcher.db-shm").open("rb") as index:
        return int.from_bytes(index.read(12)[8:], sys.byteorder)


def lines_in(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def daemon(config: Path) -> AbstractContextManager[psutil.Process]:
    """Run the real program; its events go to the file of `events_of`. Raises `RuntimeError` if it complained."""
    return _running(config, "watcher")


def counted_daemon(config: Path) -> AbstractContextManager[psutil.Process]:
    """Run it with each call of its functions counted: on SIGUSR1 it writes them to `calls.json` beside its events."""
    return _running(config, "bench.counted", str(config.with_name("calls.json")))


@contextmanager
def _running(config: Path, *module: str) -> Iterator[psutil.Process]:
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    command = [sys.executable, "-m", *module, "run", "--config", str(config)]
    complaints = config.with_name("watcher.log")
    with (
        complaints.open("wb") as log,
        events_of(config).open("wb") as events,
        subprocess.Popen(command, stdout=events, stderr=log, env=environment) as process,
    ):
        running = psutil.Process(process.pid)
        running.cpu_affinity(MEASURED_CORES)
        try:
            yield running
        finally:
            process.kill()
    if complaint := complaints.read_text():
        raise RuntimeError(complaint)
