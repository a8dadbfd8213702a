"""The block `silences:` of the configuration file."""

import re
from datetime import UTC, datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, StrictStr, ValidationInfo, field_validator, model_validator

from watcher.runtime.settings import Block, Labels, Name, ShortText
from watcher.runtime.units import InvalidValueError
from watcher.sinks.settings import EventGlob

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?(?P<zone>[Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_WRITE_MOMENT = "write date, time and zone, such as 2026-12-24T00:00:00Z or 2026-12-24T00:00:00+01:00"


def _moment(value: object) -> datetime:
    if not isinstance(value, str):
        raise InvalidValueError("is not a single value", remedy="write one value", quote=False)
    match = _MOMENT.fullmatch(value)
    if match is None:
        raise InvalidValueError("is not a date with a time", remedy=_WRITE_MOMENT)
    if match["zone"] is None:
        raise InvalidValueError("has no zone", remedy=_WRITE_MOMENT)
    try:
        return datetime.fromisoformat(match[0].upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("is no moment there is", remedy=_WRITE_MOMENT) from None


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=StrictStr)]
"""A moment in UTC inside, RFC 3339 with its zone outside."""


class SilenceMatch(Block):
    """Which deliveries are kept back: those that match all that is given."""

    labels: Labels = Field(
        default_factory=dict, description="The watch must have all of these labels.", examples=["{team: sales}"]
    )
    events: tuple[EventGlob, ...] = Field(
        default=(),
        description="Globs over event types; any of them must match.",
        examples=['["execution.*"]'],
    )
    pipelines: tuple[UUID, ...] = Field(
        default=(),
        description="The pipeline must be one of these.",
        examples=["[0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]"],
    )
    accounts: tuple[Name, ...] = Field(
        default=(), description="The account must be one of these.", examples=["[default]"]
    )
    sinks: tuple[Name, ...] = Field(
        default=(), description="Only what goes to these sinks. stdout is never silenced.", examples=["[phone]"]
    )

    @model_validator(mode="after")
    def _matches_something(self) -> Self:
        if any((self.labels, self.events, self.pipelines, self.accounts, self.sinks)):
            return self
        remedy = 'name what is meant; for everything write events: ["*"]'
        raise InvalidValueError("is empty", remedy=remedy, quote=False)


class SilenceSettings(Block):
    """For how long what is not sent."""

    match: SilenceMatch = Field(
        description="What is kept back: what matches all that is given; at least one.",
        examples=["{labels: {team: sales}}"],
    )
    from_at: Moment = Field(
        alias="from", description="When it begins, with its zone.", examples=["2026-12-24T00:00:00Z"]
    )
    until_at: Moment = Field(alias="until", description="When it ends.", examples=["2026-12-27T00:00:00Z"])
    comment: ShortText | None = Field(
        default=None, description="Why; at most 256 characters.", examples=["shop closed"]
    )

    @field_validator("until_at")
    @classmethod
    def _after_it_begins(cls, value: datetime, info: ValidationInfo) -> datetime:
        if value <= info.data.get("from_at", datetime.min.replace(tzinfo=UTC)):
            raise InvalidValueError("is not after from", remedy="write a later moment")
        return value
