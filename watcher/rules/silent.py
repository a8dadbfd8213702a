"""The rule `silent`: no execution of a pipeline starts for too long."""

from dataclasses import dataclass, replace
from typing import ClassVar

from watcher.domain.envelope import Json, timestamp
from watcher.domain.event import EventType
from watcher.domain.problems import Problem
from watcher.domain.rule import Judged, News, Rule, RuleEvent
from watcher.domain.timestamps import NEVER, Micros, from_us
from watcher.runtime.units import spell_duration


@dataclass(frozen=True, slots=True)
class SilentState:
    """The time of the last known start. It is unknown (0) until a scan is complete."""

    started_at: int = NEVER


@dataclass(frozen=True, slots=True)
class Silent(Rule):
    """The rule `silent`: a problem is open while no execution has started for longer than `limit_s`."""

    key: ClassVar[str] = "silent"
    opens: ClassVar[EventType] = EventType.PIPELINE_SILENT
    state_type: ClassVar[type[SilentState]] = SilentState

    limit_s: float

    def judge(self, state: SilentState, news: News, problem: Problem | None) -> Judged:
        """Close the problem at a recent start, or open it after a complete scan."""
        if not state.started_at and news.scanned_until is None:
            return Judged(state)
        limit_us, events, is_open = round(self.limit_s * 1_000_000), list[RuleEvent](), problem is not None
        started_at = max(state.started_at, news.started_at, 0 if state.started_at else news.shown_start_at)
        if is_open and started_at > state.started_at and news.now - started_at <= limit_us:
            events.append(RuleEvent(EventType.PIPELINE_ACTIVE))
            is_open = False
        if news.scanned_until is not None:
            started_at = started_at or news.scanned_until  # without any start, the time counts from the first scan
            if not is_open and news.scanned_until - started_at > limit_us:
                since = timestamp(from_us(Micros(started_at)))
                data: Json = {"limitSeconds": limit_us / 1e6, "silentSince": since}
                events.append(RuleEvent(self.opens, data))
        return Judged(SilentState(started_at), events)

    def moved(self, state: SilentState, by_us: int, *, now: Micros) -> SilentState:
        """Return the state with its time moved by `by_us`, but not beyond `now`."""
        return replace(state, started_at=state.started_at and min(now, state.started_at + by_us))

    def opens_when(self) -> str:
        """Return in words when the rule opens its problem."""
        return f"no execution started for {spell_duration(self.limit_s)}"
