import pytest

from watcher.simulator.faults import Dice, Fault, Faults, Window
from watcher.simulator.scenarios import SCENARIOS

ODDS = Faults(odds={Fault.RESET: 0.25, Fault.HTML: 0.25})


def throws(faults: Faults, *, seed: int = 7, count: int = 4000) -> list[Fault | None]:
    dice = Dice(faults, seed=seed)
    return [dice.throw(0.0, execution="e", endpoint="get") for _ in range(count)]


def test_faults_come_about_as_often_as_their_odds() -> None:
    thrown = throws(ODDS)
    assert thrown.count(Fault.RESET) == pytest.approx(1000, abs=150)
    assert thrown.count(Fault.HTML) == pytest.approx(1000, abs=150)
    assert thrown.count(None) == pytest.approx(2000, abs=200)


@pytest.mark.parametrize(
    ("now_s", "fault"), [(9.9, None), (10, Fault.UNAUTHORIZED), (19.9, Fault.UNAUTHORIZED), (20, None)]
)
def test_a_window_opens_and_closes(now_s: float, fault: Fault | None) -> None:
    dice = Dice(Faults(windows=(Window(Fault.UNAUTHORIZED, 10, 20),)), seed=7)
    assert dice.throw(now_s, execution=None, endpoint="get") is fault


def test_a_window_goes_before_the_odds() -> None:
    dice = Dice(Faults(odds={Fault.HTML: 1.0}, windows=(Window(Fault.RESET, 0, 5),)), seed=7)
    assert dice.throw(1, execution="a", endpoint="get") is Fault.RESET
    assert dice.throw(6, execution="a", endpoint="get") is Fault.HTML


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_odds_of_a_scenario_add_up_to_at_most_one(name: str) -> None:
    assert sum(SCENARIOS[name].faults.odds.values()) <= 1
