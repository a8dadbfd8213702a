"""Events of every type as they are stored, with whatever a test wants in them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid5

from watcher.domain.delivery import Delivery
from watcher.domain.envelope import LINE_BYTES, NAMESPACE, encode, timestamp, truncate
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS, severity_of
from watcher.domain.timestamps import NEVER

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
PROBLEM = "7d0c0000-0000-5000-8000-000000000001"
ERROR = "upstream timeout after 30 s"
AT = datetime(2026, 11, 24, 12, 0, 31, tzinfo=UTC)
OPENED_AT = AT - timedelta(minutes=41)
HOSTILE = "</x> *b* <!channel> @everyone [a](http://e) \x1b[31m `c` \u202e"
HOSTILE_PARTS = (
    *("</x>", "*b*", "_i_", "~s~", "<!channel>", "<@U0>", "@everyone", "[a](http://e)", "<http://e|x>", ":tada:"),
    *("\x1b[31m", "\x1b]0;x\x07", "\x9b2J", "\u202e", "\u2028", "\r", "\n", "\t", "\0", "\x7f"),
    *("```", "`c`", "[red]", "[/]", "{{ x }}", "%s", "{who}", "&amp;", "&lt;", "<!date^0^{date}|x>", '"', "\\"),
    *("ä", "漢", "🎉", "e\u0301", "\u200b"),
)
"""What is markup or an order to some reader: of Slack, Discord, HTML, Rich, templates or terminals."""

BLOCKS = frozenset(("execution", "pipeline", "problem", "error", "observed"))

BLANKS = (" ", "\n\t", "\xa0\u2003")
"""What others may call something so that nobody sees a name."""

KINDS_OF_CLOSINGS = {closing: kind for kind, closing in CLOSED_BY.items() if kind is not EventType.SINK_DISABLED}
KINDS_OF_CLOSINGS[EventType.PROBLEM_CLOSED] = EventType.PIPELINE_FAILING
"""A problem that such an event may close, by its kind."""

MOVES = frozenset(f"execution.{word}" for word in ("paused", "success", "failed", "unrecognized", "lost"))
"""What happens to an execution that runs."""


def report_block(*, name: str = "Sales agent", error: str = "upstream timeout", count: int = 1) -> dict[str, Any]:
    """Return a report of so many pipelines that need a look, and of 17 that do not."""
    figures = {"ended": 342, "failed": 30, "successRate": 0.9122, "successRateBefore": 0.984, "tokens": 51_200}
    figures |= {"openProblems": 1, "medianSeconds": 12.3, "p95Seconds": 40.1}
    kind = {"node": "Greeting", "text": error, "count": 12}
    about = {"account": "default", "id": PIPELINE, "name": name, "state": "failing", "needsLook": True}
    lasting = {"kind": EventType.PIPELINE_FAILING, "about": "pipeline", "names": [name], "error": error}
    lasting |= {"what": f"{name} keeps failing, last at Greeting", "from": "2026-11-29T21:10:00.000Z"}
    return {
        "name": "morning",
        "from": "2026-11-29T07:00:00.000Z",
        "until": "2026-11-30T07:00:00.000Z",
        "timezone": "Europe/Berlin",
        "link": "https://watcher.example.com",
        "lookCount": count,
        "wellCount": 17,
        "moreCount": 0,
        "lineCount": count,
        "happened": [lasting] * count,
        "total": figures,
        "pipelines": [{**about, **figures, "error": kind}] * count,
        "errors": [{"pipeline": name, **kind}],
    }


def execution_id(number: int = 1) -> str:
    return f"9a1b0000-0000-4000-8000-{number:012d}"


def problem_block(kind: EventType, *, closed: bool = False) -> dict[str, Any]:
    block: dict[str, Any] = {
        "id": PROBLEM,
        "kind": kind,
        "severity": severity_of(kind),
        "openedAt": timestamp(OPENED_AT),
    }
    if closed:
        block |= {"closedAt": timestamp(AT), "durationSeconds": 2460.0}
    return block | ({"count": 7 if closed else 3} if kind is EventType.PIPELINE_FAILING else {})


def data_of(type_: EventType, number: int = 1) -> dict[str, Any]:
    """Return what an event of this type usually holds."""
    subject = type_.partition(".")[0]
    data: dict[str, Any] = {"observed": {"at": timestamp(AT)}}
    if subject in {"execution", "pipeline", "problem"}:
        data |= {"account": "default", "labels": {"team": "sales"}, "pipeline": {"id": PIPELINE, "name": "Sales agent"}}
    if subject == "execution":
        data["execution"] = {"id": execution_id(number), "status": type_.partition(".")[2]}
    if type_ in MOVES:
        data["execution"]["previousStatus"] = "running"
    if type_ is EventType.EXECUTION_FAILED:
        data["execution"] |= {
            "durationSeconds": 151.0,
            "finishedAt": timestamp(AT),
            "error": f"Greeting: {ERROR}",
            "failedNodes": [{"id": "n1", "name": "Greeting", "error": ERROR}],
        }
        data["observed"]["delaySeconds"] = 0.8
    if type_ is EventType.EXECUTION_OVERDUE:
        data["execution"]["status"] = "running"
        data |= {"overdueSeconds": 125.0, "limitSeconds": 120.0}
    if type_ is EventType.EXECUTION_EXPENSIVE:
        data["execution"] |= {"status": "running", "aiTokensUsed": 23_456}
        data["tokensPerExecution"] = 20_000
    if type_ is EventType.PIPELINE_SILENT:
        data |= {"limitSeconds": 21_600.0, "silentSince": timestamp(OPENED_AT - timedelta(hours=6))}
    if type_ is EventType.PIPELINE_SLOW:
        data["execution"] = {"id": execution_id(number), "status": "running"}
        data |= {"runningSeconds": 125.0, "usualSeconds": 40.0, "limitSeconds": 120.0, "slowCount": 3}
    if type_ is EventType.PIPELINE_OVERSPENDING:
        data |= {"percent": 80, "tokensUsed": 1_612_345, "tokensPerDay": 2_000_000, "day": "2026-11-24"}
    if type_ is EventType.PIPELINE_NEW_ERROR:
        node = {"id": "n1", "name": "Greeting", "error": ERROR}
        data["execution"] = {"id": execution_id(number), "status": "failed", "failedNodes": [node]}
        data["error"] = {"node": "Greeting", "text": ERROR, "fingerprint": "5e" * 16}
    if subject == "account":
        data |= {"account": "default", "reason": "unreachable", "cause": "timeout"}
    if subject in {"sink", "watcher"}:
        data |= {"sink": "ops", "answer": "503"}
    if type_ is EventType.WATCHER_REPORT:
        data = {"report": report_block(), "observed": data["observed"]}
    if type_ is EventType.DELIVERY_DEAD:
        newest = {"type": EventType.EXECUTION_FAILED, "id": execution_id(2), "answer": "422"}
        data |= {"sink": "ops", "count": 3, "newest": newest, "answer": "422", "remedy": "correct url, or template"}
    if type_ in {EventType.EXECUTION_LOST, EventType.PIPELINE_GAP}:
        data["reason"] = "not_found"
    if type_ is EventType.PROBLEM_CLOSED:
        data["reason"] = "removed"
    if type_ is EventType.PROBLEM_ACKNOWLEDGED:
        until = timestamp(AT + timedelta(hours=2))
        data["acknowledgement"] = {"by": "ada", "comment": "looking at it", "until": until}
    return data | _problem_of(type_)


def _problem_of(type_: EventType) -> dict[str, Any]:
    if type_ in PROBLEM_KINDS:
        return {"problem": problem_block(type_)}
    if type_ in {EventType.PROBLEM_REMINDER, EventType.PROBLEM_ACKNOWLEDGED}:
        problem = problem_block(EventType.PIPELINE_FAILING)
        return {"problem": problem, "observed": {"at": problem["openedAt"]}}  # as the opening has it
    kind = KINDS_OF_CLOSINGS.get(type_)
    return {} if kind is None else {"problem": problem_block(kind, closed=True)}


def changed(data: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return data with these changes, in a block such as the execution of its keys; `None` leaves a key out."""
    merged = dict(data)
    for key, value in changes.items():
        if key in BLOCKS and isinstance(value, dict):
            merged[key] = changed(data.get(key, {}), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def sample(
    type_: EventType, *, number: int = 1, data: dict[str, Any] | None = None, sink: str = "ops", **changes: Any
) -> Delivery:
    """Return a delivery of an event; `data` replaces what it usually holds, `changes` are made in that."""
    data = changed(data_of(type_, number) if data is None else data, changes)
    id_ = uuid5(UUID(PIPELINE), f"{type_}/{number}")
    subject = {"subject": data["execution"]["id"]} if type_.startswith("execution.") else {}
    envelope = {
        "specversion": "1.0",
        "id": str(id_),
        "source": f"/accounts/default/pipelines/{PIPELINE}",
        "type": type_,
        **subject,
        "time": timestamp(AT),
        "datacontenttype": "application/json",
        "sequence": f"{number:010d}",
        "data": data,
    }
    body = encode(envelope)
    ordering_key, problem = uuid5(NAMESPACE, f"{type_}{number}").bytes, data.get("problem", {})
    return Delivery(
        sink,
        number,
        ordering_key,
        id_,
        type_,
        body if len(body) <= LINE_BYTES else truncate(envelope),
        recorded_at=NEVER,
        due_at=NEVER,
        account=data.get("account"),
        pipeline=data.get("pipeline", {}).get("id"),
        labels=data.get("labels", {}),
        problem=UUID(problem["id"]) if problem else None,
        closes="closedAt" in problem,
    )


def failed(number: int = 1, *, error: str = ERROR, node: str = "Greeting", **changes: Any) -> Delivery:
    """Return a delivery of `execution.failed`."""
    block = {"failedNodes": [{"id": "n1", "name": node, "error": error}], **changes.pop("execution", {})}
    return sample(EventType.EXECUTION_FAILED, number=number, execution=block, **changes)


def of_text(text: str, type_: EventType = EventType.EXECUTION_FAILED, *, number: int = 1, **changes: Any) -> Delivery:
    """Return an event with this text wherever the API or the user may put one."""
    nodes = [{"id": "n", "name": text, "error": text}] * 9
    data = data_of(type_, number) | {"labels": {text[:256]: text[:256]}, "cause": text}
    if "pipeline" in data:
        data["pipeline"]["name"] = text
    if "execution" in data:
        data["execution"] |= {"status": text, "error": text, "failedNodes": nodes}
    return sample(type_, number=number, data=data, **changes)


def huge(type_: EventType, number: int = 1, *, link_length: int = 2000) -> Delivery:
    """Return an event with as much in it as one may hold, all of it hostile."""
    text = (HOSTILE + '"\\' * 10 + "<&>\U0001f389") * 30
    link = "https://example.com/".ljust(link_length, "x")
    labels = {f"{number}.{HOSTILE}"[:256]: HOSTILE * 4 for number in range(32)}
    return of_text(text[:2000], type_, number=number, labels=labels, link=link, runbook=link[:512])


def happened(delivery: Delivery, at: datetime, *, delay_s: float = 0.8) -> Delivery:
    """Return it as if it had happened at this time, and been seen so much later."""
    event = json.loads(delivery.body) | {"time": timestamp(at)}
    event["data"]["observed"] = {"at": timestamp(at + timedelta(seconds=delay_s)), "delaySeconds": delay_s}
    return replace(delivery, body=encode(event))


def hostile_text(dice: Random, *, count: int = 12) -> str:
    """Return a text of so many parts of which each is markup or an order somewhere."""
    return "".join(dice.choice(HOSTILE_PARTS) for _ in range(count))


def hostile_failures(seed: int, *, count: int) -> list[Delivery]:
    """Return deliveries of `execution.failed` with such texts wherever the API or the user may put one."""
    dice, failures = Random(seed), []
    for number in range(count):
        node = {"id": "n", "name": hostile_text(dice), "error": hostile_text(dice)}
        pipeline, labels = {"name": hostile_text(dice)}, {hostile_text(dice, count=2): hostile_text(dice)}
        execution = {"error": hostile_text(dice), "failedNodes": [node] * dice.randint(1, 3)}
        failures.append(failed(number, pipeline=pipeline, labels=labels, execution=execution))
    return failures


def closing_overdue(type_: EventType, number: int = 1) -> Delivery:
    """Return a delivery of an event that ends an execution's being overdue."""
    return sample(type_, number=number, problem=problem_block(EventType.EXECUTION_OVERDUE, closed=True))


LATEST = {"at": timestamp(AT), "execution": execution_id(28), "node": "Lookup", "error": "upstream returned 404"}
"""The newest failure of a problem, as a reminder has it."""

OVERDUE_ENDS = [closing_overdue(EventType(f"execution.{word}")) for word in ("paused", "success", "failed", "lost")]


def replayed(delivery: Delivery) -> Delivery:
    """Return it as a dead letter that is sent again."""
    return replace(delivery, replayed=True)
