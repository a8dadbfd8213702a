"""What a chat is sent when much goes wrong at once: problems together, and no failure that its problem covers."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import pytest
from pager_rig import FakePagerDuty, PagerRig
from stores import backlog_of
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES, FakeClock, do

from watcher.config.checks import outage_messages
from watcher.config.models import WatchSettings
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.routing import Grouped, GroupRules, Silence
from watcher.rules import RulesSettings
from watcher.sinks.chat import notice_of_batch
from watcher.sinks.email import EmailSettings
from watcher.sinks.protocol import SendResult, Sink
from watcher.sinks.settings import RemoteSettings
from watcher.sinks.webhook import WebhookSettings

TOGETHER = GroupRules(("account",), wait_s=10.0, max_count=10_000, of=Grouped.PROBLEMS)
CHAT = replace(RULES, problem_group=TOGETHER, covers=True, rate_per_s=1.0)
FAILURES = GroupRules(("account",), wait_s=10.0, max_count=10_000, of=Grouped.WITHOUT_PROBLEMS)


class FakeChat(Sink):
    """Keeps the headline of each message that it took, and for how long each opening had been open by then."""

    def __init__(self, clock: FakeClock) -> None:
        self.answer = DELIVERED
        self.headlines: list[str] = []
        self.errors: list[str] = []
        self.taken: list[Delivery] = []
        self.waited_s: list[float] = []
        self.complaints: list[str] = []
        self._clock = clock

    async def send(self, batch: Sequence[Delivery]) -> SendResult:
        if self.answer.outcome.is_taken:
            notice = notice_of_batch(batch)
            self.headlines.append(notice.headline)
            self.errors.append(notice.error)
            self.taken += batch
            now = self._clock.steady_us()
            self.waited_s += [(now - each.recorded_at) / 1e6 for each in batch if each.opens]
        return self.answer


class ChatRig(PagerRig):
    """A rig whose sink is a chat."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, loop=False)
        self.chat = FakeChat(self.clock)
        self.pager = cast("FakePagerDuty", self.chat)
        self.types = frozenset(EventType) - {EventType.EXECUTION_RUNNING}

    def settled_as(self, type_: EventType) -> list[tuple[str, str | None]]:
        """Return how the deliveries of this type were settled, in their order."""
        query = "SELECT state, answer FROM delivery JOIN event ON event.id = number WHERE type = ? ORDER BY number"
        with closing(sqlite3.connect(self.path)) as connection:
            return list(connection.execute(query, (type_,)))


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ChatRig]:
    rig = ChatRig(tmp_path / "watcher.db")
    yield rig
    assert rig.ends == []
    do(rig.kill())


