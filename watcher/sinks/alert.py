"""An event in words for the person on call: what happened, where, why, how bad it is, and which problem it belongs to.

All receivers get the same parts: headline, error, facts, ids. A name or an error from the API may hold any text: its
control characters are shown as codes, and no template lets its receiver read markup in the text. Lengths are counted in
UTF-16, in which an emoji counts as two characters: no receiver counts more.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EVENT_KINDS, AccountTrouble, ClosedReason, EventType, GapReason, Severity
from watcher.domain.problems import TROUBLED_ENDS, severity_of
from watcher.runtime.terminal import first_visible, harmless
from watcher.runtime.units import spell_duration

HEADLINE_LENGTH = 150
NAME_LENGTH = 70
NODE_LENGTH = 35
"""The most characters of a headline, of a pipeline's name in a headline, and of a node's name in a headline."""

ID_LENGTH = 100
LATE_S = 60.0
"""A message shows the delay of an event that was seen more than this many seconds after it happened."""

TROUBLE, GOOD = ("✕", "red"), ("✓", "green")
_SIGNS_BY_SEVERITY = {Severity.WARNING: ("!", "yellow"), Severity.INFO: GOOD}

_REASONS: Mapping[str, str] = {
    AccountTrouble.UNAUTHORIZED: "it refuses the key",
    AccountTrouble.RATE_LIMITED: "it gets too many requests with this key",
    AccountTrouble.UNREACHABLE: "it cannot be reached",
    AccountTrouble.INVALID: "its answers are not those of the API",
    AccountTrouble.OVER_BUDGET: "rate_limit is too low to hold max_interval",
    GapReason.NOT_FOUND: "the API does not know it",
    GapReason.REJECTED: "the API rejects the request for it",
    GapReason.FORBIDDEN: "this key may not read it",
    GapReason.UNREADABLE: "the API's answers for it cannot be read",
    GapReason.LOOKBACK: "the watcher was off for longer than polling.lookback",
    GapReason.DELETED: "the API deleted some before they were seen",
    GapReason.OUTRUN: "more came than could be read",
    GapReason.UNORDERED: "its list has no order and is too long",
    ClosedReason.REMOVED: "no longer watched",
    ClosedReason.ENDED: "the execution ended without an event",
}
"""The meaning of the words in `data.reason`. `execution.lost` shares some of its reasons with `pipeline.gap`."""

_DISABLED = "its receiver is gone: what is sent to it waits until it is enabled or has a new url"

LINK_LIMIT = 2048
"""The most characters of a link. It is the limit of Discord, the lowest of all receivers."""

_LINK = re.compile(r"https?://[!#-;=?-\[\]_a-z~]+")
"""A link without characters that need percent-encoding: one such character makes a receiver refuse the message."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def sign_of(type_: EventType, severity: Severity | None = None) -> tuple[str, str]:
    """Return the sign of an event, with its style on a terminal. `severity` is by default that of the type."""
    return EVENT_KINDS[type_].sign or _SIGNS_BY_SEVERITY.get(severity or severity_of(type_), TROUBLE)


