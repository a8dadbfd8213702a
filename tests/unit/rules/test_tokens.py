import pytest

from watcher.domain.event import EventType
from watcher.domain.history import DAY_US, EndedExecution
from watcher.domain.rule import News
from watcher.domain.timestamps import Micros
from watcher.rules.tokens import Spending, Tokens, TokensSettings

NOON = Micros(20_000 * DAY_US + DAY_US // 2)
TODAY, TOMORROW = Micros(20_000 * DAY_US), Micros(20_001 * DAY_US)


@pytest.mark.parametrize(
    ("before", "ends", "after"),
    [
        ((TODAY, 70, 0), [], (TODAY, 70, 0)),
        ((TODAY, 70, 0), [(NOON, 9)], (TODAY, 79, 0)),
        ((TODAY, 70, 0), [(NOON, 4), (TODAY, 6)], (TODAY, 80, 80)),
        ((TODAY, 85, 80), [(NOON, 14)], (TODAY, 99, 80)),
        ((TODAY, 85, 80), [(NOON, 15)], (TODAY, 100, 100)),
        ((TODAY, 10, 100), [(NOON, 1)], (TODAY, 11, 100)),  # an event has named it
        ((TODAY, 70, 0), [(TODAY - 1, 90)], (TODAY, 70, 0)),
        ((TODAY - DAY_US, 90, 80), [(NOON, 5)], (TODAY, 5, 0)),
        ((TODAY, 90, 80), [(TOMORROW, 5), (NOON, 90)], (TOMORROW, 5, 0)),
    ],
)
def test_the_tokens_of_a_day_are_those_of_the_ends_dated_on_it(
    before: tuple[int, int, int], ends: list[tuple[int, int]], after: tuple[int, int, int]
) -> None:
    rule, recorded = (
        Tokens(TokensSettings(per_day=100)),
        [EndedExecution(NOON, Micros(at), "success", tokens) for at, tokens in ends],
    )
    judged = rule.judge(Spending(Micros(before[0]), *before[1:]), News(NOON, recorded=recorded), None)
    assert judged.state == after
    told = [(each.type, (each.data or {})["percent"]) for each in judged.events]
    is_told = after[2] > (before[2] if before[0] == after[0] else 0)
    assert told == [(EventType.PIPELINE_OVERSPENDING, after[2])] * is_told
