"""What a silence keeps back, what it does not, and what is sent when it ends."""

from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import pytest
from parameters import seeds
from stores import backlog_of, operator_of
from worker_rig import BUSY, DELIVERED, EPOCH, FAILED, HASTY, RULES, Rig, do, name_of

from watcher.domain.delivery import Delivery, Part
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.domain.routing import GroupRules, Silence
from watcher.sinks.protocol import SendResult, WorkerRules
from watcher.store.changes import Taken
from watcher.store.recording import Item

OF_P = {"account": "default", "pipeline": {"id": "p"}, "labels": {"team": "sales"}}
GROUPED = replace(RULES, group=GroupRules(("account",), wait_s=30.0, max_count=100))
BY_PIPELINE = replace(RULES, group=GroupRules(("pipeline",), wait_s=30.0, max_count=100))
PROBLEM = Problem(UUID(int=5), EventType.ACCOUNT_DEGRADED, EPOCH, EventKey(b"a", 1))


def silence(rig: Rig, *, from_s: float = 0.0, until_s: float = 600.0, **wanted: Any) -> Silence:
    """Have one silence for that time from now on."""
    now = rig.clock.now()
    one = Silence(now + timedelta(seconds=from_s), now + timedelta(seconds=until_s), **wanted)
    rig.silences.all = [one]
    return one


async def open_problem(rig: Rig) -> None:
    await rig.record("a", type_=EventType.ACCOUNT_DEGRADED, data={"account": "default"}, problem=PROBLEM)


async def acknowledge(rig: Rig) -> None:
    assert await operator_of(rig.real_store).acknowledge(PROBLEM.id, by="dana", comment=None, until=None)


async def close_problem(rig: Rig) -> None:
    await rig.record("a", type_=EventType.ACCOUNT_RECOVERED, problem=PROBLEM, closed=True)


def test_what_a_silence_matches_is_settled_and_never_tried(rig: Rig) -> None:
    silence(rig, pipelines=("p",))
    do(rig.record("a", "a", data=OF_P))
    do(rig.record("b", data={**OF_P, "pipeline": {"id": "q"}}))
    assert do(rig.sent_after()) == ["b1"]
    assert (rig.row("a1")["state"], rig.row("a1")["attempts"], rig.row("a2")["state"]) == ("silenced", 0, "silenced")
    assert (rig.counted("silenced"), rig.counted("delivered"), rig.counted("retried")) == (2, 1, 0)


@pytest.mark.parametrize("rules", [RULES, GROUPED])
@pytest.mark.parametrize("ends", ["by itself", "by its owner", "while nobody looks"])
def test_a_silenced_opening_is_sent_when_the_silence_ends(rig: Rig, rules: WorkerRules, ends: str) -> None:
    do(rig.restart(rules=rules))
    silence(rig, until_s=600, sinks=("ops",))
    do(open_problem(rig))
    do(rig.record("b"))
    assert do(rig.sent_after(300)) == []
    if ends == "by its owner":
        rig.silences.all = []
    elif ends == "while nobody looks":
        do(rig.stop())
        rig.clock.elapsed_s += 500
        do(rig.start(rules=rules))
    assert do(rig.sent_after(300)) == ["a1"]
    assert rig.counted("delivered") == 1


def test_openings_are_let_go_when_other_silences_hold_and_not_with_each_that_is_kept_back(rig: Rig) -> None:
    silence(rig, until_s=600, sinks=("ops",))
    do(open_problem(rig))
    for _ in range(20):
        do(rig.send("b"))
    assert rig.store.asked["release"] <= 2
    assert do(rig.sent_after(600)) == ["a1"]
    assert rig.store.asked["release"] <= 3


def test_a_silence_that_begins_and_ends_between_two_looks_loses_no_opening(rig: Rig) -> None:
    do(rig.go())
    write = rig.store.record

    async def silence_before_it_is_judged(item: Item) -> Taken | None:
        taken = do(write(item))
        silence(rig, sinks=("ops",))
        return taken

    rig.store.record = silence_before_it_is_judged  # type: ignore[method-assign]
    do(open_problem(rig))
    do(rig.worker.tick())
    rig.store.record = write  # type: ignore[method-assign]
    rig.silences.all = []
    assert do(rig.sent_after()) == ["a1"]
    assert rig.counted("silenced") == 1


def test_while_the_breaker_is_open_what_is_kept_back_is_no_trial(rig: Rig) -> None:
    do(rig.send("v", "w", "x", "y", "z", answer=FAILED))
    silence(rig, pipelines=("p",))
    do(rig.record("a", "b", data=OF_P))
    do(rig.record("c"))
    assert sorted(do(rig.go_for(1.5))) == ["c1", "v1"]
    assert (rig.counted("silenced"), rig.row("b1")["state"]) == (2, "silenced")


