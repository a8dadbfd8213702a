"""What a configuration begins with: the file that `init` writes, and the schema that editors check it by."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from unit.conftest import Command

from watcher.cli.commands.starter import config_schema

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
RUN = "c2a4e6f8-3b5d-4f71-8c93-b1d2e3f4a5b6"


def test_what_it_writes_is_accepted_once_key_and_ids_are_given(command: Command) -> None:
    code, out, err = command("init")
    assert (code, out) == (0, "")
    assert err.startswith("✓ wrote watcher.yaml. Next: ")
    file = Path("watcher.yaml")
    file.write_text(file.read_text().replace("YOUR-PIPELINE-ID", PIPELINE).replace("YOUR-EXECUTION-ID", RUN))
    code, out, err = command("check", CLERK_API_KEY="k")
    assert (code, err) == (0, "")


def test_until_then_check_says_what_is_missing(command: Command) -> None:
    command("init", "mine.yaml")
    _, _, err = command("check", "--config", "mine.yaml")
    assert [line.split(": ")[1] for line in err.splitlines()[:-1]] == [
        "accounts.default.api_key",
        "watch[0].pipeline",
    ]


def test_what_is_commented_out_is_accepted_too(command: Command) -> None:
    command("init")
    file = Path("watcher.yaml")
    lines = [uncommented(line) for line in file.read_text().splitlines()]
    text = "\n".join(lines).replace("YOUR-PIPELINE-ID", PIPELINE).replace("YOUR-EXECUTION-ID", RUN)
    file.write_text(text)
    _, secret, _ = command("init", "--secret")
    slack = "https://hooks.slack.com/services/T0/B0/s3cret"
    code, _, err = command("check", CLERK_API_KEY="k", OPS_WEBHOOK_SECRET=secret.strip(), SLACK_WEBHOOK_URL=slack)
    assert (code, err) == (0, "")
    assert all(key in text for key in ("\npolling:", "\nsinks:", "\nstore:", "\nhttp:", "\n    labels:"))


def uncommented(line: str) -> str:
    """Return a line with the key in its comment, if it is one with a key."""
    lead, mark, rest = line.partition("# ")
    word = rest.split(":")[0].strip()
    return f"{lead}{rest}" if mark and not lead.strip() and word.isidentifier() else line


def test_a_file_that_is_there_is_never_overwritten(command: Command) -> None:
    Path("watcher.yaml").write_text("mine")
    code, _, err = command("init")
    assert code == 2
    assert err == "error: watcher.yaml exists already; name another file, or remove it\n"
    assert Path("watcher.yaml").read_text() == "mine"


@pytest.mark.parametrize("path", ["nowhere/watcher.yaml", "/dev/null/w.yaml"])
def test_a_file_that_cannot_be_written_is_refused(path: str, command: Command) -> None:
    code, _, err = command("init", path)
    assert code == 2
    assert err.startswith("error: cannot write ")


def test_a_secret_is_new_each_time_and_nothing_is_written(command: Command) -> None:
    secrets = {command("init", "--secret")[1].strip() for _ in range(2)}
    assert len(secrets) == 2
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert not Path("watcher.yaml").exists()


SCHEMA = config_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]
VARIABLE = {"type": "string", "pattern": r"\$\{"}


def test_the_schema_is_printed_as_json_and_says_what_it_is(command: Command) -> None:
    code, out, err = command("schema")
    assert (code, err, json.loads(out)) == (0, "", SCHEMA)
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


def test_a_variable_may_stand_for_an_id_in_a_list_and_what_is_text_stays_as_it_is() -> None:
    items = BLOCKS["WatchSettings"]["properties"]["executions"]["items"]
    assert items["anyOf"] == [{"format": "uuid", "type": "string"}, VARIABLE]
    assert BLOCKS["AccountSettings"]["properties"]["timeout"]["type"] == "string"


def test_no_default_is_in_other_words_than_those_of_the_file() -> None:
    assert all("default" not in each for each in SCHEMA["properties"].values() if "$ref" in each)
    assert "2592000" not in json.dumps(SCHEMA)
