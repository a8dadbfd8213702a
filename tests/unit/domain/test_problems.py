"""What each kind of problem needs to have in all places that know it."""

from typing import Any

import pytest

from watcher.domain.event import EventType, Severity
from watcher.domain.problems import CLOSED_BY, CLOSINGS, PROBLEM_KINDS, severity_of
from watcher.domain.rules import KIND_OF_RULE, Rules

ANYTHING: Any = object()
EVERY_RULE = Rules(**dict.fromkeys(KIND_OF_RULE, ANYTHING))


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_every_kind_of_problem_is_trouble_and_ends(kind: EventType) -> None:
    assert severity_of(kind) is not Severity.INFO
    assert kind is EventType.EXECUTION_OVERDUE or CLOSED_BY[kind] in CLOSINGS


@pytest.mark.parametrize("kind", sorted(PROBLEM_KINDS))
def test_every_kind_of_problem_of_a_pipeline_has_its_rule_and_no_other_kind_has(kind: EventType) -> None:
    assert EVERY_RULE.opens(kind) is kind.startswith("pipeline.")
    assert not Rules().opens(kind)