def test_three_problems_that_open_together_are_a_message_each(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    for name in ("one", "two", "three"):
        do(rig.opens(name))
    do(rig.later(15))
    assert [each.partition(" keeps")[0] for each in rig.chat.headlines] == ["✕ one", "✕ two", "✕ three"]


def test_an_outage_is_one_message_one_of_its_acknowledgements_and_one_of_its_end(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    problems = {f"Agent {number}": do(rig.opens(f"Agent {number}")) for number in range(40)}
    do(rig.later(11))
    for problem in problems.values():
        do(rig.acknowledge(problem))
    do(rig.later(11))
    for name, problem in problems.items():
        do(rig.closes(name, problem))
    do(rig.later(11))
    assert [each.partition(" (")[0] for each in rig.chat.headlines] == [
        "✕ 40 failing in 40 pipelines",
        "◆ 40 acknowledged in 40 pipelines",
        "✓ 40 recovered in 40 pipelines",
    ]
    assert [each.splitlines()[0].partition(" of")[0] for each in rig.chat.errors] == [
        "40 \N{MULTIPLICATION SIGN} Greeting: error",
        "40 \N{MULTIPLICATION SIGN} Acknowledged by ann",
        "40 \N{MULTIPLICATION SIGN} recovered after 22.0 s",
    ]
    assert "In: Agent 0, Agent 1, " in rig.chat.errors[0]
    assert len(rig.chat.taken) == 120
    assert do(backlog_of(rig.real_store)) == {}


def test_failures_of_a_pipeline_whose_problem_is_known_are_covered(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    do(rig.fails("run 0", then_s=1))
    problem = do(rig.opens("Agent"))
    do(rig.fails("run 1", then_s=1))  # the opening waits for its group
    do(rig.later(10))
    do(rig.fails("run 2", then_s=1))  # the opening was sent
    do(rig.closes("Agent", problem, then_s=11))
    do(rig.fails("run 3", then_s=1))
    answers = [("delivered", "204"), ("silenced", "covered"), ("silenced", "covered"), ("delivered", "204")]
    assert rig.settled_as(EventType.EXECUTION_FAILED) == answers


@pytest.mark.parametrize("why", ["another pipeline", "after", "a silence", "a retry", "no rule", "a blocked opening"])
def test_failures_are_not_covered_by_a_problem_that_is_not_known_there(rig: ChatRig, why: str) -> None:
    rules = {"after": replace(CHAT, after_s=600.0), "no rule": replace(CHAT, covers=False)}.get(why, CHAT)
    do(rig.start(rules=rules))
    if why == "a silence":
        at, kinds = rig.clock.now(), (EventType.PIPELINE_FAILING,)
        rig.silences.all = [Silence(at, at + timedelta(hours=1), types=kinds, sinks=("ops",))]
    if why == "a blocked opening":
        do(rig.closes("Agent", do(rig.opens("Agent", then_s=11))))
        rig.chat.answer = replace(FAILED, retry_after_s=600.0)
        do(rig.later(11))
        rig.chat.answer = DELIVERED
    do(rig.opens("other" if why == "another pipeline" else "Agent"))
    if why == "a retry":
        rig.chat.answer = FAILED
        do(rig.later(11))
        rig.chat.answer = DELIVERED
    do(rig.fails("run", then_s=3))
    assert rig.settled_as(EventType.EXECUTION_FAILED) == [("delivered", "204")]


def test_a_covered_failure_that_ends_an_overdue_goes_as_its_closing_alone(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    overdue = do(rig.hangs("run", then_s=11))
    do(rig.opens("Agent", then_s=11))
    do(rig.ends_overdue("run", overdue, then_s=11))
    assert rig.chat.headlines[-1].startswith("✓ Agent is no longer overdue")


def test_what_is_overdue_and_expensive_in_one_pipeline_is_one_message(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    do(rig.hangs("run 1"))
    do(rig.hangs("run 2"))
    do(rig.is_expensive("run 3"))
    do(rig.is_expensive("run 4", "Other"))
    do(rig.later(15))
    assert [each.partition(" (")[0] for each in rig.chat.headlines] == [
        "! 2 overdue, 1 expensive in Agent",
        "! Other is expensive: 0 tokens in one execution",
    ]


def test_new_costs_of_more_than_three_pipelines_are_one_message(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    for number in range(4):
        do(rig.is_expensive(f"run {number}", f"Agent {number}"))
    do(rig.later(15))
    assert [each.partition(" (")[0] for each in rig.chat.headlines] == ["! 4 expensive in 4 pipelines"]


def test_a_message_of_many_problems_that_is_refused_goes_problem_by_problem(rig: ChatRig) -> None:
    do(rig.start(rules=CHAT))
    for number in range(5):
        do(rig.opens(f"Agent {number}"))
    rig.chat.answer = REFUSED
    do(rig.later(11))
    rig.chat.answer = DELIVERED
    do(rig.later(60))
    assert len(rig.chat.headlines) == 5
    assert do(backlog_of(rig.real_store)) == {}


def test_an_outage_with_after_is_one_message_of_what_is_open_then(rig: ChatRig) -> None:
    do(rig.start(rules=replace(CHAT, after_s=60.0)))
    problems = {f"Agent {number}": do(rig.opens(f"Agent {number}")) for number in range(20)}
    do(rig.later(30))
    for number in range(10):
        do(rig.closes(f"Agent {number}", problems[f"Agent {number}"]))
    do(rig.later(50))
    assert [each.partition(" (")[0] for each in rig.chat.headlines] == ["✕ 10 failing in 10 pipelines"]
    assert do(backlog_of(rig.real_store)) == {}


@pytest.mark.ci
@pytest.mark.parametrize("kills", [False, True])
def test_a_night_of_failures_is_few_messages_and_nothing_is_lost(rig: ChatRig, kills: bool) -> None:
    """Forty pipelines fail for a minute; the chat is away for a while, and asks for pauses."""
    do(rig.start(rules=replace(CHAT, group=FAILURES)))
    problems = {}
    for second in range(60):
        for number in range(40):
            if second % 6 == number % 6:
                do(rig.fails(f"run {number} at {second}", f"Agent {number}"))
            if second == 12 + number % 6:
                problems[number] = do(rig.opens(f"Agent {number}"))
        rig.chat.answer = {20: FAILED, 25: replace(BUSY, retry_after_s=2.0), 27: DELIVERED}.get(second, rig.chat.answer)
        do(rig.later(1))
        if kills and second % 10 == 9:
            do(rig.kill())
            do(rig.start(rules=replace(CHAT, group=FAILURES)))
    for number, problem in problems.items():
        do(rig.closes(f"Agent {number}", problem))
    do(rig.later(120))
    assert do(backlog_of(rig.real_store)) == {}
    assert len(rig.chat.headlines) <= 12
    covered = rig.settled_as(EventType.EXECUTION_FAILED).count(("silenced", "covered"))
    assert covered + sum(each.type == EventType.EXECUTION_FAILED for each in rig.chat.taken) >= 400


ADVICE = {"group": {"by": ["account"], "wait": "10s"}}
SINKS: Mapping[str, tuple[type[RemoteSettings], Mapping[str, Any]]] = {
    "slack": (WebhookSettings, {"type": "webhook", "template": "slack", "url": "https://hooks.slack.com/services/x"}),
    "mail": (
        EmailSettings,
        {"type": "email", "server": "smtp.example.com", "from": "w@example.com", "to": ["ops@example.com"]},
    ),
}


@pytest.mark.ci
@pytest.mark.parametrize("sink", SINKS)
def test_what_check_advises_gets_an_outage_out_in_as_few_messages_as_it_counts(rig: ChatRig, sink: str) -> None:
    """Forty pipelines fail five times each within a minute, are acknowledged, and recover."""
    model, values = SINKS[sink]
    settings = model.model_validate({**values, **ADVICE})
    rule = RulesSettings.model_validate({"failing": {"consecutive": 3}})
    pipelines = [UUID(int=number) for number in range(40)]
    watches = [WatchSettings(pipeline=each, account="default", rules=rule) for each in pipelines]
    counted = outage_messages(watches, settings)
    do(rig.start(rules=settings.rules))
    problems = {}
    for nth in range(5):
        for pipeline in map(str, pipelines):
            do(rig.fails(f"{pipeline} {nth}", pipeline))
            if nth == 2:
                problems[pipeline] = do(rig.opens(pipeline))
        do(rig.later(10))
    for problem in problems.values():
        do(rig.acknowledge(problem))
    for pipeline, problem in problems.items():
        do(rig.closes(pipeline, problem))
    do(rig.later(30))
    assert do(backlog_of(rig.real_store)) == {}
    assert len(rig.chat.headlines) <= counted
    assert max(rig.chat.waited_s) <= 15


def test_the_end_of_an_overdue_execution_does_not_wait_for_after(rig: ChatRig) -> None:
    do(rig.start(rules=replace(CHAT, after_s=600.0)))
    overdue = do(rig.hangs("run", then_s=30))
    do(rig.ends_overdue("run", overdue, then_s=12))
    assert rig.settled_as(EventType.EXECUTION_OVERDUE) == [("silenced", "after")]
    assert rig.settled_as(EventType.EXECUTION_FAILED) == [("delivered", "204")]


def test_an_acknowledgement_of_an_opening_that_is_not_sent_says_why(rig: ChatRig) -> None:
    do(rig.start(rules=replace(CHAT, after_s=600.0)))
    problem = do(rig.opens("Agent"))
    do(rig.acknowledge(problem))
    do(rig.closes("Agent", problem, then_s=12))
    assert rig.settled_as(EventType.PROBLEM_ACKNOWLEDGED) == [("silenced", "after")]


def test_a_chat_that_is_back_is_sent_what_waits_although_an_acknowledged_opening_waits_on(rig: ChatRig) -> None:
    """While the circuit breaker is open, what is tried is another opening than the acknowledged one of its group."""
    group = replace(TOGETHER, wait_s=120.0)
    do(rig.start(rules=replace(CHAT, after_s=60.0, problem_group=group)))
    do(rig.acknowledge(do(rig.opens("one")), then_s=100))
    do(rig.opens("two"))
    rig.chat.answer = FAILED
    for number in range(8):
        do(rig.fails(f"run {number}", "three", then_s=10))
    do(rig.later(120))
    rig.chat.answer = DELIVERED
    do(rig.later(90))
    assert "✕ two keeps failing, last at Greeting" in rig.chat.headlines
    assert "✕ one keeps failing, last at Greeting" not in rig.chat.headlines


@pytest.mark.parametrize("is_acknowledged", [False, True])
@pytest.mark.parametrize("then_s", [0.0, 1.0, 8.0])
def test_a_restart_sends_no_closing_of_what_waited(rig: ChatRig, then_s: float, *, is_acknowledged: bool) -> None:
    do(rig.start(rules=replace(CHAT, after_s=20.0)))
    problem = do(rig.opens("Agent", then_s=5))
    if is_acknowledged:
        do(rig.acknowledge(problem, then_s=1))
    do(rig.closes("Agent", problem, then_s=then_s or None))
    do(rig.restart_with(replace(CHAT, after_s=20.0)))
    do(rig.later(60))
    assert rig.chat.headlines == []
    assert do(backlog_of(rig.real_store)) == {}
