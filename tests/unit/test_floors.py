"""A module imports only lower floors: no circles, no `TYPE_CHECKING`, no import inside a function."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "watcher"
MODULES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


GRAPH = {
    module_name(path): {name for name in imported(ast.parse(path.read_text())) if name.startswith("watcher")}
    for path in MODULES
}


def floor_of(module: str) -> int:
    """The floors of the house; of two fitting prefixes the longer counts."""
    prefixes = [name for name in FLOORS if module == name or module.startswith(f"{name}.")]
    assert prefixes, f"{module} has no floor: give it one"
    return FLOORS[max(prefixes, key=len)]


FLOORS = {
    f"watcher.{name}": floor
    for floor, names in enumerate(
        (
            (
                "errors",
                "aside",
                "models",
                "clock",
                "timestamps",
                "deadline",
                "retry",
                "room",
                "proxy",
                "pace",
                "cadence",
                "units",
                "spelling",
                "line",
                "slim",
                "logs",
                "scribe",
                "signals",
                "output",
                "tallies",
            ),
            ("transitions", "client", "fields", "store.tables"),
            ("events", "routing"),
            ("ports", "metrics"),
            (
                "health",
                "agenda",
                "keeper",
                "judge",
                "wire",
                "clerk",
                "account",
                "claims",
                "places",
                "layout",
                "ordering",
                "page",
                "beginning",
                "api_clock",
                "ground",
                "learnt",
                "limits",
                "list_end",
                "totals",
                "scan",
                "listing",
                "ending",
                "looks",
                "roster",
                "turns",
                "rows",
                "cursors",
                "list_trouble",
                "scanner",
                "announcer",
                "store",
                "sinks",
                "lane",
                "lane_store",
                "courier",
                "attempts",
                "gate",
                "standing",
                "standing_keeper",
                "housekeeping",
                "readiness",
                "taps",
                "progress",
            ),
            ("config", "schedule", "web"),
            ("assembly", "owners", "reload", "app", "simulator"),
            ("interruption", "trials", "plan", "waiting"),
            ("terminal",),
            ("demo",),
            ("commands",),
            ("cli",),
            ("__main__",),
        )
    )
    for name in names
}
PACKAGES = {"watcher"}
LATE = {"watcher.__main__": {"watcher.cli", "watcher.cli.main"}}
"""What a function imports. The entry point first sees to signals: what it imports then takes half a second."""


@pytest.mark.parametrize("module", [name for name in GRAPH if name not in PACKAGES])
def test_a_module_imports_no_higher_floor(module: str) -> None:
    known = [name for name in GRAPH[module] if name in GRAPH and name not in PACKAGES]
    higher = [name for name in known if floor_of(name) > floor_of(module)]
    assert higher == []


def test_imports_run_in_no_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"circle: {' -> '.join((*path, module))}"
        if module not in done:
            for name in sorted(GRAPH[module] & GRAPH.keys()):
                if name != module:
                    visit(name, (*path, module))
            done.add(module)

    for module in GRAPH:
        visit(module, ())


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_module_imports_at_its_top_and_for_real(path: Path) -> None:
    tree = ast.parse(path.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    late = {name for function in functions for name in imported(function)}
    assert late == LATE.get(module_name(path), set())
    assert "TYPE_CHECKING" not in path.read_text()
