"""The rules of a pipeline, one file each. docs/alerts.md describes them, and `watcher.domain.rule` what a rule is."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter

from watcher.domain.rule import Rule
from watcher.rules.failing import Failing
from watcher.rules.new_error import NewError
from watcher.rules.silent import Silent
from watcher.rules.slow import Slow
from watcher.rules.tokens import Tokens

RULES: Mapping[str, Any] = {
    "failing": Failing,
    "silent_s": Silent,
    "slow": Slow,
    "new_error": NewError,
    "tokens": Tokens,
}
"""The rule of each field of `RulesSettings`, whose value it takes, in the order in which rules are judged."""


def rules_of(settings: BaseModel | None) -> tuple[Rule, ...]:
    """Return the rules that `RulesSettings` ask for."""
    given = {key: getattr(settings, key, None) for key in RULES}
    return tuple(RULES[key](value) for key, value in given.items() if value)


_ADAPTERS = {each.state_type: TypeAdapter(each.state_type) for each in RULES.values() if each.state_type}


def load_states(text: str | None, rules: Iterable[Rule]) -> dict[str, Any]:
    """Return the states in a stored text, by the key of the rule. What is of none of these rules stays JSON."""
    states: dict[str, Any] = json.loads(text or "{}")
    types = {rule.key: rule.state_type for rule in rules if rule.state_type}
    return {key: _ADAPTERS[types[key]].validate_python(each) if key in types else each for key, each in states.items()}


def dump_states(states: Mapping[str, Any]) -> str:
    """Return the text that stores these states."""
    return json.dumps({key: _ADAPTERS[type(each)].dump_python(each, mode="json") for key, each in states.items()})