@dataclass(frozen=True, slots=True)
class Alert:
    """One event in words. `nodes` has the name and the error of each node that failed.

    `data` is the data of the event. If the event names the newest failure of its problem, `data` has that failure in
    place of the execution that opened the problem. With `only_closes` the alert says only that the problem is over.
    `public_url` is the address of the watcher's own pages. It is empty if people cannot reach the pages.
    """

    id: str
    type: EventType
    time: datetime
    execution: str | None
    data: Mapping[str, Any]
    nodes: tuple[tuple[str, str], ...]
    only_closes: bool = False
    public_url: str = ""

    @classmethod
    def of(cls, event: Mapping[str, Any], public_url: str = "") -> "Alert":
        """Return the alert of an event."""
        data = with_newest_failure(event["data"])
        execution = data.get("execution", {})
        nodes = tuple(
            (first_visible(each.get("name"), each.get("id")), first_visible(each.get("error")))
            for each in execution.get("failedNodes", ())
        )
        time = datetime.fromisoformat(event["time"])
        type_, id_ = EventType(event["type"]), execution.get("id")
        return cls(event["id"], type_, time, id_, data, nodes, public_url=public_url)

    @classmethod
    def of_delivery(cls, delivery: Delivery, public_url: str = "") -> "Alert":
        """Return the alert for a delivery: of the whole event, of its closing alone, or of all but its closing."""
        alert = cls.of(delivery.content, public_url)
        if not alert.closes or delivery.part is Part.WHOLE:
            return alert
        return alert.closing() if delivery.part is Part.CLOSING else alert.news()

    def apart(self) -> tuple["Alert", ...]:
        """Return `closing()` and `news()` if the event closes a problem and is trouble itself, else this alert."""
        return (self.closing(), self.news()) if self.closes and self.is_trouble else (self,)

    def closing(self) -> "Alert":
        """Return an alert that says only that the problem is over. Only a type in `TROUBLED_ENDS` says more."""
        return replace(self, only_closes=True, nodes=()) if self.type in TROUBLED_ENDS else self

    def news(self) -> "Alert":
        """Return the alert of the event itself, without the problem that it closes."""
        return replace(self, data={name: value for name, value in self.data.items() if name != "problem"})

    @property
    def problem(self) -> Mapping[str, Any] | None:
        """Return the problem that the event opens, reminds of, acknowledges or closes, or `None`."""
        return self.data.get("problem")

    @property
    def closes(self) -> bool:
        """Whether the event closes its problem."""
        return self.problem is not None and "closedAt" in self.problem

    @property
    def is_trouble(self) -> bool:
        """Whether the event is bad news. An event that closes a problem may be bad news, too."""
        if self.closes:
            return self.type in TROUBLED_ENDS and not self.only_closes
        return self.type is not EventType.PROBLEM_ACKNOWLEDGED and severity_of(self.kind) is not Severity.INFO

    @property
    def closes_when(self) -> str:
        """Return in words what closes the open problem, with the time since the last end if given; "" for a closing."""
        closes_when, last = clean(self.data.get("closesWhen", "")), self.data.get("lastEndedAt")
        if self.closes or not closes_when or last is None:
            return "" if self.closes else closes_when
        return f"{closes_when}; no execution has ended for {spell_duration(_seconds(last, self.time))}"

    @property
    def kind(self) -> EventType:
        """Return the event's type; for a reminder, an acknowledgement or a `problem.closed` the type of the opening."""
        if self.problem is not None and EVENT_KINDS[self.type].is_about_problem:
            return EventType(self.problem["kind"])
        return self.type

    @property
    def severity(self) -> Severity:
        """Return the severity of the event's `kind` if the event is trouble, else `info`."""
        return severity_of(self.kind, percent=self.data.get("percent", 100)) if self.is_trouble else Severity.INFO

    @property
    def delay_s(self) -> float:
        """Return the seconds from the time of the event until it was seen; 0 if the API does not date the event."""
        return float(self.data["observed"].get("delaySeconds", 0.0))

    @property
    def seen_later(self) -> str:
        """Return the delay in words, such as `2 m later`; an empty text if it is at most a minute."""
        return f"{in_words(self.delay_s)} later" if self.delay_s > LATE_S else ""

    @property
    def moment(self) -> tuple[str, datetime]:
        """Return a time with a name for it: when the open problem was opened, else when the event happened."""
        if self.problem and not self.closes:
            return "Since", datetime.fromisoformat(self.problem["openedAt"])
        return "Ended" if "finishedAt" in self.data.get("execution", {}) else "At", self.time

    @property
    def ids(self) -> str:
        """Return the ids of the pipeline, the execution and the event in one line."""
        pipeline = self.data.get("pipeline", {}).get("id", "")
        names = {"pipeline": pipeline, "execution": self.execution or "", "event": self.id}
        return " · ".join(f"{name} {shorten(id_, ID_LENGTH)}" for name, id_ in names.items() if id_)

    @property
    def link(self) -> str | None:
        """Return the account's link to the execution; `None` if there is none that every receiver takes."""
        return usable_link(self.data.get("link"))

    @property
    def page(self) -> str | None:
        """Return the address of our page about the problem, else about the execution; `None` without `public_url`."""
        problem, pipeline = self.problem, self.data.get("pipeline", {}).get("id")
        path = f"problems/{problem['id']}" if problem else ""
        if not problem and self.execution:
            ids = (self.data.get("account", ""), pipeline, self.execution)
            path = "/".join(["executions", *(quote(str(each), safe="") for each in ids)])
        return usable_link(f"{self.public_url}/{path}") if self.public_url and path else None

    @property
    def links(self) -> Mapping[str, str]:
        """Return the links by name: to the execution, to the watcher's own page, to the runbook."""
        links = {"Open": self.link, "Details": self.page, "Runbook": usable_link(self.data.get("runbook"))}
        return {name: link for name, link in links.items() if link}

    @property
    def pipeline(self) -> str | None:
        """Return the pipeline's name, else its id."""
        pipeline: Mapping[str, str] = self.data.get("pipeline", {})
        return first_visible(pipeline.get("name"), pipeline.get("id")) or None

    @property
    def error(self) -> str:
        """Return the error of the first node that failed, else of the execution, else the reason that the event gives.

        An event that only closes a problem has no error.
        """
        if self.closes and not self.is_trouble:
            return ""
        of_node = self.nodes[0][1] if self.nodes else ""
        return first_visible(of_node, self.data.get("execution", {}).get("error")) or self._stated_reason()

    @property
    def headline(self) -> str:
        """Return the sign and the title in one line of at most `HEADLINE_LENGTH` characters. A report has no sign."""
        is_report = self.type is EventType.WATCHER_REPORT
        return shorten(self.title if is_report else f"{self.sign[0]} {self.title}", HEADLINE_LENGTH)

    @property
    def sign(self) -> tuple[str, str]:
        """Return the sign of the event, and its style on a terminal."""
        if self.closes and not self.is_trouble:
            return GOOD
        return sign_of(self.type, self.severity)

    @property
    def title(self) -> str:
        """Return one line that says what happened, without a sign."""
        if self.only_closes:
            return f"{self.who} is no longer overdue, after {self.overdue_text}"
        if self.type is EventType.WATCHER_REPORT:
            return report_title(self.data["report"])
        title = self._title()
        if self.type is EventType.PROBLEM_REMINDER and self.problem is not None:
            return f"Still open after {in_words(self._open_s)}: {title}"
        if self.type is EventType.PROBLEM_ACKNOWLEDGED:
            return f"{self._acknowledged_by()}: {title}"
        if self.type is EventType.PROBLEM_CLOSED:
            return f"Closed, {self._reason()}: {title}"
        if self.overdue_text is not None and not self.is_trouble:
            return f"{title}, no longer overdue"
        return title

    @property
    def happened(self) -> str:
        """Return what happened without the name that the title begins with, to count how often it did."""
        if self.type is EventType.PROBLEM_ACKNOWLEDGED:
            return self._acknowledged_by()
        return self.title.removeprefix(f"{self.who} ")

    @property
    def topic(self) -> str | None:
        """Return the subject of all mails about the problem, such as `Pipeline failing: Sales agent`, or `None`."""
        problem = self.problem
        return f"{problem['kind'].replace('.', ' ').capitalize()}: {self.who}" if problem else None

    @property
    def overdue_text(self) -> str | None:
        """Return for how long the execution was overdue, if the event closes an `execution.overdue`."""
        problem = self.problem or {}
        is_over = self.closes and problem["kind"] == EventType.EXECUTION_OVERDUE
        return in_words(problem["durationSeconds"]) if is_over else None

    @property
    def dwell(self) -> str:
        """Return the status of an overdue execution, the time in this status, and its limit."""
        status = shorten(self.data.get("execution", {}).get("status", ""), NODE_LENGTH)
        limit_s, overdue_s = self.data.get("limitSeconds"), self.data.get("overdueSeconds")
        if limit_s is None or overdue_s is None:  # of version 1.0.0, or not overdue at all
            return f"{status} too long"
        dwell = in_words(limit_s + overdue_s + self._open_s)
        return f"{status} for {dwell}, limit {spell_duration(limit_s)}"

    @property
    def running(self) -> str:
        """Return how long the slowest execution has been running, what is usual, and how many more are slow.

        A later event of the problem gives the limit instead: another execution may be the slowest by now.
        """
        if "runningSeconds" not in self.data:
            return ""
        usual = f"usually {in_words(self.data['usualSeconds'])}"
        if self.type is not EventType.PIPELINE_SLOW:
            return f"{usual}, limit {in_words(self.data['limitSeconds'])}"
        count = self.data["slowCount"] - 1
        more = f"; {count:,} more {'is' if count == 1 else 'are'} slow" if count else ""
        return f"running for {in_words(self.data['runningSeconds'])}, {usual}{more}"

    @property
    def _open_s(self) -> float:
        return 0.0 if self.problem is None else _seconds(self.problem["openedAt"], self.time)

    def _title(self) -> str:
        node = shorten(self.nodes[0][0], NODE_LENGTH) if self.nodes else ""
        answer, count = shorten(self.data.get("answer", ""), NODE_LENGTH), self.data.get("count", 0)
        return EVENT_KINDS[self.kind].title.format(
            who=self.who,
            node=f" at {node}" if node else "",
            last=f", last at {node}" if node else "",
            status=shorten(self.data.get("execution", {}).get("status", ""), NODE_LENGTH),
            dwell=self.dwell,
            running=self.running,
            silent=self._silent(),
            tokens=self._tokens(),
            percent=self.data.get("percent"),
            answer=f" ({answer})" if answer else "",
            letters=f"{count:,} dead letter{'' if count == 1 else 's'}",
            after=self._after(),
        )

    def _silent(self) -> str:
        if "silentSince" not in self.data:  # of version 1.1.0
            return "nothing starts"
        silent_for = in_words(_seconds(self.data["silentSince"], self.time))
        return f"nothing has started for {silent_for}, limit {spell_duration(self.data['limitSeconds'])}"

    def _tokens(self) -> str:
        if "tokensPerDay" in self.data:
            return f" ({self.data['tokensUsed']:,.0f} of {self.data['tokensPerDay']:,.0f})"
        limit = self.data.get("tokensPerExecution")
        used = f"{self.data.get('execution', {}).get('aiTokensUsed', 0):,.0f} tokens"
        return used if limit is None else f"{used} (limit {limit:,.0f})"

    def _acknowledged_by(self) -> str:
        given = self.data.get("acknowledgement", {})
        by, until = shorten(given.get("by") or "", NODE_LENGTH), given.get("until")
        in_time = f" until {datetime.fromisoformat(until).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
        return f"Acknowledged{f' by {by}' if by else ''}{in_time}"

    @property
    def who(self) -> str:
        """Return the name of the pipeline, else of the sink or account that the event is about."""
        if self.pipeline is not None:
            return shorten(self.pipeline, NAME_LENGTH)
        return clean(self.data.get("sink") or self.data.get("account") or "")

    def _after(self) -> str:
        problem = self.problem or {}
        after = f" after {in_words(problem['durationSeconds'])}" if "durationSeconds" in problem else ""
        return f"{after} ({problem['count']:,} failed)" if problem.get("count") else after

    def _stated_reason(self) -> str:
        if self.kind is EventType.SINK_DISABLED:
            return _DISABLED
        if self.kind is EventType.PIPELINE_SILENT and "silentSince" in self.data:
            return f"nothing has started since {in_utc(datetime.fromisoformat(self.data['silentSince']))}"
        if self.kind is EventType.SINK_FAILING:
            return f"what is sent to it waits; watcher test-sink {self.who} says what to do"
        if self.kind is EventType.DELIVERY_DEAD:
            return first_visible(self.data.get("remedy"))
        cause, count = self.data.get("cause"), self.data.get("atMost")
        at_most = None if count is None else f"at most {count:,} of them"
        return ", ".join(filter(None, (f"{self._reason()} ({cause})" if cause else self._reason(), at_most)))

    def _reason(self) -> str:
        reason = self.data.get("reason", "")
        return _REASONS.get(reason, reason)


