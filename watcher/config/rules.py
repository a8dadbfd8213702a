"""The rules of a pipeline, in the configuration file. The settings of a rule stand in its file of `watcher/rules`."""

from pydantic import Field

from watcher.rules.failing import FailingSettings
from watcher.rules.slow import SlowSettings
from watcher.rules.tokens import TokensSettings
from watcher.runtime.settings import Block, Duration


class RulesSettings(Block):
    """The rules for a pipeline as a whole. `failing`, `silent` and `slow` open a problem once and close it once."""

    failing: FailingSettings | None = Field(default=None, examples=["{consecutive: 3}"])
    """Emit `pipeline.failing` when too many executions fail. Give `consecutive` or `rate`."""
    silent_s: Duration | None = Field(default=None, examples=["6h"])
    """Emit `pipeline.silent` when no execution has started for this long. Only without `executions`."""
    slow: SlowSettings | None = Field(default=None, examples=["{times: 3, at_least: 1m}"])
    """Emit `pipeline.slow` when an open execution runs for much longer than is usual for its pipeline."""
    tokens: TokensSettings | None = Field(default=None, examples=["{execution: 20000, per_day: 2000000}"])
    """Emit `execution.expensive` or `pipeline.overspending` when too many tokens are used. Give at least one of the
    two."""
    new_error: bool = Field(default=False, examples=["true"])
    """Emit `pipeline.new_error` when an execution fails with an error of a kind that was not seen for 30 days."""
