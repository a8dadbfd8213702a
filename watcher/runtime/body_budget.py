"""Bounds the memory of what is being received at once; knows nothing of what that is."""

import asyncio
from collections.abc import Hashable
from itertools import islice


class BodyBudget:
    """Room for so many bytes of what is received at the same time, and a way on for the `first` few in any case.

    Who finds no room waits, and what is sent to it waits on the wire. Those that came first never wait, and whoever is
    next is among them as soon as one of them is done: so there is no deadlock, and all get on in their turn.
    """

    def __init__(self, size: int, *, first: int) -> None:
        """Begin empty."""
        self._size = size
        self._first = first
        self._held: dict[Hashable, int] = {}  # in the order in which they came
        self._freed = asyncio.Event()

    async def hold(self, holder: Hashable, size: int) -> None:
        """Hold so many bytes in all, and wait until there is room for more."""
        self._held[holder] = size
        while sum(self._held.values()) > self._size and holder not in islice(self._held, self._first):
            await self._freed.wait()

    def leave(self, holder: Hashable) -> None:
        """Give back what is held, if anything is."""
        if self._held.pop(holder, None) is not None:
            self._freed.set()
            self._freed = asyncio.Event()
