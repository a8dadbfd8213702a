"""The runbook names what the code says, no more and no less."""

import ast
import asyncio
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import DOCS
from sample_metrics import families_of
from stores import claim

from watcher.domain.errors import Exit
from watcher.domain.event import AccountTrouble, EventType, GapReason
from watcher.domain.problems import PROBLEM_KINDS
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.store.sql_store import open_store

STORE, PIPELINES, LOGS, COMMANDS = (
    (DOCS / name).read_text(encoding="utf-8")
    for name in ("store.md", "pipelines.md", "reference/logs.md", "reference/commands.md")
)
WATCHER = DOCS.parent / "watcher"
LOUD = {"warning", "error", "critical", "exception"}
TROUBLES = PROBLEM_KINDS - {EventType.EXECUTION_OVERDUE}
"""Logged as they begin, under the name of their event."""


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(page: str, title: str) -> list[str]:
    return re.findall(r"^\| (?!-|event|code|reason)(.*?) \|", section(page, title), re.MULTILINE)


def loud_lines(file: Path) -> Iterator[str | None]:
    """The names of what a file logs at warning or above; `None` for one that is only known while it runs."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and any(_is_loud(part) for part in (node.func, *node.args)):
            yield next((text for text in map(_text, node.args) if text is not None), None)


def _is_loud(node: ast.AST) -> bool:
    """Say whether this is `log.warning` or one of its sisters."""
    logger = node.value if isinstance(node, ast.Attribute) and node.attr in LOUD else None
    if isinstance(logger, ast.Call):
        return "get_logger" in ast.unparse(logger)
    return logger is not None and ast.unparse(logger).removeprefix("self.").lstrip("_") == "log"


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


@pytest.mark.ci
def test_every_loud_log_line_is_explained() -> None:
    logged = {name for file in WATCHER.rglob("*.py") for name in loud_lines(file)}
    assert None not in logged, "a log line's name stands in the call, so that the runbook can be held against it"
    explained = {name for cell in first_cells(LOGS, "Log lines") for name in re.findall(r"`(.*?)`", cell)}
    assert explained == logged | TROUBLES, "name it in docs/reference/logs.md: what it means, what to do"


def test_events_reasons_of_gaps_and_exit_codes_are_explained() -> None:
    emitted = {str(type_) for type_ in EventType if not type_.startswith("execution.")}
    explained = {
        name for cell in first_cells(LOGS, "Events about the watcher itself") for name in re.findall(r"[\w.]+", cell)
    }
    assert explained == {*emitted, *AccountTrouble}, "name it in docs/reference/logs.md"
    cells = first_cells(PIPELINES, "What it can miss, and how you would know")
    assert {reason for cell in cells for reason in re.findall(r"\w+", cell)} == set(GapReason)
    codes = {int(code) for code in first_cells(COMMANDS, "Exit codes") if code.isdecimal()}
    assert codes == set(Exit)


@pytest.fixture
def metrics() -> set[str]:
    exposed = families_of(Metrics())
    kinds = {"counter": ["_total"], "histogram": ["", "_bucket", "_sum", "_count"], "gauge": [""]}
    return {metric.name + ending for metric in exposed for ending in kinds[metric.type]}


def test_every_metric_that_is_named_exists(metrics: set[str]) -> None:
    # In a pattern the last part of a name is open. The token is a key of a Secret.
    texts = "".join(page.read_text(encoding="utf-8") for page in DOCS.rglob("*.md"))
    named = set(re.findall(r"(?<![\w/])watcher_[a-z_]+", texts)) - {"watcher_", "watcher_token"}
    assert named <= metrics


def backup_commands() -> list[str]:
    (text,) = re.findall(r"^```sh\n(.*?)^```", section(STORE, "SQLite"), re.DOTALL | re.MULTILINE)
    return [part for part in re.split(r"^#.*\n", text, flags=re.MULTILINE) if part.strip()]


SQLITE3 = """#!{python}
import os, sqlite3, sys
copy = sys.argv[2].removeprefix(".backup ")
with sqlite3.connect(sys.argv[1]) as store, sqlite3.connect(copy) as backup:
    store.backup(backup)
"""


@pytest.mark.parametrize("command", backup_commands(), ids=["sqlite3", "the watcher's Python"])
async def test_a_backup_made_as_it_says_is_a_store_nobody_else_may_read(command: str, tmp_path: Path) -> None:
    clock = Clock()
    store = await open_store(f"sqlite:///{tmp_path}/watcher.db", clock=clock)
    await claim(store, "account", "default")
    if shutil.which("sqlite3") is None:  # where it is not installed, what makes a file as it does
        (tmp_path / "sqlite3").write_text(SQLITE3.format(python=sys.executable))
        (tmp_path / "sqlite3").chmod(0o700)
    path = f"{tmp_path}:{os.environ['PATH']}"
    words = f"umask 022\n{command.replace('/opt/watcher/bin/python', sys.executable)}"
    shell = await asyncio.create_subprocess_exec("sh", "-ec", words, cwd=tmp_path, env=os.environ | {"PATH": path})
    assert await shell.wait() == 0
    await store.close()
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
    copy = await open_store(f"sqlite:///{tmp_path}/backup.db", clock=clock)
    assert not copy.created
    await copy.close()
