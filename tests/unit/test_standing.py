from collections.abc import Callable

import pytest

from watcher.ports.store import AT_EASE, SinkRecord, Strain
from watcher.standing import Standing


def standing(state: str | None = None, *, clock_s: float = 0.0, strain: Strain = AT_EASE) -> Standing:
    return Standing(SinkRecord(0, state, clock_s, strain), now=1000)


def test_a_sink_fails_once_nothing_got_through_for_five_minutes() -> None:
    sink = standing()
    sink.tried(1000)
    sink.tried(1200)
    sink.look(1299.9)
    assert sink.state is None
    sink.look(1300)
    assert sink.state == "failing"


def test_a_sink_that_was_not_tried_does_not_fail() -> None:
    sink = standing()
    sink.look(9999)
    assert sink.state is None


@pytest.mark.parametrize("way", [Standing.got_through, Standing.rested])
def test_five_minutes_begin_anew_after_a_success_or_with_nothing_to_try(way: Callable[[Standing], None]) -> None:
    sink = standing()
    sink.tried(1000)
    way(sink)
    sink.tried(1200)
    sink.look(1499)
    assert sink.state is None
    sink.look(1500)
    assert sink.state == "failing"


@pytest.mark.parametrize(("before", "after"), [(None, None), ("failing", None), ("disabled", "disabled")])
def test_a_success_ends_failing_and_nothing_else(before: str | None, after: str | None) -> None:
    sink = standing(before)
    sink.got_through()
    assert sink.state == after


@pytest.mark.parametrize("before", [None, "failing", "disabled"])
def test_gone_disables(before: str | None) -> None:
    sink = standing(before)
    sink.gone(1001)
    assert (sink.state, sink.disabled) == ("disabled", True)


def test_a_disabled_sink_does_not_begin_to_fail() -> None:
    sink = standing("disabled")
    sink.tried(1000)
    sink.look(9999)
    assert sink.state == "disabled"


def test_its_clock_goes_on_from_what_is_recorded_and_stands_still_while_disabled() -> None:
    sink = standing(clock_s=50)
    assert sink.clock_s(1007) == 57
    sink.gone(1010)
    assert (sink.clock_s(1010), sink.clock_s(5000)) == (60, 60)
    sink.gone(6000)
    assert sink.clock_s(7000) == 60
    assert standing("disabled", clock_s=50).clock_s(5000) == 50


def test_five_minutes_go_on_after_a_restart() -> None:
    sink = standing(strain=Strain(failing_for_s=200))
    sink.tried(1050)
    sink.look(1099.9)
    assert sink.state is None
    sink.look(1100)
    assert sink.state == "failing"


@pytest.mark.parametrize(("left_s", "until"), [(60, 1060), (-5, 995), (90_000, 4600)])
def test_a_pause_goes_on_after_a_restart_and_for_no_longer_than_can_be_asked_for(left_s: float, until: float) -> None:
    assert standing(strain=Strain(pause_s=left_s)).paused_until == until


def test_the_strain_of_a_sink_is_what_is_left_of_its_pause_and_for_how_long_it_fails() -> None:
    sink = standing()
    assert sink.strain(1000) == AT_EASE
    sink.tried(1000)
    sink.pause(1100)
    sink.pause(1090)
    assert sink.strain(1040) == Strain(60, 40)
    assert sink.strain(1500) == Strain(-400, 300)


def test_a_pause_lasts_until_an_answer_after_its_end() -> None:
    sink = standing()
    sink.pause(1100)
    sink.answered(1099)
    assert sink.paused_until == 1100
    sink.answered(1100)
    assert sink.strain(1101) == AT_EASE
