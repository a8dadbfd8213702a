"""The deliveries of a sink that is sent groups: collected in memory, fixed in the store, and handed out one by one.

Nothing is kept of a group before it is complete, so after a restart it is collected anew. Then it is written down, and
only then sent: from there on it is the same group on every attempt, whatever happens. It is completed no sooner than it
can be sent: the slower the sink, the more goes together.
"""

from collections.abc import Sequence

from watcher.delivery.delivery_queue import DeliveryQueue, WorkerDependencies
from watcher.delivery.grouping import Member, OpenGroup, OpenGroups, fixed
from watcher.delivery.silencing import fields_of
from watcher.domain.delivery import Delivery
from watcher.domain.errors import StoreError
from watcher.domain.event import EventKey
from watcher.domain.silences import DeliveryFields
from watcher.domain.timestamps import EARLIEST, Micros, Monotonic
from watcher.sinks.protocol import GroupRules
from watcher.store.changes import AttemptRecords, Lease
from watcher.store.records import BEGINNING, Candidate, DueDeliveries, GroupPosition

GROUPS_COUNT = 16
"""Groups that are taken at once, as many as may be in flight."""

PAGE_COUNT = 500
"""Deliveries that are read at once to be collected."""

COLLECT_EVERY_S = 0.25
"""A storm wakes the worker with each event; it looks for new ones so often."""

LATE_US = 2_000_000
"""A write shows so much later than the moment it is dated, at the most: what is younger is read again."""

ALL_EVERY_S = 60.0
"""So often everything that is in no group is read again: what was replayed meanwhile, or written even later."""


class GroupQueue(DeliveryQueue):
    """Hands out what stands for each group; `members` returns the group itself."""

    def __init__(self, lease: Lease, deps: WorkerDependencies, *, rules: GroupRules) -> None:
        """Collect from the beginning."""
        super().__init__(lease, deps)
        self._groups = OpenGroups(rules)
        self._after = BEGINNING  # what comes due after this was not looked at yet
        self._held_back: GroupPosition | None = None  # before the first that has to wait for one in another group
        self._collect_at = self._all_at = EARLIEST
        self._is_behind = False  # whether something may have been recorded since it looked last

    async def settle(self, records: AttemptRecords) -> None:
        """Write how attempts ended. What waited for these may be collected now."""
        await super().settle(records)
        self._look_again()

    async def give_up(self, *, clock_s: float, after_s: float, skip: frozenset[bytes]) -> int:
        """Make dead letters of what was first due so long ago, and collect anew if there was any."""
        count = await super().give_up(clock_s=clock_s, after_s=after_s, skip=skip)
        if count:
            self._collect_anew()
        return count

    async def _members(self, batch: Sequence[Delivery]) -> Sequence[Delivery]:
        group_id = batch[0].group_id
        return batch if group_id is None else await self._store.group_members(self.lease, group_id)

    async def _due(self, skip: frozenset[bytes]) -> DueDeliveries:
        await self._prepare(count=GROUPS_COUNT)
        now = self._clock.steady_us()
        due = await self._store.next_groups(self.lease, now=now, limit=GROUPS_COUNT, skip=skip)
        later = [at for at in (due.next_due_at, self._groups.next_at()) if at is not None]
        if self._is_behind:
            later.append(Micros(now + round(max(0.0, self._collect_at - self._clock.monotonic()) * 1e6)))
        return DueDeliveries(due.deliveries, min(later, default=None))

    async def _trial(self, skip: frozenset[bytes], *, never_tried: bool) -> Delivery | None:
        now = self._clock.steady_us()
        trial = await self._store.next_group_trial(self.lease, now=now, skip=skip, never_tried=True)
        if trial is None:
            await self._prepare(count=1)
            trial = await self._store.next_group_trial(self.lease, now=now, skip=skip, never_tried=never_tried)
        return trial

    async def _prepare(self, *, count: int) -> None:
        """Collect what is new and fix what is complete, so many groups at most; after trouble it is collected anew."""
        try:
            await self._collect()
            await self._fix(count=count)
        except StoreError:
            self._collect_anew()
            raise

    async def _collect(self) -> None:
        now_s, now = self._clock.monotonic(), self._clock.steady_us()
        self._is_behind = now_s < self._collect_at
        if self._is_behind:
            return
        self._collect_at = Monotonic(now_s + COLLECT_EVERY_S)
        if now_s >= self._all_at:
            self._after, self._all_at = BEGINNING, Monotonic(now_s + ALL_EVERY_S)
        while not self._groups.is_full:
            page = await self._store.ungrouped(self.lease, now=now, after=self._after, limit=PAGE_COUNT)
            for candidate in page:
                self._take_in(candidate, now=now)
            if len(page) < PAGE_COUNT:
                self._after = GroupPosition(Micros(now - LATE_US), *BEGINNING[1:])
                return
            self._after = _position(page[-1].delivery)

    def _take_in(self, candidate: Candidate, *, now: Micros) -> None:
        delivery = candidate.delivery
        if delivery.event in self._groups:
            return
        member = Member(delivery.recorded_at, delivery.event, delivery.event_id, fields_of(delivery), delivery.replayed)
        if not self._groups.add(member, earlier=candidate.earlier, now=now):
            before = GroupPosition(delivery.due_at, *BEGINNING[1:])
            self._held_back = before if self._held_back is None else min(self._held_back, before)

    async def _fix(self, *, count: int) -> None:
        """Write what goes together, without what a silence keeps back, which is settled first."""
        groups = self._groups.complete(self._clock.steady_us())[:count]
        kept_back = await self._without_closings(self._silenced(groups))
        if kept_back:
            await self._silence(kept_back)
        rests = [[member for member in group.members if member.event not in kept_back] for group in groups]
        if any(rests):
            await self._store.fix_groups(self.lease, [fixed(rest) for rest in rests if rest])
        self._groups.remove(groups)
        if kept_back:
            self._look_again()

    def _silenced(self, groups: Sequence[OpenGroup]) -> dict[EventKey, DeliveryFields]:
        if not self._silencer.now():
            return {}
        members = (member for group in groups for member in group.members if not member.replayed)
        return {member.event: member.fields for member in members if self._silencer.keeps_back(member.fields)}

    def _look_again(self) -> None:
        """Read again what had to wait for something that is settled by now."""
        if self._held_back is not None:
            self._after, self._held_back = min(self._after, self._held_back), None
            self._collect_at = EARLIEST

    def _collect_anew(self) -> None:
        self._groups.clear()
        self._after, self._held_back = BEGINNING, None
        self._collect_at = EARLIEST


def _position(delivery: Delivery) -> GroupPosition:
    return GroupPosition(delivery.due_at, delivery.recorded_at, delivery.stream, delivery.sequence)
