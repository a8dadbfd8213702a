"""The base class of all configuration models, and the types of values that several models share.

A validator raises `InvalidValueError`, whose texts never hold a secret.
"""

import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Self, TypeVar, cast, get_args
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StrictStr,
    model_validator,
)
from pydantic.fields import FieldInfo
from yarl import URL

from watcher.runtime.described import DescribedModel
from watcher.runtime.units import InvalidValueError, parse_duration, parse_rate, parse_share

_URL_ILLEGAL = re.compile(r"[\s\x00-\x1f\x7f\\]")
TEXT_LIMIT = 256
LABELS_COUNT = 32

Text = TypeVar("Text", str, SecretStr)
"""The most characters of a label's key, a label's value, and the name of a watch."""


def key_of(model: type[BaseModel], *, name: str) -> str:
    """Return the YAML key of a model's field."""
    return model.model_fields[name].alias or name


def block_of(field: FieldInfo) -> type["Block"] | None:
    """Return the `Block` class that a field holds, optional or not; `None` if the field holds no block."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Block)), None)


def did_you_mean(word: str, known: Collection[str], *, rest: str = "", cutoff: float = 0.6) -> str:
    """Return the end of an error message about a wrong word: `did you mean "…"?` for a similar known word, and `rest`.

    A known word is similar if its similarity is at least `cutoff` (0 to 1), or if it is a part of the wrong word:
    `url` in `webhook_url`.
    """
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(word.lower(), by_lower, n=1, cutoff=cutoff)
    near += [part for part in reversed(re.split("[_-]", word.lower())) if part in by_lower]
    return f'did you mean "{by_lower[near[0]]}"? {rest[:1].upper()}{rest[1:]}'.rstrip() if near else rest


def file_twin(what: str, *, example: str) -> Any:
    """Return the field of a twin key, such as `token_file`: the path of a file that holds the secret."""
    return Field(default=None, description=f"The file that holds {what}.", examples=[example])


def file_twins(model: type[BaseModel]) -> tuple[str, ...]:
    """Return the keys of a model that have a twin. The twin of `token` is `token_file`."""
    return tuple(name for name in model.model_fields if f"{name}_file" in model.model_fields)


def leave_out_twins(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Remove keys with a twin from the required keys of a JSON Schema. The loader requires one of the two."""
    if "required" in schema:
        schema["required"] = [key for key in schema["required"] if key not in file_twins(model)]


