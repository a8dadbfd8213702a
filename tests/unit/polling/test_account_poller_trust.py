"""An account whose lease is not trusted: nothing is asked, until it is again."""

import pytest
from virtual import FakeClock, Start, said

from watcher.domain.execution import Outcome
from watcher.polling.account_poller import IDLE_S

A = "9a1b0000-0000-4000-8000-00000000000a"


@pytest.mark.parametrize("fails_on", [False, True])
async def test_the_time_without_trust_is_nobody_s_failure(start: Start, clock: FakeClock, *, fails_on: bool) -> None:
    trusted = [True]
    account = await start(A, is_trusted=lambda: trusted[0])
    await account.run_for(5)
    account.api.script[A] = Outcome.CONNECTION
    await account.run_for(20)
    trusted[0] = False
    for _ in range(12):
        clock.advance(IDLE_S)
        await account.watcher.tick()
    trusted[0] = True
    if not fails_on:
        account.api.script[A] = said(A, "running")
    assert "account.degraded" not in [event["type"] for event in await account.events(after_s=20)]
    assert ("account.degraded" in [event["type"] for event in await account.events(after_s=40)]) is fails_on


async def test_time_without_trust_is_no_budget_that_is_too_small(start: Start, clock: FakeClock) -> None:
    trusted = [True]
    account = await start(A, max_interval_s=10.0, is_trusted=lambda: trusted[0])
    for _ in range(60):
        await account.run_for(8)
        trusted[0] = False
        for _ in range(3):
            await account.watcher.tick()
            clock.advance(IDLE_S)
        trusted[0] = True
    assert [type_ for type_, _, _ in await account.emitted()] == ["execution.running"]
