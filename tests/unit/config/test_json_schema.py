from typing import Any

from watcher.config.models import Settings

SCHEMA: dict[str, Any] = Settings.model_json_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]


def test_the_schema_speaks_the_words_of_the_file() -> None:
    timeout = BLOCKS["AccountSettings"]["properties"]["timeout"]
    assert (timeout["type"], timeout["default"]) == ("string", "10s")
    assert BLOCKS["RetrySettings"]["properties"]["schedule"]["default"][0] == "1s"


def test_a_needed_secret_is_one_of_two_keys() -> None:
    block = BLOCKS["AccountSettings"]
    assert block["required"] == []
    assert block["allOf"] == [{"oneOf": [{"required": ["api_key"]}, {"required": ["api_key_file"]}]}]


def test_a_secret_nobody_needs_is_at_most_one_of_two_keys() -> None:
    block = BLOCKS["WebhookSettings"]
    assert block["required"] == ["type"]
    assert {"not": {"required": ["secret", "secret_file"]}} in block["allOf"]
    assert [kind["type"] for kind in block["properties"]["secret"]["anyOf"]] == ["string", "array"]


def test_a_webhook_needs_its_url_unless_it_is_pagerdutys() -> None:
    (rule,) = [rule for rule in BLOCKS["WebhookSettings"]["allOf"] if "if" in rule]
    assert rule["if"]["properties"]["template"] == {"const": "pagerduty"}
    assert rule["else"] == {"oneOf": [{"required": ["url"]}, {"required": ["url_file"]}]}
    no_group = {"properties": {"group": {"type": "null"}}}
    assert rule["then"] == {"not": {"required": ["url", "url_file"]}} | no_group


def test_a_watch_need_not_name_its_account() -> None:
    assert BLOCKS["WatchSettings"]["required"] == ["pipeline"]


def test_executions_may_be_left_out_but_not_be_empty() -> None:
    executions = BLOCKS["WatchSettings"]["properties"]["executions"]
    assert executions["minItems"] == 1
    assert "default" not in executions


def test_unknown_keys_are_refused_everywhere() -> None:
    assert all(block["additionalProperties"] is False for block in (SCHEMA, *BLOCKS.values()))
