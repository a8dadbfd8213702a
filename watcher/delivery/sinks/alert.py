"""An event as the person on call is to understand it: what, where, why, how bad, and which problem it belongs to.

One grammar for all receivers (headline, error, facts, ids). Knows no receiver: texts are cleaned and cut where used.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from watcher.delivery.sinks.alert_text import clean, in_words, shorten, usable_link
from watcher.domain.models import EventType
from watcher.domain.problems import Severity, severity_of

HEADLINE_LENGTH = 150
NAME_LENGTH = 70
NODE_LENGTH = 35
"""Characters of a headline, and of the names in it, which leave room for what is said of them."""

_TROUBLED_ENDS = frozenset(
    {EventType.EXECUTION_FAILED, EventType.EXECUTION_LOST, EventType.EXECUTION_UNRECOGNIZED},
)
"""What may close a problem, and is trouble itself."""

_GLYPHS: Mapping[EventType, str] = {
    EventType.EXECUTION_NEW: "○",
    EventType.EXECUTION_RUNNING: "▶",
    EventType.EXECUTION_PAUSED: "‖",
    EventType.EXECUTION_SUCCESS: "✓",
    EventType.EXECUTION_LOST: "?",
    EventType.EXECUTION_OVERDUE: "◷",
    EventType.PIPELINE_SILENT: "◷",
    EventType.EXECUTION_UNRECOGNIZED: "!",
    EventType.PIPELINE_GAP: "!",
}

_TITLES: Mapping[EventType, str] = {
    EventType.EXECUTION_NEW: "{who}: a new execution",
    EventType.EXECUTION_RUNNING: "{who} is running",
    EventType.EXECUTION_PAUSED: "{who} is paused",
    EventType.EXECUTION_SUCCESS: "{who} succeeded",
    EventType.EXECUTION_FAILED: "{who} failed{node}",
    EventType.EXECUTION_UNRECOGNIZED: "{who} has an undocumented status",
    EventType.EXECUTION_OVERDUE: "{who} is {status} for too long{over}",
    EventType.EXECUTION_LOST: "{who}: an execution is lost{why}",
    EventType.PIPELINE_FAILING: "{who} keeps failing",
    EventType.PIPELINE_RECOVERED: "{who} recovered{after}",
    EventType.PIPELINE_SILENT: "{who} is silent: nothing starts",
    EventType.PIPELINE_ACTIVE: "{who} is active again{after}",
    EventType.PIPELINE_GAP: "{who}: executions may have been missed{why}",
    EventType.ACCOUNT_DEGRADED: "Account {who}: the API cannot be used{why}",
    EventType.ACCOUNT_RECOVERED: "Account {who} recovered{after}",
    EventType.SINK_FAILING: "Sink {who} is failing{why}",
    EventType.SINK_RECOVERED: "Sink {who} recovered{after}",
    EventType.SINK_DISABLED: "Sink {who} is disabled{why}",
    EventType.WATCHER_TEST: "Test message from clerk-watcher",
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One event. `data` is the event's own; of each of its `nodes` that failed name and error are known."""

    id: str
    type: EventType
    time: datetime
    execution: str | None
    data: Mapping[str, Any]
    nodes: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, body: bytes) -> "Alert":
        """Return what a stored event says."""
        event = json.loads(body)
        time = datetime.fromisoformat(event["time"])
        data = event["data"]
        failed = data.get("execution", {}).get("failedNodes", ())
        nodes = tuple((each.get("name") or each.get("id") or "", each.get("error") or "") for each in failed)
        execution = data.get("execution", {}).get("id")
        return cls(event["id"], EventType(event["type"]), time, execution, data, nodes)

    @property
    def problem(self) -> Mapping[str, Any] | None:
        """Return the problem it opens, changes, reminds of or closes, if there is one."""
        return self.data.get("problem")

    @property
    def closes(self) -> bool:
        """Whether it closes its problem."""
        return self.problem is not None and "closedAt" in self.problem

    @property
    def is_trouble(self) -> bool:
        """Whether it is bad news, though it may close a problem."""
        if self.closes:
            return self.type in _TROUBLED_ENDS
        return severity_of(self.kind) is not Severity.INFO

    @property
    def kind(self) -> EventType:
        """Return what the event is about: of a reminder and of `problem.closed` what opened the problem."""
        if self.problem is not None and self.type in {EventType.PROBLEM_REMINDER, EventType.PROBLEM_CLOSED}:
            return EventType(self.problem["kind"])
        return self.type

    @property
    def severity(self) -> Severity:
        """Return how bad it is."""
        return Severity.INFO if self.closes and not self.is_trouble else severity_of(self.kind)

    @property
    def seen_at(self) -> datetime:
        """Return when it was seen."""
        return datetime.fromisoformat(self.data["observed"]["at"])

    @property
    def link(self) -> str | None:
        """Return the link to the execution or the pipeline, if it can be used."""
        return usable_link(self.data.get("link"))

    @property
    def pipeline(self) -> str | None:
        """Return the pipeline's name, else its id."""
        pipeline: Mapping[str, str] = self.data.get("pipeline", {})
        return pipeline.get("name") or pipeline.get("id")

    @property
    def error(self) -> str:
        """Return why, in the words of whoever says so: the first node's error, the execution's, else what is known."""
        of_node = self.nodes[0][1] if self.nodes else ""
        known = (self.data.get("cause"), self._at_most())
        return of_node or self.data.get("execution", {}).get("error") or ", ".join(filter(None, known))

    @property
    def headline(self) -> str:
        """Return the one line that has to do, with a sign for how it is."""
        return shorten(f"{self._glyph()} {self.title}", HEADLINE_LENGTH)

    @property
    def title(self) -> str:
        """Return that line without the sign."""
        title = self._title()
        if self.type is EventType.PROBLEM_REMINDER and self.problem is not None:
            open_s = (self.seen_at - datetime.fromisoformat(self.problem["openedAt"])).total_seconds()
            return f"Still open after {in_words(max(0.0, open_s))}: {title}"
        if self.type is EventType.PROBLEM_CLOSED:
            return f"No longer watched: {title}"
        if self.overdue_text is not None and not self.is_trouble:
            return f"{title}, no longer overdue"
        return title

    @property
    def overdue_text(self) -> str | None:
        """Return for how long an execution was overdue that no longer is."""
        problem = self.problem or {}
        is_over = self.closes and problem["kind"] == EventType.EXECUTION_OVERDUE
        return in_words(problem["durationSeconds"]) if is_over else None

    def _glyph(self) -> str:
        if self.closes and not self.is_trouble:
            return "✓"
        return _GLYPHS.get(self.kind) or ("✕" if self.is_trouble else "✓")

    def _title(self) -> str:
        execution, over_s = self.data.get("execution", {}), self.data.get("overdueSeconds")
        why = self.data.get("reason") or self.data.get("answer")
        return _TITLES[self.kind].format(
            who=self._who(),
            node=f" at {shorten(self.nodes[0][0], NODE_LENGTH)}" if self.nodes and self.nodes[0][0] else "",
            status=shorten(execution.get("status", ""), NODE_LENGTH),
            over="" if over_s is None else f", by {in_words(over_s)}",
            why=f" ({shorten(why, NODE_LENGTH)})" if why else "",
            after=self._after(),
        )

    def _who(self) -> str:
        if self.pipeline is not None:
            return shorten(self.pipeline, NAME_LENGTH)
        return clean(self.data.get("sink") or self.data.get("account") or "")

    def _after(self) -> str:
        problem = self.problem or {}
        after = f" after {in_words(problem['durationSeconds'])}" if "durationSeconds" in problem else ""
        return f"{after} ({problem['count']:,} failed)" if problem.get("count") else after

    def _at_most(self) -> str | None:
        count = self.data.get("atMost")
        return None if count is None else f"at most {count:,}"
