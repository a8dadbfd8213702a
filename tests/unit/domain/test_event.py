"""The table of event types."""

import ast
import re
from pathlib import Path

import pytest

import watcher
from watcher.domain.event import EVENT_KINDS, EventType, Severity
from watcher.domain.problems import CLOSED_BY, CLOSINGS, PROBLEM_KINDS, severity_of
from watcher.rules import RULES

ROOT = Path(watcher.__file__).parent
NAMED = re.compile(f"'(?:{'|'.join(map(re.escape, EventType))})'")  # in SQL


def test_every_type_has_a_row_in_the_order_of_the_types() -> None:
    assert list(EVENT_KINDS) == list(EventType)


@pytest.mark.ci
def test_no_other_file_lists_types() -> None:
    """A new type would have to be added there, too."""
    lists = []
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            elements = node.keys if isinstance(node, ast.Dict) else getattr(node, "elts", ())
            types = [ast.unparse(each) for each in elements if each and ast.unparse(each).startswith("EventType.")]
            types += NAMED.findall(node.value) if isinstance(node, ast.Constant) and isinstance(node.value, str) else ()
            if len(types) > 2:
                lists.append((file.name, types))
    assert lists == []


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_every_kind_of_problem_is_trouble_and_ends(kind: EventType) -> None:
    assert severity_of(kind) is not Severity.INFO
    assert kind is EventType.EXECUTION_OVERDUE or CLOSED_BY[kind] in CLOSINGS


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_every_kind_of_problem_of_a_pipeline_has_its_rule_and_no_other_kind_has(kind: EventType) -> None:
    assert any(rule.opens is kind for rule in RULES.values()) is kind.startswith("pipeline.")
