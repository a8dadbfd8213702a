import io
from typing import Any

import pytest
from rich.console import Console

from watcher.cli.capacity import Advice, plan
from watcher.cli.commands.check import EXPLAINED, advise, exactly, print_plan, print_plan_rows, roughly
from watcher.config.models import Settings

IDS = [f"9a1b0000-0000-4000-8000-{number:012}" for number in range(426)]


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


def test_intervals_are_to_be_raised_together_where_one_bounds_the_other() -> None:
    advice = Advice(("min_interval", "max_interval"), 0.5, 600, 434.7)
    assert advise(advice) == (
        "over min_interval 500ms: raise rate_limit to 434.7/s, or polling.min_interval and polling.max_interval to 10m"
    )


@pytest.mark.parametrize(
    ("figure", "shown"), [(0.0166, "0.017"), (0.25, "0.25"), (3.61, "3.6"), (84.4, "84"), (7200, "7200")]
)
def test_a_figure_has_as_many_digits_as_people_read(figure: float, shown: str) -> None:
    assert roughly(figure) == shown


@pytest.mark.parametrize(("figure", "shown"), [(0, "0"), (100, "100"), (1 / 3, "0.333"), (4.9, "4.9")])
def test_a_figure_has_no_needless_noughts(figure: float, shown: str) -> None:
    assert exactly(figure) == shown
