"""A pipeline that is watched whole and has rules, in virtual time."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from virtual import EPOCH, PIPELINE, RULES, Account, Start, name_of, pages_of, said

from watcher.domain.event import EventKey
from watcher.domain.execution import ExecutionSnapshot
from watcher.domain.problems import Problem
from watcher.domain.rule import Rule
from watcher.domain.watch import Details, Watch
from watcher.rules import RulesSettings, rules_of
from watcher.rules.tokens import Tokens

HOUR_US = 3600 * 1_000_000
AT_ONCE: dict[str, Any] = {"recover_after": 1, "quiet_for": "1ms"}
"""A problem closes with the next success."""


def ruled(**settings: Any) -> tuple[Rule, ...]:
    """Return the rules of such a block of the configuration."""
    return rules_of(RulesSettings.model_validate(settings))


IN_A_ROW = ruled(failing={"consecutive": 3, **AT_ONCE})
SILENT = ruled(silent="1h")
BOTH = (*IN_A_ROW, *SILENT)
UNCONFIRMED = replace(RULES, details=Details.NEVER)


def problem_of(rule: Rule, *, failed_count: int = 0) -> Problem:
    assert rule.opens is not None
    return Problem(UUID(int=1), rule.opens, EPOCH, EventKey(b"", 1), failed_count)


def watch_of(rules: tuple[Rule, ...], *executions: str) -> Watch:
    most = next((rule.settings.execution for rule in rules if isinstance(rule, Tokens)), None)
    return Watch("default", PIPELINE, executions, name="Sales agent", rules=rules, max_tokens=most)


def row(number: int, status: str = "failed", *, at_s: float | None = None, **facts: Any) -> ExecutionSnapshot:
    """Return an execution that began and ended so many seconds after the epoch of the clock, else by its number."""
    at = EPOCH + timedelta(seconds=1000.0 + number if at_s is None else at_s)
    dates = {"started_at": at, "finished_at": None if status == "running" else at}
    return said(name_of(number), status, **dates | facts)


def show(account: Account, *rows: ExecutionSnapshot) -> None:
    """Have the list show these, the newest first, and each of them alone as well."""
    account.api.script |= {each.id: each for each in rows}
    account.api.pages = pages_of(*sorted(rows, key=lambda each: each.started_at or EPOCH, reverse=True))


async def whole(start: Start, rules: tuple[Rule, ...] = IN_A_ROW, **how: Any) -> Account:
    """Return an account that watches a pipeline whole, and has read its list, which is empty."""
    account = await start(watches=[watch_of(rules)], rules=how.pop("scan", UNCONFIRMED), **how)
    await account.run_for(5)
    return account


async def again(start: Start, account: Account, rules: tuple[Rule, ...] = IN_A_ROW, **how: Any) -> Account:
    """Return the account after a restart, with the store as it is now."""
    await account.watcher.cancel()
    return await start(watches=[watch_of(rules)], rules=how.pop("scan", UNCONFIRMED), **how)


async def shown(account: Account, *rows: ExecutionSnapshot, for_s: float = 5) -> None:
    """Have the list show these for so long."""
    show(account, *rows)
    await account.run_for(for_s)


async def told(account: Account, *rows: ExecutionSnapshot, after_s: float | None = None) -> list[str]:
    """Return the types of all that was reported since the last call, without `execution.`.

    With `rows` the list shows these from now on.
    """
    if rows:
        show(account, *rows)
    return [event["type"].removeprefix("execution.") for event in await account.events(after_s=after_s)]