@pytest.mark.parametrize("broken", ["release", "settle"])
def test_trouble_with_the_store_neither_lets_through_nor_loses_anything(rig: Rig, broken: str) -> None:
    rig.store.broken = {broken}
    silence(rig, sinks=("ops",))
    do(open_problem(rig))
    do(rig.record("b"))
    assert do(rig.sent_after()) == []
    rig.store.broken = set()
    assert do(rig.sent_after(2)) == []
    assert [rig.row(name)["state"] for name in ("a1", "b1")] == ["silenced"] * 2
    rig.store.broken = {broken}
    rig.silences.all = []
    do(rig.go())
    rig.store.broken = set()
    do(rig.go(2))
    assert (rig.sink.take_sent(), rig.counted("silenced")) == (["a1"], 2)


def test_what_a_silence_kept_back_has_all_its_time_to_be_sent_afterwards(rig: Rig) -> None:
    do(rig.restart(rules=HASTY))
    do(rig.send("z", answer=BUSY))
    do(open_problem(rig))
    do(rig.worker.flush())  # it is due, and its time begins
    silence(rig, until_s=200, sinks=("ops",))
    rig.sink.answer = lambda _: DELIVERED
    do(rig.go(61))
    assert rig.row("a1")["state"] == "silenced"
    rig.sink.answer = lambda _: FAILED
    do(rig.go(140))
    assert (rig.row("a1")["state"], rig.row("a1")["attempts"]) == ("waiting", 1)


def test_of_a_group_goes_what_no_silence_keeps_back(rig: Rig) -> None:
    do(rig.restart(rules=GROUPED))
    do(rig.record("a", "b", data=OF_P))
    do(rig.record("c", data={**OF_P, "pipeline": {"id": "q"}}))
    do(rig.go(10))
    silence(rig, pipelines=("p",))
    assert do(rig.sent_after(20)) == ["c1"]
    assert (rig.sink.batches, rig.counted("silenced")) == ([["c1"]], 2)


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
def test_what_waits_for_its_turn_when_a_silence_begins_is_kept_back(rig: Rig, rules: WorkerRules) -> None:
    do(rig.restart(rules=replace(rules, rate_per_s=0.1)))
    do(rig.record("x", data={**OF_P, "pipeline": {"id": "x"}}))
    do(rig.record("a", data=OF_P))
    do(rig.record("b", data={**OF_P, "labels": {"team": "support"}}))
    assert do(rig.sent_after(30)) == ["x1"]
    silence(rig, labels={"team": "sales"})
    assert do(rig.sent_after(10.5)) == ["b1"]  # what is not sent takes nothing of the rate
    assert (rig.row("a1")["state"], rig.counted("silenced")) == ("silenced", 1)


OVERDUE = Problem(UUID(int=6), EventType.EXECUTION_OVERDUE, EPOCH, EventKey(b"a", 1))


async def open_overdue(rig: Rig) -> None:
    await rig.record("a", type_=EventType.EXECUTION_OVERDUE, data=OF_P, problem=OVERDUE)


async def close_overdue(rig: Rig) -> None:
    await rig.record("a", type_=EventType.EXECUTION_FAILED, data=OF_P, problem=OVERDUE, closed=True)


def test_news_that_end_a_problem_whose_opening_was_kept_back_are_sent_without_its_closing(rig: Rig) -> None:
    silence(rig, types=(EventType.EXECUTION_OVERDUE,))
    do(open_overdue(rig))
    do(close_overdue(rig))
    do(rig.go())
    assert [(name_of(each), each.part) for each in rig.sink.sent] == [("a2", Part.NEWS)]


def test_a_group_has_both_where_a_silence_keeps_back_the_end_alone(rig: Rig) -> None:
    do(rig.restart(rules=BY_PIPELINE))
    silence(rig, types=(EventType.EXECUTION_FAILED,))
    do(open_overdue(rig))
    do(close_overdue(rig))
    do(rig.record("b", data=OF_P))
    assert do(rig.sent_after(30)) == ["a1", "a2"]
    assert rig.row("b1")["state"] == "silenced"


def test_the_end_of_a_problem_whose_opening_was_silenced_after_it_is_not_sent(rig: Rig) -> None:
    do(rig.send("z", answer=BUSY))
    do(open_problem(rig))
    do(close_problem(rig))
    silence(rig, types=(EventType.ACCOUNT_DEGRADED,))
    rig.sink.answer = lambda _: DELIVERED
    sent = [name for _ in range(5) for name in do(rig.sent_after(60))]
    assert sent == ["z1"]
    assert (rig.row("a1")["state"], rig.row("a2")["state"]) == ("silenced", "silenced")


