"""The rules of a watch, as the configuration file has them (SPEC 3)."""

from collections.abc import Callable
from typing import Any

from pydantic import ConfigDict, Field

from watcher.runtime.settings import Block, Duration, Share, as_written


def _one_of(*keys: str) -> Callable[[dict[str, Any]], None]:
    """Tell the JSON Schema that exactly one of these keys is given."""

    def describe(schema: dict[str, Any]) -> None:
        schema["oneOf"] = [{"required": [key]} for key in keys]

    return describe


class FailingSettings(Block):
    """When a pipeline is failing."""

    model_config = ConfigDict(json_schema_extra=_one_of("consecutive", "rate"))

    consecutive: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="So many executions failed in a row. `pipeline.recovered` follows with the next success.",
        examples=["3"],
    )
    rate: Share | None = Field(
        default=None,
        description="Instead of `consecutive`: this share of the last executions failed, or more. `pipeline.recovered` "
        "follows with an end after which it is less.",
        examples=["20%"],
    )
    of_last: int = Field(
        default=20, ge=1, le=1000, description="With `rate`: of how many ends, at most.", examples=["50"]
    )
    within_s: Duration = Field(
        default=as_written("24h"),
        alias="within",
        description="With `rate`: how old they may be, counted from the newest.",
        examples=["6h"],
    )
    at_least: int = Field(
        default=5, ge=1, le=1000, description="With `rate`: how many there must be to open a problem.", examples=["10"]
    )


class RulesSettings(Block):
    """What is wrong with a pipeline as a whole: each rule opens a problem once and closes it once."""

    failing: FailingSettings | None = Field(
        default=None,
        description="Emit `pipeline.failing` when too many executions fail. Give `consecutive` or `rate`.",
        examples=["{consecutive: 3}"],
    )
    silent_s: Duration | None = Field(
        default=None,
        alias="silent",
        description="Emit `pipeline.silent` when no execution has started for this long. For whole pipelines.",
        examples=["6h"],
    )
