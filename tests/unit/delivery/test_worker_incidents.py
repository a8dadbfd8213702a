"""What a pager is sent of problems that open together: one incident, as it stands when it is sent."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from pager_rig import FakePagerDuty, PagerEvent, PagerRig
from parameters import seeds
from stores import backlog_of, operator_of
from worker_rig import BUSY, DELIVERED, FAILED, GONE, REFUSED, RULES, do

from watcher.domain.event import EventType
from watcher.domain.problems import Problem
from watcher.domain.routing import IncidentRules, Silence
from watcher.sinks.protocol import SendOutcome, SendResult, WorkerRules

BY_PIPELINE = replace(RULES, incidents=IncidentRules(("pipeline",), wait_s=10.0), rate_per_s=2.0)
BY_ACCOUNT = replace(BY_PIPELINE, incidents=IncidentRules(("account",), wait_s=10.0))
BY_TEAM = replace(BY_PIPELINE, incidents=IncidentRules(("labels.team",), wait_s=10.0))
BUSY_FOR_AN_HOUR = SendResult(SendOutcome.RETRY, "503", retry_after_s=3600)


@pytest.fixture
def pager(tmp_path: Path) -> Iterator[PagerRig]:
    rig = PagerRig(tmp_path / "watcher.db", loop=False)
    yield rig
    assert (rig.pager.complaints, rig.ends) == ([], [])
    do(rig.kill())


def test_forty_pipelines_that_fail_at_once_are_one_incident_by_account(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    problems = [(f"Agent {number}", do(pager.opens(f"Agent {number}"))) for number in range(40)]
    do(pager.later(9.9))
    assert pager.pager.taken == []
    do(pager.later(0.2))
    (page,) = pager.pager.taken
    summary = "40 pipelines failing in account default; newest: Agent 39, Greeting: error of Agent 39"
    assert (page["event_action"], page["payload"]["summary"]) == ("trigger", summary)
    assert page["payload"]["custom_details"]["open"] == {"pipeline.failing": 40}
    assert do(backlog_of(pager.real_store)) == {}
    for name, problem in problems:
        do(pager.closes(name, problem, then_s=1))
    assert pager.pager.state == {page["dedup_key"]: "resolved"}


@pytest.mark.parametrize("cause", ["eleven minutes later", "acknowledged", "acknowledged no more", "resolved"])
def test_a_second_cause_is_an_incident_of_its_own(pager: PagerRig, cause: str) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    first = do(pager.opens("one", then_s=30))
    if cause == "eleven minutes later":
        do(pager.later(660))
    elif cause != "resolved":
        do(pager.hangs("beside", then_s=30))  # which nobody acknowledges
        do(pager.acknowledge(first))
        if cause == "acknowledged no more":  # at the pager the incident stays acknowledged: it would wake nobody
            do(operator_of(pager.real_store).unacknowledge(first.id))
    else:
        do(pager.closes("one", first))
    do(pager.later(1))
    second = do(pager.opens("two", then_s=30))
    assert len(pager.pager.pages) == 2
    assert pager.pager.summaries()[1] == "two keeps failing, last at Greeting: error of two"
    do(pager.closes("two", second, then_s=30))
    assert pager.pager.state[pager.pager.pages[1]["dedup_key"]] == "resolved"


def test_what_opens_within_ten_minutes_joins_and_pages_nobody_again(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    do(pager.opens("one", then_s=500))
    do(pager.opens("two"))
    do(pager.hangs("run", then_s=30))
    assert len(pager.pager.pages) == 1
    summary = "2 pipelines failing, 1 execution overdue in account default; newest: Agent"
    assert pager.pager.taken[-1]["payload"]["summary"] == summary
    assert pager.pager.taken[-1]["payload"]["severity"] == "critical"


def test_an_incident_is_acknowledged_once_all_of_its_open_problems_are(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    one, two = do(pager.opens("one")), do(pager.opens("two"))
    do(pager.later(20))
    do(pager.acknowledge(one, then_s=5))
    assert list(pager.pager.state.values()) == ["triggered"]
    do(pager.closes("two", two, then_s=5))
    assert list(pager.pager.state.values()) == ["acknowledged"]
    do(pager.closes("one", one, then_s=5))
    assert list(pager.pager.state.values()) == ["resolved"]


def test_a_problem_without_the_field_is_an_incident_of_its_own(pager: PagerRig) -> None:
    do(pager.start(rules=BY_TEAM))
    do(pager.opens("one", team="sales"))
    do(pager.opens("two", team="sales"))
    other = do(pager.opens("three", then_s=20))
    assert len(pager.pager.pages) == 2
    assert str(other.id) in pager.pager.state


def test_a_trigger_that_fails_is_replaced_at_once_by_what_is_newer(pager: PagerRig) -> None:
    """The next attempt of the first is an hour away."""
    do(pager.start(rules=BY_ACCOUNT))

    def answer(event: PagerEvent) -> SendResult:
        return BUSY_FOR_AN_HOUR if event.get("payload", {}).get("summary", "").startswith("one ") else DELIVERED

    pager.pager.answer = answer
    one = do(pager.opens("one", then_s=20))
    assert pager.pager.pages == []
    two = do(pager.opens("two", then_s=11))
    assert pager.pager.summaries() == ["2 pipelines failing in account default; newest: two, Greeting: error of two"]
    assert do(backlog_of(pager.real_store)) == {}
    do(pager.closes("two", two, then_s=1))
    assert [event["event_action"] for event in pager.pager.refused[-1:]] == ["trigger"]
    do(pager.closes("one", one, then_s=1))
    assert pager.pager.open() == []
    assert do(backlog_of(pager.real_store)) == {}


def test_of_a_refused_event_the_next_attempt_leaves_out_what_others_call_something(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    pager.pager.answer = lambda event: REFUSED if "error of one" in str(event) else DELIVERED
    one = do(pager.opens("one", then_s=60))
    assert pager.pager.summaries() == ["1 pipeline failing in account default"]
    do(pager.closes("one", one, then_s=5))
    assert pager.pager.open() == []


def test_while_one_request_is_under_way_no_other_goes_for_the_same_incident(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    one, two = do(pager.opens("one")), do(pager.opens("two"))
    pager.clock.elapsed_s += 11
    do(pager.worker.tick())
    three = do(pager.opens("three"))
    pager.clock.elapsed_s += 11
    do(pager.worker.tick())
    assert len(pager.held()) == 1
    for name, problem in (("one", one), ("two", two)):
        do(pager.closes(name, problem))
        pager.clock.elapsed_s += 2
        do(pager.worker.tick())
        assert len(pager.held()) == 1
    do(pager.later(5))
    do(pager.closes("three", three, then_s=5))
    assert pager.pager.open() == []


async def paged_and_killed(pager: PagerRig, *, after_s: float) -> None:
    """Let it page once, and be killed before it has written that."""
    pager.clock.elapsed_s += after_s
    await pager.worker.tick()
    await pager.settle()
    assert len(pager.pager.pages) == 1
    await pager.kill()


def test_a_kill_before_the_answer_is_written_repeats_the_trigger_under_the_same_key(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    one = do(pager.opens("one"))
    do(paged_and_killed(pager, after_s=11))
    do(pager.start(rules=BY_ACCOUNT))
    two = do(pager.opens("two", then_s=20))
    assert len(pager.pager.pages) == 1
    do(pager.closes("one", one))
    do(pager.closes("two", two, then_s=5))
    assert pager.pager.open() == []


def test_a_silenced_opening_joins_when_it_is_released(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    one = do(pager.opens("one", then_s=20))
    now = pager.clock.now()
    pager.silences.all = [Silence(now, now + timedelta(minutes=5), sinks=("ops",))]
    two = do(pager.opens("two", then_s=20))
    do(pager.closes("one", one, then_s=20))
    assert (len(pager.pager.pages), pager.pager.open()) == (1, [])  # two is not in the incident of one
    do(pager.later(600))
    assert pager.pager.summaries()[1:] == ["two keeps failing, last at Greeting: error of two"]
    do(pager.closes("two", two, then_s=5))
    assert pager.pager.open() == []


def test_an_incident_is_reminded_of_once(pager: PagerRig) -> None:
    do(pager.start(rules=replace(BY_ACCOUNT, remind_every_s=3600.0)))
    for number in range(40):
        do(pager.opens(f"Agent {number}"))
    do(pager.later(20))
    for count in (2, 3):
        do(pager.later(3600))
        assert len(pager.pager.taken) == count
    assert len(pager.pager.pages) == 1


def test_a_dead_opening_that_is_replayed_says_how_its_incident_stands(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    pager.pager.answer = lambda _: REFUSED
    one, two = do(pager.opens("one")), do(pager.opens("two"))
    do(pager.later(3600))
    pager.pager.answer = lambda _: DELIVERED
    do(pager.acknowledge(one))
    do(pager.closes("two", two, then_s=5))
    assert do(operator_of(pager.real_store).replay("ops", None)) == 2
    do(pager.later(5))
    assert pager.pager.actions()[-2:] == ["trigger", "acknowledge"]
    assert list(pager.pager.state.values()) == ["acknowledged"]
    do(pager.closes("one", one, then_s=5))
    assert pager.pager.open() == []


def test_a_problem_that_an_earlier_version_sent_keeps_its_own_key(pager: PagerRig) -> None:
    do(pager.start(rules=RULES))  # no incidents: deliveries are settled as a version before did it
    one = do(pager.opens("one", then_s=1))
    do(pager.restart_with(BY_ACCOUNT))
    pager.pager.taken.clear()
    do(pager.acknowledge(one, then_s=1))
    do(pager.closes("one", one, then_s=1))
    said = [(event["event_action"], event["dedup_key"]) for event in pager.pager.taken]
    assert said == [("acknowledge", str(one.id)), ("resolve", str(one.id))]


def deferred(rules: WorkerRules = BY_PIPELINE) -> WorkerRules:
    return replace(rules, after_s=600.0)


def test_after_ten_minutes_only_what_is_still_open_pages(pager: PagerRig) -> None:
    do(pager.start(rules=deferred()))
    short, long = do(pager.opens("short")), do(pager.opens("long"))
    do(pager.later(540))
    do(pager.closes("short", short, then_s=61))
    assert pager.pager.summaries() == ["long keeps failing, last at Greeting: error of long"]
    do(pager.closes("long", long, then_s=5))
    assert pager.pager.actions() == ["trigger", "resolve"]


def test_a_storm_of_deferred_openings_pages_on_time_and_adds_the_rest_by_group_wait(pager: PagerRig) -> None:
    do(pager.start(rules=deferred()))
    for number in range(40):
        do(pager.hangs(f"run {number}", then_s=1))
    do(pager.later(561))
    assert pager.pager.summaries() == ["Agent has been running too long"]
    do(pager.later(60))
    assert (pager.pager.actions(), len(pager.pager.pages)) == (["trigger"] * 5, 1)
    assert pager.pager.taken[-1]["payload"]["custom_details"]["open"] == {"execution.overdue": 40}


def test_what_closes_before_after_has_passed_leaves_nothing_waiting(pager: PagerRig) -> None:
    do(pager.start(rules=deferred()))
    problem = do(pager.hangs("run", then_s=60))
    do(pager.ends_overdue("run", problem, then_s=1))
    assert do(backlog_of(pager.real_store)) == {}
    assert pager.answers_of("run") == [("silenced", "after"), ("silenced", "after")]
    pager.silences.all = [Silence(pager.clock.now(), pager.clock.now() + timedelta(seconds=9), sinks=("ops",))]
    do(pager.later(700))
    assert pager.pager.taken == []


@pytest.mark.parametrize("is_over_by", ["its time", "being taken back"])
def test_what_is_acknowledged_pages_when_that_is_over(pager: PagerRig, is_over_by: str) -> None:
    do(pager.start(rules=deferred()))
    problem = do(pager.opens("one", then_s=300))
    do(pager.acknowledge(problem, until=pager.clock.now() + timedelta(hours=1), then_s=3530))
    if is_over_by == "being taken back":
        do(operator_of(pager.real_store).unacknowledge(problem.id))
    else:
        assert pager.pager.taken == []
    do(pager.later(72))
    assert pager.pager.actions() == ["trigger"]
    assert do(backlog_of(pager.real_store)) == {}


def test_an_opening_that_may_have_been_sent_before_a_kill_is_resolved(pager: PagerRig) -> None:
    do(pager.start(rules=deferred()))
    one = do(pager.opens("one"))
    do(paged_and_killed(pager, after_s=601))
    do(pager.start(rules=deferred()))
    do(pager.acknowledge(one, then_s=100))
    do(pager.closes("one", one, then_s=100))
    assert pager.pager.open() == []


def test_an_earlier_event_that_fails_does_not_let_an_opening_go_before_its_time(pager: PagerRig) -> None:
    do(pager.start(rules=deferred(RULES)))
    pager.pager.answer = lambda _: FAILED
    do(pager.starts("run"))
    do(pager.later(1))
    do(pager.hangs("run"))
    pager.pager.answer = lambda _: DELIVERED
    do(pager.later(60))
    assert len(pager.pager.taken) == 1
    do(pager.later(600))
    assert len(pager.pager.taken) == 2


@pytest.mark.parametrize("held_back_by", ["group.wait", "an outage", "a silence"])
def test_what_is_acknowledged_early_is_triggered_and_acknowledged(pager: PagerRig, held_back_by: str) -> None:
    """Else nobody would ever be paged for a problem whose acknowledgement is over, or taken back."""
    do(pager.start(rules=BY_ACCOUNT))
    if held_back_by == "an outage":
        pager.pager.answer = lambda _: FAILED
    elif held_back_by == "a silence":
        pager.silences.all = [Silence(pager.clock.now(), pager.clock.now() + timedelta(seconds=60), sinks=("ops",))]
    one = do(pager.opens("one"))
    do(pager.later(5 if held_back_by == "group.wait" else 30))
    do(pager.acknowledge(one))
    pager.pager.answer = lambda _: DELIVERED
    do(pager.later(120))
    assert pager.pager.actions() == ["trigger", "acknowledge"]
    do(pager.closes("one", one, then_s=5))
    assert pager.pager.open() == []


def test_a_text_that_is_never_taken_holds_up_no_page(pager: PagerRig) -> None:
    """A proxy that dislikes what a model wrote answers 403 to each attempt."""
    do(pager.start(rules=BY_ACCOUNT))
    pager.pager.answer = lambda event: FAILED if "error of three" in str(event) else DELIVERED
    for name in ("one", "two", "three"):
        do(pager.opens(name))
    do(pager.later(20))
    assert pager.pager.summaries() == ["3 pipelines failing in account default"]


def test_a_resolve_does_not_wait_behind_the_breaker_that_its_own_trigger_keeps_open(pager: PagerRig) -> None:
    do(pager.start(rules=replace(BY_ACCOUNT, schedule_s=(1.0, 2.0))))
    pager.pager.answer = lambda event: FAILED if event["event_action"] == "trigger" else DELIVERED
    one = do(pager.opens("one", then_s=300))
    do(pager.closes("one", one, then_s=2))
    assert pager.pager.actions() == ["resolve"]


def test_another_incident_is_paged_though_one_took_all_heads_that_were_read(pager: PagerRig) -> None:
    do(pager.start(rules=BY_PIPELINE))
    for number in range(25):  # one page of a list shows them overdue together
        do(pager.hangs(f"run {number}"))
    do(pager.hangs("other run", "Other"))
    pager.clock.elapsed_s += 10.1  # all of them are due when the worker wakes
    do(pager.later(3600))
    assert do(backlog_of(pager.real_store)) == {}
    assert len(pager.pager.pages) == 2


def test_a_pager_that_asks_for_a_pause_is_not_paged_of_what_closes_meanwhile(pager: PagerRig) -> None:
    do(pager.start(rules=BY_PIPELINE))
    one, two = do(pager.opens("one")), do(pager.opens("two"))
    pager.pager.answer = lambda _: BUSY
    pager.clock.elapsed_s += 10.1
    do(pager.go())  # the first goes, and is answered 429 with a pause of 60 s; the second is ready
    pager.pager.answer = lambda _: DELIVERED
    do(pager.closes("two", two, then_s=1))
    do(pager.closes("one", one, then_s=1))
    do(pager.later(120))
    assert "trigger" not in pager.pager.actions()


def test_a_pager_that_is_enabled_again_is_not_paged_of_what_closed_while_it_was_disabled(pager: PagerRig) -> None:
    do(pager.start(rules=BY_PIPELINE))
    do(pager.opens("one"))
    two = do(pager.opens("two"))
    pager.pager.answer = lambda _: GONE
    pager.clock.elapsed_s += 10.1
    do(pager.go())  # the first goes, and is answered 410; the second is ready
    pager.pager.answer = lambda _: DELIVERED
    do(pager.closes("two", two, then_s=86_400))
    do(pager.worker.enable())
    do(pager.later(120))
    assert [event["payload"]["summary"][:3] for event in pager.pager.pages] == ["one"]


def test_an_outage_pages_although_something_small_rang_before(pager: PagerRig) -> None:
    """The incident of the small one accepts three pipelines more; the others are the next one."""
    do(pager.start(rules=BY_ACCOUNT))
    do(pager.opens("small", then_s=120))
    for number in range(40):
        do(pager.opens(f"Agent {number}"))
    do(pager.later(15))
    opened = [page["payload"]["custom_details"].get("open", {}) for page in pager.pager.pages]
    assert opened == [{}, {"pipeline.failing": 37}]
    assert do(backlog_of(pager.real_store)) == {}


@pytest.mark.ci
@pytest.mark.parametrize("kills", [False, True])
def test_an_outage_that_spreads_slowly_pages_with_problem_1_5_11_and_23(pager: PagerRig, kills: bool) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    paging: list[int] = []
    for number in range(1, 25):
        do(pager.opens(f"Agent {number}", then_s=11))
        if len(pager.pager.pages) > len(paging):
            paging.append(number)
        if kills:
            do(pager.restart_with(BY_ACCOUNT))
    assert paging == [1, 5, 11, 23]


def test_more_of_the_same_pipeline_pages_nobody_again(pager: PagerRig) -> None:
    """Its incident is no longer the newest of its group, and full."""
    do(pager.start(rules=BY_ACCOUNT))
    do(pager.hangs("run 0", "Agent 0", then_s=11))
    for number in range(1, 10):
        do(pager.hangs(f"run {number}", f"Agent {number}", then_s=11))
    assert len(pager.pager.pages) == 2
    for number in range(10, 20):
        do(pager.hangs(f"run {number}", "Agent 0", then_s=11))
    assert len(pager.pager.pages) == 2


def test_a_worse_problem_pages_although_its_group_has_rung(pager: PagerRig) -> None:
    do(pager.start(rules=BY_ACCOUNT))
    do(pager.hangs("run", then_s=11))
    do(pager.opens("Agent", then_s=11))
    do(pager.hangs("another run", then_s=11))
    assert [page["payload"]["severity"] for page in pager.pager.pages] == ["warning", "critical"]


def test_what_is_silenced_leaves_no_room_in_the_incident(pager: PagerRig) -> None:
    """Thirty problems are silenced when the first goes: of thirty that follow only three join it."""
    do(pager.start(rules=BY_ACCOUNT))
    names = [f"Agent {number}" for number in range(30)]
    at = pager.clock.now()
    pager.silences.all = [Silence(at, at + timedelta(hours=1), pipelines=names, sinks=("ops",))]
    do(pager.opens("first"))
    for name in names:
        do(pager.opens(name))
    do(pager.later(60))
    assert pager.pager.summaries() == ["first keeps failing, last at Greeting: error of first"]
    for number in range(30, 60):
        do(pager.opens(f"Agent {number}"))
    do(pager.later(60))
    assert len(pager.pager.pages) == 2


# Under whatever happens: a pager that fails, kills, silences, reloads, acknowledgements, replays

STEPS = 30
BYS = (("pipeline",), ("account",), ("labels.team",))
NAMES = [f"p{number}" for number in range(9)]
TEAMS = {name: "sales" if number % 3 else None for number, name in enumerate(NAMES)}


class Moody(FakePagerDuty):
    """Answers by chance."""

    def __init__(self, rig: PagerRig, dice: Random) -> None:
        super().__init__(rig.clock)
        self.is_well = False
        self._dice = dice
        self.answer = self._choose

    def _choose(self, event: PagerEvent) -> SendResult:
        if self.is_well:
            return DELIVERED
        if "p3" in str(event):  # one whose text it never takes
            return REFUSED
        return self._dice.choice([DELIVERED, DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])


def rules_by(by: tuple[str, ...], *, after_s: float) -> WorkerRules:
    return replace(RULES, incidents=IncidentRules(by, wait_s=10.0), after_s=after_s, remind_every_s=900.0)


def members(path: Path) -> dict[bytes, tuple[str, int]]:
    """Return of each problem in an incident its key and when it opened."""
    with closing(sqlite3.connect(path)) as connection:
        query = "SELECT problem_id, hex(key), opened_at FROM incident JOIN problem ON problem.id = problem_id"
        return {id_: (key.lower(), opened_at) for id_, key, opened_at in connection.execute(query)}


def overfull(path: Path) -> list[str]:
    """Return the incidents that accepted too many pipelines, or a problem worse than those they began with."""
    query = (
        "SELECT hex(key), count(DISTINCT problem.pipeline_id),"
        " count(DISTINCT CASE WHEN at_trigger THEN problem.pipeline_id END), max(outside_count),"
        " max(problem.kind = 'pipeline.failing'), max(at_trigger AND problem.kind = 'pipeline.failing'),"
        " sum(at_trigger)"
        " FROM incident JOIN problem ON problem.id = problem_id WHERE group_key IS NOT NULL GROUP BY key"
    )
    with closing(sqlite3.connect(path)) as connection:
        return [
            key
            for key, count, first_count, outside_count, is_critical, began_critical, began in connection.execute(query)
            if began and (count - first_count > max(3, first_count + outside_count) or is_critical > began_critical)
        ]


@pytest.mark.parametrize("after_s", [0.0, 60.0])
@pytest.mark.parametrize("seed", seeds(ci=2, soak=180))
def test_each_incident_ends_and_what_is_open_is_at_the_pager(pager: PagerRig, seed: int, after_s: float) -> None:
    dice, rig = Random(seed), pager
    rig.pager = moody = Moody(rig, dice)
    rules = rules_by(("account",), after_s=after_s)
    do(rig.start(rules=rules))
    open_now: dict[str, Problem] = {}
    acknowledged: set[str] = set()
    joined: dict[bytes, tuple[str, int]] = {}
    for _ in range(STEPS):
        for name in NAMES:
            if dice.random() > 0.1:
                continue
            is_execution = name in {"p4", "p5"}
            if name not in open_now:
                open_now[name] = do(rig.hangs(name) if is_execution else rig.opens(name, team=TEAMS[name]))
            elif is_execution:
                type_ = dice.choice([EventType.EXECUTION_FAILED, EventType.EXECUTION_SUCCESS])
                do(rig.ends_overdue(name, open_now.pop(name), type_=type_))
            else:
                do(rig.closes(name, open_now.pop(name)))
            acknowledged.discard(name)
        now = rig.clock.now()
        if open_now and dice.random() < 0.1:
            name = dice.choice(list(open_now))
            do(rig.acknowledge(open_now[name], until=dice.choice([None, now + timedelta(minutes=5)])))
            acknowledged.add(name)
        if dice.random() < 0.15:
            begins, ends = (now + timedelta(seconds=dice.choice(some)) for some in ([-5, 0, 3], [4, 200]))
            types = dice.choice([None, (EventType.PIPELINE_FAILING,), (EventType.EXECUTION_OVERDUE,)])
            rig.silences.all = dice.choice([[], [Silence(begins, ends, sinks=("ops",), types=types)]])
        if dice.random() < 0.1:
            do(operator_of(rig.real_store).replay("ops", None))
            rig.worker.wake()
        do(rig.later(dice.choice([0.0, 0.3, 2.0, 7.0, 30.0, 200.0])))
        if dice.random() < 0.15:
            rig.clock.elapsed_s += dice.choice([0.0, 11.0])
            do(rig.worker.tick())
            do(rig.lose())
            rules = rules_by(dice.choice(BYS), after_s=after_s)
            do(rig.start(rules=rules))
        joined |= members(rig.path)
        assert overfull(rig.path) == []
    moody.is_well, rig.silences.all = True, []
    do(operator_of(rig.real_store).replay("ops", None))
    rig.worker.wake()
    do(rig.later(7200))
    joined |= members(rig.path)
    waiting = do(backlog_of(rig.real_store))
    keys = {id_: f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:]}" for id_, (key, _) in joined.items()}
    still_open = {keys[each.id.bytes] for each in open_now.values() if each.id.bytes in keys}
    assert set(moody.open()) <= still_open, "an incident is open of which no problem is"
    for name, problem in open_now.items():
        is_shown = moody.state.get(keys.get(problem.id.bytes, "")) in {"triggered", "acknowledged"}
        assert is_shown or name in acknowledged, f"nobody knows of {name}"
    if not acknowledged & open_now.keys():
        assert waiting == {}
    for id_, (_, opened_at) in joined.items():
        paged = [at for page, at in zip(moody.pages, moody.paged_at, strict=True) if page["dedup_key"] == keys[id_]]
        joined_late_s = opened_at / 1e6 - paged[0].timestamp() if paged else 0.0
        assert joined_late_s < 600, "it joined an incident that pages nobody any more"
