"""Rows that say an execution has ended, until a GET has said what happened. Pure."""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from watcher.models import Details, Execution, Status
from watcher.transitions import is_terminal

CONFIRM_WITHIN_S = 30.0
"""A claim that cannot be confirmed in this time becomes the status."""

DENIED_FOR_S = 10.0
"""After a GET said that an execution is open its rows make no new claim for so long."""


@dataclass(slots=True)
class Claim:
    """A row that says an execution has ended: when its page was asked for, when it was read (monotonic seconds).

    Before `retry_at` no GET is to be tried again.
    """

    execution: Execution
    sent_at: float
    at: float
    retry_at: float = float("-inf")

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
    """Those that wait for a GET to confirm their claim, oldest claim first."""

    def __init__(self) -> None:
        """Start with nobody."""
        self._waiting: dict[AnyClaimant, Claim] = {}
        self._confirmed_last = False

    def add(self, claimant: AnyClaimant) -> None:
        """Let one with a claim wait, or wait again."""
        assert claimant.claim is not None  # noqa: S101 (who has none is not added)
        self._waiting[claimant] = claimant.claim

    def take(self, now: float, *, other_wants: bool) -> AnyClaimant | None:
        """Return, and let go of, the next to confirm: at most every second time while something else waits."""
        if not self._waiting:
            self._confirmed_last = False
            return None
        if self._confirmed_last and other_wants:
            self._confirmed_last = False
            return None
        ready = next((each for each, claim in self._waiting.items() if claim.retry_at <= now), None)
        self._confirmed_last = ready is not None
        if ready is not None:
            del self._waiting[ready]
        return ready

    def expired(self, now: float) -> list[AnyClaimant]:
        """Return, and let go of, those whose claims are too old to wait on."""
        old = [each for each, claim in self._waiting.items() if claim.expires_at <= now]
        for each in old:
            del self._waiting[each]
        return old

    def wanted_at(self) -> float:
        """Return when the first may be confirmed, infinity while nobody waits."""
        return min(self._retries(), default=float("inf"))

    def next_expiry_at(self) -> float:
        """Return when the first claim is too old to wait on."""
        if not self._waiting:
            return float("inf")
        return min((claim.expires_at for claim in self._waiting.values()), default=float("inf"))

    def _retries(self) -> Iterator[float]:
        return (claim.retry_at for claim in self._waiting.values())
