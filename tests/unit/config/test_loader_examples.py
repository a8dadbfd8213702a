import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from examples import ENVIRON
from pydantic import BaseModel
from tls import key_pair, own_ca

from watcher.config.loader import load_config
from watcher.config.locate import DEFAULTS
from watcher.config.models import Settings
from watcher.runtime.settings import Block, key_of
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.webhook import PRESETS, TemplateFile, WebhookSettings

CONFIG = Path(__file__).parents[3] / "config"
EXAMPLES = sorted(CONFIG.glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_whoever_puts_their_pipelines_into_an_example_watches_all_of_them(path: Path) -> None:
    assert not any("executions" in watch for watch in yaml.safe_load(path.read_text())["watch"])


def keys(annotation: object) -> Iterator[str]:
    """Every key of the blocks in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield key_of(annotation, name=name)
            yield from keys(field.annotation)
    for inner in get_args(annotation):
        yield from keys(inner)


@pytest.mark.parametrize("key", sorted(set(keys(Settings))))
def test_the_annotated_example_shows_every_key(key: str) -> None:
    assert re.search(rf"\b{key}\b:", (CONFIG / "watcher.example.yaml").read_text())


@pytest.mark.parametrize(("variable", "key"), DEFAULTS.items())
def test_an_example_leaves_to_the_environment_what_a_container_sets_there(variable: str, key: tuple[str, str]) -> None:
    values = {
        "WATCHER_STORE_URL": "sqlite:////var/lib/w.db",
        "WATCHER_HTTP_LISTEN": ":80",
        "WATCHER_LOG_LEVEL": "error",
    }
    for path in CONFIG.glob("*.yaml"):
        document = yaml.safe_load(path.read_text())
        assert key[1] not in (document.get(key[0]) or {}), f"{path.name} would win over ${variable}"
    settings = load_config(CONFIG / "watcher.example.yaml", environ=ENVIRON | values)
    assert getattr(getattr(settings, key[0]), key[1]) == values[variable]


def test_the_annotated_example_has_a_sink_of_each_kind_also_where_it_is_commented_out(tmp_path: Path) -> None:
    """Apprise is an extra, and certificates are files: a file with these is refused where they are not."""
    text = (CONFIG / "watcher.example.yaml").read_text()
    for block in ("team", "tls"):
        text, count = re.subn(
            rf"^( *)# {block}:.*\n(?:\1#   .*\n)+", lambda found: uncommented(found[0]), text, flags=re.MULTILINE
        )
        assert count == 1
    (tmp_path / "tls").mkdir()
    key_pair(tmp_path / "tls", own_ca(tmp_path), "watcher.example.com")
    (tmp_path / "templates").symlink_to(CONFIG / "templates")
    (tmp_path / "watcher.yaml").write_text(text.replace("/etc/watcher", str(tmp_path)))
    sinks = load_config(tmp_path / "watcher.yaml", environ=ENVIRON).sinks.values()
    assert {type(sink) for sink in sinks} == set(SINK_KINDS.values())
    templates = {sink.template for sink in sinks if isinstance(sink, WebhookSettings)}
    assert {*PRESETS, None} < templates
    assert any(isinstance(template, TemplateFile) for template in templates)


def uncommented(block: str) -> str:
    return re.sub(r"^( *)# ", r"\1", block, flags=re.MULTILINE)


def test_the_annotated_example_shows_the_defaults(tmp_path: Path) -> None:
    text, count = re.subn(
        r"^  # (url|listen|level): ", r"  \1: ", (CONFIG / "watcher.example.yaml").read_text(), flags=re.MULTILINE
    )
    assert count == len(DEFAULTS)
    (tmp_path / "watcher.yaml").write_text(text)
    (tmp_path / "templates").symlink_to(CONFIG / "templates")
    settings = load_config(tmp_path / "watcher.yaml", environ=ENVIRON)
    default = Settings()
    assert (settings.polling, settings.store, settings.http, settings.log) == (
        default.polling,
        default.store,
        default.http,
        default.log,
    )
    account, hook = settings.accounts["default"], settings.sinks["ops"]
    assert non_defaults(account) == {"api_key", "link"}
    assert non_defaults(hook) == {"type", "url", "secret", "events", "match", "headers", "group", "remind_every_s"}


def non_defaults(block: Block) -> set[str]:
    """The fields whose value is not that of a block with its required keys alone."""
    required = {key: getattr(block, key) for key, field in type(block).model_fields.items() if field.is_required()}
    bare = type(block).model_validate(required)
    differing = {name for name in type(block).model_fields if getattr(block, name) != getattr(bare, name)}
    return differing | required.keys()
