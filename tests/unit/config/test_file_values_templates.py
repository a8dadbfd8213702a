import os
from pathlib import Path

import pytest
from unit.config.conftest import Load, Mistakes, Warned

from watcher.config.files import stamps_of
from watcher.config.loader import ConfigSource, changes_between
from watcher.config.models import Settings
from watcher.sinks.template import ALERT_EVENTS
from watcher.sinks.webhook import PRESETS, TemplateFile, WebhookSettings

ACCOUNT = "accounts: {default: {api_key: k}}\nwatch: [{pipeline: 3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31}]\n"
HOOK = "sinks:\n  chat:\n    type: webhook\n    url: https://h.example\n    template: "
GOOD = '{"text": {{ headline | tojson }}}'
UID = f"running as uid {os.geteuid()}"
REST = f"rite {', '.join(PRESETS)} or the path of a Jinja2 file, which begins beside this file"
COMMA = "Expecting ',' delimiter: line 1 column 21 (char 20)"
JSON = 'put every value in by tojson, such as {"text": {{ headline | tojson }}}'
ABSENT = 'write default(""), or ask by "is defined"; what a template sees is in docs/sinks.md'


def webhook(settings: Settings) -> WebhookSettings:
    sink = settings.sinks["chat"]
    assert isinstance(sink, WebhookSettings)
    return sink


@pytest.mark.parametrize("name", ["chat.json.j2", "./chat.json.j2", "${DIR}/chat.json.j2", "chat"])
def test_a_template_is_read_from_a_file_beside_the_configuration(name: str, load: Load) -> None:
    load("")
    Path("chat.json.j2").write_text(f"\ufeff{GOOD}")
    Path("chat").write_text(GOOD)
    sink = webhook(load(HOOK + name, DIR=str(Path.cwd())))
    assert sink.template == TemplateFile(name, GOOD)
    assert (sink.events, sink.rate_limit) == (ALERT_EVENTS, 100.0)
    assert not sink.model_fields_set & {"events"}
    assert "headline" not in repr(sink)
    assert webhook(load(HOOK + name + "\n    events: ['*']", DIR=str(Path.cwd()))).events == ("*",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("slak", f'cannot read "slak" (no such file or directory, {UID}); did you mean "slack"? W{REST}'),
        ("mine", f'cannot read "mine" (no such file or directory, {UID}); w{REST}'),
        ("slack.j2", f'cannot read "slack.j2" (no such file or directory, {UID}); w{REST}'),
        ("./", f'cannot read "./" (a directory); w{REST}'),
        ("${NAME}", f"cannot read the filled-in value (no such file or directory, {UID}); w{REST}"),
        ("large.j2", f'cannot read "large.j2" (larger than 64 KiB); w{REST}'),
        ("latin.j2", '"latin.j2" is not UTF-8 text; name a Jinja2 file'),
        ("typo.j2", f"typo.j2:2: for execution.failed: UndefinedError: 'hedline' is undefined; {ABSENT}"),
        (
            "absent.j2",
            f"absent.j2:2: for account.degraded: UndefinedError: 'dict object' has no attribute 'execution'; {ABSENT}",
        ),
        ("quotes.j2", f"quotes.j2: for execution.failed: renders no JSON: {COMMA}; {JSON}"),
        ("{path: good.j2, source: x}", "is a block of keys, not a single value; write one value behind the key"),
    ],
)
def test_what_is_wrong_with_it_is_said_at_load(name: str, message: str, mistakes: Mistakes) -> None:
    mistakes("- x")
    Path("large.j2").write_text(GOOD + " " * 65_536)
    Path("latin.j2").write_bytes(b"\xe4")
    Path("typo.j2").write_text("\n{{ hedline }}")
    Path("absent.j2").write_text('{"a":\n{{ event.data.execution.status | tojson }}}')
    Path("quotes.j2").write_text('{"text": "{{ error }}"}')
    assert mistakes(HOOK + name, NAME="hunter2")[0] == f"watcher.yaml:5:15: sinks.chat.template: {message}"


def test_a_group_is_tried_where_there_is_one(mistakes: Mistakes, load: Load) -> None:
    load("")
    Path("chat.j2").write_text("{% if events | length > 1 %}oops{% else %}{}{% endif %}")
    assert load(HOOK + "chat.j2")
    (line, *_) = mistakes(HOOK + "chat.j2\n    group: {by: [pipeline], wait: 1m}")
    assert line.startswith("watcher.yaml:5:15: sinks.chat.template: chat.j2: for a group: renders no JSON")


def test_a_known_receiver_may_be_sent_what_ones_own_template_makes(warned: Warned) -> None:
    Path("chat.j2").write_text(GOOD)
    text = ACCOUNT + HOOK.replace("h.example", "hooks.slack.com/services/T/B/x") + "chat.j2"
    assert warned(text) == []


def test_a_change_of_the_file_is_a_change_of_the_sink(tmp_path: Path) -> None:
    path, template = tmp_path / "watcher.yaml", tmp_path / "chat.j2"
    path.write_text(ACCOUNT + HOOK + "chat.j2")
    template.write_text(GOOD)
    source = ConfigSource(path, environ={})
    before = source.load()
    assert stamps_of(source.files) == source.files
    template.write_text('{"text": "new"}')
    assert stamps_of(source.files) != source.files
    assert changes_between(before, source.load()) == ["sinks changed"]
