"""What a model's complaint means, in words for people and at its place in the file.

Pydantic's own texts name types and may hold values, so none of them is ever shown.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from watcher.config.document import Document, is_safe_key, quoted
from watcher.config.models import AccountSettings, Settings, WatchSettings
from watcher.config.silences import SilenceSettings
from watcher.config.unsupported_keys import NOT_YET, later_key, later_value
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.registry import SINK_KINDS
from watcher.delivery.sinks.webhook import PRESETS
from watcher.runtime.settings import block_of, did_you_mean, file_twins, key_of
from watcher.runtime.units import InvalidValueError

_OF_KEY = "[key]"
_WORDS = re.compile(r"'([^']*)'")

_BLOCK = ("a block of keys", "write key: value lines below it")
_LIST = ("a list", "write [one, two], or lines that begin with -")
_VALUE = ("a single value", "write one value behind the key")
_ID_OF = "copy the id from the {}'s address in Clerk Chat"
NO_EXECUTIONS = "give at least one, or remove the key to watch every execution"
_WANTED = {
    "model_type": _BLOCK,
    "model_attributes_type": _BLOCK,
    "dict_type": _BLOCK,
    "tuple_type": _LIST,
    "string_type": _VALUE,
    "uuid_type": _VALUE,
    "int_type": _VALUE,
    "bool_type": _VALUE,
}


def translate(errors: Iterable[ErrorDetails], *, document: Document) -> None:
    """Report each error, unless a problem with the same value is known."""
    for error in errors:
        path = _path(error, document=document)
        if not document.is_reported(path):
            _REPORTS.get(error["type"], _report_other)(document, path, error)


def _path(error: ErrorDetails, *, document: Document) -> Path:
    """Return where in the file an error is: pydantic puts a sink's type behind its name, and counts a single text."""
    path = tuple(part for part in error["loc"] if part != _OF_KEY)
    if path[:1] == ("sinks",) and path[2:3] and path[2] in SINK_KINDS:
        path = path[:2] + path[3:]
    if error["type"].startswith("union_tag"):
        return (*path, "type")
    return path[:-1] if isinstance(path[-1], int) and isinstance(document.get(path[:-1]), str) else path


def _report_missing(document: Document, path: Path, _: ErrorDetails) -> None:
    key = path[-1]
    model = _model_at(document, path[:-1])
    twin = f" or {key}_file" if key in file_twins(model) else ""
    field = next(field for name, field in model.model_fields.items() if key_of(model, name=name) == key)
    examples = field.examples or ("…",)
    remedy = _ID_OF.format("pipeline") if key == "pipeline" else f"write {key}: {examples[0]}"
    document.report(path, f"needs {key}{twin}", remedy=remedy, block=True)


def _report_unknown(document: Document, path: Path, _: ErrorDetails) -> None:
    if comes := later_key(path):
        document.report(path, NOT_YET, remedy=comes, key=True)
        return
    model = _model_at(document, path[:-1])
    _report_unknown_key(document, path, [key_of(model, name=name) for name in model.model_fields])


def _report_unknown_key(document: Document, path: Path, allowed: list[str]) -> None:
    key = str(path[-1])
    if kind := _kind_with(path):
        problem = f"is not for a sink of type {document.get((*path[:-1], 'type'))}"
        document.report(path, problem, remedy=f"remove it, or set it for a sink of type {kind}", key=True)
        return
    problem = f'unknown key "{key}"' if is_safe_key(key) else "unknown key"
    document.report(path, problem, remedy=_allowed(key, allowed), key=True)


def _kind_with(path: Path) -> str | None:
    """Return the kind of sinks that has a key which the sink at hand does not."""
    if path[:1] != ("sinks",) or len(path) != 3:
        return None
    keys = {kind: {key_of(model, name=name) for name in model.model_fields} for kind, model in SINK_KINDS.items()}
    return next((kind for kind in keys if path[-1] in keys[kind]), None)


def _allowed(word: str, words: list[str]) -> str:
    return did_you_mean(word, words, rest=f"allowed: {', '.join(words)}")


def _model_at(document: Document, path: Path) -> type[BaseModel]:
    """Return the model of the block at a path."""
    model: Any = Settings
    match path:
        case ("accounts", _):
            model = AccountSettings
        case ("watch", _, *rest):
            model = _inner(WatchSettings, rest)
        case ("silences", _, *rest):
            model = _inner(SilenceSettings, rest)
        case ("sinks", name, *rest):
            model = _inner(SINK_KINDS[document.get(("sinks", name, "type"))], rest)
        case (key,):
            model = Settings.model_fields[str(key)].annotation
    return model  # type: ignore[no-any-return]  # an annotation; of a block, always a model


def _inner(model: type[BaseModel], keys: Iterable[str | int]) -> Any:
    inner: Any = model
    for key in keys:
        inner = block_of(inner.model_fields[str(key)])
    return inner