@pytest.mark.parametrize("type_", [EventType.PROBLEM_CLOSED, EventType.PROBLEM_REMINDER])
def test_what_is_told_of_a_problem_from_another_stream_comes_after_its_opening(rig: Rig, type_: EventType) -> None:
    rig.sink.answer = lambda delivery: FAILED if name_of(delivery) == "a1" else DELIVERED
    do(open_problem(rig))
    do(rig.go())
    closes = type_ is EventType.PROBLEM_CLOSED
    do(rig.record("c", type_=type_, problem=PROBLEM, closed=closes, is_new=False))
    assert set(do(rig.go_for(200))) == {"a1"}
    rig.sink.answer = lambda _: DELIVERED
    assert do(rig.go_for(100)) == ["a1", "c1"]
    assert rig.counted("retried") == rig.row("a1")["attempts"] - 1


@pytest.mark.parametrize("rules", [RULES, BY_PIPELINE])
def test_an_opening_that_was_on_its_way_at_a_kill_is_closed_silence_or_not(rig: Rig, rules: WorkerRules) -> None:
    do(rig.restart(rules=rules))
    do(open_problem(rig))
    do(rig.worker.tick())
    do(rig.lose())
    assert rig.sink.take_sent() == ["a1"]
    rig.clock.elapsed_s += 1
    silence(rig, sinks=("ops",))
    rig.sink.answer = lambda _: DELIVERED
    do(rig.start(rules=rules))
    assert do(rig.sent_after()) == []
    do(close_problem(rig))
    assert do(rig.sent_after(1)) == ["a2"]
    assert rig.row("a1")["state"] == "silenced"


ACKNOWLEDGED = EventType.PROBLEM_ACKNOWLEDGED


@pytest.mark.parametrize("ends", ["reload", "kill"])
@pytest.mark.parametrize("acknowledged", ["before the silence", "in it", "while the opening is in flight"])
def test_an_acknowledgement_comes_after_an_opening_that_a_silence_kept_back_and_may_have_been_sent(
    rig: Rig, ends: str, acknowledged: str
) -> None:
    """The pager was sent the acknowledgement first: nobody saw there that somebody had it."""
    rig.sink.answer = lambda _: BUSY
    do(rig.begin("z"))
    if acknowledged != "while the opening is in flight":
        do(rig.settle())
    do(open_problem(rig))
    do(rig.worker.tick())
    if acknowledged != "in it":
        do(acknowledge(rig))
    do(rig.stop() if ends == "reload" else rig.kill())
    rig.clock.elapsed_s += 61
    silence(rig, types=(EventType.ACCOUNT_DEGRADED,))
    rig.sink.answer = lambda _: DELIVERED
    do(rig.start())
    do(rig.go_for(61))
    if acknowledged == "in it":
        do(acknowledge(rig))
    assert [name for name in do(rig.go_for(61)) if name != "z1"] == []
    assert rig.counted("silenced") == 2
    rig.silences.all = []
    assert do(rig.go_for(61)) == ["a1", ACKNOWLEDGED]


def test_an_acknowledgement_that_was_read_before_its_opening_was_released_goes_after_it(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, rate_per_s=0.1)))
    silence(rig, types=(EventType.ACCOUNT_DEGRADED,))
    do(open_problem(rig))
    assert do(rig.sent_after()) == []
    do(rig.record("x"))
    do(acknowledge(rig))
    assert do(rig.go_for(11)) == ["x1"]  # the acknowledgement waits for the rate limit
    rig.silences.all = []
    assert do(rig.go_for(30)) == ["a1", ACKNOWLEDGED]


def test_a_silence_that_begins_again_keeps_back_both_and_then_releases_both(rig: Rig) -> None:
    silence(rig, sinks=("ops",))
    do(open_problem(rig))
    do(rig.go())
    do(acknowledge(rig))
    do(rig.go())
    for number in range(2, 5):
        silence(rig, sinks=("ops",))
        assert do(rig.go_for(5)) == []
        assert rig.counted("silenced") == 2 * number
    rig.silences.all = []
    assert do(rig.go_for(5)) == ["a1", ACKNOWLEDGED]
    do(close_problem(rig))
    assert do(rig.go_for(5)) == ["a2"]


# Under whatever happens: a faulty receiver and kills

KINDS = {
    "account-": (EventType.ACCOUNT_DEGRADED, EventType.ACCOUNT_RECOVERED),
    "pipeline-": (EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED),
    "execution-": (EventType.EXECUTION_OVERDUE, EventType.EXECUTION_FAILED),
}
SOON_GROUPED = replace(RULES, group=GroupRules(("pipeline",), wait_s=5.0, max_count=10))
STEPS = 80