def with_newest_failure(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event's data. The newest failure, if named, replaces the execution that opened the problem."""
    if (latest := data.get("latest")) is None:
        return data
    opened_by, link = data.get("execution", {}).get("id"), data.get("link", "")
    node = {"name": latest.get("node"), "error": latest.get("error")}
    execution = {"id": latest["execution"], "status": "failed", "failedNodes": [node]}
    return {**data, "execution": execution, "link": link.replace(opened_by, latest["execution"]) if opened_by else link}


def report_title(report: Mapping[str, Any]) -> str:
    """Return the title of a report: its day, and how many pipelines, accounts and sinks need a look."""
    _, until = report_times(report)
    count, *others = look_counts(report)
    looks = [f"{count:,} of {count + report['wellCount']:,}"] if count else []
    looks += [f"{n:,} {what}{'s' if n > 1 else ''}" for n, what in zip(others, ("account", "sink"), strict=True) if n]
    needs = f"{', '.join(looks)} need{'s' if count + sum(others) == 1 else ''} a look"
    return f"Clerk agents, {until:%a} {until.day} {until:%b}: {needs if looks else 'all are well'}"


def look_counts(report: Mapping[str, Any]) -> Sequence[int]:
    """Return how many pipelines, accounts and sinks need a look by a report."""
    lasting = {(each["about"], *each["names"]) for each in report.get("happened", ()) if "until" not in each}
    return [report["lookCount"], *(sum(about == what for about, *_ in lasting) for what in ("account", "sink"))]


def report_times(report: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """Return the start and the end of the span of a report, in the report's time zone, else in this machine's."""
    zone = ZoneInfo(report["timezone"]) if "timezone" in report else None
    since, until = (datetime.fromisoformat(report[key]).astimezone(zone) for key in ("from", "until"))
    return since, until


def _seconds(since: str, until: datetime) -> float:
    return max(0.0, (until - datetime.fromisoformat(since)).total_seconds())


def to_json(value: object) -> str:
    """Return compact JSON."""
    return _ENCODER.encode(value)


def clean(text: str) -> str:
    """Return a text as one line, with its control characters shown as codes."""
    return text if text.isprintable() else harmless(text)


def length(text: str) -> int:
    """Return the number of characters of a text in UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def shorten(text: str, limit: int) -> str:
    """Return a text as one line of at most `limit` characters. A cut text ends with `…`."""
    text = clean(text)
    return text if length(text) <= limit else f"{_beginning(text, limit - 1)}…"


def cut(text: str, limit: int) -> str:
    """Return a text as one line of at most `limit` characters. A cut text ends like `… (+42 chars)`."""
    text = clean(text)
    if length(text) <= limit:
        return text
    kept = _beginning(text, limit - len(_mark_of(len(text))))
    return kept + _mark_of(len(text) - len(kept))


def _mark_of(missing_count: int) -> str:
    return f"… (+{missing_count:,} chars)"


def _beginning(text: str, limit: int) -> str:
    """Return the first `limit` characters of a text, or one less if the cut would split a surrogate pair."""
    return text.encode("utf-16-le")[: 2 * limit].decode("utf-16-le", "ignore")


def usable_link(link: object) -> str | None:
    """Return a link that every receiver takes, else `None`."""
    return link if isinstance(link, str) and len(link) <= LINK_LIMIT and _LINK.fullmatch(link) else None


def in_words(seconds: float) -> str:
    """Return a duration in words: `5.1 s`, `2 m 31 s`, `4 h 12 m`, `3 d 4 h`."""
    return f"{seconds:.1f} s" if round(seconds) < 60 else spell_duration(round(seconds))


def in_utc(moment: datetime) -> str:
    """Return a time in UTC to the second: `2026-11-24 12:00:31 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span(first: datetime, last: datetime) -> str:
    """Return two UTC times as a text such as `10:00:01-10:02:07 UTC`, with dates if the days differ."""
    if first.date() == last.date():
        return f"{first:%H:%M:%S}-{last:%H:%M:%S} UTC"
    return f"{first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S} UTC"
