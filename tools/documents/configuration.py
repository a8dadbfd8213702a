"""The configuration reference, from the models themselves."""

from collections.abc import Iterator, Mapping
from inspect import get_annotations
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from watcher.config.files import DEFAULTS, PLACES, VARIABLE
from watcher.config.models import Settings, SilenceSettings, WatchSettings
from watcher.runtime.described import descriptions_of
from watcher.runtime.settings import Block, block_of, key_of
from watcher.sinks.email import EmailSettings
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import HttpSinkSettings, RemoteSettings, SinkSettings
from watcher.sinks.template import ALERT_EVENTS
from watcher.sinks.webhook import PRESETS

HEAD = """\
# Configuration

Every key of this version. Made by `make docs` from the models that read the file. A commented file with all of it:
[config/watcher.example.yaml](../../config/watcher.example.yaml); one small file per use: [config/](../../config).

The file is YAML: `--config`, else `${variable}`, else the first of {places} that is there. It may be
a folder of files: [many customers](../customers.md).
All top-level keys may be left out; unknown keys are errors. All problems are reported at once, each with line, column
and remedy. A change is applied while the daemon runs ([what changes how](../operate.md#change-the-configuration)).

- **Variables**: `${{VAR}}` and `${{VAR:-default}}` are filled in after the YAML is read, so they hold plain text. `$$`
  is a dollar. A `${{VAR}}` that is not set is an error, and so is `$VAR` without braces.
- **Secrets in files**: a key with `…_file` beside it may be replaced by that key, which names a file: `api_key_file`
  for `api_key`. A relative path starts beside the configuration file; the file's last line end does not count.
- **Worth a message** means all events but `execution.new`, `.running`, `.paused` and `.success`.
- **Durations** are `500ms`, `10s`, `15m`, `48h`, `3d`; **rates** are `5/s`, `300/m`. Both need their unit.
- **Defaults from the environment**, where the file says nothing:

| variable | key |
|---|---|
{variables}
"""

KINDS = {
    "parse_duration": "duration",
    "parse_rate": "rate",
    "parse_share": "percentage",
    "_moment": "date and time",
    "_key": "secret",
    "_routing_key": "secret",
    "_bot_token": "secret",
    "_sink_url": "secret URL",
    "_preset_or_file": f"{', '.join(f'`{name}`' for name in PRESETS)}, or the path of a Jinja2 file",
    "_apprise_url": "secret URL",
    "one_or_list": "secret, or a list",
}
"""What a value is, by the validator that reads it."""

SHARED: Mapping[str, type[SinkSettings]] = {
    "Of every sink:": SinkSettings,
    "Of every sink but stdout:": RemoteSettings,
    "Of `webhook` and `slack_bot`:": HttpSinkSettings,
}
"""Keys that kinds of sinks have in common, and of which they are."""


def configuration() -> str:
    """Return the whole page."""
    places = " and ".join(f"`{place if place.is_absolute() else f'./{place}'}`" for place in PLACES)
    variables = "\n".join(f"| `{variable}` | `{'.'.join(key)}` |" for variable, key in DEFAULTS.items())
    head = HEAD.format(variable=VARIABLE, places=places, variables=variables)
    return "\n".join([head, *(_section(name, field) for name, field in Settings.model_fields.items())])


def _section(name: str, field: FieldInfo) -> str:
    parts = [f"## {name}", _described(Settings, name)]
    for prefix, note, block in _blocks(name, field):
        parts += [note] if note else []
        parts.append("\n".join(_lines(block, prefix=prefix)))
    return "\n\n".join(parts) + "\n"


def _blocks(name: str, field: FieldInfo) -> Iterator[tuple[str, str, type[Block]]]:
    """Yield what stands in a section: what its keys begin with, a line about it, and its model."""
    if name == "sinks":
        yield from (("sinks.NAME.", note, model) for note, model in SHARED.items())
        for kind, model in SINK_KINDS.items():
            yield "sinks.NAME.", f"`type: {kind}`: {_described(model, 'type')}", model
    elif name == "silences":
        yield "silences[].", "", SilenceSettings
    elif name == "watch":
        yield "watch[].", "", WatchSettings
    elif (block := block_of(field)) is not None:
        yield f"{name}.", "", block
    else:
        yield f"{name}.NAME.", "", get_args(field.annotation)[1]


def _lines(block: type[BaseModel], *, prefix: str) -> Iterator[str]:
    """Yield a line a key of a block, and of the blocks in it."""
    is_sink = issubclass(block, SinkSettings)
    own = get_annotations(block) if is_sink else block.model_fields
    for name, field in ((name, block.model_fields[name]) for name in own if name in block.model_fields):
        path = f"{prefix}{key_of(block, name=name)}"
        inner = block_of(field)
        if (name.endswith("_file") and name.removesuffix("_file") in block.model_fields) or (
            is_sink and name == "type"
        ):
            continue
        if inner is not None:
            yield f"- `{path}` (block): {_described(block, name)}"
            if not (block is EmailSettings and name == "group"):  # whose keys are those of every sink
                yield from _lines(inner, prefix=f"{path}.")
        else:
            yield _line(path, block, name, optional=f"{name}_file" in block.model_fields or name == "account")


def _line(path: str, block: type[BaseModel], name: str, *, optional: bool) -> str:
    field = block.model_fields[name]
    default = "" if field.is_required() else _default(field)
    notes = [_kind(field)]
    if f"{name}_file" in block.model_fields:
        path = f"{path}`, `…_file"
    if field.is_required() and not optional:
        notes.append("required")
    if default == _code(f"[{', '.join(ALERT_EVENTS)}]"):
        default = "what is worth a message"
    if default:
        notes.append(f"default {default}")
    elif field.examples and not notes[0].startswith("`"):
        notes.append(f"such as {_code(field.examples[0])}")
    described = _described(block, name)
    if block in SINK_KINDS.values() and described == _described(RemoteSettings, name):
        described = "as of every sink"
    return f"- `{path}` ({', '.join(notes)}): {described}"


def _described(block: type[BaseModel], name: str) -> str:
    return " ".join(descriptions_of(block).get(name, "").split())


def _kind(field: FieldInfo) -> str:
    found = [*field.metadata, *_parts(field.annotation)]
    for rule in found:
        if kind := KINDS.get(getattr(getattr(rule, "func", None), "__name__", "")):
            return kind
    words = [str(word) for word in found if isinstance(word, str)]
    if words:
        return " or ".join(f"`{word}`" for word in words)
    return _python_kind(int if int in found else field.annotation)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield what one of a few words, or a value that may be absent, is made of: its words, types and rules."""
    is_optional = type(None) in get_args(annotation)
    for part in get_args(annotation):
        if is_optional or isinstance(part, str):
            yield part
            yield from get_args(part) if is_optional else ()


def _python_kind(annotation: Any) -> str:
    text = str(annotation)
    plural = {"Mapping": "keys and values", "tuple": "list"}
    for word, kind in plural.items():
        if word in text:
            return kind
    return {int: "number", float: "number", bool: "`true` or `false`"}.get(annotation, "text")


def _default(field: FieldInfo) -> str:
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    if value is None or isinstance(value, Mapping) or value == ():
        return ""
    if isinstance(value, bool):
        return _code(str(value).lower())
    return _code(f"[{', '.join(map(_item, value))}]" if isinstance(value, tuple) else str(value))


def _item(value: object) -> str:
    return '"*"' if value == "*" else str(value)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")
