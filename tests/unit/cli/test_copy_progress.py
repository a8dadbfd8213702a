"""How far a copy is, as lines. On a terminal: `tests/unit/cli/commands/test_copy_store.py`."""

import io
import sys

import pytest
from rich.console import Console
from stores import SECOND_US, SetClock

from watcher.cli.copy_progress import BarView, LinesView, copy_view


def test_a_line_says_how_much_there_is_and_then_at_most_every_ten_seconds_how_far_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = SetClock()
    with LinesView(clock) as view:
        view.begin({"source": 2, "event": 3000})
        for _ in range(3):
            view.copied("event", 500)
            clock.us += 6 * SECOND_US
        view.finish()
    assert capsys.readouterr() == (
        "",
        "copying 3,002 rows\ncopied 1,500 of 3,002 rows (event)\nall rows are written; finishing\n",
    )


@pytest.mark.parametrize(
    ("terminal", "term", "kind"), [(True, "xterm", BarView), (True, "dumb", LinesView), (False, "xterm", LinesView)]
)
def test_a_bar_is_for_terminals_that_can_redraw_it(
    terminal: bool, term: str, kind: type
) -> None:  # fmt: skip
    console = Console(file=io.StringIO(), force_terminal=terminal, _environ={"TERM": term})
    assert isinstance(copy_view(console, clock=SetClock()), kind)


def test_a_reader_who_is_gone_ends_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return written.fileno()

    with open("/dev/null", "w", encoding="utf-8") as written:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", Gone())
        LinesView(SetClock()).begin({})
