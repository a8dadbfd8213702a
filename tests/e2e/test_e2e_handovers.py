"""What is read out of a request log of several replicas: who asked although another had the account, and who waited."""

from collections.abc import Sequence

import pytest
from e2e import checks
from e2e.chaos import Loss, Spell
from e2e.handovers import delays, nobody_able, overlapping

from watcher.runtime.clock import Clock
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.server import LoggedRequest, RequestLog, Simulator
from watcher.simulator.world import Lifecycle, StatusPhase, World

PLACES = 3
KILLED = Loss(2.5, place=0, accounts=frozenset({0}), is_stop=False)


def log_of(*asked: tuple[float, int], answered: str | None = "running", account: int = 0) -> RequestLog:
    """Return a log in which replicas, by their places, asked for an account at these moments."""
    log = RequestLog()
    for at, place in asked:
        entry = LoggedRequest(at, account * PLACES + place, "get", execution="e", code=200, answered=answered)
        log.open(entry)
    return log


def waited(log: RequestLog, *losses: Loss, outages: Sequence[tuple[float, float]] = ()) -> list[float]:
    found = delays(log, losses, places_count=PLACES, outages=outages, until=100.0)
    return [seconds for seconds, *_ in found]


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ([(1, 0), (2, 0), (12, 1), (13, 1)], 0),
        ([(1, 0), (2, 0), (12, 1), (12.4, 0), (13, 1)], 1),
        ([(1, 0), (12, 1), (12.4, 0), (13, 1), (13.4, 0), (14, 1)], 3),
        ([(1, 0), (12, 1), (24, 0), (36, 1)], 0),
    ],
)
def test_who_asks_between_two_requests_of_another_overlaps(asked: list[tuple[float, int]], count: int) -> None:
    assert len(overlapping(log_of(*asked), places_count=PLACES)) == count


def test_an_account_waits_from_the_loss_of_its_replica_to_the_next_request() -> None:
    assert waited(log_of((1, 0), (2, 0), (12.5, 1)), KILLED) == [10.0]


def test_what_a_stopped_replica_asks_when_it_goes_on_does_not_end_the_waiting() -> None:
    stopped = Loss(2.5, place=0, accounts=frozenset({0}), is_stop=True)
    assert waited(log_of((1, 0), (2, 0), (15, 0), (17.5, 1)), stopped) == [15.0]
    assert waited(log_of((1, 0), (2, 0), (15, 0), (15.5, 0)), stopped) == [13.0]


def test_nobody_is_able_while_no_replica_runs_that_has_started_or_without_the_database() -> None:
    spells = [Spell(0, 2.0, to=5.0), Spell(1, 4.0, to=6.0), Spell(0, 9.0)]
    found = nobody_able(spells, [(3.0, 4.5), (5.5, 7.0)], since=1.0, until=10.0)
    assert found == [(1.0, 2.0), (3.0, 4.0), (4.0, 4.5), (5.5, 6.0), (6.0, 7.0), (7.0, 9.0)]
    assert nobody_able(spells[2:], [], since=9.0, until=10.0) == []


@pytest.mark.parametrize(("last_at", "complains"), [(10.0, False), (21.0, True)])
def test_what_was_answered_for_long_must_have_been_reported(last_at: float, *, complains: bool) -> None:
    world = World(Clock())
    world.add(Lifecycle("e", (StatusPhase("running", 0.0),)), pipeline=pipeline_named("p"))
    simulator = Simulator(world)
    simulator.request_log = log_of((0.0, 0), (last_at, 1))
    assert bool(checks.of_lasting_answers([], simulator, lasting_s=20.0)) is complains
