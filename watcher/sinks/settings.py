"""What every sink's block has: which events it wants, and of which pipelines."""

from collections.abc import Mapping
from uuid import UUID

from pydantic import Field

from watcher.fields import Block


class Match(Block):
    """Which events with a pipeline are wanted: all labels must match, any pipeline."""

    labels: Mapping[str, str] = Field(default_factory=dict)
    pipelines: tuple[UUID, ...] = ()


class SinkSettings(Block):
    """Common to all sinks. `events` are globs over event types."""

    events: tuple[str, ...] = ("*",)
    match: Match = Match()
