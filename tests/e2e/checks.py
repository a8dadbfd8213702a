"""Compares what was reported with what is true. Every function returns complaints, none if all is well."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from e2e.endpoint import Attempt, Receiver
from simulator_facts import answered_statuses, requests_of, time_at, true_path

from watcher.simulator.server import Simulator

Event = dict[str, Any]
Stream = tuple[str, str | None]

TOLERANCE = timedelta(milliseconds=50)
"""Between the clock of the simulator and that of the program: milliseconds are cut, and NTP slews."""

ENDS = frozenset({"success", "failed"})
WITHOUT_CHANGE = frozenset({"execution.overdue", "execution.expensive"})
"""Events that change no status. What comes after them names the status before them."""

REFUSALS = frozenset({400, 403, 404, 410, 422})


def of_all(simulator: Simulator, printed: Sequence[bytes], *receivers: Receiver) -> list[str]:
    """What was printed and what each receiver has is true, whole, in order, and signed."""
    told = [printed, *(each.kept() for each in receivers)]
    complaints = [
        each for bodies in told for each in (*of_truth(bodies, simulator), *of_completeness(bodies, simulator))
    ]
    complaints += of_sequences([body for bodies in told for body in bodies])
    complaints += [complaint for each in receivers for complaint in (*of_order(each.attempts), *each.forgeries)]
    return complaints


def of_sequences(bodies: Iterable[bytes]) -> list[str]:
    """Repetitions are the same bytes; an id is one event, and a sequence one id; no sequence has a hole."""
    by_id: dict[str, bytes] = {}
    complaints = []
    for body in bodies:
        id_ = json.loads(body)["id"]
        if by_id.setdefault(id_, body) != body:
            complaints.append(f"event {id_} came again with other bytes")
    for stream, events in streams(by_id.values()).items():
        sequences = [int(event["sequence"]) for event in events]
        if sequences != list(range(1, len(events) + 1)):
            complaints.append(f"{stream} has the sequences {sequences}")
    return complaints


def of_order(attempts: Sequence[Attempt]) -> list[str]:
    """Nothing is sent before what comes before it was confirmed, and nothing that was overtaken comes again."""
    complaints = []
    confirmed: dict[Stream, int] = defaultdict(int)
    latest: dict[Stream, int] = defaultdict(int)
    for attempt in attempts:
        if attempt.sequence > confirmed[attempt.stream] + 1:
            complaints.append(f"{attempt.stream} {attempt.sequence} was sent after {confirmed[attempt.stream]}")
        if attempt.sequence < latest[attempt.stream]:
            complaints.append(f"{attempt.stream} {attempt.sequence} came after {latest[attempt.stream]}")
        latest[attempt.stream] = attempt.sequence
        if attempt.confirmed:
            confirmed[attempt.stream] = attempt.sequence
    return complaints


def of_truth(bodies: Iterable[bytes], simulator: Simulator, *, tolerance: timedelta = TOLERANCE) -> list[str]:
    """What was reported was so, at that time and in that order; an end is reported once; a loss has its reason.

    The clocks of those who reported are within `tolerance` of the simulator's.
    """
    changes = {
        subject: [event for event in events if event["type"] not in WITHOUT_CHANGE]
        for (_, subject), events in streams(bodies).items()
    }
    return [
        complaint
        for subject, events in changes.items()
        if subject is not None
        for complaint in _of_execution(subject, events=events, simulator=simulator, tolerance=tolerance)
    ]


def of_completeness(bodies: Iterable[bytes], simulator: Simulator) -> list[str]:
    """Of every execution that has ended the end is reported, or that it was lost."""
    last = {subject: events[-1] for (_, subject), events in streams(bodies).items()}
    complaints = []
    for execution in simulator.world.executions():
        path = true_path(simulator.world, execution.id)
        wanted = "lost" if not execution.is_visible(simulator.world.now_s()) else path[-1].status
        emitted = last[execution.id]["data"]["execution"]["status"] if execution.id in last else None
        if emitted != wanted:
            complaints.append(f"{execution.id}: the last that was reported is {emitted}, true is {wanted} of {path}")
    return complaints


def of_everything_answered(bodies: Iterable[bytes], simulator: Simulator) -> list[str]:
    """Every status that an answer showed was reported. For a daemon that was never killed between the two."""
    emitted = {subject: events for (_, subject), events in streams(bodies).items()}
    complaints = []
    for execution in simulator.world.executions():
        statuses = [status for status, _ in groupby(_statuses(emitted.get(execution.id, [])))]
        answered = answered_statuses(simulator.request_log, execution.id)
        if statuses != answered:
            complaints.append(f"{execution.id}: reported {statuses}, answered {answered}")
    return complaints


def of_alternation(bodies: Iterable[bytes], *, troubles_count: int) -> list[str]:
    """An account that is well again was degraded and recovered by turns, and no more often than it had trouble."""
    complaints = []
    for (source, subject), events in streams(bodies).items():
        types = [event["type"] for event in events]
        if subject is None and source.startswith("/accounts/"):
            turns = ["account.degraded", "account.recovered"] * (len(types) // 2)
            if types != turns or len(types) > 2 * troubles_count:
                complaints.append(f"{source} reported {types} over {troubles_count} troubles")
    return complaints


def streams(bodies: Iterable[bytes]) -> dict[Stream, list[Event]]:
    """Return the events of each source and subject by their sequence, each once."""
    events = {body: json.loads(body) for body in bodies}.values()
    by_stream: dict[Stream, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event["sequence"]):
        by_stream[event["source"], event.get("subject")].append(event)
    return by_stream


def _statuses(events: Iterable[Event]) -> list[str]:
    return [event["data"]["execution"]["status"] for event in events if event["type"] != "execution.lost"]


def of_lasting_answers(bodies: Iterable[bytes], simulator: Simulator, *, lasting_s: float) -> list[str]:
    """Every status that answers showed for so long was reported: whoever died in that time, somebody wrote it down."""
    emitted = {subject: events for (_, subject), events in streams(bodies).items()}
    complaints = []
    for execution in simulator.world.executions():
        answers = ((entry.at, entry.answered) for entry in requests_of(simulator.request_log, execution.id))
        for status, same in groupby(((at, status) for at, status in answers if status), key=itemgetter(1)):
            times = [at for at, _ in same]
            if times[-1] - times[0] >= lasting_s and status not in _statuses(emitted.get(execution.id, [])):
                complaints.append(f"{execution.id}: {status} was answered for {times[-1] - times[0]:.1f} s")
    return complaints


def _of_execution(
    execution: str, *, events: Sequence[Event], simulator: Simulator, tolerance: timedelta
) -> Iterator[str]:
    if simulator.world.find(execution) is None:
        yield f"{execution} does not exist"
        return
    path = true_path(simulator.world, execution)
    if not _is_subsequence([status for status, _ in groupby(_statuses(events))], [moment.status for moment in path]):
        yield f"{execution}: reported {_statuses(events)}, true is {path}"
    if sum(status in ENDS for status in _statuses(events)) > 1:
        yield f"{execution}: more than one end in {_statuses(events)}"
    for before, event in zip([None, *events], events, strict=False):
        yield from _of_event(event, before=before, simulator=simulator, tolerance=tolerance)


def _of_event(event: Event, *, before: Event | None, simulator: Simulator, tolerance: timedelta) -> Iterator[str]:
    emitted = event["data"]["execution"]
    if emitted.get("previousStatus") != (before and before["data"]["execution"]["status"]):
        yield f"{emitted} was reported after {before}"
    if event["type"] == "execution.lost":
        if not _is_excused(event, simulator=simulator, tolerance=tolerance):
            asked = [
                (round(entry.at, 2), entry.fault, entry.code, entry.answered)
                for entry in requests_of(simulator.request_log, event["subject"])
            ]
            yield f"{emitted['id']} was reported as lost without a reason: {event['data']['observed']}, {asked[-12:]}"
    elif not _was_so(event, simulator=simulator, tolerance=tolerance):
        yield f"{emitted['id']} was not {emitted['status']} in {event['data']['observed']}"


def _is_excused(event: Event, *, simulator: Simulator, tolerance: timedelta, answers_count: int = 3) -> bool:
    """Say whether the API refused an execution so many times since it last reported its status."""
    seen_s = (_time(event["data"]["observed"]["at"]) - simulator.world.epoch).total_seconds()
    origin = simulator.world.clock.monotonic() - simulator.world.now_s()
    refused = 0
    for entry in requests_of(simulator.request_log, event["subject"]):
        if entry.at - origin <= seen_s + tolerance.total_seconds():
            refused = 0 if entry.answered else refused + (entry.code in REFUSALS)
    return refused >= answers_count


def _was_so(event: Event, *, simulator: Simulator, tolerance: timedelta) -> bool:
    """Say whether the execution had that status at some moment between the two polls."""
    observed, world = event["data"]["observed"], simulator.world
    until = _time(observed["at"]) + tolerance
    since = _time(observed["notBefore"]) - tolerance if "notBefore" in observed else None
    path = true_path(world, event["subject"])
    ends = [*(time_at(world, moment.at_s) for moment in path[1:]), None]
    return any(
        moment.status == event["data"]["execution"]["status"]
        and time_at(world, moment.at_s) <= until
        and (end is None or since is None or end >= since)
        for moment, end in zip(path, ends, strict=True)
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_subsequence(part: Sequence[str], whole: Sequence[str]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)
