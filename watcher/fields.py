"""What configuration models are made of: the strict base, durations, rates, secrets with a `_file` twin."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, StrictStr

from watcher.units import parse_duration, parse_rate


class Block(BaseModel):
    """A block of the configuration: frozen, unknown keys are errors, fields are read by their YAML name."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)


def _duration(value: object) -> float:
    return parse_duration(str(value))


def _rate(value: object) -> float:
    return parse_rate(str(value))


Duration = Annotated[float, BeforeValidator(_duration, json_schema_input_type=StrictStr)]
"""Seconds inside, `15m` outside."""

Rate = Annotated[float, BeforeValidator(_rate, json_schema_input_type=StrictStr)]
"""Per second inside, `300/m` outside."""

Secret = SecretStr
"""A value that prints as asterisks. Its key has a twin ending in `_file`, of which the loader reads the file."""
