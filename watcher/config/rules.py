"""The models of the rules of a pipeline, in the configuration file."""

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from watcher.runtime.settings import Block, Duration, Share, as_written, key_of
from watcher.runtime.units import InvalidValueError

_OF_CONSECUTIVE = {"consecutive", "recover_after", "quiet_for_s"}
_OF_RATE = {"rate", "of_last", "within_s", "at_least"}


class _SomeKeys(Block):
    """A block of which at least one key must be given."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            fields = {key_of(type(self), name=name): field for name, field in type(self).model_fields.items()}
            examples = (f"{key}: {field.examples[0]}" for key, field in fields.items() if field.examples)
            raise InvalidValueError(f"needs {' or '.join(fields)}", remedy=f"write {', or '.join(examples)}, or both")
        return self


class AlsoSettings(_SomeKeys):
    """The successes that count as failures. With both keys, a success counts if either of them applies."""

    shorter_than_s: Duration | None = Field(default=None, examples=["5s"])
    """A success that took less than this counts as a failure."""
    fewer_nodes_than: int | None = Field(default=None, ge=1, le=1000, examples=["2"])
    """A success that started fewer nodes counts as a failure. Lists may not say how many nodes started: with
    `polling.details: always` each end is fetched, which costs a request each."""


class FailingSettings(Block):
    """The rule by which a pipeline is failing: `consecutive` or `rate`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["consecutive"]}, {"required": ["rate"]}]})

    consecutive: int | None = Field(default=None, ge=1, le=1000, examples=["3"])
    """The number of executions that must fail in a row, in the order of their ends, to open the problem. The problem
    closes with `pipeline.recovered` once the last `recover_after` executions succeeded, `quiet_for` has passed since it
    opened, and at most a tenth of the executions that ended within the last `quiet_for` failed."""
    recover_after: int = Field(default=3, ge=1, le=1000, examples=["5"])
    """With `consecutive`: the number of executions in a row that must succeed before the problem closes."""
    quiet_for_s: Duration = Field(default=as_written("5m"), examples=["15m"])
    """With `consecutive`: the shortest time for which the problem stays open. It closes only if at most a tenth of the
    executions that ended within the last `quiet_for` failed."""
    rate: Share | None = Field(default=None, examples=["20%"])
    """Instead of `consecutive`: the share of the last executions that must fail to open the problem. The problem closes
    with `pipeline.recovered` once less than half of this share fails."""
    of_last: int = Field(default=20, ge=1, le=1000, examples=["50"])
    """With `rate`: the most ends that are counted, beginning with the newest."""
    within_s: Duration = Field(default=as_written("24h"), examples=["6h"])
    """With `rate`: the greatest age of a counted end, compared to the newest end."""
    at_least: int = Field(default=5, ge=1, le=1000, examples=["10"])
    """With `rate`: the least number of counted ends with which the problem opens."""
    also: AlsoSettings | None = Field(default=None, examples=["{shorter_than: 5s, fewer_nodes_than: 2}"])
    """Successes that count as failures of this rule alone. Their event stays `execution.success`."""

    @model_validator(mode="after")
    def _by_one_of_them(self) -> Self:
        if self.consecutive is None and self.rate is None:
            raise InvalidValueError("needs consecutive or rate", remedy="write consecutive: 3, or rate: 20%")
        by, others = ("consecutive", _OF_RATE) if self.consecutive is not None else ("rate", _OF_CONSECUTIVE)
        if more := self.model_fields_set & others:
            at = key_of(type(self), name=min(more))
            raise InvalidValueError(f"is not for {by}", remedy="keep one of the two", at=at)
        if self.at_least > self.of_last:
            problem = f"at_least {self.at_least} is more than of_last {self.of_last}, so it would never hold"
            at = "at_least" if "at_least" in self.model_fields_set else "of_last"
            raise InvalidValueError(problem, remedy="raise of_last or lower at_least", at=at)
        return self


class SlowSettings(Block):
    """The rule by which an open execution is slow, compared with the last 200 successes of its pipeline."""

    times: float = Field(default=3.0, gt=1.0, le=1000.0, examples=["4"])
    """An execution is slow if it runs for this many times the usual duration: 95 % of the successes were not longer."""
    at_least_s: Duration = Field(default=as_written("1m"), examples=["10m"])
    """An execution is slow only if it runs at least this much longer than usual."""


class TokensSettings(_SomeKeys):
    """The limits for the tokens that a pipeline uses."""

    execution: int | None = Field(default=None, ge=1, le=1_000_000_000, examples=["20000"])
    """Emit `execution.expensive` once for an execution that uses more tokens than this."""
    per_day: int | None = Field(default=None, ge=1, le=1_000_000_000_000, examples=["2000000"])
    """Emit `pipeline.overspending` when the executions that ended today (UTC) have used 80 % of this, and at 100 %."""


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
