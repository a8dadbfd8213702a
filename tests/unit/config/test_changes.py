from typing import Any

import pytest

from watcher.config.loader import changes_between
from watcher.config.models import Settings

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
BEFORE: dict[str, Any] = {
    "accounts": {"eu": {"api_key": "k"}},
    "watch": [{"pipeline": PIPELINE, "account": "eu"}],
    "sinks": {"ops": {"type": "webhook", "url": "https://example.com/x"}},
}


@pytest.mark.parametrize(
    ("after", "changes"),
    [
        ({}, []),
        ({"accounts": {"eu": {"api_key": "hunter2"}}}, ["accounts changed"]),
        (
            {"accounts": {}, "watch": [], "log": {"level": "debug"}},
            [f"{block} changed" for block in ("accounts", "watch", "log")],
        ),
    ],
)
def test_a_change_is_named_by_its_block_and_shows_no_value(after: dict[str, Any], changes: list[str]) -> None:
    old, new = Settings.model_validate(BEFORE), Settings.model_validate(BEFORE | after)
    assert changes_between(old, new) == changes
