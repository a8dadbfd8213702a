from typing import Any

from watcher.config.models import Settings

SCHEMA: dict[str, Any] = Settings.model_json_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]


def test_the_schema_speaks_the_words_of_the_file() -> None:
    timeout = BLOCKS["AccountSettings"]["properties"]["timeout"]
    assert (timeout["type"], timeout["default"]) == ("string", "10s")
    assert BLOCKS["RetrySettings"]["properties"]["schedule"]["default"][0] == "1s"


def test_a_key_with_a_twin_in_a_file_may_be_left_out() -> None:
    assert BLOCKS["AccountSettings"]["required"] == []
    assert BLOCKS["WebhookSettings"]["required"] == ["type"]
    assert [kind["type"] for kind in BLOCKS["WebhookSettings"]["properties"]["secret"]["anyOf"]] == ["string", "array"]


def test_a_watch_need_not_name_its_account() -> None:
    assert BLOCKS["WatchSettings"]["required"] == ["pipeline"]


def test_executions_may_be_left_out_but_not_be_empty() -> None:
    executions = BLOCKS["WatchSettings"]["properties"]["executions"]
    assert executions["minItems"] == 1
    assert "default" not in executions


def test_unknown_keys_are_refused_everywhere() -> None:
    assert all(block["additionalProperties"] is False for block in (SCHEMA, *BLOCKS.values()))
