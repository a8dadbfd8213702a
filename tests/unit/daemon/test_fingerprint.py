"""What makes a configuration another one."""

import json
from typing import Any

import pytest

from watcher.config.models import Settings
from watcher.daemon.build import fingerprint_of_settings, fingerprint_of_sink
from watcher.sinks.webhook import TemplateFile

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
GIVEN: dict[str, Any] = {
    "accounts": {"a": {"api_key": "secret-a"}, "b": {"api_key": "secret-b"}},
    "watch": [{"account": "a", "pipeline": PIPELINE}],
    "sinks": {"ops": {"type": "webhook", "url": "https://example.com/in"}},
    "store": {"url": "sqlite:////var/lib/one.db", "retention": "30d"},
    "http": {"listen": "127.0.0.1:9100"},
    "log": {"level": "info"},
}


def fingerprint(**changed: object) -> str:
    return fingerprint_of_settings(Settings.model_validate(GIVEN | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"http": {"listen": "127.0.0.1:9101"}},
        {"log": {"level": "debug"}},
        {"store": {"url": "sqlite:////var/lib/other.db", "retention": "30d"}},
        {"accounts": {"b": {"api_key": "new-b"}, "a": {"api_key": "new-a"}}},
    ],
)
def test_what_one_replica_may_have_for_itself_and_secrets_make_it_no_other(changed: dict[str, object]) -> None:
    assert fingerprint(**changed) == fingerprint()


@pytest.mark.parametrize(
    "changed",
    [
        {"accounts": {"a": {"api_key": "secret-a"}}},
        {"accounts": {**GIVEN["accounts"], "b": {"api_key": "secret-b", "rate_limit": "9/s"}}},
        {"watch": []},
        {"sinks": {"ops": {"type": "webhook", "url": "https://example.com/in", "rate_limit": "9/s"}}},
        {"store": {"url": "sqlite:////var/lib/one.db", "retention": "29d"}},
        {"polling": {"max_interval": "50s"}},
    ],
)
def test_whatever_else_is_written_there_does(changed: dict[str, object]) -> None:
    assert fingerprint(**changed) != fingerprint()
    assert "secret" not in json.dumps(fingerprint(**changed))


def test_what_a_template_file_holds_is_part_of_it() -> None:
    def sinks(source: str) -> dict[str, object]:
        block = {"type": "webhook", "url": "https://example.com/in", "template": TemplateFile("chat.j2", source)}
        return {"sinks": {"ops": block}}

    assert fingerprint(**sinks("{}")) == fingerprint(**sinks("{}"))
    assert fingerprint(**sinks("{}")) != fingerprint(**sinks("[]"))
    one, other = (Settings.model_validate(GIVEN | sinks(source)).sinks["ops"] for source in ("{}", "[]"))
    assert fingerprint_of_sink(one) != fingerprint_of_sink(other)
