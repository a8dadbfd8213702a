"""The texts of a problem: the rule that opens it, the condition that closes it, and the remedy."""

from collections.abc import Mapping
from typing import Any

from watcher.config.models import PollingSettings, WatchSettings
from watcher.delivery.sink_state import FAILING_AFTER_S
from watcher.domain.event import EVENT_KINDS, AccountTrouble, EventType
from watcher.rules import rules_of
from watcher.runtime.units import spell_duration

ACCOUNT_REMEDIES: Mapping[str, str] = {
    AccountTrouble.UNAUTHORIZED: "correct the account's api_key; it is tried once a minute",
    AccountTrouble.RATE_LIMITED: "find who else uses the key, or lower rate_limit",
    AccountTrouble.UNREACHABLE: "wait, or check the network, the account's base_url, and proxies",
    AccountTrouble.INVALID: "check the account's base_url: a login page or a gateway may answer",
    AccountTrouble.OVER_BUDGET: "raise rate_limit, or polling.max_interval",
}
"""The remedy by the reason of `account.degraded`. `EVENT_KINDS` has those of other problems."""


def rule_of(
    kind: EventType, data: Mapping[str, Any], watch: WatchSettings | None, polling: PollingSettings
) -> tuple[str | None, str | None]:
    """Return in words the rule that opened a problem, and the condition that closes the problem.

    The rule is `None` if the configuration no longer has it, the condition if none holds for all problems of the kind.
    """
    rules = rules_of(None if watch is None else watch.rules)
    rule = next((each.opens_when() for each in rules if each.opens is kind), None)
    closes_when = EVENT_KINDS[kind].closes_when
    if kind is EventType.EXECUTION_OVERDUE and "limitSeconds" in data:
        rule = f"{data['execution']['status']} for longer than {spell_duration(data['limitSeconds'])}"
    elif kind is EventType.ACCOUNT_DEGRADED and data.get("reason") == AccountTrouble.OVER_BUDGET:
        rule = f"polls are further apart than {spell_duration(polling.max_interval_s)} for 5 m"
        closes_when = "polls are in time again"
    elif kind is EventType.ACCOUNT_DEGRADED:
        rule = f"the key is refused, or no request succeeded for {spell_duration(polling.degraded_after_s)}"
    elif kind is EventType.SINK_FAILING:
        rule = f"nothing got through for {spell_duration(FAILING_AFTER_S)}"
    elif kind is EventType.SINK_DISABLED:
        rule = "the receiver answered 410 Gone"
    return rule, closes_when
