"""The plan of an account: executions, rate and intervals in; requests, seconds and advice out."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from watcher.cli.commands.check import EXPLAINED, exactly, plan, plan_account, print_plan, print_plan_rows, roughly
from watcher.config.models import PollingSettings, Settings

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"
IDS = [f"9a1b0000-0000-4000-8000-{number:012}" for number in range(426)]


def polling(cadence: str, **intervals: str) -> PollingSettings:
    return PollingSettings.model_validate({"cadence": cadence} | intervals)


MAX = "over max_interval 60s: raise rate_limit to {}/s, or polling.max_interval to 90s"
MIN = "over min_interval 1s: raise rate_limit to {}/s, or polling.min_interval to {}"
BOTH = "over min_interval 1s: raise rate_limit to {}/s, or polling.min_interval and polling.max_interval to 90s"


@pytest.mark.parametrize(
    ("cadence", "watched", "needed_per_s", "delay_s", "longest_s", "advice"),
    [
        ("backoff", (1, 0), 1 / 60, 3, 60, None),  # after a minute a look every 6 s: half of that on average
        ("backoff", (294, 0), 4.9, 30, 60, None),  # 60 s at 4.9 a second, exactly
        ("backoff", (295, 0), 4.917, 30.102, 60.204, MAX.format(5.1)),
        ("backoff", (426, 0), 7.1, 43.469, 86.939, MAX.format(7.3)),
        ("fixed", (4, 0), 4, 0.5, 1, None),
        ("fixed", (49, 0), 49, 5, 10, MIN.format(50, "10s")),
        ("fixed", (426, 0), 426, 43.469, 86.939, BOTH.format(434.7)),
        ("backoff", (0, 1), 1, 0.5, 60, None),
        ("backoff", (0, 10), 10, 1.02, 60, None),  # ten lists at 4.9 a second take turns
        ("backoff", (0, 294), 294, 30, 60, None),  # each list within 60 s, though it would like one a second
        ("fixed", (0, 295), 295, 30.102, 60.204, MAX.format(5.1)),
        ("backoff", (12, 6), 6.2, 3, 60, None),
        ("backoff", (12, 30), 30.2, 5.172, 60, None),  # 2 a second go to what is named, 2.9 are left for 30 lists
        ("backoff", (200, 2), 5.333, 30, 60, None),  # lists take what is left of half: the named come to their limit
        ("backoff", (200, 95), 98.333, 30.151, 60.302, MAX.format(5.1)),
        # far more: lists go three times in a turn
        ("backoff", (600, 200), 210, 122.449, 244.898, MAX.format(13.7).replace("90s", "3m")),
        ("fixed", (4, 1), 5, 0.513, 60, MIN.format(5.2, "2s")),  # the list takes its one a second
        ("fixed", (4, 54), 58, 11.02, 60, MIN.format(8.2, "2s")),  # half each
        ("fixed", (4, 300), 304, 61.224, 184.490, BOTH.format(9.2)),
    ],
)
def test_more_executions_and_lists_want_more_and_are_seen_later_and_what_cannot_be_held_has_a_remedy(
    cadence: str, watched: tuple[int, int], needed_per_s: float, delay_s: float, longest_s: float, advice: str | None
) -> None:
    account = plan_account("a", *watched, rate_limit=5, polling=polling(cadence))
    found = (account.needed_per_s, account.budget_per_s, account.delay_s, account.longest_s)
    assert found == pytest.approx((needed_per_s, 4.9, delay_s, longest_s), abs=0.001)
    assert account.advice == advice


@pytest.mark.parametrize(("cadence", "executions_count"), [("backoff", 295), ("backoff", 10_000), ("fixed", 77)])
def test_what_would_help_helps(cadence: str, executions_count: int) -> None:
    advice = plan_account("a", executions_count, rate_limit=5, polling=polling(cadence)).advice
    words = re.search(r"raise rate_limit to (\S+)/s, or (.+) to (\S+)", advice or "")
    assert words
    longer = polling(cadence, **{key.removeprefix("polling."): words[3] for key in words[2].split(" and ")})
    assert plan_account("a", executions_count, rate_limit=float(words[1]), polling=polling(cadence)).advice is None
    assert plan_account("a", executions_count, rate_limit=5, polling=longer).advice is None


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


def settings(**polling: str) -> Settings:
    document: dict[str, Any] = {
        "accounts": {"default": {"api_key": "k"}, "eu": {"api_key": "l"}, "idle": {"api_key": "m"}},
        "watch": [
            {"pipeline": "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "account": "default", "executions": IDS[:12]},
            {"pipeline": "77aa0000-0000-4000-8000-000000000000", "account": "eu", "executions": IDS},
        ],
        "sinks": {"stdout": {"type": "stdout"}},
        "polling": polling,
    }
    return Settings.model_validate(document)


def printed(settings: Settings, *, width: int) -> list[str]:
    out = io.StringIO()
    print_plan(plan(settings), settings, file="w.yaml", console=Console(file=out, width=width, markup=False))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_people_get_a_table_and_what_would_help() -> None:
    assert printed(settings(), width=300) == [
        "✓ w.yaml  3 accounts, 2 watches, 1 sink",
        "account  needed  budget  expected delay  longest interval",
        "default  0.2/s   4.9/s   3 s             60 s",
        "eu       7.1/s   4.9/s   43 s            87 s",
        "idle     0/s     4.9/s   -               -",
        "! eu: over max_interval 60s: raise rate_limit to 7.3/s, or polling.max_interval to 90s",
        EXPLAINED,
    ]


def test_programs_get_rows_without_units(capsys: pytest.CaptureFixture[str]) -> None:
    print_plan_rows(plan(settings()))
    assert capsys.readouterr().out.splitlines() == [
        "account\tneeded\tbudget\tdelay\tinterval",
        "default\t0.2\t4.9\t3\t60",
        "eu\t7.1\t4.9\t43.469\t86.939",
        "idle\t0\t4.9\t\t",
    ]


@pytest.mark.parametrize(
    ("figure", "shown", "exact"),
    [(0, "0", "0"), (0.0166, "0.017", "0.017"), (1 / 3, "0.33", "0.333"), (3.61, "3.6", "3.61"), (84.4, "84", "84.4")],
)
def test_a_figure_has_as_many_digits_as_people_read_or_three_decimals(figure: float, shown: str, exact: str) -> None:
    assert (roughly(figure), exactly(figure)) == (shown, exact)