def _report_unfit(document: Document, path: Path, error: ErrorDetails) -> None:
    reason = error["ctx"]["error"]
    at_key = error["loc"][-1] == _OF_KEY
    if not isinstance(reason, InvalidValueError):
        _report_other(document, path, error)
    elif at_key:
        name = quoted(str(path[-1])) if reason.quote else "the key"
        document.report(path, f"{name} {reason.problem}", remedy=reason.remedy, key=True)
    elif reason.quote:
        remedy = reason.blind_remedy if document.is_hidden(path) else reason.remedy
        document.report(path, f"{document.subject(path)} {reason.problem}", remedy=remedy)
    else:
        document.report(path, reason.problem, remedy=reason.remedy)


def _report_choice(document: Document, path: Path, error: ErrorDetails) -> None:
    words = _WORDS.findall(error["ctx"]["expected"])
    if error["loc"][-1] == _OF_KEY:
        _report_unknown_key(document, path, words)
    else:
        _report_word(document, path, words)


def _report_sink_type(document: Document, path: Path, _: ErrorDetails) -> None:
    type_ = document.get(path)
    if type_ is None:
        document.report(path, "needs type", remedy=f"write type: {' or '.join(SINK_KINDS)}", block=True)
    elif isinstance(type_, str) and type_ in PRESETS:
        remedy = f"write type: webhook and template: {type_}"
        document.report(path, f"{document.subject(path)} is a template of webhooks", remedy=remedy)
    else:
        _report_word(document, path, list(SINK_KINDS))


def _report_word(document: Document, path: Path, words: list[str]) -> None:
    value = document.get(path)
    if not isinstance(value, str):
        _report_kind(document, path, _VALUE)
    elif comes := later_value(path, value):
        document.report(path, f"{quoted(value)} is {NOT_YET}", remedy=comes)
    else:
        word = "" if document.is_hidden(path) else value
        document.report(path, f"{document.subject(path)} is not known", remedy=_allowed(word, words))


def _report_kind(document: Document, path: Path, wanted: tuple[str, str]) -> None:
    value = document.get(path)
    if value is None:
        document.report(path, "has no value", remedy="give one or remove the key", key=True)
    else:
        found = _BLOCK if isinstance(value, dict) else _LIST if isinstance(value, list) else _VALUE
        document.report(path, f"is {found[0]}, not {wanted[0]}", remedy=wanted[1])


def _report_uuid(document: Document, path: Path, _: ErrorDetails) -> None:
    what = "pipeline" if path[-1] == "pipeline" or "pipelines" in path else "execution"
    document.report(path, f"{document.subject(path)} is not a UUID", remedy=_ID_OF.format(what))


def _report_number(document: Document, path: Path, _: ErrorDetails) -> None:
    document.report(path, f"{document.subject(path)} is not a whole number", remedy="write digits only, such as 3")


def _report_boolean(document: Document, path: Path, _: ErrorDetails) -> None:
    document.report(path, f"{document.subject(path)} is not known", remedy="write true or false")


def _report_small(document: Document, path: Path, error: ErrorDetails) -> None:
    document.report(path, f"{document.subject(path)} is too small", remedy=f"write at least {error['ctx']['ge']}")


def _report_large(document: Document, path: Path, error: ErrorDetails) -> None:
    document.report(path, f"{document.subject(path)} is too large", remedy=f"write at most {error['ctx']['le']}")


def _report_short(document: Document, path: Path, _: ErrorDetails) -> None:
    """Report an empty list; one whose items are all wrong is as good as empty to pydantic, but not to people."""
    if not document.get(path):
        remedy = NO_EXECUTIONS if path[-1] == "executions" else "give at least one"
        document.report(path, "is empty", remedy=remedy)


def _report_long(document: Document, path: Path, error: ErrorDetails) -> None:
    limit = error["ctx"]["max_length"]
    document.report(path, f"has more than {limit} entries", remedy=f"keep at most {limit}")


def _report_other(document: Document, path: Path, _: ErrorDetails) -> None:
    document.report(path, "cannot be used", remedy="compare it with config/watcher.example.yaml")


_REPORTS: Mapping[str, Callable[[Document, Path, ErrorDetails], None]] = {
    "missing": _report_missing,
    "extra_forbidden": _report_unknown,
    "value_error": _report_unfit,
    "literal_error": _report_choice,
    "union_tag_invalid": _report_sink_type,
    "union_tag_not_found": _report_sink_type,
    "uuid_parsing": _report_uuid,
    "bool_parsing": _report_boolean,
    "int_parsing": _report_number,
    "int_parsing_size": _report_number,
    "greater_than_equal": _report_small,
    "less_than_equal": _report_large,
    "too_short": _report_short,
    "too_long": _report_long,
    **dict.fromkeys(_WANTED, lambda document, path, error: _report_kind(document, path, _WANTED[error["type"]])),
}
