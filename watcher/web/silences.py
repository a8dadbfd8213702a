"""The silences of the configuration file and of the store, and their models."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

from pydantic import ValidationError

from watcher.config.checks import fits
from watcher.config.models import SilenceSettings
from watcher.domain.timestamps import from_us
from watcher.store.operator_store import StoredSilence
from watcher.web.console import Console
from watcher.web.models import SilenceView


class PastSilence(NamedTuple):
    """A window of a silence."""

    settings: SilenceSettings
    begins_at: datetime
    ends_at: datetime

    @property
    def words(self) -> str:
        """Return what was silenced, and why: `silenced at phone: deploy`."""
        match, comment = self.settings.match, self.settings.comment
        where = f" at {', '.join(match.sinks)}" if match.sinks else ""
        what = f" ({', '.join(match.events)})" if match.events else ""
        return f"silenced{where}{what}{f': {comment}' if comment else ''}"


def silence_of(row: StoredSilence) -> SilenceSettings:
    """Return the settings of a stored silence. Raises `ValidationError` if only a later version can read it."""
    from_, until = (from_us(at).isoformat() for at in (row.starts_at, row.ends_at))
    return SilenceSettings.model_validate(
        {"match": json.loads(row.match), "from": from_, "until": until, "comment": row.comment}
    )


def stored_silence(console: Console, row: StoredSilence) -> SilenceView:
    """Return a stored silence as a model. Raises `ValidationError` if only a later version can read it."""
    return _view(console, silence_of(row), id=str(row.id), by=row.by)


async def load_silences(console: Console) -> Sequence[SilenceView]:
    """Return the silences of the file that are not over, and those of the store that this version can read."""
    now = console.clock.now()
    found = [_view(console, each) for each in console.settings().silences if each.window(now)[1] > now]
    for row in await console.operator.silences():
        with suppress(ValidationError):  # `Operations` logs a silence that this version cannot read
            found.append(stored_silence(console, row))
    return found


async def load_past_silences(console: Console, *, since: datetime, until: datetime) -> Sequence[PastSilence]:
    """Return the windows of silences that overlap a span, in the order of their beginnings. Raises `StoreError`."""
    stored = list[SilenceSettings]()
    for row in await console.operator.silences(ending_after=since):
        with suppress(ValidationError):  # only a later version can read it
            stored.append(silence_of(row))
    every = (*console.settings().silences, *stored)
    found = [PastSilence(each, *window) for each in every for window in each.windows(since, until)]
    return sorted(found, key=attrgetter("begins_at", "ends_at"))


def _view(console: Console, settings: SilenceSettings, **more: str | None) -> SilenceView:
    now = console.clock.now()
    from_, until = settings.window(now)
    return SilenceView(
        match=settings.match,
        from_=from_,
        until=until,
        weekly=settings.weekly,
        active=from_ <= now < until,
        pipelines=sum(fits(watch, settings.match) for watch in console.settings().watch),
        comment=settings.comment,
        **more,
    )
