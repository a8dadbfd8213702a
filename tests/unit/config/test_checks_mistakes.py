"""Mistakes that people plausibly make: none is silent, and each message says where, what, and what would be right.

Others are in `test_loader_mistakes.py`, with their whole messages.
"""

from pathlib import Path

import pytest

from watcher.config.checks import find_warnings
from watcher.config.document import ConfigProblemsError, Document
from watcher.config.loader import load_config

PIPELINE = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
RUN = "c2a4e6f8-3b5d-4f71-8c93-b1d2e3f4a5b6"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ACCOUNT = "accounts: {default: {api_key: k}}\n"
WATCHED = (
    f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    labels: {{team: sales}}\n"
    "    rules: {failing: {consecutive: 3}}\n"
)
SLACK = "type: webhook, template: slack, url: 'https://hooks.slack.com/services/T0/B0/x'"
PAGER = "type: webhook, template: pagerduty, routing_key: " + "k" * 32
HOOK = f"type: webhook, url: 'https://h.acme.io/x', secret: {SECRET}"
MAIL = "type: email, server: 'smtp.acme.io:587', from: w@acme.io, to: [o@acme.io]"
BOT = "type: slack_bot, token: xoxb-1-A, channel: C0123456789"


def account(keys: str) -> str:
    return f"accounts: {{default: {{{keys}}}}}\nwatch: [{{pipeline: PIPELINE}}]\n"


def watch(keys: str) -> str:
    return f"{ACCOUNT}watch:\n  - {{pipeline: {PIPELINE}, {keys}}}\n"


def sink(keys: str, base: str = WATCHED) -> str:
    return f"{base}sinks:\n  ops: {{{keys}}}\n"


def silence(keys: str) -> str:
    return f"{WATCHED}sinks: {{phone: {{{HOOK}}}}}\nsilences:\n  - {{{keys}}}\n"


def report(keys: str) -> str:
    return f"{WATCHED}sinks: {{chat: {{{SLACK}}}, page: {{{PAGER}}}}}\nreports: {{morning: {{{keys}}}}}\n"


