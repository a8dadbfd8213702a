"""What the daemon refuses to start with until a person corrects it: all of it on stderr, nothing on stdout."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.conftest import Command

WATCH = [{"pipeline": "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"}]


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    """A start goes without the garbage collector, other tests do not."""
    yield
    gc.enable()


def refused(command: Command, document: dict[str, Any]) -> str:
    """Start the daemon with a configuration; return what it said against it."""
    Path("watcher.yaml").write_text(yaml.safe_dump(document))
    code, out, err = command("run")
    assert (code, out) == (2, "")
    return err


def test_a_store_in_a_folder_that_is_not_there_is_named(command: Command) -> None:
    account = {"api_key": "k", "base_url": "http://127.0.0.1:1"}
    document = {"accounts": {"default": account}, "watch": WATCH, "http": {"listen": "127.0.0.1:0"}}
    said = refused(command, document | {"store": {"url": "sqlite:///nowhere/w.db"}})
    assert "nowhere/w.db cannot be used" in said
