"""The daemon's clock, as those see it whose rounds it calls."""

from collections.abc import Callable

Wake = Callable[[], None]
"""Asks a round to run now; never blocks."""
