"""The errors of pydantic as problems of the file: in plain words, and each at its place.

Pydantic's own message is shown only for kinds of errors whose message holds no value of the file and no type name.
"""

import re
from collections.abc import Iterable, Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from watcher.config.document import ENTRIES, Document, KeyPath, is_safe_key, quoted
from watcher.config.models import Settings
from watcher.runtime.settings import block_of, did_you_mean, file_twins, key_of
from watcher.runtime.units import InvalidValueError
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.webhook import PRESETS

NO_EXECUTIONS = "give at least one, or remove the key to watch every execution"

_OF_KEY = "[key]"
_WORDS = re.compile(r"'([^']*)'")
_WITHOUT_SPACE = re.compile(r"[A-Za-z_-]+:[^\s/]")
_ID_OF = "copy the id from the {}'s address in Clerk Chat"
_EVERY = "name each by its id: one entry watches every execution of one pipeline"

_BLOCK = ("a block of keys", "write key: value lines below it")
_LIST = ("a list", "write [one, two], or lines that begin with -")
_VALUE = ("a single value", "write one value behind the key")
_WANTED = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), _BLOCK),
    "tuple_type": _LIST,
    **dict.fromkeys(("string_type", "uuid_type", "int_type", "float_type", "bool_type"), _VALUE),
}
_OWN_WORDS = (
    *("int_parsing", "int_parsing_size", "float_parsing", "greater_than", "greater_than_equal", "less_than_equal"),
    *("bool_parsing", "too_short", "too_long"),
)
"""The errors that are shown in pydantic's words, but for a remedy that says more."""


def translate(errors: Iterable[ErrorDetails], *, document: Document) -> None:
    """Report each error as a problem of the file, unless the same value already has a reported problem."""
    for error in errors:
        path = _path(error, document=document)
        if not document.is_reported(path):
            _report(document, path, error)


def _report(document: Document, path: KeyPath, error: ErrorDetails) -> None:
    at_key = error["loc"][-1:] == (_OF_KEY,)
    match error["type"], error.get("ctx", {}).get("error"):
        case "missing", _:
            _report_missing(document, path)
        case "extra_forbidden", _:
            model = model_at(document, path[:-1])
            allowed = [key_of(model, name=name) for name in model.model_fields] if model else []
            _report_unknown_key(document, path, allowed)
        case "value_error", InvalidValueError() as reason:
            _report_unfit(document, path, reason, at_key=at_key)
        case "literal_error", _:
            words = _WORDS.findall(error["ctx"]["expected"])
            (_report_unknown_key if at_key else _report_word)(document, path, words)
        case "union_tag_invalid" | "union_tag_not_found", _:
            _report_sink_type(document, path)
        case "uuid_parsing", _:
            what = "pipeline" if path[-1] == "pipeline" or "pipelines" in path else "execution"
            remedy = _EVERY if document.get(path) in {"*", "all"} else _ID_OF.format(what)
            document.report(path, f"{document.subject(path)} is not a UUID", remedy=remedy)
        case kind, _ if kind in _WANTED:
            _report_kind(document, path, _WANTED[kind])
        case kind, _ if kind in _OWN_WORDS:
            _report_own_words(document, path, error)
        case _:
            document.report(path, "cannot be used", remedy="compare it with config/watcher.example.yaml")


def _path(error: ErrorDetails, *, document: Document) -> KeyPath:
    """Return the path of an error in the file.

    Pydantic's path also has the type of a sink, and an index for a single text that counts as a list.
    """
    path = tuple(part for part in error["loc"] if part != _OF_KEY)
    if path[:1] == ("sinks",) and path[2:3] and path[2] in SINK_KINDS:
        path = path[:2] + path[3:]
    if error["type"].startswith("union_tag"):
        return (*path, "type")
    return path[:-1] if path and isinstance(path[-1], int) and isinstance(document.get(path[:-1]), str) else path


def _report_missing(document: Document, path: KeyPath) -> None:
    key, model, field = path[-1], model_at(document, path[:-1]), field_at(document, path)
    twin = f" or {key}_file" if model and key in file_twins(model) else ""
    example = field.examples[0] if field and field.examples else "…"
    remedy = _ID_OF.format("pipeline") if key == "pipeline" else f"write {key}: {example}"
    document.report(path, f"needs {key}{twin}", remedy=remedy, block=True)


def _report_unknown_key(document: Document, path: KeyPath, allowed: list[str]) -> None:
    key = str(path[-1])
    problem = f'unknown key "{key}"' if is_safe_key(key) else "unknown key, with characters that no key has"
    rest = f"allowed: {', '.join(allowed)}"
    remedy = did_you_mean(key, allowed, rest=rest)
    if remedy == rest and (homes := _homes(document, path[:-1], key)):
        remedy = f"it belongs {' or '.join(homes)}. A{rest[1:]}"
    if path[0] == "silences" and key == "for":
        remedy = "write until: with the moment it ends, such as 2026-12-24T00:00:00Z"
    document.report(path, problem, remedy=remedy, key=True)


