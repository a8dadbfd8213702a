"""The command line as a whole: what is registered, what is refused. What a command does is tested beside it."""

import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from e2e.programme import Outcome, environment, outcome_of
from unit.conftest import Command

from watcher.cli import commands
from watcher.cli.main import COMMANDS
from watcher.simulator.scenarios import SCENARIOS

HELP_OF_ALL = """
import sys
from watcher.cli.main import COMMANDS, main
for command in COMMANDS:
    sys.argv = ["watcher", command, "--help"]
    try:
        main()
    except SystemExit as ended:
        print("exit code", ended.code)
"""
"""All in one process: each would import half of everything again."""


def test_every_command_of_the_table_has_its_module_and_every_module_its_commands() -> None:
    for command, module in COMMANDS.items():
        assert callable(getattr(import_module(f"watcher.cli.commands.{module}"), command.replace("-", "_")))
    files = {path.stem for path in Path(commands.__path__[0]).glob("*.py")}
    assert files - {"__init__"} == {*COMMANDS.values()}


def test_the_version_is_shown_and_an_unknown_command_refused(command: Command) -> None:
    assert command("--version") == (0, f"clerk-watcher {version('clerk-watcher')}\n", "")
    code, _, err = command("rn")
    assert code == 2
    assert "Did you mean 'run'?" in err


@pytest.fixture(scope="module")
def narrow_helps() -> dict[str, str]:
    """The help of each command on a narrow terminal, followed by its exit code."""
    words = [sys.executable, "-c", HELP_OF_ALL]
    shown = subprocess.run(words, env=environment() | {"COLUMNS": "40"}, capture_output=True, text=True, check=True)
    assert shown.stderr == ""
    return {part.split()[0]: f"Usage: watcher {part}" for part in shown.stdout.split("Usage: watcher ")[1:]}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_narrow_terminal_and_ends_with_two_examples(command: str, narrow_helps: dict[str, str]) -> None:
    head, _, examples = narrow_helps[command].partition("\n  Examples:\n")
    *shown, code = examples.strip().splitlines()
    assert code == "exit code 0"
    assert [line for line in head.splitlines() if len(line) > 40] == []
    assert [f"watcher {command}" in line for line in shown] == [True, True]


def test_help_of_all_is_cut_nowhere_and_that_of_the_simulator_has_scenarios(command: Command) -> None:
    code, out, _ = command("--help")
    assert (code, "..." in out.replace("[ARGS]...", "")) == (0, False)
    out = re.sub(r"\s+", " ", command("simulate", "--help")[1])
    assert [name for name, each in SCENARIOS.items() if f"{name}: {each.words}" not in out] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("words", "completed"), [("watcher ch", "check"), ("watcher check --on", "--online")])
def test_shells_complete_commands_and_options(shell: str, words: str, completed: str, command: Command) -> None:
    asked = {
        "_WATCHER_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert completed in command(**asked)[1]


async def test_a_bug_is_named_without_the_text_of_the_error(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise ValueError('hunter2')")
    outcome = await outcome_of("check", folder=tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    assert outcome == Outcome(1, "", "error: ValueError ended the program; this is a bug\n")
