"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from watcher.models import Details, Execution, Status
from watcher.transitions import is_terminal

CONFIRM_WITHIN_S = 30.0
"""A claim that cannot be confirmed in this time becomes the status."""

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new claim for so long."""


NEVER_TRIED = float("-inf")


@dataclass(slots=True)
class Claim:
    """A row of a pipeline that says an execution has ended: when its page was asked for, when it was read.

    Both, and `retry_at`, before which no GET is to be tried again, are monotonic seconds.
    """

    pipeline: str
    execution: Execution
    sent_at: float
    at: float
    retry_at: float = NEVER_TRIED

    @property
    def expires_at(self) -> float:
        """Return when it need wait no longer; what cannot be written then is tried again later."""
        return max(self.at + CONFIRM_WITHIN_S, self.retry_at)

    def retry_after(self, wait_s: float, *, now: float) -> None:
        """Wait before another try, but not beyond the time in which the claim is to be confirmed."""
        due_at = self.at + CONFIRM_WITHIN_S
        self.retry_at = min(now + wait_s, due_at) if now < due_at else now + wait_s


def selects(details: Details, execution: Execution) -> bool:
    """Tell whether this row is a claim: it has ended, and the configuration wants such ends fetched one by one."""
    if details is Details.NEVER or not is_terminal(execution):
        return False
    return details is Details.ALWAYS or execution.status == Status.FAILED


class Claimant(Hashable, Protocol):
    """Whatever has a claim."""

    claim: Claim | None


AnyClaimant = TypeVar("AnyClaimant", bound=Claimant)


class Confirmations(Generic[AnyClaimant]):
    """Those that wait for a GET to confirm their claim: the pipelines by turns, and in each the oldest claim first."""

    def __init__(self, *, in_time_count: float) -> None:
        """Start with nobody. `in_time_count` are the GETs that can be had within the time a claim may wait."""
        self._in_time_count = max(1.0, in_time_count)
        self._waiting: OrderedDict[str, dict[AnyClaimant, Claim]] = OrderedDict()
        self._hopeless: list[AnyClaimant] = []

    def add(self, claimant: AnyClaimant) -> None:
        """Let one with a claim wait, or wait again. One whose first turn cannot come in time has waited long enough."""
        claim = claimant.claim
        assert claim is not None  # noqa: S101 (who has none is not added)
        if claim.retry_at == NEVER_TRIED and self._turn_of_next(claim.pipeline) > self._in_time_count:
            self._hopeless.append(claimant)
        else:
            self._waiting.setdefault(claim.pipeline, {})[claimant] = claim

    def first(self, now: float) -> AnyClaimant | None:
        """Return the next to confirm."""
        if not self._waiting:
            return None
        ready = (each for several in self._waiting.values() for each, claim in several.items() if claim.retry_at <= now)
        return next(ready, None)

    def take(self, claimant: AnyClaimant) -> None:
        """Let go of one; its pipeline's next comes after all others'."""
        assert claimant.claim is not None  # noqa: S101 (it waits)
        pipeline = claimant.claim.pipeline
        del self._waiting[pipeline][claimant]
        self._waiting.move_to_end(pipeline)
        if not self._waiting[pipeline]:
            del self._waiting[pipeline]

    def expired(self, now: float) -> list[AnyClaimant]:
        """Return, and let go of, those whose claims are too old to wait on, or would be before their turn came."""
        old = [each for several in self._waiting.values() for each, claim in several.items() if claim.expires_at <= now]
        for each in old:
            self.take(each)
        hopeless, self._hopeless = self._hopeless, []
        return hopeless + old

    def wanted_at(self) -> float:
        """Return when the first may be confirmed, infinity while nobody waits."""
        return min((claim.retry_at for claim in self._claims()), default=float("inf"))

    def next_expiry_at(self) -> float:
        """Return when the first claim is too old to wait on."""
        if self._hopeless:
            return float("-inf")
        return min((claim.expires_at for claim in self._claims()), default=float("inf"))

    def _claims(self) -> Iterator[Claim]:
        return (claim for several in self._waiting.values() for claim in several.values())

    def _turn_of_next(self, pipeline: str) -> int:
        """Return how many GETs later the turn comes of one that is added now."""
        place = len(self._waiting.get(pipeline, ())) + 1
        others = (len(several) for each, several in self._waiting.items() if each != pipeline)
        return place + sum(min(place, count) for count in others)
