from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from examples import ENVIRON
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tls import own_ca

from watcher.config.loader import load_config
from watcher.config.models import AccountSettings, Settings, WatchSettings
from watcher.runtime.settings import Block, key_of
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.webhook import WebhookSettings


def described(annotation: object) -> Iterator[tuple[str, FieldInfo]]:
    """Every key below an annotation, with its model's name."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield f"{annotation.__name__}.{name}", field
            yield from described(field.annotation)
    for inner in get_args(annotation):
        yield from described(inner)


@pytest.mark.parametrize(("name", "field"), dict(described(Settings)).items())
def test_every_key_says_what_it_does_and_shows_an_example(name: str, field: FieldInfo) -> None:
    holds_keys = name.startswith("Settings.") or (
        isinstance(field.annotation, type) and issubclass(field.annotation, Block)
    )
    assert field.description
    assert field.examples or holds_keys


def examples(block: type[Block]) -> str:
    """One block of YAML out of the examples of its keys, a key rather than its `_file`."""
    shown = {key_of(block, name=name): field.examples for name, field in block.model_fields.items()}
    if block is WebhookSettings:
        del shown["group"]  # not of pagerduty, which the example names
    return "\n".join(f"    {key}: {some[0]}" for key, some in shown.items() if some and not key.endswith("_file"))


def test_the_examples_are_right(tmp_path: Path) -> None:
    parts = [f"accounts:\n  default:\n{examples(AccountSettings)}", f"watch:\n  -\n{examples(WatchSettings)}", "sinks:"]
    parts += [f"  {name}:\n{examples(kind)}" for name, kind in SINK_KINDS.items()]
    blocks = {name: Settings.model_fields[name].annotation for name in ("polling", "store", "http", "log")}
    parts += [f"{name}:\n{examples(kind)}" for name, kind in blocks.items() if isinstance(kind, type)]
    file = tmp_path / "watcher.yaml"
    file.write_text("\n".join(parts))
    own_ca(tmp_path)
    assert load_config(file, environ=ENVIRON).polling.cadence == "fixed"
