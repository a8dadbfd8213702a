"""What people copy from the docs is a command, with options that it has."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from documents import DOCS

from watcher.cli.main import COMMANDS, app, register

PAGES = sorted([*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")])
PLACE = re.compile(r"(?:^|\$ |`|&& |\| )watcher ((?:[^`|\n#&;>]|'[^']*')+)", re.MULTILINE)


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of each command."""
    register([])
    commands = vars(typer.main.get_command(app))["commands"].items()
    return {name: {option for each in command.params for option in each.opts} for name, command in commands}


def copied(page: Path) -> Iterator[list[str]]:
    for found in PLACE.finditer(page.read_text(encoding="utf-8")):
        words = shlex.split(found[1].rstrip("\\"))
        if words and words[0] in COMMANDS:
            yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_in_the_docs_has_the_options_it_is_shown_with(page: Path, options: dict[str, set[str]]) -> None:
    for name, *words in copied(page):
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options[name] | {"--help"}, (name, words)


def test_every_command_is_in_the_tables() -> None:
    first_cells = re.findall(r"^\| (`watcher .*?) \|", (DOCS / "console.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"`watcher ([\w-]+)", " ".join(first_cells))) == COMMANDS.keys()
