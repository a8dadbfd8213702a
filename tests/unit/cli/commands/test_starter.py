"""What a configuration begins with: the file that `init` writes, and the schema that editors check it by."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples import ENVIRON
from unit.conftest import Command

from watcher.cli.commands.starter import config_schema
from watcher.config.models import Settings

EXAMPLE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
PIPELINE = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
README = (Path(__file__).parents[4] / "README.md").read_text(encoding="utf-8")


def test_what_it_writes_is_accepted_also_what_is_commented_out(command: Command) -> None:
    code, out, err = command("init")
    assert (code, out) == (0, "")
    assert err.startswith("✓ wrote watcher.yaml. Next: ")
    assert err.endswith("watcher check --config watcher.yaml\n")
    code, _, err = command("check")
    assert (code, [line.split(": ")[1] for line in err.splitlines()[:-1]]) == (2, ["accounts.default.api_key"])
    code, _, err = command("check", CLERK_API_KEY="k")
    assert code == 0
    assert err == (
        "warning: watcher.yaml:11:5: watch: of this watch no sink but stdout is sent pipeline.failing; "
        "add one under sinks\n"
        "warning: watcher.yaml:11:15: watch[0].pipeline: looks like the id of an example; "
        "copy yours from the pipeline's address in Clerk Chat\n"
    )
    file = Path("watcher.yaml")
    file.write_text(file.read_text().replace(EXAMPLE, PIPELINE))
    code, _, err = command("check", CLERK_API_KEY="k")
    assert (code, err.count("\n"), "add one under sinks" in err) == (0, 1, True)


def test_what_is_commented_out_is_accepted_too(command: Command) -> None:
    command("init")
    file = Path("watcher.yaml")
    file.write_text(uncommented(file.read_text()).replace(EXAMPLE, PIPELINE))
    code, _, err = command("check", **ENVIRON, WATCHER_TOKEN="t" * 32)
    assert code == 0
    assert [line for line in err.splitlines() if not line.startswith("note: ") and "is in the past" not in line] == []
    given = yaml.safe_load(file.read_text())
    assert given.keys() == Settings.model_fields.keys() - {"log"}
    assert {"rules", "runbook", "labels", "name", "overdue_after"} <= given["watch"][0].keys()


def test_a_customer_has_a_file_beside_the_others_in_a_folder(command: Command) -> None:
    Path("conf.d").mkdir()
    assert command("init", "conf.d")[0] == 0
    code, _, err = command("init", "--customer", "a-4.acme", "conf.d")
    assert code == 0
    variables = {"API_KEY_A_4_ACME": "k2", "SLACK_WEBHOOK_URL_A_4_ACME": "https://hooks.slack.com/services/T/B/x"}
    next_ = f"put in your pipeline's id, export {' and '.join(variables)}, watcher check --config conf.d"
    assert err == f"✓ wrote conf.d/a-4.acme.yaml. Next: {next_}\n"
    code, _, err = command("check", "--config", "conf.d", CLERK_API_KEY="k", **variables)
    assert code == 0
    assert [line.partition(" looks like ")[0] for line in err.splitlines() if "note: " not in line] == [
        "warning: conf.d/a-4.acme.yaml:9:15: watch[0].pipeline:",
        (
            "warning: conf.d/watcher.yaml:11:5: watch: of this watch no sink but stdout is sent pipeline.failing; "
            "see watcher check --who"
        ),
        "warning: conf.d/watcher.yaml:11:15: watch[0].pipeline:",
    ]
    code, _, err = command("init", "--customer", "a/b")
    assert (code, err) == (2, 'error: --customer: "a/b" is not a name; use 1 to 64 of A-Z a-z 0-9 _ . -\n')
    assert command("init", "--customer", "a-4.acme", "conf.d")[0] == 2  # it exists already


def test_it_holds_what_the_readme_shows(command: Command) -> None:
    command("init")
    shown = yaml.safe_load(README.split("```yaml\n")[1].split("```")[0])
    assert holds(yaml.safe_load(uncommented(Path("watcher.yaml").read_text())), shown)


def uncommented(text: str) -> str:
    """Return a text without the mark of comments that hold a key or an item of a list."""
    return re.sub(r"^( *)# (?=(?: *- \{)?( *)[a-z_]+:)", r"\1", text, flags=re.MULTILINE)


def holds(given: Any, part: Any) -> bool:
    """Return whether `part` is in what is given: each of its keys with its value, each of its items."""
    if isinstance(part, dict):
        return all(key in given and holds(given[key], value) for key, value in part.items())
    if isinstance(part, list):
        return all(any(holds(item, each) for item in given) for each in part)
    return bool(given == part)


def test_a_file_that_is_there_is_never_overwritten_and_one_that_cannot_be_written_is_refused(command: Command) -> None:
    Path("watcher.yaml").write_text("mine")
    said = "error: watcher.yaml exists already; name another file, or remove it\n"
    assert command("init")[::2] == (2, said)
    assert Path("watcher.yaml").read_text() == "mine"
    for path in ("nowhere/watcher.yaml", "/dev/null/w.yaml"):
        code, _, err = command("init", path)
        assert (code, err.startswith("error: cannot write ")) == (2, True)


def test_a_secret_is_new_each_time_and_nothing_is_written(command: Command) -> None:
    secrets = {command("init", "--secret")[1].strip() for _ in range(2)}
    assert len(secrets) == 2
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in secrets} == {32}
    assert all(secret.startswith("whsec_") for secret in secrets)
    assert not Path("watcher.yaml").exists()


SCHEMA = config_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]
VARIABLE = {"type": "string", "pattern": r"\$\{"}


@pytest.mark.parametrize(
    ("block", "key"), [("PollingSettings", "concurrency"), ("PollingSettings", "cadence"), ("LogSettings", "format")]
)
def test_a_variable_may_stand_for_a_number_or_a_word(block: str, key: str) -> None:
    schema = BLOCKS[block]["properties"][key]
    assert VARIABLE in schema["anyOf"]
    assert schema["description"]
    assert "default" in schema


def test_the_schema_is_printed_as_json_in_the_words_of_the_file(command: Command) -> None:
    code, out, err = command("schema")
    assert (code, err, json.loads(out)) == (0, "", SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["title"] == "clerk-watcher"
    assert {"accounts", "watch", "sinks"} <= SCHEMA["properties"].keys()
    assert all("default" not in each for each in SCHEMA["properties"].values() if "$ref" in each)
    assert "2592000" not in json.dumps(SCHEMA)
    items = BLOCKS["WatchSettings"]["properties"]["executions"]["items"]
    assert items["anyOf"] == [{"format": "uuid", "type": "string"}, VARIABLE]
    assert BLOCKS["AccountSettings"]["properties"]["timeout"]["type"] == "string"
