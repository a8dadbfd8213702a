"""The rule `new_error` for ends that are recorded first and judged later, after a start."""

import pytest
from rules_rig import again, row, show, whole
from virtual import Account, FakeClock, Start

from watcher.domain.rules import Rules

NEW_ERRORS = Rules(reports_new_errors=True)
MIDNIGHT_S = 14 * 3600.0
"""The next midnight (UTC), in seconds of the clock."""


async def new_errors(account: Account) -> list[str]:
    """Return the executions of the new errors that were reported."""
    events = await account.events(after_s=10)
    return [event["data"]["execution"]["id"][-2:] for event in events if event["type"] == "pipeline.new_error"]


@pytest.mark.parametrize("ends_s", [(-60.0, 60.0), (-60.0, -30.0), (60.0, 90.0)])
async def test_a_kind_that_failed_on_both_sides_of_midnight_while_the_watcher_was_off_is_new_once(
    start: Start, clock: FakeClock, ends_s: tuple[float, float]
) -> None:
    account = await whole(start, NEW_ERRORS)
    await account.watcher.cancel()
    clock.advance(MIDNIGHT_S + 120 - clock.monotonic())
    show(account, *(row(n, at_s=MIDNIGHT_S + at_s, error="upstream timeout") for n, at_s in enumerate(ends_s, 1)))
    pages, script = account.api.pages, account.api.script
    account = await again(start, account, NEW_ERRORS)
    account.api.pages, account.api.script = pages, script
    assert await new_errors(account) == ["01"]
    show(account, *(row(n, at_s=MIDNIGHT_S + 100 + n, error="upstream timeout") for n in (3, 4)))
    assert await new_errors(account) == []
