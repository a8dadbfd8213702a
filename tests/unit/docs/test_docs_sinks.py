"""The page about sinks says of keys and defaults what the models say, and its examples can be copied."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from documents import DOCS
from examples import ENVIRON
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tls import key_pair, own_ca

from watcher.config.loader import load_config
from watcher.runtime.settings import key_of
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import GroupSettings, SinkSettings, TlsSettings
from watcher.sinks.template import ALERT_EVENTS
from watcher.sinks.webhook import PRESETS

PAGE = (DOCS / "sinks.md").read_text(encoding="utf-8")
WATCHED = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, labels: {team: sales}}]
"""
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SECTIONS = {
    "stdout": ["stdout"],
    "webhook": ["Webhook", "PagerDuty"],
    "slack_bot": ["Slack, as an app"],
    "email": ["E-mail"],
}
"""Where the keys of a kind are that it alone has, if that is not the section of its name."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def keys_in(text: str) -> set[str]:
    """Every key that a table of settings in a text explains."""
    tables = re.findall(r"^\| key \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = "".join(tables).splitlines()
    return {key for row in rows for key in re.findall(r"`(\w+)`", row.split("|")[1])}


def keys_of(model: type[BaseModel]) -> set[str]:
    return {key_of(model, name=name) for name in model.model_fields}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_can_be_copied(example: str, tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    key_pair(tmp_path / "tls", own_ca(tmp_path), "watcher.example.com")
    (tmp_path / "ntfy.json.j2").write_text((DOCS.parent / "config/templates/ntfy.json.j2").read_text())
    file = tmp_path / "watcher.yaml"
    file.write_text(WATCHED + example.replace("/etc/watcher", str(tmp_path)))
    assert load_config(file, environ=ENVIRON).watch


@pytest.mark.parametrize(("kind", "model"), SINK_KINDS.items())
def test_every_key_of_a_kind_is_in_a_table_and_no_other(kind: str, model: type[SinkSettings]) -> None:
    own = {key for title in SECTIONS.get(kind, [kind.capitalize()]) for key in keys_in(section(title))}
    rows = re.findall(r"^\| `(\w+)` \|.*\| (.*?)\|$", section("Settings of every sink"), re.MULTILINE)
    shared = {key for key, not_of in rows if kind not in not_of.lower().replace("-", "").strip().split(", ")}
    assert own | shared == keys_of(model) - {"type"}


@pytest.mark.parametrize(("title", "model"), [("Groups", GroupSettings), ("Connections", TlsSettings)])
def test_every_key_of_a_block_is_in_its_table(title: str, model: type[BaseModel]) -> None:
    assert keys_in(section(title)) == keys_of(model)


def test_the_first_table_has_the_defaults() -> None:
    rows = re.findall(r"^\| \[`(?:type|template): (\w+)`\].*\| (.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    fields = {name: model.model_fields for name, model in SINK_KINDS.items()}
    defaults = {name: (found["events"].default, rate_of(found)) for name, found in fields.items()}
    of_presets = {name: template.defaults for name, template in PRESETS.items()}
    defaults |= {name: (each.get("events", ALERT_EVENTS), each["rate_limit"]) for name, each in of_presets.items()}
    problems = PRESETS["pagerduty"].defaults["events"]
    words = {("*",): "all", ALERT_EVENTS: "worth a message", problems: "what opens a problem"}
    assert rows == [(name, words[defaults[name][0]], defaults[name][1]) for name, *_ in rows]
    assert {name for name, *_ in rows} == defaults.keys()


def rate_of(fields: Mapping[str, FieldInfo]) -> str:
    return str(fields["rate_limit"].default) if "rate_limit" in fields else "none"
