import io

import pytest
from rich.console import Console

from watcher.cli.check.connectivity import Trial
from watcher.cli.check.views import TryingLine, print_trial
from watcher.domain.errors import Exit


def printed(trial: Trial) -> str:
    out = io.StringIO()
    print_trial(trial, console=Console(file=out, width=100, markup=False, highlight=False))
    return out.getvalue()


def test_what_works_is_one_line() -> None:
    trial = Trial("sinks.ops", "https://h", code=Exit.DONE, words="connected, nothing sent", took_ms=12.4)
    assert printed(trial) == "✓ sinks.ops  https://h  connected, nothing sent (12 ms)\n"


def test_what_does_not_says_what_to_do() -> None:
    trial = Trial(
        "sinks.ops", "https://h", code=Exit.UNREACHABLE, words="answers 404", took_ms=84, hint="make a new one"
    )
    assert printed(trial) == "✕ sinks.ops  https://h  answers 404 (84 ms)\n  hint: make a new one\n"


class Screen(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def tried(screen: Screen) -> str:
    line = TryingLine(3, stream=screen)
    line.tried()
    line.show()
    line.tried()
    line.clear()
    return screen.getvalue()


def test_on_a_terminal_what_takes_long_says_how_far_it_is_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    begin = "\r\x1b[K"
    assert tried(Screen(terminal=True)) == f"{begin}tried 1 of 3 watches{begin}tried 2 of 3 watches{begin}"


def test_without_a_terminal_or_on_one_that_can_do_nothing_it_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tried(Screen(terminal=False)) == ""
    monkeypatch.setenv("TERM", "dumb")
    assert tried(Screen(terminal=True)) == ""


def test_what_is_over_soon_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal=True)
    line = TryingLine(1, stream=screen)
    line.tried()
    line.clear()
    assert screen.getvalue() == ""


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(terminal=True)
    screen.write = gone  # type: ignore[method-assign]
    TryingLine(1, stream=screen).show()


def gone(_text: str) -> int:
    raise OSError
