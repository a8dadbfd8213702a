"""The history of a pipeline over some weeks, written into a store as it is counted there."""

from console_rig import Desk
from sample_events import PIPELINE
from sqlalchemy import insert, update
from stores import DAY_US, START_US

from watcher.domain.event import EventType
from watcher.domain.history import HOUR_US, EndedExecution, error_kind_of
from watcher.domain.timestamps import Micros
from watcher.store.history import count_ends
from watcher.store.sources import Source
from watcher.store.tables import problem, scan, snapshot, source

MINUTE_US = 60_000_000
PATH = f"/pipelines/default/{PIPELINE}"
NOW = START_US + 9 * HOUR_US + 25 * MINUTE_US
TIMEOUT, NO_ANSWER = "timeout after 30 s", "the model returned no answer"


async def know_from(desk: Desk, at: int | None) -> None:
    """Let the history be known from that moment on."""
    await desk.store.write(lambda connection: connection.execute(update(scan).values(known_from=at)))


async def with_history(desk: Desk) -> Desk:
    """Let it be `NOW` on a desk, all be well, and the history be known for 29 days."""
    desk.clock.us = NOW
    await be_well(desk)
    await know_from(desk, NOW - 29 * DAY_US)
    return desk


async def be_well(desk: Desk) -> None:
    """Let it be known how the pipeline is."""
    await desk.store.write(
        lambda connection: connection.execute(update(source).where(source.c.kind == "account").values(state=None))
    )
    await desk.store.write(lambda connection: connection.execute(update(snapshot).values(written_at=desk.clock.us)))


def ended(
    at: int, status: str = "success", *, duration_s: float = 12.0, tokens: int = 0, error: str = TIMEOUT
) -> EndedExecution:
    """Return an execution that ended then, and started as long before as it ran."""
    began = Micros(at - round(duration_s * 1e6))
    if status == "failed":
        return EndedExecution(began, Micros(at), status, tokens, error=error_kind_of("Greeting", error))
    return EndedExecution(began, Micros(at), status, tokens, duration_s if status == "success" else None)


async def count(desk: Desk, *ends: EndedExecution, name: str = f"default/{PIPELINE}") -> None:
    """Count ends of a pipeline."""
    number = await desk.store.number_of(Source("pipeline", name))
    await desk.store.write(lambda connection: count_ends(connection, ((number, each) for each in ends)))


async def open_problem(desk: Desk, number: int, *, opened_at: int, closed_at: int | None = None) -> None:
    """Record that the pipeline kept failing."""
    row = {
        "id": bytes([number] * 16),
        "kind": EventType.PIPELINE_FAILING,
        "pipeline_id": await desk.store.number_of(Source("pipeline", f"default/{PIPELINE}")),
        "source_id": await desk.store.number_of(Source("account", "default")),
        "opened_at": opened_at,
        "closed_at": closed_at,
        "stream": b"none",  # so that there is no event of it
        "sequence": number,
    }
    await desk.store.write(lambda connection: connection.execute(insert(problem), row))


async def a_night(desk: Desk, *, days: int = 1) -> None:
    """Count these days: ends each hour, more by day; in the last night most fail for a while, and a problem is open."""
    now, ends = desk.clock.us, []
    for hour in range(24 * days):
        begins = now - now % HOUR_US - hour * HOUR_US
        for index in range(3 + 9 * (hour % 24 > 9)):
            is_failed = (hour in (8, 9) and index % 4 > 0) or (hour, index) == (17, 0)
            text = NO_ANSWER if index == 2 else TIMEOUT
            ends.append(
                ended(
                    begins + index,
                    "failed" if is_failed else "success",
                    duration_s=8.0 + (7 * hour + 5 * index) % 23,
                    tokens=400 + 31 * index,
                    error=text,
                )
            )
    await count(desk, *ends)
    opened_at = now - 9 * HOUR_US + 10 * MINUTE_US
    await open_problem(desk, 77, opened_at=opened_at, closed_at=opened_at + 95 * MINUTE_US)
