import json
from collections.abc import Callable
from typing import Any

import pytest

from watcher.cli.commands.schema import config_schema

Command = Callable[..., tuple[int, str, str]]

SCHEMA = config_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]
VARIABLE = {"type": "string", "pattern": r"\$\{"}


def test_it_is_printed_as_json(command: Command) -> None:
    code, out, err = command("schema")
    assert (code, err) == (0, "")
    assert json.loads(out) == SCHEMA


def test_it_says_what_it_is() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "clerk-watcher"
    assert {"accounts", "watch", "sinks"} <= SCHEMA["properties"].keys()


@pytest.mark.parametrize(
    ("block", "key"),
    [("PollingSettings", "concurrency"), ("PollingSettings", "cadence"), ("LogSettings", "format")],
)
def test_a_variable_may_stand_for_a_number_or_a_word(block: str, key: str) -> None:
    schema = BLOCKS[block]["properties"][key]
    assert VARIABLE in schema["anyOf"]
    assert schema["description"]
    assert "default" in schema


def test_a_variable_may_stand_for_an_id_in_a_list() -> None:
    items = BLOCKS["WatchSettings"]["properties"]["executions"]["items"]
    assert items["anyOf"] == [{"format": "uuid", "type": "string"}, VARIABLE]


def test_what_is_text_stays_as_it_is() -> None:
    assert BLOCKS["AccountSettings"]["properties"]["timeout"]["type"] == "string"


def test_no_default_is_in_other_words_than_those_of_the_file() -> None:
    assert all("default" not in each for each in SCHEMA["properties"].values() if "$ref" in each)
    assert "2592000" not in json.dumps(SCHEMA)