def _homes(document: Document, path: KeyPath, key: str) -> list[str]:
    """Return words for the blocks to which a key belongs, if it is unknown in the block at `path`.

    If a block below that block has the key, return this one alone, else all blocks with the key.
    """
    model = model_at(document, path)
    if key in {*PRESETS, *SINK_KINDS}:
        return [f"under an entry of sinks, as {'template' if key in PRESETS else 'type'}: {key}"]
    if path[:1] == ("sinks",) and (kinds := [kind for kind in SINK_KINDS if () in _blocks_with(key, SINK_KINDS[kind])]):
        return [f"to type {kind}" for kind in kinds]
    below = list(_blocks_with(key, model)) if path and model else []
    homes = below[:1] or dict.fromkeys(_blocks_with(key, Settings))
    names = ([f"an entry of {at}" if at in ENTRIES else at for at in reversed(home)] for home in homes)
    return [f"under {' of '.join(each)}" if each else "in the first column" for each in names]


def _blocks_with(key: str, model: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Yield the path from a model to each block with this key. Names of entries are no part of these paths."""
    for name, field in model.model_fields.items():
        if (at := key_of(model, name=name)) == key:
            yield ()
        for block in SINK_KINDS.values() if at == "sinks" and model is Settings else filter(None, [block_of(field)]):
            yield from ((at, *rest) for rest in _blocks_with(key, block))


def model_at(document: Document, path: KeyPath) -> type[BaseModel] | None:
    """Return the model of the block at a path; `None` if no block can be there."""
    model: type[BaseModel] | None = Settings
    if path[1:] and path[0] in ENTRIES:
        kind = str(document.get((*path[:2], "type")))
        model = SINK_KINDS.get(kind) if path[0] == "sinks" else block_of(Settings.model_fields[str(path[0])])
        path = path[2:]
    for key in path:
        field = _field_of(model, key)
        model = None if field is None else block_of(field)
    return model


def field_at(document: Document, path: KeyPath) -> FieldInfo | None:
    """Return the field for the key at a path, if there is one."""
    return _field_of(model_at(document, path[:-1]), path[-1]) if path else None


def _field_of(model: type[BaseModel] | None, key: str | int) -> FieldInfo | None:
    fields = {} if model is None else model.model_fields
    return next((field for name, field in fields.items() if (field.alias or name) == key), None)


def _report_unfit(document: Document, path: KeyPath, reason: InvalidValueError, *, at_key: bool) -> None:
    if at_key:
        name = quoted(str(path[-1])) if reason.quote else "the key"
        document.report(path, f"{name} {reason.problem}", remedy=reason.remedy, key=True)
    elif reason.quote:
        document.report(path, f"{document.subject(path)} {reason.problem}", remedy=reason.remedy)
    else:
        document.report((*path, reason.at) if reason.at else path, reason.problem, remedy=reason.remedy)


def _report_sink_type(document: Document, path: KeyPath) -> None:
    type_ = document.get(path)
    if type_ is None:
        document.report(path, "needs type", remedy=f"write type: {' or '.join(SINK_KINDS)}", block=True)
    elif isinstance(type_, str) and type_ in PRESETS:
        remedy = f"write type: webhook and template: {type_}"
        document.report(path, f"{document.subject(path)} is a template of webhooks", remedy=remedy)
    else:
        _report_word(document, path, list(SINK_KINDS))


def _report_word(document: Document, path: KeyPath, words: list[str]) -> None:
    value = document.get(path)
    if not isinstance(value, str):
        _report_kind(document, path, _VALUE)
    else:
        word = "" if document.is_hidden(path) else value
        remedy = did_you_mean(word, words, rest=f"allowed: {', '.join(words)}")
        document.report(path, f"{document.subject(path)} is not known", remedy=remedy)


def _report_kind(document: Document, path: KeyPath, wanted: tuple[str, str]) -> None:
    value = document.get(path)
    if value is None:
        document.report(path, "has no value", remedy="give one or remove the key", key=True)
    else:
        found = _BLOCK if isinstance(value, dict) else _LIST if isinstance(value, list) else _VALUE
        around, model = model_at(document, path[:-1]), model_at(document, path)
        is_secret = around is not None and path[-1] in file_twins(around)
        remedy = wanted[1] if wanted is _VALUE and not is_secret else _example(document, path) or wanted[1]
        if wanted is _BLOCK and _WITHOUT_SPACE.match(str(value)):
            remedy = "write key: value, with a space behind the colon"
        elif remedy == _BLOCK[1] and model:
            remedy = f"write its keys below it: {', '.join(key_of(model, name=name) for name in model.model_fields)}"
        document.report(path, f"is {found[0]}, not {wanted[0]}", remedy=remedy)


def _example(document: Document, path: KeyPath) -> str | None:
    is_entry = path[0] in ENTRIES and len(path) == 2
    named = path[:-1] if is_entry or isinstance(path[-1], int) else path
    field = field_at(document, named)
    return f"write {named[-1]}: {field.examples[0]}" if field and field.examples else None


def _report_own_words(document: Document, path: KeyPath, error: ErrorDetails) -> None:
    """Report an error in pydantic's words, unless a list is `too_short` only because its items have problems."""
    value, remedy = document.get(path), error["msg"][0].lower() + error["msg"][1:]
    if error["type"] == "too_short":
        if value:
            return
        remedy = NO_EXECUTIONS if path[-1] == "executions" else "give at least one"
    elif error["type"] == "bool_parsing":
        remedy = "write true or false"
    subject = "" if isinstance(value, list | dict) else f"{document.subject(path)} "
    document.report(path, f"{subject}cannot be used" if value else "is empty", remedy=remedy)
