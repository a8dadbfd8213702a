import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import pytest
import yaml
from examples import ENVIRON
from pydantic import BaseModel
from tls import key_pair, own_ca
from unit.config.conftest import Load, Mistakes

from watcher.config.document import ConfigProblemsError
from watcher.config.files import DEFAULTS
from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.daemon.from_settings import watches_of
from watcher.runtime.settings import Block, key_of
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.stdout import StdoutSettings
from watcher.sinks.webhook import PRESETS, TemplateFile, WebhookSettings

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
RUN = "9a1b0000-0000-4000-8000-000000000001"
WATCH = f"watch:\n  - pipeline: {PIPELINE}\n    executions: [{RUN}]\n"
ACCOUNT = "accounts:\n  default:\n    api_key: k\n"


@pytest.mark.parametrize(
    "text", ["# nothing yet\n", "---\n", "accounts:\nwatch:\nsinks:\npolling:\nstore:\n", "{}", "~"]
)
def test_keys_with_nothing_behind_them_are_defaults(text: str, load: Load) -> None:
    assert load(text) == load("")
    assert load(f"{ACCOUNT}    rate_limit:\n    link:\n").accounts["default"].rate_limit == 5


def test_values_mean_what_they_say(load: Load) -> None:
    settings = load(
        f"{ACCOUNT}    base_url: https://gateway.example/clerk/\n    rate_limit: 300/m\n    timeout: 500ms\n"
        f"{WATCH}    name: 5\n    labels: {{team: yes, since: 2026-01-01, null: ~no, n: 007}}\n"
        "    overdue_after: {running: 15m}\n"
        "http: {listen: ' [::1]:8080 '}\npolling: {lost_grace: 0s, lost_after: 5}\n"
    )
    account, watch = settings.accounts["default"], settings.watch[0]
    assert (account.base_url, account.rate_limit, account.timeout_s) == ("https://gateway.example/clerk", 5, 0.5)
    assert watch.name == "5"
    assert watch.labels == {"team": "yes", "since": "2026-01-01", "null": "~no", "n": "007"}
    assert watch.overdue_after_s == {"running": 900}
    assert settings.http.listen == "[::1]:8080"
    assert (settings.polling.lost_grace_s, settings.polling.lost_after) == (0, 5)


def test_with_one_account_watches_need_not_name_it_and_with_several_they_do(load: Load) -> None:
    assert load(ACCOUNT + WATCH).watch[0].account == "default"
    assert load(f"{ACCOUNT}  eu: {{api_key: e}}\n{WATCH}    account: eu").watch[0].account == "eu"


@pytest.mark.parametrize(
    ("taken", "added"), [([], "stdout"), (["stdout"], "stdout-2"), (["stdout", "stdout-2"], "stdout-3")]
)
def test_there_is_always_a_stdout_sink(taken: list[str], added: str, load: Load) -> None:
    sinks = "".join(f"  {name}: {{type: webhook, url: https://h.example}}\n" for name in taken)
    settings = load(f"sinks:\n{sinks}")
    assert list(settings.sinks) == [*taken, added]
    assert isinstance(settings.sinks[added], StdoutSettings)


def test_an_empty_file_is_all_defaults_but_for_three_of_the_environment(load: Load) -> None:
    settings = load("")
    assert settings.watch == ()
    assert settings.polling.max_interval_s == 60
    assert settings.store.retention_s == 30 * 86400
    assert settings.sinks == {"stdout": StdoutSettings(type="stdout")}
    environ = {"WATCHER_STORE_URL": "sqlite:////d/w.db", "WATCHER_HTTP_LISTEN": ":9090", "WATCHER_LOG_LEVEL": "debug"}
    settings = load("log: {format: json}", **environ)
    assert (settings.store.url, settings.http.listen) == ("sqlite:////d/w.db", ":9090")
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert load("log: {level: error}", **environ).log.level == "error"


