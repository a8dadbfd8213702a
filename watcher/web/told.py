"""Says of each sink when it was sent the events of a problem, or why not yet, or why never.

The words are those of `watcher check --who`.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from watcher.config.in_words import in_words
from watcher.domain.delivery import TAKEN, Delivery, DeliveryState
from watcher.domain.judgement import AFTER, SILENCE
from watcher.domain.problems import PROBLEM_KINDS
from watcher.domain.prospects import Prospect, prospect_during
from watcher.domain.watch import Watch
from watcher.web import models
from watcher.web.console import Console
from watcher.web.deliveries import DeliveryRow
from watcher.web.problems import ProblemRow, is_acknowledged

_UNSENT = {AFTER: "it closed before `after` had passed", SILENCE: "silenced"}
"""Why a problem's events were not sent, by the answers of its settled deliveries."""


def told_of(
    console: Console, problem: ProblemRow, rows: Sequence[DeliveryRow], views: Sequence[models.DeliveryView]
) -> Sequence[models.Told]:
    """Return what each sink was sent of a problem's events, in the order of the configuration.

    `rows` are the deliveries of the problem's events in the order of recording, `views` the models of `rows`.
    """
    of_sinks: dict[str, list[tuple[DeliveryRow, models.DeliveryView]]] = {name: [] for name in console.settings().sinks}
    for each in zip(rows, views, strict=True):
        of_sinks.setdefault(each[0].sink, []).append(each)
    found = []
    for name, deliveries in of_sinks.items():
        sent = [models.Sent(type=view.type, at=row.settled_at or 0) for row, view in deliveries if row.state in TAKEN]
        dead = [row.answer for row, _ in deliveries if row.state == DeliveryState.DEAD]
        pending = next((each for each in deliveries if _is_pending(each[0], problem)), None)
        waiting, until = (None, None) if pending is None else _why_not_yet(console, problem, *pending)
        never = f"dead letter: {dead[-1]}" if dead else None
        if not (sent or pending or dead):
            never = _why_never(console, problem, name, [row for row, _ in deliveries])
        found.append(models.Told(sink=name, sent=sent, waiting=waiting, until=until, never=never))
    return found


def _is_pending(row: DeliveryRow, problem: ProblemRow) -> bool:
    """Return whether a delivery may still be sent. A silenced opening is, if the problem outlasts the silence."""
    is_kept = row.state == DeliveryState.SILENCED and row.type in PROBLEM_KINDS and problem.closed_at is None
    return row.state == DeliveryState.WAITING or is_kept


def _why_not_yet(
    console: Console, problem: ProblemRow, row: DeliveryRow, view: models.DeliveryView
) -> tuple[str, datetime | None]:
    """Return in words why a pending delivery is not sent yet, and when it will be, if that is known."""
    if row.sink not in console.settings().sinks:
        return "the sink is not in the configuration", None
    if view.state == "disabled":
        return f"the sink is disabled: watcher enable-sink {row.sink}", None
    if view.state == "held":
        return f"blocked by delivery {row.earlier}", None
    if view.state == "paused":
        return "the receiver asked for a pause", view.next_try_at
    if view.state == "retrying":
        return f"retry after {row.answer}", view.next_try_at
    now, due = console.clock.now(), view.next_try_at
    silenced = _silenced(console, problem, row, at=due or now)
    if silenced is not None:
        return in_words(silenced), silenced.silenced_until
    if due is None:  # it waits for the sink's rate, its requests in flight or its circuit breaker
        return "pending", None
    if row.type in PROBLEM_KINDS and is_acknowledged(problem, now):
        return "acknowledged", None
    wait_s = (row.due_at - row.recorded_at) / 1e6
    return in_words(Prospect(wait_s=wait_s, is_grouped=row.group_key is not None)), due


def _silenced(console: Console, problem: ProblemRow, row: DeliveryRow, *, at: datetime) -> Prospect | None:
    """Return the silence that keeps a delivery back at `at`, as a prospect; `None` if there is none."""
    labels = json.loads(problem.body or b"{}").get("data", {}).get("labels", {})
    delivery = Delivery(
        row.sink,
        row.number,
        b"",
        UUID(bytes=row.event_id),
        row.type,
        b"",
        row.recorded_at,
        row.due_at,
        account=row.account,
        pipeline=row.pipeline,
        labels=labels,
    )
    return prospect_during(console.silences.active(row.sink, at=at), delivery)


def _why_never(console: Console, problem: ProblemRow, sink: str, rows: Sequence[DeliveryRow]) -> str | None:
    """Return in words why a sink was sent nothing about a problem; `None` if the store no longer has the opening."""
    if rows:
        return f"not: {_UNSENT.get(rows[0].answer or '', 'it no longer held')}"
    if problem.owner_kind == "sink" and problem.owner == sink:
        return "not: it is about this sink"
    if problem.body is None:
        return None
    data = json.loads(problem.body)["data"]
    pipeline, labels = data.get("pipeline", {}).get("id"), data.get("labels", {})
    watch = Watch(data.get("account", ""), pipeline, (), labels=labels) if pipeline else None
    refused_by = console.routes()[sink].refuses(problem.problem.kind, watch)
    return in_words(Prospect(refused_by or "the sink, or its filter, is newer than the problem"))
