"""What a list that cannot be read means, over a real account: test_failures.py has the table of all answers."""

from dataclasses import replace
from random import Random

import pytest
from virtual import PIPELINE, Account, FakeClock, ScriptedApi, account_of

from watcher.clerk.api import PageReply
from watcher.domain.execution import ExecutionSnapshot, LostReason, Outcome
from watcher.domain.timestamps import Micros, Monotonic
from watcher.domain.watch import Watch
from watcher.polling.failures import LOST_EVERY_S
from watcher.polling.list_poller import ListPoller
from watcher.polling.pipeline_list import PipelineListState
from watcher.store.sql_store import SqlStore

WHOLE = Watch("default", PIPELINE, (), name="Sales agent")
NAMED = "9a1b0000-0000-4000-8000-000000000001"
OTHER = Watch("default", "77aa0000-0000-4000-8000-000000000000", (NAMED,))
NOT_FOUND, ERROR = Outcome.NOT_FOUND, Outcome.SERVER_ERROR


class Rig:
    """A list in trouble, in an account in which something else may be well."""

    def __init__(self, account: Account, *, lost_after: int = 3, lost_grace_s: float = 60.0) -> None:
        watcher = account.watcher
        self.account, self.session, self.clock = account, watcher._session, account.clock
        failures = replace(watcher._deps.failures, lost_after=lost_after, lost_grace_s=lost_grace_s)
        deps = replace(watcher._deps, failures=failures)
        scans, rules = watcher._scans, watcher._alert_rules
        self.trouble = ListPoller(
            deps,
            watcher._rules,
            session=watcher._session,
            registry=watcher._registry,
            poll_queue=watcher._poll_queue,
            page_processor=watcher._list_poller._page_processor,
            scans=scans,
            alert_rules=rules,
        )
        (listing,) = watcher._registry.listings.values()
        self.listing: PipelineListState = listing
        self.start = self.clock.monotonic()

    async def fails(self, outcome: Outcome, *, at: float, code: int | None = None) -> LostReason | None:
        """Let a page fail so many seconds after the start."""
        self.clock.elapsed_s = now = self.start + at
        return await self.trouble.failed(
            self.listing, PageReply(outcome, Monotonic(now), status_code=code), now=Monotonic(now)
        )

    def other_is_well(self, *, at: float) -> None:
        self.session._breaker.success_at = Monotonic(self.start + at)


async def rig_of(store: SqlStore, clock: FakeClock, **rules: float) -> Rig:
    account = await account_of(store, clock, NAMED, watches=[WHOLE, OTHER])
    return Rig(account, lost_after=int(rules.get("lost_after", 3)), lost_grace_s=rules.get("lost_grace_s", 60.0))


@pytest.mark.parametrize(
    ("times", "well_at", "gap"),
    [
        ([0, 30, 60], [31], True),
        ([0, 30, 60], [30], True),
        ([0, 30, 60], [29], False),  # nothing else since the one before
        ([0, 30, 60], [], False),
        ([0, 30, 59], [31], False),  # not yet for so long
        ([0, 60], [1], False),  # not often enough
        ([0, 1, 2, 61], [3], True),
    ],
)
async def test_a_list_is_refused_once_it_was_often_enough_for_long_enough_while_others_are_well(
    store: SqlStore, clock: FakeClock, times: list[float], well_at: list[float], *, gap: bool
) -> None:
    rig = await rig_of(store, clock)
    reasons = []
    for at in times:
        for well in well_at:
            if well < at:
                rig.other_is_well(at=well)
        reasons.append(await rig.fails(NOT_FOUND, at=at))
    assert reasons == [None] * (len(times) - 1) + [LostReason.NOT_FOUND if gap else None]


async def test_once_it_works_all_is_forgotten(store: SqlStore, clock: FakeClock) -> None:
    rig = await rig_of(store, clock, lost_after=2, lost_grace_s=0.0)
    await rig.fails(NOT_FOUND, at=0)
    await rig.trouble.give_up(rig.listing, None, now=rig.start)
    assert rig.listing.failing_until == rig.start + 1
    rig.trouble.works(rig.listing)
    listing = rig.listing
    assert listing.failures is None
    assert listing.failing_until == float("-inf")
    rig.other_is_well(at=1)
    assert await rig.fails(NOT_FOUND, at=3600) is None
    assert rig.listing.failures is not None
    assert rig.listing.failures.unreadable_since == rig.start + 3600


@pytest.mark.parametrize(
    ("reason", "wait_s"),
    [
        (LostReason.NOT_FOUND, LOST_EVERY_S),
        (LostReason.REJECTED, LOST_EVERY_S),
        (LostReason.FORBIDDEN, LOST_EVERY_S),
        (LostReason.UNREADABLE, 1.0),
        (None, 1.0),
    ],
)
async def test_what_is_given_up_is_reported_once_and_rests(
    store: SqlStore, clock: FakeClock, reason: LostReason | None, wait_s: float
) -> None:
    rig = await rig_of(store, clock)
    for _ in range(2):
        assert (await rig.trouble.give_up(rig.listing, reason, now=rig.start)).wait_s == wait_s
    assert rig.listing.cursor.refused == reason
    events = [event["data"]["reason"] for event in await rig.account.events()]
    assert events == ([] if reason is None else [reason.value])


@pytest.mark.parametrize(("begun", "gap"), [(0, LostReason.NOT_FOUND), (1, None)])
async def test_one_that_is_known_to_be_refused_is_so_at_once_unless_its_scan_is_under_way(
    store: SqlStore, clock: FakeClock, begun: int, gap: LostReason | None
) -> None:
    rig = await rig_of(store, clock)
    rig.listing.cursor = replace(rig.listing.cursor, refused="forbidden")
    rig.listing.scan.began_at = Micros(begun)
    assert await rig.fails(NOT_FOUND, at=0) is gap


async def test_a_list_that_is_refused_and_asked_for_every_ten_minutes_is_no_budget_that_is_too_small(
    store: SqlStore, clock: FakeClock
) -> None:
    account = await account_of(store, clock, NAMED, watches=[WHOLE, OTHER])
    account.api.pipelines.add(OTHER.pipeline)
    account.api.script[NAMED] = ExecutionSnapshot(NAMED, "running")
    account.api.pages = {1: Outcome.FORBIDDEN}
    await account.run_for(7200)
    assert [type_ for type_, *_ in await account.emitted()] == ["execution.running", "pipeline.gap"]


async def test_many_lists_behind_one_bad_gateway_do_not_retry_in_step(store: SqlStore, clock: FakeClock) -> None:
    pipelines = [f"0b5c8f1e-2c3a-4f1e-9d8a-{number:012}" for number in range(20)]
    api = ScriptedApi(clock, pages={1: ERROR}, status_codes={ERROR: 502}, pipelines=set(pipelines))
    watches = [Watch("default", pipeline, (), name="Sales agent") for pipeline in pipelines]
    account = await account_of(store, clock, watches=watches, api=api, jitter=Random(1).random)
    await account.run_for(50)
    asked = [at for at, _ in api.asked]
    assert len(asked) == 20 * 6  # at once, and after five waits that double, each spread by a tenth
    for number, most in ((0, 20), (1, 12), (3, 8), (5, 5)):
        step = sorted(asked[20 * number : 20 * (number + 1)])
        together = max(sum(at <= other < at + 0.1 for other in step) for at in step)
        assert together <= most, number
