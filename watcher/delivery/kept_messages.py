"""Gives deliveries of a sink that updates its messages what is kept of them: where that of their problem is."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from watcher.delivery.sinks.alert import TROUBLED_ENDS
from watcher.domain.delivery import Delivery
from watcher.store.changes import Lease
from watcher.store.sql_store import SqlStore


class _About(NamedTuple):
    """Which problem an event is of, and which pipeline of which account ended badly in it."""

    problem: UUID | None
    pipeline: tuple[str, str] | None


async def with_messages(deliveries: Sequence[Delivery], *, store: SqlStore, lease: Lease) -> list[Delivery]:
    """Return deliveries with the messages that are kept of them. Raises `StoreError`."""
    about = [_about(each) for each in deliveries]
    problems = {each.problem for each in about if each.problem is not None}
    pipelines = {each.pipeline for each in about if each.pipeline is not None}
    messages = await store.messages_of_problems(lease, problems) if problems else {}
    threads = await store.messages_of_failing(lease, pipelines) if pipelines else {}
    return [
        replace(
            delivery,
            message=None if of.problem is None else messages.get(of.problem),
            thread=None if of.pipeline is None else threads.get(of.pipeline),
        )
        for delivery, of in zip(deliveries, about, strict=True)
    ]


def _about(delivery: Delivery) -> _About:
    data = json.loads(delivery.body).get("data", {})
    problem = data.get("problem", {}).get("id")
    of_pipeline = (data["account"], data["pipeline"]["id"]) if delivery.type in TROUBLED_ENDS else None
    return _About(None if problem is None else UUID(problem), of_pipeline)
