"""How a sink is sent groups: what goes together, when, and that nothing of it is lost or changed."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

import pytest
from parameters import seeds
from stores import backlog_of
from structlog.testing import capture_logs
from worker_rig import BUSY, DELIVERED, FAILED, REFUSED, RULES, Rig, do, name_of

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.routing import GroupRules
from watcher.sinks.protocol import SendResult, WorkerRules

GROUPED = replace(RULES, group=GroupRules(("pipeline",), wait_s=30.0, max_count=4))


def of(pipeline: str, **more: object) -> Mapping[str, object]:
    return {"account": "default", "pipeline": {"id": pipeline}, **more}


def by(*fields: str, max_count: int = 100) -> WorkerRules:
    return replace(RULES, group=GroupRules(fields, wait_s=30.0, max_count=max_count))


@pytest.fixture(autouse=True)
def _grouped(rig: Rig) -> None:
    do(rig.restart(rules=GROUPED))


async def batches_after(rig: Rig, after_s: float = 0.0) -> list[list[str]]:
    """Return what goes together if so much time passes."""
    rig.sink.take_batches()
    await rig.go(after_s + 0.0001)  # what is recorded together is due microseconds apart
    return rig.sink.take_batches()


def test_a_group_goes_so_long_after_its_first_event_was_recorded_with_all_there_is(rig: Rig) -> None:
    do(rig.record("a", data=of("p")))
    assert do(batches_after(rig)) == []
    do(rig.record("b", data=of("p")))
    assert do(rig.go(29)) == pytest.approx(1.0, abs=0.01)
    assert do(batches_after(rig, 1)) == [["a1", "b1"]]
    assert (rig.counted("delivered"), rig.row("a1")["state"]) == (2, "delivered")


def test_a_full_group_waits_too_and_the_rest_goes_with_the_next_request(rig: Rig) -> None:
    do(rig.record("a", "b", "c", "d", "e", data=of("p")))
    assert do(batches_after(rig)) == []
    assert do(batches_after(rig, 30)) == [["a1", "b1", "c1", "d1"], ["e1"]]
    sizes = {
        size: rig.metrics.registry.get_sample_value("watcher_deliveries_batched_bucket", {"sink": "ops", "le": size})
        for size in ("1.0", "2.0", "5.0")
    }
    assert sizes == {"1.0": 1, "2.0": 1, "5.0": 2}


def test_a_group_that_failed_comes_due_together_and_takes_along_what_is_due_by_then(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    do(rig.record("b", "a", "b", data=of("p")))
    assert do(batches_after(rig, 30)) == [["b1", "a1", "b2"]]
    same = ("attempts", "rejections", "due_at", "tried_at", "first_due_us", "group_key", "state")
    assert [rig.row("a1")[name] for name in same] == [rig.row("b1")[name] for name in same]
    assert (rig.row("a1")["attempts"], rig.counted("retried")) == (1, 3)
    do(rig.record("c", "a", "c", data=of("p")))
    assert do(batches_after(rig, 1)) == [["b1", "a1", "b2", "c1"]]
    rig.sink.answer = lambda _: DELIVERED
    assert do(batches_after(rig, 5)) == [["b1", "a1", "b2", "c1"]]
    assert do(batches_after(rig, 24)) == [["a2", "c2"]]


def test_a_refused_group_goes_event_by_event_and_its_refusal_counts_for_none(rig: Rig) -> None:
    rig.sink.answer = lambda _: REFUSED if "c1" in rig.sink.batches[-1] else DELIVERED
    do(rig.record("a", "a", "c", "d", data=of("p")))
    whole, *parts = do(batches_after(rig, 30))
    assert (whole, sorted(parts)) == (["a1", "a2", "c1", "d1"], [["a1"], ["a2"], ["c1"], ["d1"]])
    assert parts.index(["a1"]) < parts.index(["a2"])
    assert (rig.row("c1")["attempts"], rig.row("c1")["rejections"], rig.counted("delivered")) == (2, 1, 3)
    with capture_logs() as logs:
        assert [batch for _ in range(4) for batch in do(batches_after(rig, 600))] == [["c1"]] * 4
    assert (rig.row("c1")["state"], rig.row("c1")["rejections"], rig.counted("dead")) == ("dead", 5, 1)
    (dead,) = [each for each in logs if each["event"] == "delivery.dead"]
    assert (dead["attempt"], dead["refused"]) == (6, 5)  # one of its attempts was that of the group


def test_a_group_whose_message_is_refused_goes_in_minimal_form_before_it_goes_apart(rig: Rig) -> None:
    def answer(_: Delivery) -> SendResult:
        first, *others = rig.sink.sent[-len(rig.sink.batches[-1]) :]
        return replace(REFUSED, minimal_left=not first.rejections) if others else DELIVERED

    rig.sink.answer = answer
    do(rig.record("a", "b", data=of("p")))
    whole, minimal, *parts = do(batches_after(rig, 30))
    assert (whole, minimal, sorted(parts)) == (["a1", "b1"], ["a1", "b1"], [["a1"], ["b1"]])
    assert rig.counted("delivered") == 2


@pytest.mark.parametrize("others_every_s", [5, 50])
@pytest.mark.parametrize("failure", [FAILED, replace(FAILED, retry_after_s=3600)])
def test_one_event_that_always_fails_costs_the_others_of_its_group_no_more_than_a_few_tries(
    rig: Rig, others_every_s: int, failure: SendResult
) -> None:
    """29 of 29 healthy events died with it once."""
    names = [f"s{number:02}-" for number in range(30)]
    do(rig.restart(rules=replace(by("pipeline"), schedule_s=(1.0, 5.0, 30.0, 120.0, 600.0))))
    rig.sink.answer = lambda _: failure if "s07-1" in rig.sink.batches[-1] else DELIVERED
    do(rig.record(*names, data=of("p")))
    for _ in range(0, 600, others_every_s):
        do(rig.record("other", data=of("q")))
        do(rig.go_for(others_every_s))
    assert {rig.row(f"{name}1")["state"] for name in names if name != "s07-"} == {"delivered"}
    assert (rig.row("s07-1")["state"], rig.counted("dead")) == ("waiting", 0)
    assert rig.row("s00-1")["attempts"] <= 6


@pytest.mark.parametrize(
    ("retry_after_s", "apart_after_s", "other_after_s"),
    [(0, 6, 3), (0, 6, 0.5), (20, 40, 25), (20, 40, 5), (3600, 65, 61), (3600, 65, 20)],
)
def test_retry_after_delays_a_group_with_one_bad_event_for_a_minute_in_all(
    rig: Rig, retry_after_s: int, apart_after_s: int, other_after_s: float
) -> None:
    """It was two minutes or more, and ten at a sink with few other events."""
    do(rig.restart(rules=replace(by("pipeline"), schedule_s=(1.0, 5.0, 30.0, 120.0))))
    failure = replace(FAILED, retry_after_s=retry_after_s)
    rig.sink.answer = lambda _: failure if "b1" in rig.sink.batches[-1] else DELIVERED
    do(rig.record("a", "b", "c", data=of("p")))
    assert do(rig.go_for(30.01)) == ["a1", "b1", "c1"]
    do(rig.go_for(other_after_s))
    do(rig.send("other", type_=EventType.ACCOUNT_DEGRADED))
    do(rig.go_for(apart_after_s - other_after_s - 0.1))
    assert (rig.row("a1")["attempts"], rig.row("a1")["state"]) == (2, "waiting")
    do(rig.go_for(0.2))
    assert [rig.row(name)["state"] for name in ("a1", "b1", "c1")] == ["delivered", "waiting", "delivered"]


def test_a_group_that_fails_in_an_outage_stays_together_but_for_the_one_that_is_tried(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    do(rig.record("a", "b", "c", data=of("p")))
    do(rig.go_for(300))
    rig.sink.take_batches()
    rig.sink.answer = lambda _: DELIVERED
    do(rig.go_for(60))
    assert [len(batch) for batch in rig.sink.take_batches()] == [1, 2]


def test_each_of_a_group_dies_at_its_own_time(rig: Rig) -> None:
    def go_for(seconds: int) -> None:
        for _ in range(0, seconds, 10):
            do(rig.go_for(10))
            do(rig.worker.flush())

    do(rig.restart(rules=replace(by("pipeline"), give_up_after_s=100.0)))
    rig.sink.answer = lambda _: FAILED
    do(rig.record("a", "a", "b", data=of("p")))
    go_for(60)
    do(rig.record("a", data=of("p")))
    go_for(100)
    assert [rig.row(name)["state"] for name in ("a1", "a2", "b1", "a3")] == ["dead", "dead", "dead", "waiting"]
    go_for(30)
    assert (rig.row("a3")["state"], rig.counted("dead")) == ("dead", 4)


def test_an_open_breaker_tries_one_group_at_a_time(rig: Rig) -> None:
    rig.sink.answer = lambda _: FAILED
    for number in range(6):
        do(rig.record(f"a{number}-", f"b{number}-", data=of(f"p{number}")))
    assert len(do(batches_after(rig, 30))) == 6
    assert [len(do(batches_after(rig, after_s))) for after_s in (1, 1, 1)] == [1, 0, 1]
    rig.sink.answer = lambda _: DELIVERED
    do(rig.go_for(70))
    assert (len(rig.sink.take_batches()), rig.counted("delivered")) == (6, 12)


def test_what_is_replayed_goes_alone_at_once(rig: Rig) -> None:
    rig.sink.answer = lambda _: REFUSED
    do(rig.record("a", "b", data=of("p")))
    do(rig.go(30))
    for _ in range(5):
        do(rig.go(600))
    assert rig.counted("dead") == 2
    do(rig.record("c", "a", data=of("p")))
    rig.sink.answer = lambda _: DELIVERED
    do(rig.replay("a1", "b1"))
    rig.sink.sent.clear()
    assert sorted(do(batches_after(rig, 10))) == [["a1"], ["b1"]]
    assert do(batches_after(rig, 30)) == [["c1", "a2"]]
    replayed = {name_of(each): each.replayed for each in rig.sink.sent}
    assert replayed == {"a1": True, "b1": True, "c1": False, "a2": False}


def test_while_a_large_group_is_in_flight_the_worker_rests(rig: Rig) -> None:
    do(rig.restart(rules=replace(RULES, rate_per_s=1.0, group=GroupRules(("pipeline",), wait_s=30.0, max_count=100))))
    do(rig.record(*(f"s{number}" for number in range(40)), data={"account": "default", "pipeline": {"id": "p"}}))
    rig.clock.elapsed_s += 31
    rests_s = [do(rig.worker.tick()) for _ in range(5)]
    assert (len(rig.held()), min(rests_s[2:]) > 0) == (1, True)


def test_another_group_goes_though_one_took_all_heads_and_another_head_was_tried(rig: Rig) -> None:
    do(rig.restart(rules=replace(by("pipeline", max_count=1000), rate_per_s=1.0)))
    # a1 of group p fails once, so it is the one head that was tried; it is due again after a second
    rig.sink.answer = lambda _: FAILED
    do(rig.record("a", data=of("p")))
    do(rig.go(30.1))
    rig.sink.answer = lambda _: DELIVERED
    rig.sink.take_sent()
    for number in range(20):
        do(rig.record(f"s{number}", data=of("p")))
    do(rig.record("z", data=of("q")))
    rig.clock.elapsed_s += 31
    do(rig.later(3600))
    assert "z1" in rig.sink.take_sent()


# Under whatever happens: failures, refusals, kills, and settings that change

STREAMS = [f"s{number}-" for number in range(12)]
STEPS = 60


class Receiver:
    """Answers by chance, and never takes one event; checks with each request that nothing is out of order."""

    def __init__(self, rig: Rig, dice: Random, *, poison: SendResult) -> None:
        self.is_well = False
        self.complaints: list[str] = []  # an error would count as trouble of the sink
        self.received: set[str] = set()
        self._rig = rig
        self._dice = dice
        self._poison = poison

    def answer(self, _: Delivery) -> SendResult:
        names = self._rig.sink.batches[-1]
        self._check_order(self._rig.sink.sent[-len(names) :])
        result = self._poison if "s1-3" in names else DELIVERED
        if not self.is_well and result is DELIVERED:
            result = self._dice.choice([DELIVERED, FAILED, replace(BUSY, retry_after_s=1.0)])
        if result is DELIVERED:
            self.received.update(names)
        return result

    def _check_order(self, batch: list[Delivery]) -> None:
        ahead: set[str] = set()
        for each in batch:
            for number in range(1, each.content["sequence"]):
                name = f"{each.content['of']}{number}"
                if name not in self.received | ahead and self._rig.row(name)["state"] != "dead":
                    self.complaints.append(f"{name_of(each)} before {name}")
            ahead.add(name_of(each))


def rules(dice: Random) -> WorkerRules:
    by = dice.choice([("pipeline",), ("type",), ("account", "labels.team")])
    group = GroupRules(by, wait_s=dice.choice([1.0, 10.0]), max_count=dice.choice([2, 5, 100]))
    return replace(RULES, group=dice.choice([group, group, group, None]))


@pytest.mark.parametrize("poison", [REFUSED, FAILED], ids=["refused", "failing"])
@pytest.mark.parametrize("seed", seeds(ci=3, soak=60))
def test_nothing_is_lost_or_out_of_order(rig: Rig, seed: int, poison: SendResult) -> None:
    dice = Random(seed)
    receiver = Receiver(rig, dice, poison=poison)
    rig.sink.answer = receiver.answer
    current = rules(dice)
    do(rig.restart(rules=current))
    for _ in range(STEPS):
        type_ = dice.choice([EventType.EXECUTION_RUNNING, EventType.EXECUTION_FAILED, EventType.ACCOUNT_DEGRADED])
        data = {"account": "default", "pipeline": {"id": dice.choice("pq")}, "labels": {"team": dice.choice("xy")}}
        chosen = [stream for stream in dice.choices(STREAMS, k=dice.randrange(6)) if rig.recorded[stream] < 9]
        do(rig.record(*dict.fromkeys(chosen), type_=type_, data=data))
        do(rig.go(dice.choice([0.0, 0.3, 2.0, 11.0])))
        if dice.random() < 0.15:
            do(rig.worker.tick())
            do(rig.lose())
            current = current if dice.random() < 0.7 else rules(dice)
            do(rig.start(rules=current))
    receiver.is_well = True
    for number in range(40):
        do(rig.record("other", type_=EventType.ACCOUNT_DEGRADED))
        do(rig.go_for(30 + number))
    expected = {f"{stream}{nth}" for stream, count in rig.recorded.items() for nth in range(1, count + 1)}
    late = {f"s1-{nth}" for nth in range(3, 10)} if poison is FAILED else {"s1-3"}
    assert (receiver.complaints, rig.ends) == ([], [])
    assert expected - receiver.received <= late
    waiting = do(backlog_of(rig.real_store))
    assert waiting == {} or {"s1-3"} & expected, waiting
