"""What a recorded execution looks like as a row, and back. Pure; equal values are shared, for there are many."""

import json
from collections.abc import Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from sqlalchemy import Row

from watcher.domain.models import Counts, Known, LostReason
from watcher.store.tables import execution as table

AnyRow = Row[*tuple[Any, ...]]
"""A row of any columns."""

KEY_BYTES = 16

KNOWN_COLUMNS = (
    table.c.execution,
    table.c.pipeline_id,
    table.c.status,
    table.c.since_at,
    table.c.looked_at,
    table.c.sequence,
    table.c.counts,
    table.c.overdue_sequence,
    table.c.lost,
    table.c.lost_at,
    table.c.ended_at,
    table.c.was_paused,
    table.c.found_at,
)
"""What `known_of` reads, in the order of the fields of `Known`."""


def execution_key(execution: str) -> bytes:
    """Return an execution's id as its 16 bytes; twice as fast as by `UUID`. Raises `ValueError` if it is none."""
    key = bytes.fromhex(execution.replace("-", ""))
    if len(key) != KEY_BYTES:
        raise ValueError("an id has 32 hexadecimal digits")
    return key


def execution_id(key: bytes) -> str:
    """Return the id those 16 bytes stand for; several times faster than by `UUID`."""
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


@lru_cache(maxsize=4096)
def counts_text(counts: Counts) -> str:
    """Return counts as compact text."""
    return json.dumps(dict(counts), separators=(",", ":"))


@lru_cache(maxsize=4096)
def counts_of(text: str) -> Counts:
    """Return the counts of that text. Equal histories share one tuple."""
    return tuple((intern(kind), count) for kind, count in json.loads(text).items())


def execution_row(known: Known, *, account_id: int, pipeline_id: int, stream: bytes | None) -> dict[str, Any]:
    """Return the values of an execution's row by column, each key with `new_` before it."""
    return {
        "new_account_id": account_id,
        "new_execution": execution_key(known.execution),
        "new_pipeline_id": pipeline_id,
        "new_status": known.status,
        "new_since_at": known.since_at,
        "new_looked_at": known.looked_at,
        "new_sequence": known.sequence,
        "new_counts": counts_text(known.counts),
        "new_overdue_sequence": known.overdue_sequence,
        "new_lost": known.lost,
        "new_lost_at": known.lost_at,
        "new_ended_at": known.ended_at,
        "new_was_paused": known.was_paused,
        "new_found_at": known.found_at,
        "new_stream": stream,
    }


def known_of(row: AnyRow, *, name: str, pipelines: Mapping[int, str], now: int) -> Known:
    """Return a row of `KNOWN_COLUMNS` as the execution of that name; `pipelines` maps their numbers to their ids.

    What lies ahead of `now` was written by an earlier life whose clock was: it counts as now, or every look until then
    would be older than the last one.
    """
    _key, pipeline_id, status, since_at, looked_at, sequence, counts, overdue, lost, *unchanged = row
    return Known(
        name,
        pipelines[pipeline_id],
        status and intern(status),
        min(since_at, now),
        min(looked_at, now),
        sequence,
        counts_of(counts),
        overdue,
        lost and LostReason(lost),
        *unchanged,
    )
