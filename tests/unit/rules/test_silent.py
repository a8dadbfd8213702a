from rules_rig import problem_of

from watcher.domain.rule import News
from watcher.domain.timestamps import Micros
from watcher.rules.silent import Silent, SilentState

SECOND = 1_000_000
HOUR = 3600 * SECOND


def silence(state: SilentState, *, is_open: bool = False, **news: int) -> tuple[str, int]:
    """Return whether a silence opens or closes, and the last start that is known then."""
    rule, at = Silent(3600.0), {name: Micros(value) for name, value in ({"now": 9 * HOUR} | news).items()}
    judged = rule.judge(state, News(**at), problem_of(rule) if is_open else None)  # type: ignore[arg-type]
    return "".join("o" if told.type is rule.opens else "c" for told in judged.events), judged.state.started_at


def test_silence_counts_from_the_last_start_and_opens_with_a_complete_scan() -> None:
    known = SilentState(started_at=HOUR)
    assert silence(known) == ("", HOUR)
    assert silence(known, scanned_until=2 * HOUR) == ("", HOUR)
    assert silence(known, scanned_until=2 * HOUR + 1) == ("o", HOUR)
    assert silence(known, scanned_until=2 * HOUR + 1, started_at=HOUR + 1) == ("", HOUR + 1)
    assert silence(known, started_at=SECOND, scanned_until=3 * HOUR, is_open=True) == ("", HOUR)


def test_before_the_first_complete_scan_no_start_is_the_last_one() -> None:
    assert silence(SilentState(), started_at=HOUR) == ("", 0)
    assert silence(SilentState(), started_at=HOUR, scanned_until=3 * HOUR) == ("o", HOUR)
    assert silence(SilentState(), shown_start_at=HOUR, scanned_until=3 * HOUR) == ("o", HOUR)
    assert silence(SilentState(HOUR), shown_start_at=2 * HOUR, scanned_until=3 * HOUR) == ("o", HOUR)


def test_silence_ends_with_a_start_that_is_not_too_old() -> None:
    known = SilentState(started_at=HOUR)
    assert silence(known, is_open=True, started_at=8 * HOUR) == ("c", 8 * HOUR)
    assert silence(known, is_open=True, started_at=8 * HOUR - 1) == ("", 8 * HOUR - 1)