def test_a_bad_variable_is_named_and_hides_no_mistake_of_its_block(mistakes: Mistakes) -> None:
    lines = mistakes("", WATCHER_HTTP_LISTEN="8080", WATCHER_STORE_URL="postgresql://u:hunter2@h/db")
    assert lines == [
        '$WATCHER_HTTP_LISTEN: http.listen: "8080" is not host:port; write 127.0.0.1:8080, [::1]:8080 or :8080',
        ("$WATCHER_STORE_URL: store.url: holds a password; write it into a file, and name that in store.password_file"),
        "2 problems in watcher.yaml",
    ]
    lines = mistakes("log: [level]", WATCHER_LOG_LEVEL="debug")
    assert lines[0].startswith("watcher.yaml:1:6: log: is a list, not a block of keys")


@pytest.mark.ci
def test_a_hundred_thousand_executions_are_loaded(load: Load) -> None:
    ids = "".join(f"      - 9a1b0000-0000-4000-8000-{number:012x}\n" for number in range(100_000))
    watch = load(f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions:\n{ids}").watch[0]
    assert len(watch.executions) == 100_000
    assert str(watch.executions[-1]) == "9a1b0000-0000-4000-8000-00000001869f"


def test_of_a_part_of_the_file_the_rest_need_not_be_right(tmp_path: Path) -> None:
    path, part = tmp_path / "watcher.yaml", ("accounts", "polling")
    path.write_text(ACCOUNT + "sinks:\n  ops: {type: webhook, url: '${OPS_URL}'}\nwatch: soon\nwatsch: 1\n")
    settings = load_config(path, environ={"WATCHER_STORE_URL": "postgresql://db"}, only=part)
    assert (list(settings.accounts), settings.watch) == (["default"], ())
    path.write_text(ACCOUNT + "polling: {lost_aftr: 1}\n")
    with pytest.raises(ConfigProblemsError, match="lost_aftr"):
        load_config(path, environ={}, only=part)


def test_a_watch_that_names_no_executions_is_of_the_whole_pipeline(load: Load) -> None:
    settings = load(f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n  - pipeline: {RUN}\n    executions: [{RUN}]\n")
    assert [watch.whole for watch in watches_of(settings, "default")] == [True, False]


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
        shown = rf"(?m)^( *)# {block}:.*\n(?:\1#   .*\n)+"
        text, count = re.subn(shown, lambda found: re.sub("(?m)^( *)# ", r"\1", found[0]), text)
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


SENTINEL = "hunter2hunter2"
ACCOUNTS = "accounts:\n  a:\n    "
HOOK = "sinks:\n  ops:\n    type: webhook\n    "

WRITTEN = [
    # a secret written into the file, with every mistake around it
    f"{ACCOUNTS}api_key: [{SENTINEL}]",
    f"{ACCOUNTS}api_key: {{{SENTINEL}: {SENTINEL}}}",
    f"{ACCOUNTS}api_key: {SENTINEL} {SENTINEL}",
    f"{ACCOUNTS}api_key: {SENTINEL}${{",
    f"{ACCOUNTS}api_key: ${{NOPE:-{SENTINEL} x}}",
    f"{ACCOUNTS}api_key: ${{NOPE}}{SENTINEL}",
    f"{ACCOUNTS}api_key: !{SENTINEL} {SENTINEL}",
    f"{ACCOUNTS}api_key: *{SENTINEL}",
    f"{ACCOUNTS}api_key:{SENTINEL}\n    timeout: 1s",
    f"{ACCOUNTS}api_key: {SENTINEL}\n   timeout: 1s",
    f"{ACCOUNTS}api_key: '{SENTINEL}",
    f'{ACCOUNTS}api_key: "{SENTINEL}\\q"',
    f"{ACCOUNTS}api_key: @{SENTINEL}",
    f"{ACCOUNTS}api_key: {SENTINEL}: x",
    f"{ACCOUNTS}api_key: {SENTINEL}\n\ttimeout: 1s",
    f"{ACCOUNTS}api_key: {SENTINEL}\x00",
    f"{ACCOUNTS}api_key: {SENTINEL}\n    api_key: {SENTINEL}",
    f"{ACCOUNTS}apikey: {SENTINEL}",
    f"{ACCOUNTS}api_key_file: {SENTINEL}",
    f"{ACCOUNTS}api_key: {SENTINEL}\n    api_key_file: {SENTINEL}",
    f"{ACCOUNTS}api_key: {SENTINEL}\n  b:\n    api_key: {SENTINEL}",
    f"{ACCOUNTS}api_key: k\n    base_url: https://u:{SENTINEL}@h",
    f"{ACCOUNTS}api_key: k\n    base_url: https://h?key={SENTINEL}",
    f"{ACCOUNTS}api_key: k\n    link: https://u:{SENTINEL}@h/{{x}}",
    f"accounts:\n  api_key: {SENTINEL}",
    f"accounts: {SENTINEL}",
    f"{HOOK}url: ftp://h/{SENTINEL}",
    f"{HOOK}url: h/{SENTINEL}",
    f"{HOOK}url: https://h:{SENTINEL}/",
    f"{HOOK}url: https://[{SENTINEL}/",
    f"{HOOK}url: [https://h/{SENTINEL}]",
    f"{HOOK}https://h/{SENTINEL}: x",
    f"{HOOK}url_file: https://h/{SENTINEL}",
    f"{HOOK}url: https://h\n    secret: {SENTINEL}",
    f"{HOOK}url: https://h\n    secret: whsec_{SENTINEL}",
    f"{HOOK}url: https://h\n    secret: [{SENTINEL}, {{{SENTINEL}: x}}]",
    f"{HOOK}url: https://h\n    secret: {{{SENTINEL}: x}}",
    f"{HOOK}url: https://h\n    secrets: {SENTINEL}",
    f"{HOOK}url: https://h\n    headers: 'Authorization: Bearer {SENTINEL}'",
    f"{HOOK}url: https://h\n    headers: ['Authorization: Bearer {SENTINEL}']",
    f"{HOOK}url: https://h\n    headers: {{'Authorization: Bearer {SENTINEL}': x}}",
    f'{HOOK}url: https://h\n    headers: {{A: "{SENTINEL}\\n"}}',
    f"{HOOK}url: https://h\n    headers: {{A: [{SENTINEL}]}}",
    f"{HOOK}url: https://h\n    headers: {{Host: {SENTINEL}}}",
    f"{HOOK}template: pagerduty\n    routing_key: {SENTINEL}",
    f"{HOOK}template: pagerduty\n    routing_key: [{SENTINEL}]",
    f"{HOOK}template: pagerduty\n    routing_key_file: {SENTINEL}",
    f"{HOOK}template: slack\n    url: https://h/x\n    routing_key: {SENTINEL}",
    f"{HOOK}template: pagerduty\n    routing_key: {SENTINEL}{'x' * (32 - len(SENTINEL))}\n    events: [x]",
    f"sinks:\n  chat:\n    type: slack_bot\n    channel: C0123456789\n    token: {SENTINEL}",
    f"sinks:\n  chat:\n    type: slack_bot\n    channel: C0123456789\n    token: [{SENTINEL}]",
    f"sinks:\n  chat:\n    type: slack_bot\n    channel: C0123456789\n    token_file: {SENTINEL}",
    f"sinks:\n  chat:\n    type: slack_bot\n    channel: '#x'\n    token: xoxb-{SENTINEL}",
    f"sinks:\n  mail:\n    type: email\n    password: {SENTINEL}",
    f"sinks:\n  mail:\n    type: email\n    password: [{SENTINEL}]",
    f"sinks:\n  mail:\n    type: email\n    password_file: {SENTINEL}",
    f"sinks:\n  mail:\n    type: email\n    server: smtp://u:{SENTINEL}@h",
    f"store: {{url: 'postgresql://u:{SENTINEL}@h/db'}}",
    f"store: {{url: 'postgresql://h/db?sslpassword={SENTINEL}'}}",
    f"store: {{url: 'postgresql://u:{SENTINEL}@[h/db'}}",
    f"store: {{url: 'postgresql://u:{SENTINEL}/db'}}",
    f"store: {{password: [{SENTINEL}]}}",
    f"store: {{password: {SENTINEL}, password_file: {SENTINEL}}}",
    f"store: {{password_file: {SENTINEL}}}",
    f"store: {{url: 'mysql://u:{SENTINEL}@h/db'}}",
    f"store: {{url: ['mysql://u:{SENTINEL}@h/db']}}",
    f"http: {{tokn: {SENTINEL}}}",
    f"heartbeat: {{ur: 'https://h/{SENTINEL}'}}",
    f"heartbeat: {{url: '{SENTINEL}'}}",
    f"heartbeat: {{url_file: {SENTINEL}}}",
    f"http: {{token_file: {SENTINEL}}}",
    f"http: {{token: {SENTINEL}, read_token: {SENTINEL}}}",
    f"{SENTINEL}",
    f"- {SENTINEL}",
    f"key: {SENTINEL}\n---\n{SENTINEL}",
]

PLACES = [
    # a variable that holds one, in every kind of value
    "log: {level: '<>'}",
    "log: {format: '<>'}",
    "log: '<>'",
    "http: {listen: '<>'}",
    "store: {url: '<>'}",
    "store: {retention: '<>'}",
    "store: {password: ['<>']}",
    "polling: {cadence: '<>', min_interval: '<>', concurrency: '<>', lost_after: '<>'}",
    "colour: '<>'",
    "watch: ['<>']",
    "watch: '<>'",
    "accounts: {a: {api_key: 'x <>'}}",
    "accounts: {a: {api_key: k, timeout: '<>', rate_limit: '<>', base_url: '<>', link: '<>'}}",
    "accounts: {a: {api_key: k}, b: {api_key: l}}\nwatch: [{account: '<>', pipeline: '<>', executions: ['<>']}]",
    "accounts: {a: {api_key: k}}\nwatch: [{pipeline: '<>', executions: ['<>', '<>'], overdue_after: {new: '<>'}}]",
    "sinks: {ops: {type: '<>'}}",
    "sinks: {ops: {type: webhook, url: 'x<>', secret: ['<>'], events: ['<>'], match: {pipelines: ['<>']}}}",
    "sinks: {ops: {type: webhook, url: 'https://h', timeout: '<>', retry: {schedule: ['<>'], give_up_after: '<>'}}}",
    "sinks: {ops: {type: webhook, url: 'https://h', headers: {A: \"<>\\n\"}, rate_limit: '<>'}}",
    "accounts: {a: {api_key_file: '<>'}}",
]


def shown_of(text: str, *, path: Path, environ: dict[str, str]) -> str:
    path.write_text(text)
    with pytest.raises(ConfigProblemsError) as caught:
        load_config(path, environ=environ)
    return "".join(traceback.format_exception(caught.value)) + repr(caught.value.problems)


@pytest.mark.parametrize("text", WRITTEN)
def test_a_secret_in_the_file_is_never_shown(text: str, tmp_path: Path) -> None:
    assert SENTINEL not in shown_of(text, path=tmp_path / "watcher.yaml", environ={})


@pytest.mark.parametrize("text", PLACES)
@pytest.mark.parametrize("value", [SENTINEL, "5", "/hunter2hunter2"])
def test_what_a_variable_holds_is_never_shown(text: str, value: str, tmp_path: Path) -> None:
    environ = {"KEY": f"{value}{SENTINEL}"}
    assert SENTINEL not in shown_of(text.replace("<>", "${KEY}"), path=tmp_path / "watcher.yaml", environ=environ)


def test_settings_print_no_secret(load: Callable[..., object]) -> None:
    text = "accounts: {a: {api_key: '${K}'}}\nsinks: {o: {type: webhook, url: 'https://h/${K}', headers: {A: '${K}'}}}"
    assert SENTINEL not in repr(load(f"{text}\nstore: {{password: '${{K}}'}}", K=SENTINEL))
