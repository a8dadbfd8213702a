"""The stdout sink: one event per line and nothing else."""

from typing import Literal

from watcher.sinks.settings import SinkSettings


class StdoutSettings(SinkSettings):
    """`{type: stdout}`."""

    type: Literal["stdout"]
