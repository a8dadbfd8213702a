"""What people get wrong: each is answered at its place, as an error or a warning, with what would be right."""

from pathlib import Path

import pytest

from watcher.config.document import ConfigProblemsError, Document
from watcher.config.loader import load_config
from watcher.config.warnings import warnings_of

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
ACCOUNT = "accounts:\n  default:\n    api_key: k\n"
WATCH = f"watch:\n  - pipeline: {PIPELINE}\n"
BOTH = ACCOUNT + WATCH
RULES = "    rules: {failing: {consecutive: 3}}\n"
HOOK = f"{BOTH}sinks:\n  ops:\n    type: webhook\n    url: https://hooks.example.com/clerk\n    secret: {SECRET}\n"
PAGER = f"{BOTH}{RULES}sinks:\n  phone:\n    type: webhook\n    template: pagerduty\n    routing_key: {'k' * 32}\n"
SILENCE = f"{HOOK}silences:\n  - match: {{sinks: [ops]}}\n"
FOR_PAGERS = '"account.*", "sink.*"]'


def account(keys: str) -> str:
    return f"accounts:\n  default:\n    {keys}\n{WATCH}"


MISTAKES = [
    # where a key stands
    (f"{BOTH}rules:\n  failing: {{consecutive: 3}}\n", "6:1: rules: ", "write it in watch[]"),
    (f"{BOTH}overdue_after: {{running: 15m}}\n", "6:1: overdue_after: ", "write it in watch[]"),
    (f"{BOTH}    failing: {{consecutive: 3}}\n", "6:5: watch[0].failing: ", "write it in watch[].rules"),
    (f"{BOTH}    rules: {{consecutive: 3}}\n", "6:13: watch[0].rules.consecutive: ", "in watch[].rules.failing"),
    (f"accounts:\n  api_key: k\n{WATCH}", "2:12: accounts.api_key: ", "write accounts: {NAME: {api_key: …}}"),
    (f"accounts:\n  - api_key: k\n{WATCH}", "2:3: accounts: ", "write accounts: {default: {api_key:"),
    (f"{BOTH}sinks:\n  type: stdout\n", "7:9: sinks.type: ", "write sinks: {NAME: {type: …}}"),
    (f"{BOTH}sinks:\n  - type: stdout\n", "7:3: sinks: ", "write sinks: {ops: {type: webhook"),
    (f"{ACCOUNT}watch:\n  pipeline: {PIPELINE}\n", "5:3: watch: ", "write watch: [{pipeline: "),
    (f"{ACCOUNT}watch:\n  - {PIPELINE}\n", "5:5: watch[0]: ", "write watch: [{pipeline: "),
    (f"{HOOK}    match: {{team: sales}}\n", "11:13: sinks.ops.match.team: ", "write labels: {team: …}"),
    (f"{SILENCE.replace('match: {sinks: [ops]}', 'sinks: [ops]')}", "12:5: silences[0].sinks: ", "silences[].match"),
    # how a key is spelt
    (f"account:\n  default:\n    api_key: k\n{WATCH}", "1:1: account: ", 'did you mean "accounts"?'),
    (account("apikey: k"), "3:5: accounts.default.apikey: ", 'did you mean "api_key"?'),
    (f"{BOTH}polling:\n  interval: 5s\n", "7:3: polling.interval: ", 'did you mean "min_interval"?'),
    (f"{HOOK}    event: [execution.failed]\n", "11:5: sinks.ops.event: ", 'did you mean "events"?'),
    (f"{ACCOUNT}watch:\n  - pipelines: [{PIPELINE}]\n", "5:5: watch[0].pipelines: ", 'did you mean "pipeline"?'),
    (f"{BOTH}http:\n  port: 8080\n", "7:3: http.port: ", "allowed: listen"),
    (f"{BOTH}log: {{level: info}}\nlog: {{level: debug}}\n", "7:1: log: ", "given twice, first at line 6; remove one"),
    # variables and secrets
    (account("api_key: $CLERK_API_KEY"), "3:14: accounts.default.api_key: ", "write ${CLERK_API_KEY}, or $$"),
    (account("api_key: ${CLERK_API_KEY}"), "3:14: accounts.default.api_key: ", "export it, or use api_key_file"),
    (account("api_key: ${CLERK_API_KEY"), "3:14: accounts.default.api_key: ", "write ${NAME}"),
    (account("api_key:"), "3:13: accounts.default: ", "write api_key: ${CLERK_API_KEY}"),
    (account("api_key_file: /run/secrets/none"), "3:19: accounts.default.api_key_file: ", "correct the path"),
    (account("api_key_file: /"), "3:19: accounts.default.api_key_file: ", "Docker makes a directory"),
    (account("{api_key: k, api_key_file: f}"), "3:18: accounts.default: ", "keep one"),
    (f"{HOOK}    headers: {{Authorization: Bearer $OPS_TOKEN}}\n", "11:30: sinks.ops.headers.A", "write ${OPS_TOKEN}"),
    (f"{HOOK}    headers: {{Authorization: Bearer ${{OPS_TOKEN}}}}\n", "11:38: ", 'write "${NAME}"'),
    (HOOK.replace(SECRET, "s3cret"), "10:13: sinks.ops.secret: ", "make one: watcher init --secret"),
    (HOOK.replace(f"    secret: {SECRET}\n", ""), "7:3: sinks.ops: ", "make one: watcher init --secret"),
    # accounts
    (account("{api_key: k, rate_limit: 5}"), "3:30: accounts.default.rate_limit: ", "write 5/s or 300/m"),
    (account("{api_key: k, timeout: 10}"), "3:27: accounts.default.timeout: ", "write 10s, 10m, 10h or 10d"),
    (account("{api_key: k, base_url: 'https://web-api.clerk.chat/public'}"), "3:28: accounts.default.base_url: ",
     "write only scheme and host, such as https://web-api.clerk.chat"),
    (account("{api_key: k, base_url: web-api.clerk.chat}"), "3:28: accounts.default.base_url: ", "write it like"),
    # watches
    (f"{ACCOUNT}watch:\n  - pipeline: '*'\n", "5:15: watch[0].pipeline: ", "name each by its id"),
    (f"{ACCOUNT}watch:\n  - pipeline: *\n", "5:16: ", 'quote a glob: "*"'),
    (f"{ACCOUNT}watch:\n  - pipeline: Sales agent\n", "5:15: watch[0].pipeline: ", "copy the id"),
    (f"{ACCOUNT}watch:\n  - pipeline: 77aa0000-0000-4000-8000-000000000000\n", "5:15: watch[0].pipeline: ", "copy"),
    (f"{BOTH}    executions: {PIPELINE}\n", "6:17: watch[0].executions: ", "write executions: ["),
    (f"{BOTH}    executions: []\n", "6:17: watch[0].executions: ", "remove the key to watch every execution"),
    (f"{BOTH}    account: prod\n", "6:14: watch[0].account: ", "accounts are: default"),
    (f"{BOTH}  - pipeline: {PIPELINE}\n", "6:15: watch[1].pipeline: ", "merge the two entries"),
    (f"{BOTH}    overdue_after: 15m\n", "6:20: watch[0].overdue_after: ", "write overdue_after: {new: 2m, running"),
    (f"{BOTH}    overdue_after: {{failed: 15m}}\n", "6:21: watch[0].overdue_after.failed: ", "allowed: new, running"),
    (f"{BOTH}    rules: {{failing: 3}}\n", "6:22: watch[0].rules.failing: ", "write failing: {consecutive: 3}"),
    (f"{BOTH}    rules: {{failing: {{consecutive: 1}}}}\n", "6:36: watch[0].rules.failing.consecutive: ", "write 3"),
    (f"{BOTH}    rules: {{failing: {{rate: 0.2}}}}\n", "6:29: watch[0].rules.failing.rate: ", "write 20%"),
    (f"{BOTH}    rules: {{failing: {{rate: 1%}}}}\n", "6:29: watch[0].rules.failing.rate: ", "raise it, or of_last"),
    (f"{BOTH}    rules: {{silent: 6}}\n", "6:21: watch[0].rules.silent: ", "write 6s, 6m, 6h or 6d"),
    (f"{BOTH}polling:\n  min_interval: 2m\n", "7:17: polling.min_interval: ", "raise max_interval, or lower"),
    # sinks
    (HOOK.replace("webhook", "slack"), "8:11: sinks.ops.type: ", "write type: webhook and template: slack"),
    (HOOK.replace("    type: webhook\n", ""), "7:3: sinks.ops: ", "write type: stdout or webhook"),
    (HOOK.replace("https://", ""), "9:10: sinks.ops.url: ", "write it like https://"),
    (HOOK.replace("https://", "http://"), "9:10: sinks.ops.url: ", "write https://"),
    (f"{HOOK}    template: slak\n", "11:15: sinks.ops.template: ", 'did you mean "slack"?'),
    (f"{HOOK}    events: execution.failed\n", "11:13: sinks.ops.events: ", "write events: [execution.failed"),
    (f"{HOOK}    events: [failed]\n", "11:14: sinks.ops.events[0]: ", 'did you mean "execution.failed"?'),
    (f"{HOOK}    events: [pipeline.failing]\n", "11:14: sinks.ops.events[0]: ", "add rules: {failing: "),
    (f"{HOOK}    events: [execution.overdue]\n", "11:14: sinks.ops.events[0]: ", "add overdue_after: {running: 15m}"),
    (f"{HOOK}    match: {{labels: {{team: sales}}}}\n", "11:21: sinks.ops.match.labels: ", "give a watch these labels"),
    (f"{HOOK}    remind_every: 4\n", "11:19: sinks.ops.remind_every: ", "write 4s, 4m, 4h or 4d"),
    (f"{HOOK}    retry: 3\n", "11:12: sinks.ops.retry: ", "write retry: {schedule: ["),
    (f"{PAGER}    events: [execution.failed]\n", "12:14: sinks.phone.events[0]: ", FOR_PAGERS),
    (f"{PAGER}    events: ['pipeline.*']\n", "12:14: sinks.phone.events[0]: ", FOR_PAGERS),
    (PAGER, "8:3: sinks.phone: ", FOR_PAGERS),
    # silences
    (f"{SILENCE}    for: 2h\n", "13:5: silences[0].for: ", "write until: with the moment"),
    (f"{SILENCE}    from: 2026-12-24\n", "13:11: silences[0].from: ", "write date, time and zone"),
    (SILENCE.replace("[ops]", "[opps]"), "12:21: silences[0].match.sinks[0]: ", "these are: ops"),
    # store, http, log
    (f"{BOTH}store: sqlite:///watcher.db\n", "6:8: store: ", "write store: {url: sqlite:"),
    (f"{BOTH}store:\n  url: watcher.db\n", "7:8: store.url: ", "write sqlite:///watcher.db"),
    (f"{BOTH}store:\n  url: sqlite:////no/such/watcher.db\n", "7:8: store.url: ", "make it, or correct the path"),
    (f"{BOTH}store:\n  url: postgresql://u:pw@h/db\n", "7:8: store.url: ", "store.password_file"),
    (f"{BOTH}store:\n  retention: 30\n", "7:14: store.retention: ", "write 30s, 30m, 30h or 30d"),
    (f"{BOTH}http:\n  listen: 8080\n", "7:11: http.listen: ", "write 127.0.0.1:8080"),
    (f"{BOTH}log:\n  level: DEBUG\n", "7:10: log.level: ", 'did you mean "debug"?'),
    (f"{BOTH}log: debug\n", "6:6: log: ", "write log: {level: debug}"),
    # YAML
    (f"{BOTH}log:\n\tlevel: debug\n", "7:1: ", "use spaces"),
    (f"{BOTH}log:\n  level: debug\n format: json\n", "8:2: ", "indent keys of one block alike"),
    (f"{BOTH}log: {{level: debug\n", "7:1: ", "close it with ] or }"),
    (f'{BOTH}log:\n  level: "debug\n', "7:10: ", "close it"),
    (f"{BOTH}    name: Sales: the agent\n", "6:16: ", "quote a text that holds"),
    (f"{BOTH}    name: @sales\n", "6:11: ", "quote the text"),
    (f"{BOTH}    name: {{{{ sales }}}}\n", "6:12: ", "quote a value that begins with {"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "place", "remedy"), MISTAKES, ids=[f"{row[1]}{row[2]}" for row in MISTAKES])
def test_a_usual_mistake_is_answered_at_its_place_with_the_remedy(
    text: str, place: str, remedy: str, tmp_path: Path
) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(text)
    document = Document(file="watcher.yaml")
    try:
        problems = warnings_of(document, load_config(file, environ={}, document=document))
    except ConfigProblemsError as error:
        problems = error.problems
    lines = [str(each).removeprefix("watcher.yaml:") for each in problems]
    assert [line for line in lines if line.startswith(place) and remedy in line], lines
