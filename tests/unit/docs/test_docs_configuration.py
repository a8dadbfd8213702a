"""What people copy of the configuration works as it stands; the pages know the keys and defaults of the models."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
import yaml
from documents import DOCS
from examples import ENVIRON
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from tls import key_pair, own_ca

from watcher.config.checks import find_warnings
from watcher.config.document import Document
from watcher.config.loader import load_config
from watcher.config.models import AccountSettings, Settings, WatchSettings
from watcher.domain.problems import CLOSINGS, PROBLEM_KINDS
from watcher.domain.routing import types_matching
from watcher.runtime.described import descriptions_of
from watcher.runtime.settings import Block, key_of
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import GroupSettings
from watcher.sinks.template import ALERT_EVENTS
from watcher.sinks.webhook import PRESETS, WebhookSettings


def described(annotation: object) -> Iterator[tuple[str, FieldInfo, str | None]]:
    """Every key below an annotation, with its model's name and its description."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield f"{annotation.__name__}.{name}", field, descriptions_of(annotation).get(name)
            yield from described(field.annotation)
    for inner in get_args(annotation):
        yield from described(inner)


@pytest.mark.parametrize(("name", "field", "description"), {each[0]: each for each in described(Settings)}.values())
def test_every_key_says_what_it_does_and_shows_an_example(name: str, field: FieldInfo, description: str | None) -> None:
    holds_keys = name.startswith("Settings.") or (
        isinstance(field.annotation, type) and issubclass(field.annotation, Block)
    )
    assert description
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


README_EXAMPLES = re.findall(r"```yaml\n(.*?)```", (DOCS.parent / "README.md").read_text(encoding="utf-8"), re.DOTALL)
OVERDUE = """
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, overdue_after: {running: 15m}}]
"""


def load(example: str, folder: Path) -> tuple[Settings, Document]:
    file = folder / "watcher.yaml"
    file.write_text(example if "watch:" in example else OVERDUE + example)
    document = Document(file=str(file))
    return load_config(file, environ=ENVIRON, document=document), document


@pytest.mark.parametrize("example", README_EXAMPLES)
def test_an_example_can_be_copied_and_leads_to_no_warning_but_of_its_id(example: str, tmp_path: Path) -> None:
    settings, document = load(example, tmp_path)
    assert settings.watch
    found = {warning.problem for warning in find_warnings(document, settings)}
    assert found == {"looks like the id of an example"}


def test_the_file_of_the_readme_is_an_example_and_its_pager_rings_at_three(tmp_path: Path) -> None:
    settings, _ = load(README_EXAMPLES[0], tmp_path)
    (watch,) = settings.watch
    assert watch.rules is not None
    assert watch.rules.failing is not None
    assert watch.rules.failing.consecutive == 3
    assert types_matching(settings.sinks["phone"].events) <= PROBLEM_KINDS | CLOSINGS
    chat = settings.sinks["chat"]
    assert isinstance(chat, WebhookSettings)
    assert chat.group == GroupSettings.model_validate({"by": ["account"], "wait": "10s"})
    assert README_EXAMPLES[0] == (DOCS.parent / "config" / "quiet-chat-loud-pager.yaml").read_text(encoding="utf-8")


PAGE = (DOCS / "sinks.md").read_text(encoding="utf-8")
PAGES = sorted(DOCS.rglob("*.md"))
REST = yaml.safe_load("""
accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, labels: {team: sales}, account: default}]
sinks: {chat: &one {type: webhook, url: "https://h.example.com/"}, mail: *one, phone: *one, acme_mail: *one, ops: *one}
""")
"""What an example leaves out, as other examples have it."""

OTHERS = r"# (?:/etc/prometheus|a manifest|steps of a workflow|values\.yaml|Prometheus)"
"""The first line of a block that is no configuration of the program, but of another one."""

EXAMPLES = [
    pytest.param(example, id=f"{page.stem}-{nth}")
    for page in PAGES
    for nth, example in enumerate(
        re.findall(rf"```yaml\n(?!{OTHERS})(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    )
]


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
    if example.startswith("    rules:"):
        example = f"watch:\n  - pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f\n{example}"
    (tmp_path / "db").write_text("a password")
    document = yaml.safe_load(example.replace("/etc/watcher", str(tmp_path)).replace("/run/secrets", str(tmp_path)))
    rest = {name: part for name, part in REST.items() if name not in document or isinstance(part, dict)}
    whole = document | {
        name: part | document.get(name, {}) if isinstance(part, dict) else part for name, part in rest.items()
    }
    file = tmp_path / "watcher.yaml"
    file.write_text(yaml.safe_dump(whole))
    token = "0123456789abcdef"
    assert load_config(file, environ=ENVIRON | {"WATCHER_TOKEN": token, "WATCHER_READ_TOKEN": f"{token}r"}).watch


@pytest.mark.parametrize(("page", "model"), [("groups.md", GroupSettings)])
def test_every_key_of_a_block_is_in_its_table(page: str, model: type[BaseModel]) -> None:
    assert keys_in((DOCS / page).read_text(encoding="utf-8")) == keys_of(model)


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
