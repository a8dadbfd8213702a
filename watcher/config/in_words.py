"""The words that say what a sink is sent, and when: of `watcher check --who` and of a problem."""

from watcher.domain.prospects import Prospect
from watcher.runtime.units import spell_duration


def in_words(prospect: Prospect) -> str:
    """Return in words when a sink is sent an event, or why not."""
    if prospect.refused_by == "opening":
        return "not: the opening is silenced"
    if prospect.refused_by:
        return f"not: {prospect.refused_by}"
    if prospect.silenced_until:
        comment = prospect.silenced_for and f": {prospect.silenced_for}"
        return f"silenced until {prospect.silenced_until:%Y-%m-%d %H:%M} UTC{comment}"
    when = f"after {spell_duration(prospect.wait_s)}" if prospect.wait_s >= 1 else "at once"
    return f"{when}, grouped" if prospect.is_grouped else when
