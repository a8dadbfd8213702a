"""What an account can hold, in tables: executions, rate and intervals in; requests and seconds out."""

import pytest

from watcher.cli.capacity import Advice, plan, plan_account
from watcher.config.models import PollingSettings, Settings

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("cadence", "executions_count", "rate_limit", "needed_per_s", "delay_s", "longest_s"),
    [
        ("backoff", 1, 5, 1 / 60, 3, 60),  # after a minute a look every 6 s: half of that on average
        ("backoff", 216, 5, 3.6, 22.041, 60),  # 216 at 4.9 a second: a turn takes 44 s
        ("backoff", 426, 5, 7.1, 43.469, 86.939),
        ("fixed", 1, 5, 1, 0.5, 1),
        ("fixed", 4, 5, 4, 0.5, 1),
        ("fixed", 49, 5, 49, 5, 10),
    ],
)
def test_more_executions_want_more_and_are_seen_later(
    cadence: str, executions_count: int, rate_limit: float, needed_per_s: float, delay_s: float, longest_s: float
) -> None:
    polling = PollingSettings.model_validate({"cadence": cadence})
    account = plan_account("a", executions_count, rate_limit=rate_limit, polling=polling)
    assert account.needed_per_s == pytest.approx(needed_per_s)
    assert account.budget_per_s == pytest.approx(0.98 * rate_limit)
    assert account.delay_s == pytest.approx(delay_s, abs=0.001)
    assert account.longest_s == pytest.approx(longest_s, abs=0.001)


@pytest.mark.parametrize(
    ("polling", "executions_count", "advice"),
    [
        ({}, 294, None),  # 60 s at 4.9 a second, exactly
        ({}, 295, Advice(("max_interval",), 60, 90, 5.1)),
        ({}, 426, Advice(("max_interval",), 60, 90, 7.3)),
        ({"cadence": "fixed"}, 4, None),
        ({"cadence": "fixed"}, 49, Advice(("min_interval",), 1, 10, 50)),
        ({"cadence": "fixed"}, 426, Advice(("min_interval", "max_interval"), 1, 90, 434.7)),
    ],
)
def test_an_interval_that_cannot_be_held_comes_with_what_would_help(
    polling: dict[str, str], executions_count: int, advice: Advice | None
) -> None:
    settings = PollingSettings.model_validate(polling)
    account = plan_account("a", executions_count, rate_limit=5, polling=settings)
    assert account.advice == advice


@pytest.mark.parametrize(("cadence", "executions_count"), [("backoff", 295), ("backoff", 10_000), ("fixed", 77)])
def test_what_would_help_helps(cadence: str, executions_count: int) -> None:
    polling = PollingSettings.model_validate({"cadence": cadence})
    advice = plan_account("a", executions_count, rate_limit=5, polling=polling).advice
    assert advice is not None
    faster = plan_account("a", executions_count, rate_limit=advice.rate_limit_per_s, polling=polling)
    longer = PollingSettings.model_validate({"cadence": cadence} | dict.fromkeys(advice.keys, f"{advice.longer_s}s"))
    slower = plan_account("a", executions_count, rate_limit=5, polling=longer)
    assert (faster.advice, slower.advice) == (None, None)


@pytest.mark.parametrize(
    ("cadence", "watched", "needed_per_s", "delay_s", "longest_s"),
    [
        ("backoff", (0, 1), 1, 0.5, 60),
        ("fixed", (0, 1), 1, 0.5, 60),
        ("backoff", (0, 10), 10, 1.02, 60),  # ten lists at 4.9 a second take turns
        ("backoff", (0, 400), 400, 40.816, 81.633),
        ("backoff", (12, 1), 1.2, 3, 60),  # what is named is seen later than what is listed
        ("backoff", (12, 6), 6.2, 3, 60),  # 2 a second go to what is named, 2.9 are left for six lists
        ("backoff", (12, 30), 30.2, 5.172, 60),  # 2 a second go to what is named, 2.9 are left for 30 lists
        (
            "backoff",
            (200, 2),
            200 / 60 + 2,
            30,
            60,
        ),  # lists take what is left of half: the named come to their limit
        (
            "backoff",
            (400, 2),
            400 / 60 + 2,
            41.096,
            82.192,
        ),  # more than can be held: lists still go once a minute
        ("backoff", (600, 200), 210, 122.449, 244.898),  # far more: lists three times in a turn
        ("fixed", (4, 1), 5, 0.513, 60),  # the list takes its one a second
        ("fixed", (4, 54), 58, 11.02, 60),  # half each
        ("fixed", (49, 1), 50, 6.282, 60),
    ],
)
def test_a_whole_pipeline_wants_its_list_and_has_what_is_left(
    cadence: str, watched: tuple[int, int], needed_per_s: float, delay_s: float, longest_s: float
) -> None:
    account = plan_account("a", *watched, rate_limit=5, polling=PollingSettings.model_validate({"cadence": cadence}))
    assert account.needed_per_s == pytest.approx(needed_per_s)
    assert account.delay_s == pytest.approx(delay_s, abs=0.001)
    assert account.longest_s == pytest.approx(longest_s, abs=0.001)


@pytest.mark.parametrize(
    ("cadence", "watched", "advice"),
    [
        ("backoff", (0, 294), None),  # each list within 60 s, though it would like one a second
        ("backoff", (0, 295), Advice(("max_interval",), 60, 90, 5.1)),
        ("fixed", (0, 295), Advice(("max_interval",), 60, 90, 5.1)),
        ("backoff", (200, 95), Advice(("max_interval",), 60, 90, 5.1)),
        ("fixed", (2, 54), None),  # half the rate holds 1 s
        ("fixed", (4, 0), None),
        ("fixed", (3, 54), Advice(("min_interval",), 1, 2, 6.2)),
        ("fixed", (4, 1), Advice(("min_interval",), 1, 2, 5.2)),
        ("fixed", (4, 300), Advice(("min_interval", "max_interval"), 1, 90, 9.2)),
    ],
)
def test_of_whole_pipelines_only_max_interval_is_to_be_held(
    cadence: str, watched: tuple[int, int], advice: Advice | None
) -> None:
    polling = PollingSettings.model_validate({"cadence": cadence})
    assert plan_account("a", *watched, rate_limit=5, polling=polling).advice == advice


def test_what_is_held_exactly_is_held_whatever_the_rounding() -> None:
    plans = [
        plan_account("a", named, whole, rate_limit=(named + whole) / 60 / 0.98, polling=PollingSettings())
        for named in range(1, 60)
        for whole in range(1, 60)
    ]
    assert {each.advice for each in plans} == {None}


def test_each_account_has_its_own_watches_and_rate() -> None:
    ids = [f"9a1b0000-0000-4000-8000-{number:012}" for number in range(5)]
    settings = Settings.model_validate(
        {
            "accounts": {"a": {"api_key": "k"}, "b": {"api_key": "l", "rate_limit": "100/m"}},
            "watch": [
                {"pipeline": PIPELINE, "account": "b", "executions": ids[:2]},
                {"pipeline": OTHER, "account": "b", "executions": ids[2:]},
                {"pipeline": ids[0], "account": "b"},
            ],
            "polling": {"cadence": "fixed"},
        }
    )
    assert [(each.account, each.needed_per_s) for each in plan(settings)] == [("a", 0), ("b", 6)]
    assert [each.budget_per_s for each in plan(settings)] == pytest.approx([4.9, 1.6333], abs=0.001)
