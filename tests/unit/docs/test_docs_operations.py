"""The runbook names what the code says, no more and no less."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from documents import DOCS
from prometheus_client import Metric

from watcher.errors import Exit
from watcher.metrics import Metrics
from watcher.models import AccountTrouble, EventType, GapReason

PAGE = (DOCS / "operations.md").read_text(encoding="utf-8")
WATCHER = DOCS.parent / "watcher"
LOUD = {"warning", "error", "critical", "exception"}
NAME = re.compile(r"[a-z_]+\.[a-z_.]+")
TROUBLES = {EventType.ACCOUNT_DEGRADED, EventType.SINK_FAILING, EventType.SINK_DISABLED}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def first_cells(title: str) -> list[str]:
    return re.findall(r"^\| (?!-|event|code)(.*?) \|", section(title), re.MULTILINE)


def loud_lines(file: Path) -> Iterator[str | None]:
    """The names of what a file logs at warning or above; `None` for one that is only known while it runs."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and any(_is_loud(part) for part in (node.func, *node.args)):
            yield next((text for text in map(_text, node.args) if text is not None), None)


def _is_loud(node: ast.AST) -> bool:
    """Tell whether this is `log.warning` or one of its sisters."""
    logger = node.value if isinstance(node, ast.Attribute) and node.attr in LOUD else None
    if isinstance(logger, ast.Call):
        return "get_logger" in ast.unparse(logger)
    return logger is not None and ast.unparse(logger).removeprefix("self.").lstrip("_") == "log"


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def test_every_loud_log_line_is_explained() -> None:
    logged = {name for file in WATCHER.rglob("*.py") for name in loud_lines(file)}
    assert None not in logged, "a log line's name stands in the call, so that the runbook can be held against it"
    explained = {cell.strip("`") for cell in first_cells("Log lines")}
    assert explained == logged | TROUBLES, "name it in docs/operations.md: what it means, what to do"


def test_every_event_of_the_watcher_itself_is_explained() -> None:
    told = {str(type_) for type_ in EventType if not type_.startswith("execution.")}
    explained = [re.findall(r"[\w.]+", cell) for cell in first_cells("Events about the watcher itself")]
    assert {words[0] for words in explained} == told
    assert {reason for words in explained for reason in words[1:]} == {*AccountTrouble, *GapReason}


def test_every_exit_code_is_explained() -> None:
    codes = {int(code) for code in first_cells("Exit codes") if code.isdecimal()}
    assert codes == set(Exit)


@pytest.fixture
def metrics() -> set[str]:
    exposed: list[Metric] = list(Metrics().registry.collect())
    kinds = {"counter": ["_total"], "histogram": ["", "_bucket", "_sum", "_count"], "gauge": [""]}
    return {metric.name + ending for metric in exposed for ending in kinds[metric.type]}


def test_every_metric_that_is_named_exists(metrics: set[str]) -> None:
    named = set(re.findall(r"watcher_[a-z_]+", PAGE))
    assert named <= metrics


def test_the_alerts_are_rules_prometheus_can_read() -> None:
    (group,) = yaml.safe_load(section("What to alert on").split("```yaml\n")[1].split("```")[0])["groups"]
    assert all({"alert", "expr"} <= set(rule) <= {"alert", "expr", "for"} for rule in group["rules"])
