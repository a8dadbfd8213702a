"""A module imports at its top and for real. What it may import, import-linter says (`pyproject.toml`)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(ROOT.glob("watcher/**/*.py"))
LATE = {
    "watcher/delivery/sinks/apprise.py": {
        *("watcher.delivery.sinks", "watcher.delivery.sinks.apprise_service"),
        *(f"watcher.delivery.sinks.apprise_service.{name}" for name in ("AppriseService", "check_url")),
    },
    "watcher/__main__.py": {"watcher.cli.main", "watcher.cli.main.main"},
    "watcher/store/open.py": {"watcher.store.postgresql", "watcher.store.postgresql.PostgresDatabase"},
    "watcher/delivery/sinks/template_file.py": {
        *("watcher.delivery.sinks.own_template", "watcher.delivery.sinks.own_template.check"),
        "watcher.delivery.sinks.own_template.OwnTemplate",
    },
    "watcher/cli/commands/check.py": {"watcher.cli.check.store_trial", "watcher.cli.check.store_trial.try_store"},
}
"""What a function imports. The entry point first sees to signals: what it imports then takes half a second. PostgreSQL
has a driver of an extra, which takes 10 MB; Apprise is one, too, and takes 26 MB. Jinja2 takes a tenth of a second,
and few need it; SQLAlchemy two tenths, which `watcher check` needs to try a PostgreSQL store only."""


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_at_its_top_and_for_real(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {name for function in functions for name in imported(function)}
    assert late == LATE.get(str(path.relative_to(ROOT)), set())
    assert "TYPE_CHECKING" not in path.read_text()
