"""The command line as a whole: what is registered, what is refused. What a command does is tested beside it."""

from importlib import import_module
from pathlib import Path

import pytest
from e2e.programme import Outcome, outcome_of

from watcher import commands
from watcher.cli import COMMANDS

NOT_COMMANDS = {"__init__.py", "configuration.py", "options.py"}


def test_every_command_of_the_table_has_its_module() -> None:
    for command in COMMANDS:
        name = command.replace("-", "_")
        assert callable(getattr(import_module(f"watcher.commands.{name}"), name))


def test_every_module_of_a_command_is_in_the_table() -> None:
    files = {path.name for path in Path(commands.__path__[0]).glob("*.py")}
    assert files - NOT_COMMANDS == {f"{command.replace('-', '_')}.py" for command in COMMANDS}


async def test_an_unknown_command_is_refused_with_what_it_may_have_meant() -> None:
    outcome = await outcome_of("rn", folder=Path.cwd())
    assert outcome.code == 2
    assert "run" in outcome.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--port", "99999"),
        ("--port", "-1"),
        ("--rate-limit", "0"),
        ("--rate-limit", "-1"),
        ("--rate-limit", "nan"),
        ("--time-scale", "nan"),
        ("--time-scale", "inf"),
        ("--time-scale", "0"),
    ],
)
async def test_a_number_the_simulator_cannot_use_is_a_mistake_of_usage(
    arguments: tuple[str, str], tmp_path: Path
) -> None:
    outcome = await outcome_of("simulate", *arguments, folder=tmp_path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"Invalid value for '{arguments[0]}'" in outcome.stderr


async def test_more_executions_than_memory_holds_are_a_mistake_of_usage(tmp_path: Path) -> None:
    outcome = await outcome_of("simulate", "--pipelines", "3000", "--executions", "100000", folder=tmp_path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "are 300,000,000; at most 200,000 in all" in outcome.stderr


async def test_simulate_overwrites_no_file(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").touch()
    outcome = await outcome_of("simulate", "--port", "0", "--write-config", "w.yaml", folder=tmp_path)
    told = "error: w.yaml is there already; give --write-config another name, or remove it\n"
    assert (outcome.code, outcome.stderr) == (2, told)


async def test_a_configuration_that_cannot_be_written_is_a_mistake_of_usage(tmp_path: Path) -> None:
    outcome = await outcome_of("simulate", "--port", "0", "--write-config", "nowhere/w.yaml", folder=tmp_path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "cannot write nowhere/w.yaml (no such file or directory)" in outcome.stderr


async def test_a_host_that_is_none_is_a_mistake_of_usage(tmp_path: Path) -> None:
    outcome = await outcome_of("simulate", "--port", "0", "--host", "a..b", folder=tmp_path)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "cannot listen on a..b:0" in outcome.stderr


@pytest.mark.parametrize("command", COMMANDS)
async def test_help_fits_a_narrow_terminal_and_ends_with_two_examples(command: str, tmp_path: Path) -> None:
    outcome = await outcome_of(command, "--help", folder=tmp_path, environ={"COLUMNS": "40"})
    assert (outcome.code, outcome.stderr) == (0, "")
    head, _, examples = outcome.stdout.partition("\n  Examples:\n")
    assert [line for line in head.splitlines() if len(line) > 40] == []
    assert [f"watcher {command}" in line for line in examples.splitlines()] == [True, True]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("words", "completed"), [("watcher ch", "check"), ("watcher check --on", "--online")])
async def test_shells_complete_commands_and_options(shell: str, words: str, completed: str, tmp_path: Path) -> None:
    asked = {
        "_WATCHER_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    outcome = await outcome_of(folder=tmp_path, environ=asked)
    assert completed in outcome.stdout


async def test_a_bug_is_named_without_the_text_of_the_error(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise ValueError('hunter2')")
    outcome = await outcome_of("check", folder=tmp_path, environ={"PYTHONPATH": str(tmp_path)})
    assert outcome == Outcome(1, "", "error: ValueError ended the program; this is a bug\n")
