"""Whether the store is usable, found out by writing: what is read, or was written a while ago, proves nothing.

Who asks often is told what was found a moment ago, and all who ask at once wait for the same write.
"""

import asyncio

import structlog

from watcher.domain.errors import StoreError
from watcher.runtime.clock import Clock
from watcher.store.protocol import Store

log = structlog.get_logger()

FRESH_S = 1.0
"""A write to disk a second is cheap, whoever asks for more."""

PATIENCE_S = 2.0


class Readiness:
    """The store as `/readyz` tells it."""

    def __init__(self, store: Store, *, clock: Clock, patience_s: float = PATIENCE_S) -> None:
        """Know nothing yet. `patience_s` is how long the store may take to answer."""
        self._store = store
        self._clock = clock
        self._patience_s = patience_s
        self._proof: asyncio.Task[str | None] | None = None
        self._fresh_until = float("-inf")
        self._failing = False

    async def problem(self) -> str | None:
        """Return what is wrong with the store, if anything is."""
        proof = self._current_proof()
        done, _ = await asyncio.wait([proof], timeout=self._patience_s)
        return proof.result() if done else "the store does not answer"

    def _current_proof(self) -> asyncio.Task[str | None]:
        """Return the last proof while it is under way or fresh, else begin another."""
        if self._proof is None or (self._proof.done() and self._clock.monotonic() >= self._fresh_until):
            self._proof = asyncio.create_task(self._prove())
        return self._proof

    async def _prove(self) -> str | None:
        problem: str | None = None
        try:
            await self._store.prove_writable()
        except StoreError as error:
            problem = "the store cannot be written"
            if not self._failing:
                log.error("store.failed", problem=str(error))  # noqa: TRY400 (our own text says it all)
        except Exception as error:  # noqa: BLE001 (a bug; nobody may wait for this any more, so it is said here)
            problem = "the store cannot be proven to be writable"
            if not self._failing:
                log.error("store.failed", problem=type(error).__name__)  # noqa: TRY400 (its text may hold data)
        else:
            if self._failing:
                log.info("store.recovered")
        self._failing = problem is not None
        self._fresh_until = self._clock.monotonic() + FRESH_S
        return problem