TABLE = [
    (account("api_key_file: /no/such"), "1:36: accounts.default.api_key_file"),
    (account("api_key: k, base_url: 'http://api.acme.io'"), "1:44: accounts.default.base_url"),
    (account("api_key: k, rate_limit: 5"), "1:46: accounts.default.rate_limit"),
    ("accounts: {a: {api_key: k}, b: {api_key: l}}\nwatch: [{pipeline: PIPELINE}]\n", "2:9: watch[0]"),
    ("accounts: {a: {api_key: k}}\nwatch: [{pipeline: PIPELINE, account: aa}]\n", "2:67: watch[0].account"),
    (ACCOUNT + "watch: {pipeline: PIPELINE}\n", "2:8: watch"),
    (watch("executions: []"), "3:66: watch[0].executions"),
    (watch("executions: RUN"), "3:66: watch[0].executions"),
    (watch("labels: [sales]"), "3:62: watch[0].labels"),
    (watch("labels: team=sales"), "3:62: watch[0].labels"),
    (watch("overdue_after: 15m"), "3:69: watch[0].overdue_after"),
    (watch("overdue_after: {success: 1m}"), "3:70: watch[0].overdue_after.success"),
    (watch("overdue_after: {running: 15min}"), "3:79: watch[0].overdue_after.running"),
    (watch("rules: {failing: {rate: 120%}}"), "3:78: watch[0].rules.failing.rate"),
    (watch("rules: {failling: {consecutive: 3}}"), "3:62: watch[0].rules.failling"),
    (watch("rules: [failing]"), "3:61: watch[0].rules"),
    (sink("type: discord, url: x"), "7:15: sinks.ops.type"),
    (sink("type: pagerduty"), "7:15: sinks.ops.type"),
    (sink("type: telegram"), "7:15: sinks.ops.type"),
    (WATCHED + "sinks: [{type: stdout}]\n", "6:8: sinks"),
    (sink("type: webhook, template: teams, url: 'https://acme.webhook.office.com/webhookb2/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, url: 'https://events.pagerduty.com/v2/enqueue', secret: " + SECRET), "7:29: sinks.ops.url"),
    (sink("type: webhook, template: slack, url: 'http://hooks.slack.com/services/x'"), "7:46: sinks.ops.url"),
    (sink("type: slack_bot, channel: C0123456789"), "7:3: sinks.ops"),
    (sink("type: slack_bot, token: xoxb-1-A"), "7:3: sinks.ops"),
    (sink(BOT + ", template: slack"), "7:65: sinks.ops.template"),
    (sink("type: email, server: smtp.acme.io, from: w@a.io, to: o@a.io"), "7:62: sinks.ops.to"),
    (sink("type: email, host: smtp.acme.io, from: w@a.io, to: [o@a.io]"), "7:22: sinks.ops.host"),
    (sink("type: stdout, format: text, url: x"), "7:37: sinks.ops.url"),
    (sink("type: stdout, format: yaml"), "7:31: sinks.ops.format"),
    (sink(HOOK + ", events: execution.failed"), "7:108: sinks.ops.events"),
    (sink(SLACK + ", rate_limit: 1/h"), "7:3: sinks.ops"),
    (sink(HOOK + ", retry: {schedule: 1s}"), "7:118: sinks.ops.retry.schedule"),
    (sink(HOOK + ", retry: {max: 3}"), "7:108: sinks.ops.retry.max"),
    (sink(HOOK + ", group: 30s"), "7:107: sinks.ops.group"),
    (sink(HOOK + ", group: {by: pipeline}"), "7:112: sinks.ops.group.by"),
    (sink("type: stdout, remind_every: 4h"), "7:23: sinks.ops.remind_every"),
    (
        silence("match: {sinks: [fone]}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:22: silences[0].match.sinks[0]",
    ),
    (silence("match: {sinks: [phone]}, weekly: {days: [sat], from: '20:00', to: '08:00'}"), "8:31: silences[0].weekly"),
    (silence("sinks: [phone], from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"), "8:6: silences[0].sinks"),
    (
        silence("match: {sinks: phone}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:21: silences[0].match.sinks",
    ),
    (report("at: '08:00', sinks: [page]"), "7:42: reports.morning.sinks[0]"),
    (report("at: '08:00', sinks: [caht]"), "7:42: reports.morning.sinks[0]"),
    (report("at: '08:00', sinks: chat"), "7:41: reports.morning.sinks"),
    (WATCHED + "reports: {at: '08:00', sinks: [x]}\n", "6:31: reports.sinks"),
    (report("every: 1d, sinks: [chat]"), "7:21: reports.morning.every"),
    (WATCHED + "heartbeat: https://hc-ping.com/x\n", "6:12: heartbeat"),
    (WATCHED + "heartbeat: {url: 'https://hc-ping.com/x', interval: 1m}\n", "6:43: heartbeat.interval"),
    (WATCHED + "http: {port: 8080}\n", "6:8: http.port"),
    (WATCHED + "http: {public_url: watcher.acme.io}\n", "6:20: http.public_url"),
    (WATCHED + "http: {public_url: 'https://acme.io/watcher'}\n", "6:20: http.public_url"),
    (WATCHED + "store: {url: 'sqlite:///no/such/dir/w.db'}\n", "6:14: store.url"),
    (WATCHED + "store: {path: w.db}\n", "6:9: store.path"),
    (WATCHED + "store: sqlite:///w.db\n", "6:8: store"),
    (WATCHED + "polling: {first_sight: all}\n", "6:24: polling.first_sight"),
    (WATCHED + "polling: {details: all}\n", "6:20: polling.details"),
    (WATCHED + "log: {format: text}\n", "6:15: log.format"),
]
"""A file with a mistake, and the place of the last message about it: line, column and, if YAML can be read, the key."""


@pytest.mark.parametrize(("text", "place"), TABLE)
def test_no_mistake_is_silent_and_each_message_says_where_and_what_would_be_right(
    text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (path := Path("watcher.yaml")).write_text(text.replace("PIPELINE", PIPELINE).replace("RUN", RUN), encoding="utf-8")
    document = Document(file=path.name)
    try:
        lines = [str(warning) for warning in find_warnings(document, load_config(path, environ={}, document=document))]
    except ConfigProblemsError as error:
        lines = str(error).split("\n")[:-1]
    assert lines[-1].startswith(f"watcher.yaml:{place}: ")
    assert "; " in lines[-1]
