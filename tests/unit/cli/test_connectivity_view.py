import io

from rich.console import Console

from watcher.cli.commands.check import print_trial
from watcher.cli.connectivity import Trial
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
