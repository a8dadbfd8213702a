"""The rules of a pipeline, one file each. docs/rules.md describes them, and `watcher.domain.rule` what a rule is."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field, TypeAdapter

from watcher.domain.rule import Rule
from watcher.rules.failing import Failing, FailingSettings
from watcher.rules.new_error import NewError
from watcher.rules.silent import Silent
from watcher.rules.slow import Slow, SlowSettings
from watcher.rules.tokens import Tokens, TokensSettings
from watcher.runtime.settings import Block, Duration


class RulesSettings(Block):
    """The rules for a pipeline as a whole. `failing`, `silent` and `slow` open a problem once and close it once."""

    failing: FailingSettings | None = Field(default=None, examples=["{consecutive: 3}"])
    """Emit `pipeline.failing` when too many executions fail. Give `consecutive` or `rate`."""
    silent_s: Duration | None = Field(default=None, examples=["6h"])
    """Emit `pipeline.silent` when no execution has started for this long. Only without `executions`."""
    slow: SlowSettings | None = Field(default=None, examples=["{times: 3, at_least: 1m}"])
    """Emit `pipeline.slow` when an open execution runs for much longer than is usual for the pipeline."""
    tokens: TokensSettings | None = Field(default=None, examples=["{execution: 20000, per_day: 2000000}"])
    """Emit an event when too many tokens are used. Give at least one of the two."""
    new_error: bool = Field(default=False, examples=["true"])
    """Emit `pipeline.new_error` when an execution fails with a kind of error that was not seen for 30 days."""


RULES: Mapping[str, Any] = {
    "failing": Failing,
    "silent_s": Silent,
    "slow": Slow,
    "new_error": NewError,
    "tokens": Tokens,
}
"""The rule of each field of `RulesSettings`, whose value it takes, in the order in which rules are judged."""


def rules_of(settings: RulesSettings | None) -> tuple[Rule, ...]:
    """Return the rules that `RulesSettings` ask for."""
    given = {key: getattr(settings, key, None) for key in RULES}
    return tuple(RULES[key](value) for key, value in given.items() if value)


_ADAPTERS = {each.state_type: TypeAdapter(each.state_type) for each in RULES.values() if each.state_type}


def load_states(text: str | None, rules: Iterable[Rule]) -> dict[str, Any]:
    """Return the states in a stored text, by the key of the rule. The state of another rule stays JSON."""
    states: dict[str, Any] = json.loads(text or "{}")
    types = {rule.key: rule.state_type for rule in rules if rule.state_type}
    return {key: _ADAPTERS[types[key]].validate_python(each) if key in types else each for key, each in states.items()}


def dump_states(states: Mapping[str, Any]) -> str:
    """Return the text that stores these states."""
    return json.dumps({key: _ADAPTERS[type(each)].dump_python(each, mode="json") for key, each in states.items()})