class Receiver:
    """Answers by chance; what it takes it has, even if nobody hears of that."""

    def __init__(self, rig: Rig, dice: Random) -> None:
        self.is_well = False
        self.received: list[str] = []
        self.offered: set[UUID] = set()  # problems whose opening was sent to it, or may have been
        self.opened: dict[UUID, list[str]] = {}
        self.closed: dict[UUID, list[str]] = {}
        self.complaints: list[str] = []
        self._rig = rig
        self._dice = dice

    def answer(self, _: Delivery) -> SendResult:
        batch = self._rig.sink.sent[-len(self._rig.sink.batches[-1]) :]
        result = DELIVERED if self.is_well else self._dice.choice([DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])
        for each in batch:
            self._take(each, is_taken=result is DELIVERED)
        return result

    def _take(self, each: Delivery, *, is_taken: bool) -> None:
        assert each.problem is not None
        if not each.closes:
            self.offered.add(each.problem)
        elif each.part is not Part.NEWS and each.problem not in self.offered:
            self.complaints.append(f"{name_of(each)} closes what was not opened")
        if is_taken:
            self.received.append(name_of(each))
            which = self.closed if each.closes else self.opened
            if each.part is not Part.NEWS:
                which.setdefault(each.problem, []).append(name_of(each))


def silences(rig: Rig, dice: Random) -> list[Silence]:
    """Return up to two that begin about now, and last for a while."""
    wanted = [
        {"sinks": ("ops",)},
        {"accounts": ("default",)},
        {"types": (EventType.ACCOUNT_DEGRADED, EventType.EXECUTION_OVERDUE)},
        {"types": (EventType.EXECUTION_FAILED,)},
    ]
    now = rig.clock.now()
    return [
        Silence(now + timedelta(seconds=dice.choice([-5, 0, 3])), now + timedelta(seconds=dice.choice([4, 20])), **each)  # type: ignore[arg-type] # each a field of it
        for each in dice.sample(wanted, k=dice.randrange(3))
    ]


def _waits(rig: Rig, problem: Problem) -> bool:
    return bool(rig.row(f"{problem.opening.stream.decode()}{problem.opening.sequence}")["state"] == "waiting")


@pytest.mark.parametrize("is_grouped", [False, True])
@pytest.mark.parametrize("seed", seeds(ci=3, soak=60))
def test_each_problem_is_opened_once_and_then_closed_once(rig: Rig, seed: int, is_grouped: bool) -> None:
    dice, rules = Random(seed), SOON_GROUPED if is_grouped else RULES
    receiver = Receiver(rig, dice)
    rig.sink.answer = receiver.answer
    do(rig.restart(rules=rules))
    open_now: dict[str, Problem] = {}
    closed: set[UUID] = set()
    all_problems: list[Problem] = []
    for step in range(STEPS):
        for stream, (opening, closing) in KINDS.items():
            data = {"account": "default"} | ({} if stream == "account-" else {"pipeline": {"id": "p"}})
            if dice.random() > 0.3 or rig.recorded[stream] > 7:
                continue
            if stream in open_now:
                problem = open_now.pop(stream)
                closed.add(problem.id)
                do(rig.record(stream, type_=closing, data=data, problem=problem, closed=True))
            else:
                key = EventKey(stream.encode(), rig.recorded[stream] + 1)
                problem = Problem(UUID(int=step * 10 + len(stream)), opening, rig.clock.now(), key)
                open_now[stream] = problem
                all_problems.append(problem)
                do(rig.record(stream, type_=opening, data=data, problem=problem))
        if dice.random() < 0.4:
            rig.silences.all = silences(rig, dice)
        do(rig.go(dice.choice([0.0, 0.3, 2.0, 7.0])))
        if dice.random() < 0.15:
            do(rig.worker.tick())
            receiver.offered |= {each.id for each in all_problems if _waits(rig, each)}  # nobody knows any more
            do(rig.lose())
            do(rig.start(rules=rules))
    receiver.is_well = True
    rig.silences.all = []
    do(rig.go_for(300))
    assert (receiver.complaints, rig.ends, do(backlog_of(rig.real_store))) == ([], [], {})
    for names in (*receiver.opened.values(), *receiver.closed.values()):
        assert len(set(names)) == 1
    assert {problem.id for problem in open_now.values()} <= receiver.opened.keys()
    assert receiver.opened.keys() & closed <= receiver.closed.keys()
    first_seen = list(dict.fromkeys(receiver.received))
    for stream in KINDS:
        of_stream = [name for name in first_seen if name.startswith(stream)]
        assert of_stream == sorted(of_stream)
