"""Rules that are removed, come back or are new while the process runs, and a store that fails meanwhile."""

import pytest
from rules_rig import HOUR_US, IN_A_ROW, SILENT, UNCONFIRMED, row, show, told, watch_of, whole
from stores import HeardStore
from virtual import PIPELINE, Account, FakeClock, Start

from watcher.domain.errors import StoreError
from watcher.domain.rules import Rules

BOTH = Rules(IN_A_ROW.failing, HOUR_US)


async def change(account: Account, rules: Rules | None) -> None:
    await account.watcher.watch([watch_of(rules)])


@pytest.mark.parametrize("is_held", [False, True])
async def test_what_came_while_there_were_no_rules_breaks_a_row(start: Start, *, is_held: bool) -> None:
    account = await whole(start)
    if is_held:  # until the next scan is complete
        account.watcher._alert_rules.recorders[PIPELINE].hold()
    show(account, row(1), row(2))
    await account.run_for(1)
    await change(account, None)
    show(account, row(1), row(2), row(7, "success"))
    await account.run_for(5)
    await change(account, IN_A_ROW)
    show(account, row(1), row(2), row(7, "success"), row(12))
    assert await told(account, after_s=5) == ["failed", "failed", "success", "failed"]


async def test_a_rule_that_could_not_be_removed_is_once_that_is_tried_again(start: Start, heard: HeardStore) -> None:
    account = await whole(start, BOTH)
    show(account, row(1), row(2))
    await account.run_for(5)
    heard.takes = lambda _item: False
    with pytest.raises(StoreError):
        await change(account, SILENT)
    heard.takes = lambda _item: True
    for each in (SILENT, BOTH):
        await change(account, each)
    show(account, row(1), row(2), row(12))
    assert await told(account, after_s=5) == ["failed"] * 3


@pytest.mark.ci
async def test_a_silence_rule_that_is_new_in_the_middle_of_a_scan_does_not_take_old_rows_for_the_last_start(
    start: Start,
) -> None:
    account = await start(watches=[watch_of(None)], rules=UNCONFIRMED, rate_per_s=0.5)
    old = [row(number, "success", at_s=-9000.0 - number) for number in range(2, 120)]
    show(account, row(1, "success", at_s=900.0), *old)
    await account.run_for(1)
    assert [page for _, page in account.api.asked] == ["page 1"]
    await change(account, SILENT)
    assert await told(account, after_s=60) == []
    assert await told(account, after_s=4000) == ["pipeline.silent"]


@pytest.mark.ci
async def test_a_silence_whose_rule_was_away_ends_with_what_started_then(start: Start, clock: FakeClock) -> None:
    account = await whole(start, BOTH)
    await account.run_for(4000)
    await change(account, IN_A_ROW)
    show(account, row(1, "running", at_s=clock.monotonic()))
    assert await told(account, after_s=61) == ["pipeline.silent", "running"]
    await change(account, BOTH)
    assert await told(account, after_s=61) == ["pipeline.active"]
