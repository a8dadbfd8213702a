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
    (account("api_key: ''"), "1:31: accounts.default.api_key"),
    (account("api_key: 'k k'"), "1:31: accounts.default.api_key"),
    (account("api_key: ${NOPE}"), "1:32"),
    (account("api_key: $NOPE"), "1:31: accounts.default.api_key"),
    (account("key: k"), "1:22: accounts.default.key"),
    (account("api_key: k, api_key_file: x"), "1:34: accounts.default"),
    (account("api_key_file: /no/such"), "1:36: accounts.default.api_key_file"),
    (account("api_key: k, base_url: web-api.clerk.chat"), "1:44: accounts.default.base_url"),
    (account("api_key: k, base_url: 'https://web-api.clerk.chat/public/pipelines'"), "1:44: accounts.default.base_url"),
    (account("api_key: k, base_url: 'http://api.acme.io'"), "1:44: accounts.default.base_url"),
    (account("api_key: k, rate_limit: 5"), "1:46: accounts.default.rate_limit"),
    (account("api_key: k, rate_limit: 5/d"), "1:46: accounts.default.rate_limit"),
    (account("api_key: k, rate_limit: 0/s"), "1:46: accounts.default.rate_limit"),
    (account("api_key: k, timeout: 10"), "1:43: accounts.default.timeout"),
    (account("api_key: k, timeout: 0s"), "1:43: accounts.default.timeout"),
    (account("api_key: k, link: 'https://x/{id}'"), "1:40: accounts.default.link"),
    (account("api_key: k, link: x"), "1:40: accounts.default.link"),
    (
        "accounts: {a: {api_key: k}, b: {api_key: k}}\nwatch: [{pipeline: PIPELINE, account: a}]\n",
        "1:42: accounts.b.api_key",
    ),
    ("accounts: {a: {api_key: k}, b: {api_key: l}}\nwatch: [{pipeline: PIPELINE}]\n", "2:9: watch[0]"),
    ("accounts: {a: {api_key: k}}\nwatch: [{pipeline: PIPELINE, account: aa}]\n", "2:67: watch[0].account"),
    ("watch: [{pipeline: PIPELINE}]\n", "1:9: watch[0]"),
    ("accounts: {'my account': {api_key: k}}\nwatch: [{pipeline: PIPELINE}]\n", "1:12: accounts.…"),
    ("accounts:\n  - api_key: k\nwatch: [{pipeline: PIPELINE}]\n", "2:3: accounts"),
    (ACCOUNT + "watch: [{pipeline: sales}]\n", "2:20: watch[0].pipeline"),
    (ACCOUNT + "watch: [{pipelines: PIPELINE}]\n", "2:10: watch[0].pipelines"),
    (ACCOUNT + "watch: {pipeline: PIPELINE}\n", "2:8: watch"),
    (ACCOUNT + "watch: [PIPELINE]\n", "2:9: watch[0]"),
    (watch("executions: []"), "3:66: watch[0].executions"),
    (watch("executions:"), "3:54"),
    (watch("executions: [1]"), "3:67: watch[0].executions[0]"),
    (watch("executions: RUN"), "3:66: watch[0].executions"),
    (watch("labels: [sales]"), "3:62: watch[0].labels"),
    (watch("labels: {team: [a, b]}"), "3:69: watch[0].labels.team"),
    (watch("labels: team=sales"), "3:62: watch[0].labels"),
    (watch("overdue_after: 15m"), "3:69: watch[0].overdue_after"),
    (watch("overdue_after: {success: 1m}"), "3:70: watch[0].overdue_after.success"),
    (watch("overdue_after: {running: 15}"), "3:79: watch[0].overdue_after.running"),
    (watch("overdue_after: {running: 15min}"), "3:79: watch[0].overdue_after.running"),
    (watch("runbook: wiki"), "3:63: watch[0].runbook"),
    (ACCOUNT + "watch: [{pipeline: PIPELINE}, {pipeline: PIPELINE}]\n", "2:70: watch[1].pipeline"),
    (ACCOUNT + "watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]\n", "2:20: watch[0].pipeline"),
    (watch("rules: {failing: 3}"), "3:71: watch[0].rules.failing"),
    (watch("rules: {failing: {consecutive: 0}}"), "3:85: watch[0].rules.failing.consecutive"),
    (watch("rules: {failing: {consecutive: 1}}"), "3:85: watch[0].rules.failing.consecutive"),
    (watch("rules: {failing: {rate: 20}}"), "3:78: watch[0].rules.failing.rate"),
    (watch("rules: {failing: {rate: 120%}}"), "3:78: watch[0].rules.failing.rate"),
    (watch("rules: {failing: {consecutive: 3, rate: 20%}}"), "3:94: watch[0].rules.failing.rate"),
    (watch("rules: {failing: {rate: 20%, at_least: 30}}"), "3:93: watch[0].rules.failing.at_least"),
    (watch("rules: {failing: }"), "3:71: watch[0].rules.failing"),
    (watch("rules: {failling: {consecutive: 3}}"), "3:62: watch[0].rules.failling"),
    (watch("rules: {silent: 6}"), "3:70: watch[0].rules.silent"),
    (watch("rules: {silent: true}"), "3:70: watch[0].rules.silent"),
    (watch("executions: [RUN], rules: {silent: 6h}"), "3:113: watch[0].rules"),
    (watch("rules: {slow: }"), "3:68: watch[0].rules.slow"),
    (watch("rules: {slow: {times: 0.5}}"), "3:76: watch[0].rules.slow.times"),
    (watch("rules: {slow: {at_least: 1}}"), "3:79: watch[0].rules.slow.at_least"),
    (watch("rules: {tokens: 20000}"), "3:70: watch[0].rules.tokens"),
    (watch("rules: {tokens: {execution: 3000, per_day: 2000}}"), "3:82: watch[0].rules.tokens.execution"),
    (watch("rules: {tokens: {execution: 2e4}}"), "3:82: watch[0].rules.tokens.execution"),
    (watch("rules: {new_error: yes please}"), "3:73: watch[0].rules.new_error"),
    (watch("rules: [failing]"), "3:61: watch[0].rules"),
    (watch("failing: {consecutive: 3}"), "3:54: watch[0].failing"),
    (watch("rules: {also: {shorter_than: 5s}}"), "3:62: watch[0].rules.also"),
    (
        watch("rules: {failing: {consecutive: 3, also: {shorter_than: 5}}}"),
        "3:109: watch[0].rules.failing.also.shorter_than",
    ),
    (watch("rules: {failing: {consecutive: 3, within: 1h}}"), "3:96: watch[0].rules.failing.within"),
    (watch("rules: {failing: {consecutive: 3, recover_after: 0}}"), "3:103: watch[0].rules.failing.recover_after"),
    (watch("rules: {silent: }"), "3:70: watch[0].rules.silent"),
    (watch("rules: {tokens: }"), "3:70: watch[0].rules.tokens"),
    (sink("type: slack, url: x"), "7:15: sinks.ops.type"),
    (sink("url: 'https://x.io'"), "7:3: sinks.ops"),
    (sink("type: webhok, url: x"), "7:15: sinks.ops.type"),
    (sink("type: discord, url: x"), "7:15: sinks.ops.type"),
    (sink("type: pagerduty"), "7:15: sinks.ops.type"),
    (sink("type: telegram"), "7:15: sinks.ops.type"),
    (WATCHED + "sinks: [{type: stdout}]\n", "6:8: sinks"),
    (WATCHED + "sinks: {a: {type: stdout}, b: {type: stdout}}\n", "6:38: sinks.b.type"),
    (WATCHED + "sinks: {a b: {type: stdout}}\n", "6:9: sinks.…"),
    (sink("type: webhook, template: discord, url: 'https://hooks.slack.com/services/T/B/x'"), "7:48: sinks.ops.url"),
    (sink("type: webhook, template: slack, url: 'https://discord.com/api/webhooks/1/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, url: 'https://discord.com/api/webhooks/1/x', secret: " + SECRET), "7:29: sinks.ops.url"),
    (sink("type: webhook, url: 'https://hooks.slack.com/services/T/B/x', secret: " + SECRET), "7:29: sinks.ops.url"),
    (sink("type: webhook, template: teams, url: 'https://acme.webhook.office.com/webhookb2/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, url: 'https://acme.webhook.office.com/webhookb2/x'"), "7:29: sinks.ops.url"),
    (sink("type: webhook, template: slack, url: 'https://acme.webhook.office.com/webhookb2/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, template: teams, url: 'https://hooks.slack.com/services/T/B/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, url: 'https://events.pagerduty.com/v2/enqueue', secret: " + SECRET), "7:29: sinks.ops.url"),
    (sink("type: webhook, template: slack, url: 'https://acme.slack.com/archives/C1'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, template: slak, url: 'https://hooks.slack.com/services/T/B/x'"), "7:34: sinks.ops.template"),
    (sink("type: webhook, template: ./no.j2, url: 'https://h.acme.io'"), "7:34: sinks.ops.template"),
    (sink("type: webhook, template: slack"), "7:3: sinks.ops"),
    (sink("type: webhook, template: slack, url: 'hooks.slack.com/services/x'"), "7:46: sinks.ops.url"),
    (sink("type: webhook, template: slack, url: 'http://hooks.slack.com/services/x'"), "7:46: sinks.ops.url"),
    (
        sink("type: webhook, template: slack, webhook_url: 'https://hooks.slack.com/services/x'"),
        "7:41: sinks.ops.webhook_url",
    ),
    (
        sink("type: webhook, template: slack, channel: '#ops', url: 'https://hooks.slack.com/services/x'"),
        "7:41: sinks.ops.channel",
    ),
    (sink("type: webhook, template: teams, url: 'https://outlook.office.com/webhook/x'"), "7:46: sinks.ops.url"),
    (sink("type: apprise, url: 'msteams://x/y/z'"), "7:29: sinks.ops.url"),
    (
        sink("type: webhook, template: pagerduty, url: 'https://hooks.slack.com/services/x', routing_key: " + "k" * 32),
        "7:50: sinks.ops.url",
    ),
    (sink("type: webhook, template: alertmanager, url: 'https://hooks.slack.com/services/x'"), "7:53: sinks.ops.url"),
    (sink("type: webhook, template: pagerduty"), "7:3: sinks.ops.routing_key"),
    (sink("type: webhook, template: pagerduty, routing_key: abc"), "7:58: sinks.ops.routing_key"),
    (sink("type: webhook, template: pagerduty, integration_key: " + "k" * 32), "7:45: sinks.ops.integration_key"),
    (sink(PAGER, base=watch("name: a")), "5:3: sinks.ops"),
    (sink(PAGER + ", events: [execution.failed]"), "7:100: sinks.ops.events"),
    (sink(PAGER + ", remind_every: 4h"), "7:106: sinks.ops.remind_every"),
    (sink(PAGER + ", group: {by: [type]}"), "7:99: sinks.ops.group"),
    (sink(PAGER + ", group: {by: [labels.tema]}"), "7:105: sinks.ops.group.by[0]"),
    (sink(PAGER + ", rate_limit: 1/m"), "7:3: sinks.ops"),
    (sink("type: webhook, url: 'https://h.acme.io', routing_key: " + "k" * 32), "7:63: sinks.ops.routing_key"),
    (sink(PAGER + ", group: {by: [account], max: 10}"), "7:120: sinks.ops.group.max"),
    (sink("type: slack_bot, token: xapp-1, channel: C0123456789"), "7:33: sinks.ops.token"),
    (sink("type: slack_bot, token: xoxb-1-A, channel: '#ops'"), "7:52: sinks.ops.channel"),
    (sink("type: slack_bot, channel: C0123456789"), "7:3: sinks.ops"),
    (sink("type: slack_bot, token: xoxb-1-A"), "7:3: sinks.ops"),
    (sink(BOT + ", url: 'https://hooks.slack.com/services/x'"), "7:70: sinks.ops.url"),
    (sink(BOT + ", template: slack"), "7:65: sinks.ops.template"),
    (sink("type: email, server: smtp.acme.io, from: w, to: [o@acme.io]"), "7:50: sinks.ops.from"),
    (sink("type: email, server: 'https://smtp.acme.io', from: w@a.io, to: [o@a.io]"), "7:30: sinks.ops.server"),
    (sink("type: email, server: smtp.acme.io, from: w@a.io, to: o@a.io"), "7:62: sinks.ops.to"),
    (sink("type: email, server: smtp.acme.io, from: w@a.io, to: []"), "7:62: sinks.ops.to"),
    (sink(MAIL + ", username: w"), "7:3: sinks.ops.password"),
    (sink(MAIL + ", tls: none, username: w, password: p"), "7:89: sinks.ops.tls"),
    (sink(MAIL + ", tls: ssl"), "7:89: sinks.ops.tls"),
    (sink("type: email, host: smtp.acme.io, from: w@a.io, to: [o@a.io]"), "7:22: sinks.ops.host"),
    (sink("type: email, server: 'smtp.acme.io:465', tls: starttls, from: w@a.io, to: [o@a.io]"), "7:55: sinks.ops.tls"),
    (sink("type: email, server: 'smtp.acme.io:25', tls: tls, from: w@a.io, to: [o@a.io]"), "7:54: sinks.ops.tls"),
    (sink(MAIL + ", rate_limit: 1/m"), "7:3: sinks.ops"),
    (sink("type: apprise, url: 'xyz://t'"), "7:29: sinks.ops.url"),
    (sink("type: apprise, url: 'ntfy://a, ntfy://b'"), "7:29: sinks.ops.url"),
    (sink("type: stdout, format: text, url: x"), "7:37: sinks.ops.url"),
    (sink("type: stdout, format: yaml"), "7:31: sinks.ops.format"),
    (sink(HOOK + ", events: execution.failed"), "7:108: sinks.ops.events"),
    (sink(HOOK + ", events: [failed]"), "7:109: sinks.ops.events[0]"),
    (sink(HOOK + ", events: [execution.fail]"), "7:109: sinks.ops.events[0]"),
    (sink(HOOK + ", events: [pipeline.failing]", base=watch("name: a")), "5:109: sinks.ops.events[0]"),
    (sink(HOOK + ", events: []"), "7:108: sinks.ops.events"),
    (sink(HOOK + ", match: {team: sales}"), "7:108: sinks.ops.match.team"),
    (sink(HOOK + ", match: {labels: {team: slaes}}"), "7:116: sinks.ops.match.labels"),
    (sink(HOOK + ", match: {pipelines: [Sales]}"), "7:120: sinks.ops.match.pipelines[0]"),
    (sink("type: webhook, url: 'https://h.acme.io', secret: abc"), "7:58: sinks.ops.secret"),
    (sink("type: webhook, url: 'https://h.acme.io'"), "7:3: sinks.ops"),
    (sink(HOOK + ", headers: {Content-Type: x}"), "7:110: sinks.ops.headers.Content-Type"),
    (sink(HOOK + ", headers: [x]"), "7:109: sinks.ops.headers"),
    (sink(HOOK + ", timeout: 15"), "7:109: sinks.ops.timeout"),
    (sink(HOOK + ", rate_limit: 1/m"), "7:3: sinks.ops"),
    (sink(SLACK + ", rate_limit: 1/m"), "7:3: sinks.ops"),
    (sink(SLACK + ", rate_limit: 1/s/s"), "7:102: sinks.ops.rate_limit"),
    (sink(SLACK + ", rate_limit: 1/h"), "7:3: sinks.ops"),
    (sink(HOOK + ", retry: {schedule: [1]}"), "7:119: sinks.ops.retry.schedule[0]"),
    (sink(HOOK + ", retry: {schedule: 1s}"), "7:118: sinks.ops.retry.schedule"),
    (sink(HOOK + ", retry: {max: 3}"), "7:108: sinks.ops.retry.max"),
    (sink(HOOK + ", retry: {give_up_after: 1}"), "7:123: sinks.ops.retry.give_up_after"),
    (sink(HOOK + ", retries: 3"), "7:100: sinks.ops.retries"),
    (sink(HOOK + ", retry: {schedule: [1h], give_up_after: 10m}"), "7:139: sinks.ops.retry.give_up_after"),
    (sink(HOOK + ", group: 30s"), "7:107: sinks.ops.group"),
    (sink(HOOK + ", group: {by: pipeline}"), "7:112: sinks.ops.group.by"),
    (sink(HOOK + ", group: {by: [team]}"), "7:113: sinks.ops.group.by[0]"),
    (sink(HOOK + ", group: {by: [labels.team]}", base=watch("name: a")), "5:113: sinks.ops.group.by[0]"),
    (sink(SLACK + ", group: {by: [labels.tema]}"), "7:103: sinks.ops.group.by[0]"),
    (sink(HOOK + ", group: {max: 0}"), "7:113: sinks.ops.group.max"),
    (sink(SLACK + ", group: {max: 10}"), "7:103: sinks.ops.group.max"),
    (sink(HOOK + ", after: 10"), "7:107: sinks.ops.after"),
    (sink(HOOK + ", remind_every: 4"), "7:114: sinks.ops.remind_every"),
    (sink(HOOK + ", tls: {ca_file: /no/such}"), "7:115: sinks.ops.tls.ca_file"),
    (
        sink("type: webhook, url: 'http://h.local/x', tls: {ca_file: /etc/hosts}, secret: " + SECRET),
        "7:64: sinks.ops.tls.ca_file",
    ),
    (sink(HOOK + ", allow_private: never"), "7:115: sinks.ops.allow_private"),
    (sink("type: stdout, remind_every: 4h"), "7:23: sinks.ops.remind_every"),
    (sink("type: stdout, after: 10m"), "7:23: sinks.ops.after"),
    (silence("match: {}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"), "8:13: silences[0].match"),
    (
        silence("match: {sinks: [fone]}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:22: silences[0].match.sinks[0]",
    ),
    (silence("match: {sinks: [phone]}, from: 2026-12-24, until: 2099-12-27"), "8:56: silences[0].until"),
    (
        silence("match: {sinks: [phone]}, from: 2099-12-27T00:00:00Z, until: 2099-12-24T00:00:00Z"),
        "8:66: silences[0].until",
    ),
    (
        silence("match: {sinks: [phone]}, from: 2020-12-24T00:00:00Z, until: 2020-12-27T00:00:00Z"),
        "8:66: silences[0].until",
    ),
    (silence("match: {sinks: [phone]}, until: 2099-12-27T00:00:00Z"), "8:5: silences[0].from"),
    (silence("match: {sinks: [phone]}, for: 2h"), "8:31: silences[0].for"),
    (silence("match: {sinks: [phone]}, weekly: {days: [sat], from: '20:00', to: '08:00'}"), "8:31: silences[0].weekly"),
    (
        silence("match: {sinks: [phone]}, weekly: {days: [saturday], from: '20:00', to: '08:00', timezone: UTC}"),
        "8:47: silences[0].weekly.days[0]",
    ),
    (
        silence("match: {sinks: [phone]}, weekly: {days: [sat], from: '25:00', to: '08:00', timezone: UTC}"),
        "8:59: silences[0].weekly.from",
    ),
    (
        silence("match: {sinks: [phone]}, weekly: {days: [sat], from: '20:00', to: '08:00', timezone: CEST}"),
        "8:91: silences[0].weekly.timezone",
    ),
    (
        silence("match: {labels: {team: slaes}}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:22: silences[0].match.labels",
    ),
    (
        silence("match: {accounts: [defalt]}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:25: silences[0].match.accounts[0]",
    ),
    (
        silence("match: {events: [failed]}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:23: silences[0].match.events[0]",
    ),
    (silence("sinks: [phone], from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"), "8:6: silences[0].sinks"),
    (
        silence("match: {sinks: phone}, from: 2026-12-24T00:00:00Z, until: 2099-12-27T00:00:00Z"),
        "8:21: silences[0].match.sinks",
    ),
    (report("sinks: [chat]"), "7:11: reports.morning"),
    (report("at: 8, sinks: [chat]"), "7:25: reports.morning.at"),
    (report("at: '8:00', sinks: [chat]"), "7:25: reports.morning.at"),
    (report("at: '24:00', sinks: [chat]"), "7:25: reports.morning.at"),
    (report("at: '08:00'"), "7:11: reports.morning"),
    (report("at: '08:00', sinks: [page]"), "7:42: reports.morning.sinks[0]"),
    (report("at: '08:00', sinks: [caht]"), "7:42: reports.morning.sinks[0]"),
    (report("at: '08:00', sinks: chat"), "7:41: reports.morning.sinks"),
    (report("at: '08:00', timezone: Berlin, sinks: [chat]"), "7:44: reports.morning.timezone"),
    (report("at: '08:00', days: [monday], sinks: [chat]"), "7:41: reports.morning.days[0]"),
    (report("at: '08:00', days: [], sinks: [chat]"), "7:40: reports.morning.days"),
    (report("at: '08:00', sinks: []"), "7:41: reports.morning.sinks"),
    (WATCHED + "reports: {at: '08:00', sinks: [x]}\n", "6:31: reports.sinks"),
    (report("every: 1d, sinks: [chat]"), "7:21: reports.morning.every"),
    (WATCHED + "heartbeat: https://hc-ping.com/x\n", "6:12: heartbeat"),
    (WATCHED + "heartbeat: {url: hc-ping.com/x}\n", "6:18: heartbeat.url"),
    (WATCHED + "heartbeat: {every: 1m}\n", "6:1: heartbeat"),
    (WATCHED + "heartbeat: {url: 'https://hc-ping.com/your-check'}\n", "6:18: heartbeat.url"),
    (WATCHED + "heartbeat: {url: 'https://hc-ping.com/x', interval: 1m}\n", "6:43: heartbeat.interval"),
    (WATCHED + "heartbeat: {url: 'https://hc-ping.com/x', every: 1}\n", "6:50: heartbeat.every"),
    (WATCHED + "http: {listen: 8080}\n", "6:16: http.listen"),
    (WATCHED + "http: {listen: '0.0.0.0:8080'}\n", "6:16: http.listen"),
    (WATCHED + "http: {port: 8080}\n", "6:8: http.port"),
    (WATCHED + "http: {token: abc}\n", "6:15: http.token"),
    (WATCHED + "http: {token: tttttttttttttttttttt, read_token: tttttttttttttttttttt}\n", "6:49: http.read_token"),
    (WATCHED + "http: {public_url: watcher.acme.io}\n", "6:20: http.public_url"),
    (WATCHED + "http: {public_url: 'https://acme.io/watcher'}\n", "6:20: http.public_url"),
    (WATCHED + "http: {names: ['https://x']}\n", "6:16: http.names[0]"),
    (WATCHED + "http: {listen: '127.0.0.1:99999'}\n", "6:16: http.listen"),
    (WATCHED + "store: {url: watcher.db}\n", "6:14: store.url"),
    (WATCHED + "store: {url: 'sqlite:///no/such/dir/w.db'}\n", "6:14: store.url"),
    (WATCHED + "store: {url: 'mysql://x/y'}\n", "6:14: store.url"),
    (WATCHED + "store: {path: w.db}\n", "6:9: store.path"),
    (WATCHED + "store: {retention: 30}\n", "6:20: store.retention"),
    (WATCHED + "store: {url: 'postgresql://u:p@h/db'}\n", "6:14: store.url"),
    (WATCHED + "store: sqlite:///w.db\n", "6:8: store"),
    (WATCHED + "polling: {min_interval: 2m}\n", "6:25: polling.min_interval"),
    (WATCHED + "polling: {max_interval: 100ms}\n", "6:25: polling.max_interval"),
    (WATCHED + "polling: {interval: 5s}\n", "6:11: polling.interval"),
    (WATCHED + "polling: {cadence: fast}\n", "6:20: polling.cadence"),
    (WATCHED + "polling: {first_sight: all}\n", "6:24: polling.first_sight"),
    (WATCHED + "polling: {concurrency: 0}\n", "6:24: polling.concurrency"),
    (WATCHED + "polling: {details: all}\n", "6:20: polling.details"),
    (WATCHED + "polling: {lookback: 0s}\n", "6:21: polling.lookback"),
    (WATCHED + "log: {level: verbose}\n", "6:14: log.level"),
    (WATCHED + "log: debug\n", "6:6: log"),
    (WATCHED + "log: {format: text}\n", "6:15: log.format"),
    (ACCOUNT + "watch:\n\t- pipeline: PIPELINE\n", "3:1"),
    (ACCOUNT * 2, "2:1: accounts"),
    (ACCOUNT + "watch:\n  - pipeline: PIPELINE\n   labels: {a: b}\n", "4:4"),
    (ACCOUNT + "watch:\n  - pipeline:PIPELINE\n", "3:5: watch[0]"),
    ("accounts:\n  default:\n    api_key:k\n", "3:5: accounts.default"),
    (ACCOUNT + "wacth: []\n", "2:1: wacth"),
    ("- a\n", "1:1"),
    (ACCOUNT + "watch:\n  - pipeline: PIPELINE\n    name: Sales: agent\n", "4:16"),
    (ACCOUNT + "watch: *x\n", "2:8"),
    (ACCOUNT + "---\nwatch: []\n", "2:1"),
    (watch("name: “Sales”"), "3:60: watch[0].name"),
    (ACCOUNT + "watch:\n  - {pipeline: PIPELINE, name: 'Sales}\n", "3:60"),
    (ACCOUNT + "watch:\n  - pipeline: PIPELINE\n    <<: {a: b}\n", "4:10: watch[0].a"),
    (ACCOUNT.replace("k}", "@k}"), "1:31"),
    ("%d\n", "1:3"),
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
