"""What a file may hold and is likely a mistake: each is reported where it stands, and nothing else is."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from watcher.config.document import Document
from watcher.config.loader import load_config
from watcher.config.warnings import warnings_of

Warned = Callable[..., list[str]]

ROOT = Path(__file__).parents[3]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
SALES = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
OTHER = "7be2f0c4-1d5a-4c39-9f60-2a8e4d1b7c05"
RUN = "c2a4e6f8-3b5d-4f71-8c93-b1d2e3f4a5b6"
BASE = f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - {{pipeline: {SALES}, labels: {{team: sales}}}}\n"
NAMED = f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - {{pipeline: {SALES}, executions: [{RUN}]}}\n"
HOOK = f"sinks:\n  ops:\n    type: webhook\n    url: https://hooks.example.com/s3cret\n    secret: {SECRET}\n"
NO_SECRET = "has no secret, so its receiver cannot verify that events are yours; make one: watcher init --secret"
NOTHING = (
    "nothing that is watched can lead to any of these; execution.overdue needs overdue_after, pipeline.gap a pipeline "
    "watched whole, other pipeline.* a rule, sink.* another sink"
)
LABELS = "no watch has these labels; "
RELABEL = "give a watch these labels, or remove them here"
STRANGER = "no watch has this pipeline; add a watch for it, or remove it here"
BOTH = "no watch has both these labels and one of these pipelines; give the pipeline's watch these labels, or remove"
READ = "whoever is on the way can read the"
ALONE = "and nothing else of this pipeline is watched; remove executions to watch every one, or name yours"
COPY = "looks like the id of an example; copy yours from the pipeline's address in Clerk Chat"
BOT = "type: slack_bot, token: xoxb-1-A, channel: C0123456789"
TWICE = "what both ask for arrives twice; merge the two: events takes a list"
OPEN = (
    "can be reached from other machines; they may read /livez, /readyz and /metrics; "
    "write 127.0.0.1 in its place unless they should"
)


def pagers(key: str) -> str:
    """Two sinks at PagerDuty, with one URL."""
    pager = "type: webhook, template: pagerduty, routing_key: "
    return pair(pager + "a" * 32, pager + key)


def pair(one: str, two: str | None = None) -> str:
    """Two sinks with these keys, or both with the same."""
    return f"sinks:\n  one: {{{one}}}\n  two: {{{two or one}}}\n"


def rules(rules: str) -> str:
    account = "accounts: {default: {api_key: k}}"
    return f"{account}\nwatch:\n  - pipeline: {SALES}\n    labels: {{}}\n    rules: {{{rules}}}\n"


def second(url: str = "https://hooks.example.com/s3cret", *, more: str = "") -> str:
    return f"  two: {{type: webhook, url: '{url}', secret: {SECRET}{more}}}\n"


TABLE = [
    # match
    (BASE + HOOK + "    match: {labels: {team: slaes}}\n",
     [f'9:21: sinks.ops.match.labels: {LABELS}did you mean "team: sales"? G{RELABEL[1:]}']),
    (BASE + HOOK + "    match: {labels: {squad: one}}\n", [f"9:21: sinks.ops.match.labels: {LABELS}{RELABEL}"]),
    (BASE + HOOK + f"    match: {{pipelines: [{SALES}, {OTHER}]}}\n",
     [f"9:63: sinks.ops.match.pipelines[1]: {STRANGER}"]),
    (BASE + f"  - {{pipeline: {OTHER}}}\n" + HOOK + f"    match: {{labels: {{team: sales}}, pipelines: [{OTHER}]}}\n",
     [f"10:12: sinks.ops.match: {BOTH} one of the two"]),
    (BASE + "sinks: {console: {type: stdout, match: {labels: {a: b}}}}\n",
     [f"4:49: sinks.console.match.labels: {LABELS}{RELABEL}"]),
    (BASE + HOOK + "    events: ['account.*']\n    match: {labels: {a: b}}\n", []),
    (BASE + HOOK + f"    match: {{labels: {{team: sales}}, pipelines: [{SALES}]}}\n", []),
    # events that never come
    (BASE + HOOK + "    events: [execution.overdue]\n", [f"9:13: sinks.ops.events: {NOTHING}"]),
    (NAMED + HOOK + "    events: [pipeline.gap, 'execution.over*']\n", [f"9:13: sinks.ops.events: {NOTHING}"]),
    (NAMED + HOOK + "    events: [watcher.test]\n", [f"9:13: sinks.ops.events: {NOTHING}"]),
    (BASE + HOOK + "    events: ['sink.*']\n", [f"9:13: sinks.ops.events: {NOTHING}"]),
    (BASE + HOOK + "    events: ['sink.*']\n" + second("https://two.example"), []),
    (BASE + HOOK + "    events: [pipeline.gap]\n", []),
    (BASE + HOOK + "    events: [execution.overdue, execution.failed]\n", []),
    (BASE.replace("sales}}\n", "sales}, overdue_after: {new: 1m}}\n") + HOOK + "    events: [execution.overdue]\n", []),
    # webhooks
    (BASE + HOOK.replace(f"    secret: {SECRET}\n", ""), [f"5:3: sinks.ops: {NO_SECRET}"]),
    (BASE + HOOK.replace("https:", "http:"),
     [f"7:10: sinks.ops.url: http:// to hooks.example.com: {READ} events; write https://"]),
    (BASE + "sinks:\n  chat: {type: slack_bot, token: xoxb-1-A, channel: C0123456789, url: 'http://slack.example.com'}\n",
     [f"5:71: sinks.chat.url: http:// to slack.example.com: {READ} token; write https://"]),
    (BASE + HOOK + second("https://HOOKS.example.com:443/s3cret"),
     [f"9:29: sinks.two.url: the same URL as another sink's at line 7: {TWICE}"]),
    (BASE + HOOK + second(), [f"9:29: sinks.two.url: the same URL as another sink's at line 7: {TWICE}"]),
    (BASE + HOOK + "    events: [execution.failed]\n" + second(more=", events: [execution.lost]"), []),
    (BASE + HOOK + "    events: ['account.*']\n" + second(more=", events: ['execution.*']"), []),
    (BASE + f"  - {{pipeline: {OTHER}}}\n"
     + HOOK + f"    events: ['execution.*']\n    match: {{pipelines: [{SALES}]}}\n"
     + second(more=f", events: [execution.failed], match: {{pipelines: [{OTHER}]}}"), []),
    (BASE + HOOK + f"    match: {{pipelines: [{SALES}]}}\n" + second(more=", events: [account.degraded]"),
     [f"10:29: sinks.two.url: the same URL as another sink's at line 7: {TWICE}"]),
    (BASE + pair("type: apprise, url: 'ntfys://ntfy.example.com/s3cret'"),
     [f"6:29: sinks.two.url: the same URL as another sink's at line 5: {TWICE}"]),
    (BASE + pair("type: apprise, url: 'ntfys://ntfy.example.com/s3cret'", "type: apprise, url: 'ntfys://ntfy.sh/other'"),
     []),
    (BASE + pair(BOT), [f"6:52: sinks.two.channel: the same channel as another sink's at line 5: {TWICE}"]),
    (BASE + pair(BOT, BOT.replace("xoxb-1", "xoxb-2")),
     [f"6:52: sinks.two.channel: the same channel as another sink's at line 5: {TWICE}"]),
    (BASE + pair(f"{BOT}, events: ['account.*']", f"{BOT}, events: [execution.failed]"), []),
    (BASE + pair(BOT, BOT.replace("C0", "C1")), []),
    (BASE + pair(BOT, f"{BOT}, url: 'https://relay.example/api'"), []),
    # templates
    (BASE + "sinks: {chat: {type: webhook, template: slack, url: 'https://hooks.slack.com/services/x'}}", []),
    (BASE + pagers("b" * 32), []),
    (BASE + pagers("a" * 32),
     [f"6:3: sinks.two.url: the same URL as another sink's at line 5: {TWICE}"]),
    # accounts
    (BASE.replace("k}}", "k}, eu: {api_key: l}}").replace("labels", "account: default, labels"),
     ["1:35: accounts.eu: no watch names this account; watch something with it, or remove it"]),
    (BASE.replace("k}}", "k, base_url: 'http://api.example.com'}}"),
     [f"1:44: accounts.default.base_url: http:// to api.example.com: {READ} key; write https://"]),
    # examples
    (NAMED.replace(RUN, "9a1b0000-0000-4000-8000-000000000001"),
     [f"3:67: watch[0].executions[0]: looks like the id of an example, {ALONE}"]),
    (NAMED.replace(RUN, f"{RUN}, 9a1b0000-0000-4000-8000-000000000001"), []),
    (BASE.replace(SALES, "77aa0000-0000-4000-8000-000000000000"), [f"3:16: watch[0].pipeline: {COPY}"]),
    # rules
    (rules("silent: 6s"),
     [('5:21: watch[0].rules.silent: "6s" is so short that any pause between two executions opens a problem; '
      "write 6h, or at least 1m")]),
    (rules("silent: 1m"), []),
    (rules("failing: {rate: 0.2%}"),
     [('5:29: watch[0].rules.failing.rate: "0.2%" of 20 ends is less than one: a single failure opens a problem; '
      "raise it, or of_last")]),
    (rules("failing: {rate: 5%}"), []),
    (rules("failing: {rate: 1%, of_last: 100}"), []),
    # listening
    (BASE + "http: {listen: '0.0.0.0:8080'}\n", [f"4:16: http.listen: 0.0.0.0:8080 {OPEN}"]),
    (BASE + "http: {listen: '[::1]:8080'}\n", []),
    # all of them, by their place
    ("http: {listen: ':80'}\n" + NAMED.replace(SALES, "77aa0000-0000-4000-8000-000000000000"),
     [f"1:16: http.listen: :80 {OPEN}", f"4:16: watch[0].pipeline: {COPY}"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), TABLE)
def test_what_is_likely_a_mistake_is_reported_where_it_is(text: str, lines: list[str], warned: Warned) -> None:
    assert warned(text) == lines


LOCAL = (
    *("localhost", "127.0.0.2", "[::1]", "10.1.2.3", "172.31.0.1", "192.168.0.9", "169.254.1.1", "[fd00::1]"),
    *("[::ffff:10.0.0.1]", "receiver", "receiver.local", "ops.prod.svc", "a.svc.cluster.local", "db.internal."),
)


@pytest.mark.parametrize("host", LOCAL)
def test_what_stays_in_the_house_may_go_in_clear(host: str, warned: Warned) -> None:
    assert warned(BASE + HOOK.replace("https://hooks.example.com", f"http://{host}:8080")) == []


@pytest.mark.parametrize("host", ["203.0.113.5", "172.32.0.1", "[2001:db8::1]", "[::ffff:8.8.8.8]", "notlocal.com"])
def test_what_leaves_it_should_not(host: str, warned: Warned) -> None:
    (line,) = warned(BASE + HOOK.replace("https://hooks.example.com", f"http://{host}:8080"))
    assert f"http:// to {host.strip('[]')}: " in line.replace("0:808", "").replace("::ffff:808:808", "::ffff:8.8.8.8")


def test_nothing_of_a_secret_or_of_a_value_from_elsewhere_is_shown(warned: Warned) -> None:
    Path("url").write_text("http://hooks.example.com/s3cret\n")
    lines = warned(
        BASE + "sinks:\n  ops: {type: webhook, url_file: url, match: {labels: {team: '${TEAM}'}}}\n", TEAM="slaes"
    )
    assert [line.split(": ")[1] for line in lines] == ["sinks.ops", "sinks.ops.url_file", "sinks.ops.match.labels"]
    assert not [line for line in lines if "s3cret" in line or "slaes" in line or "sales" in line]


LOUD = {"WATCHER_HTTP_LISTEN": "0.0.0.0:8080", "WATCHER_LOG_LEVEL": "debug", "WATCHER_STORE_URL": "sqlite:////d/w.db"}


def test_a_file_that_wins_over_a_variable_says_so(warned: Warned) -> None:
    text = f"{BASE}http: {{listen: 127.0.0.1:8080}}\nlog: {{level: info}}\nstore: {{url: sqlite:///w.db}}\n"
    lines = warned(text, **LOUD)
    rest = "which says otherwise; remove the key to use the variable, or unset the variable"
    assert lines == [
        f'4:16: http.listen: "127.0.0.1:8080" wins over $WATCHER_HTTP_LISTEN, {rest}',
        f'5:14: log.level: "info" wins over $WATCHER_LOG_LEVEL, {rest}',
        f'6:14: store.url: "sqlite:///w.db" wins over $WATCHER_STORE_URL, {rest}',
    ]


def test_a_variable_that_is_used_or_says_the_same_is_no_matter(warned: Warned) -> None:
    assert warned(BASE, **LOUD) == []
    assert warned(f"{BASE}log: {{level: debug}}\n", **LOUD) == []
    assert warned(f"{BASE}log: {{level: debug}}\n", WATCHER_LOG_LEVEL="") == []


@pytest.mark.parametrize("path", sorted((*ROOT.glob("config/*.yaml"), *ROOT.glob("deploy/config/*.yaml"))))
def test_an_example_is_warned_of_for_its_ids_alone(path: Path, tmp_path: Path) -> None:
    (tmp_path / "clerk_api_key").write_text("k\n")
    (tmp_path / "ops_webhook_secret").write_text(f"{SECRET}\n")
    (tmp_path / "templates").symlink_to(ROOT / "config" / "templates")
    copy = tmp_path / path.name
    copy.write_text(path.read_text().replace("/run/secrets", str(tmp_path)))
    document = Document(file=str(copy))
    keys = {"CLERK_API_KEY": "k", "CLERK_API_KEY_US": "u", "CLERK_API_KEY_EU": "e"}
    receivers = {
        "SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x",
        "DISCORD_WEBHOOK_URL": "https://discord.com/api/webhooks/1/x",
        "TEAMS_WEBHOOK_URL": "https://example.environment.api.powerplatform.com/x?sig=x",
        "NTFY_TOKEN": "t",
        "PAGERDUTY_ROUTING_KEY": "k" * 32,
        "SLACK_BOT_TOKEN": "xoxb-1-A",
        "APPRISE_URL": "ntfys://ntfy.sh/x",
    }
    environ = keys | receivers | {"OPS_WEBHOOK_SECRET": SECRET, "OPS_TOKEN": "t"} | LOUD
    settings = load_config(copy, environ=environ, document=document)
    warnings = warnings_of(document, settings, environ=environ, now=NOW)
    ids = [watch["pipeline"] for watch in yaml.safe_load(copy.read_text())["watch"]]
    assert [each.problem for each in warnings] == ["looks like the id of an example"] * sum(
        "0000-4000" in i for i in ids
    )