class Block(DescribedModel):
    """A block of the configuration. It is frozen, and unknown keys are errors. The docstring of a field describes it.

    The key of a field is its alias, else its name without `_s`, the suffix of durations in seconds.
    """

    model_config = ConfigDict(
        alias_generator=lambda name: name.removesuffix("_").removesuffix("_s"),
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
        json_schema_extra=leave_out_twins,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_empty_keys(cls, value: object) -> object:
        # A known key without a value counts as absent, because its block may be commented out.
        if not isinstance(value, dict):
            return value
        known = {key_of(cls, name=name) for name in cls.model_fields}
        return {key: item for key, item in value.items() if item is not None or key not in known}


class SomeKeys(Block):
    """A block of which at least one key must be given."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_fields_set:
            fields = {key_of(type(self), name=name): field for name, field in type(self).model_fields.items()}
            examples = (f"{key}: {field.examples[0]}" for key, field in fields.items() if field.examples)
            raise InvalidValueError(f"needs {' or '.join(fields)}", remedy=f"write {', or '.join(examples)}, or both")
        return self


def scalar_text(value: object) -> str:
    """Return the text of a scalar. Raises `InvalidValueError` for anything else."""
    if isinstance(value, str | int | float):
        return str(value)
    raise InvalidValueError("is not a single value", remedy="write one value")


def _long(seconds: float) -> float:
    if seconds:
        return seconds
    raise InvalidValueError("is too short", remedy="write a duration above 0, such as 10s", quote=True)


_SCALAR = BeforeValidator(scalar_text, json_schema_input_type=StrictStr)

DurationOrZero = Annotated[float, BeforeValidator(parse_duration), _SCALAR]
"""A duration of 0 or more: seconds in the program, `15m` in the file."""

Duration = Annotated[DurationOrZero, AfterValidator(_long)]
"""A `DurationOrZero` above 0."""

Rate = Annotated[float, BeforeValidator(parse_rate), _SCALAR]
"""A rate above 0: per second in the program, `300/m` in the file."""

Share = Annotated[float, BeforeValidator(parse_share), _SCALAR]
"""A share of a whole: above 0 and at most 1 in the program, `20%` in the file."""


def as_written(text: str) -> float:
    """Return a default in the notation of the file. Validation parses the text, and the JSON Schema shows it."""
    return cast("float", text)


def plain(value: str | SecretStr) -> str:
    """Return the text of a value that may be a secret."""
    return value if isinstance(value, str) else value.get_secret_value()


def matching(pattern: str, problem: str, *, remedy: str) -> AfterValidator:
    """Return a validator that refuses each text, and each secret, that does not match a pattern from end to end."""

    def check(value: Text) -> Text:
        if re.fullmatch(pattern, plain(value), re.ASCII):
            return value
        raise InvalidValueError(problem, remedy=remedy)

    return AfterValidator(check)


_NO_KEY = "is empty, or holds spaces, quotes or other characters no key has"

ApiKey = Annotated[SecretStr, matching("[!#-&(-~]+", _NO_KEY, remedy="copy the key again, without quotes or line ends")]
"""An API key that a header can hold."""

_WRITE_NAME = "use 1 to 64 of the characters A-Z a-z 0-9 _ . -"

Name = Annotated[str, matching("[A-Za-z0-9_.-]{1,64}", "is not a name", remedy=_WRITE_NAME)]
"""The name of an account or a sink."""


def _short(value: str) -> str:
    if len(value) <= TEXT_LIMIT:
        return value
    raise InvalidValueError(f"has {len(value)} characters", remedy=f"shorten it to {TEXT_LIMIT}")


def _label_key(value: str) -> str:
    if value:
        return _short(value)
    raise InvalidValueError("is empty", remedy="name the label")


ShortText = Annotated[str, AfterValidator(_short)]
"""A text of at most 256 characters."""

Labels = Annotated[Mapping[Annotated[str, AfterValidator(_label_key)], ShortText], Field(max_length=LABELS_COUNT)]
"""The user's own labels. Events carry them, and sinks match them."""


def redact_url(url: str) -> str:
    """Return the scheme, host and explicit port of a URL. The rest may hold a secret."""
    parts = URL(url)
    return str(URL.build(scheme=parts.scheme, host=parts.host or "", port=parts.explicit_port))


def split_http_url(text: str, *, example: str) -> SplitResult:
    """Return the parts of an http or https URL with a host. Raises `InvalidValueError`, which never shows the URL."""
    remedy = f"write it like {example}"
    try:
        parts = urlsplit(text)
        usable_port = parts.port != 0
        (URL(text).raw_host or "").encode("idna")  # yarl and IDNA are stricter, and the later request uses them
    except ValueError:
        raise InvalidValueError("is not a URL", remedy=remedy) from None
    if parts.scheme not in {"http", "https"}:
        raise InvalidValueError("does not begin with http:// or https://", remedy=remedy)
    if _URL_ILLEGAL.search(text) or not usable_port or not parts.hostname:
        raise InvalidValueError("is not a URL", remedy=remedy)
    return parts


def one_or_list(value: object) -> object:
    """Return a single text as a tuple, any other value as it is. Raises `InvalidValueError` for an empty list."""
    if isinstance(value, str | SecretStr):
        return (value,)
    if isinstance(value, list) and not value:
        raise InvalidValueError("is an empty list", remedy="give at least one value or remove the key")
    return value
