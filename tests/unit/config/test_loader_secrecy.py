import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from watcher.config.document import ConfigProblemsError
from watcher.config.loader import load_config

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
