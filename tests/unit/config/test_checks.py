"""What a file may hold and is likely a mistake: each is reported where it stands, and nothing else is."""

from pathlib import Path
from uuid import UUID, uuid5

import pytest
from unit.config.conftest import Load, Warned

from watcher.config.checks import fits, network_disk, outage_messages
from watcher.domain.event import EVENT_KINDS
from watcher.sinks.settings import RemoteSettings

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
SALES = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
OTHER = "7be2f0c4-1d5a-4c39-9f60-2a8e4d1b7c05"
RUN = "c2a4e6f8-3b5d-4f71-8c93-b1d2e3f4a5b6"
BASE = f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - {{pipeline: {SALES}, labels: {{team: sales}}}}\n"
NAMED = f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - {{pipeline: {SALES}, executions: [{RUN}]}}\n"
HOOK = f"sinks:\n  ops:\n    type: webhook\n    url: https://hooks.example.com/s3cret\n    secret: {SECRET}\n"
NO_SECRET = "has no secret, so its receiver cannot verify that events are yours; make one: watcher init --secret"
UNFIT = "no watch fits all of what is given; give a watch its labels, or correct it here"
READ = "whoever is on the way can read the"
COPY = "looks like the id of an example; copy yours from the pipeline's address in Clerk Chat"
PAGE = "is the address of a page, not of a webhook; copy the webhook's URL: see docs/receivers"
ADDRESSES = {
    "https://acme.slack.com/archives/C0123456789": True,
    "https://app.slack.com/client/T0/C0": True,
    "https://discord.com/channels/1/2": True,
    "https://teams.microsoft.com/l/channel/19": True,
    "https://acme.pagerduty.com/services/P0": True,
    "https://myslack.com/archives/x": False,
}
NO_TOKEN = (
    "without a token only probes and metrics are served beyond this machine; set http.token, or listen on 127.0.0.1"
)
SHORT = "has fewer than 16 characters: others may guess it; make one: openssl rand -hex 32"
CURLY = "begins with a curly quote; write \" or '"
PAST = "is in the past, so nothing is silenced; correct it, or remove this silence"
ONLY_RULES = "only rules lead to {}, and no watch of this sink has any; add rules: {{{}}} to a watch"
OF_RULES = sorted(
    each for each, kind in EVENT_KINDS.items() if kind.setting.startswith("rules") and each.startswith("pipeline.")
)
NO_RULES = ONLY_RULES.format(" and ".join(OF_RULES), "failing: {consecutive: 3}")
RULES = {
    "pipeline.failing": "failing: {consecutive: 3}",
    "pipeline.silent": "silent: 6h",
    "pipeline.slow": "slow: {}",
    "pipeline.on_time": "slow: {}",
    "execution.expensive": "tokens: {execution: 20000}",
    "pipeline.overspending": "tokens: {per_day: 2000000}",
    "pipeline.new_error": "new_error: true",
}
"""An example of the rule that leads to each event."""

CLOSING = 'events: [pipeline.failing, pipeline.silent, pipeline.slow, execution.overdue, "account.*", "sink.*"]'
NO_PAGE = (
    "no rule and no overdue_after can open a problem of a pipeline for this pager: "
    "it would page for accounts and sinks at most; add rules: {failing: {consecutive: 3}} to a watch"
)
OVER_DAY = "is more than per_day 20000: one such execution uses more than a day may; lower execution, or raise per_day"
OPENS = "opens incidents that nothing closes"
MOMENTS = "execution.failed, pipeline.gap, pipeline.new_error, pipeline.overspending"
LEAVE_OUT = "leave events out: by default it gets what opens a problem"
PAGER = f"sinks: {{phone: {{type: webhook, template: pagerduty, routing_key: {'k' * 32}%s}}}}\n"
UNTIL = "from: 2026-11-01T00:00:00Z, until: 2099-12-01T00:00:00Z"


RULED = (
    f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - pipeline: {SALES}\n    labels: {{}}\n"
    "    rules: {failing: {consecutive: 3}}\n"
)

UNTOLD = "of this watch no sink but stdout is sent"
OFF = "has no value, so this rule is off"
EMPTY = {
    "failing": "{consecutive: 3}",
    "silent": "6h",
    "slow": "{times: 3, at_least: 1m}",
    "tokens": "{execution: 20000, per_day: 2000000}",
    "new_error": "true",
}
"""An example of each rule."""

LOOSE = "is a label that no watch of this sink has, so nothing is grouped; give watches the label, or write account"
NO_CHECK = "is an example, so nobody notices when the pings stop; copy the URL of a check of your own"
ONCE = "is over before the second attempt, so nothing is tried again; raise it, or lower the first step of schedule"
NOTE = (
    "only adds a note to the incident: PagerDuty rings until somebody acknowledges it there; "
    "remove it; PagerDuty's own escalation policy is what rings again"
)


def takes(host: str, template: str) -> str:
    said = f"is of {host}, which takes only messages of template {template}"
    return f"{said}; write type: webhook and template: {template}, or correct the URL"


OF_SLACK, OF_DISCORD = takes("hooks.slack.com", "slack"), takes("discord.com", "discord")
OF_PAGERDUTY = takes("events.pagerduty.com", "pagerduty")


def posts(url: str, template: str) -> str:
    """Return a sink with this URL, which stands at 4:18."""
    return f"sinks: {{x: {{url: '{url}', type: webhook, template: {template}}}}}\n"


TABLE = [
    # match
    (BASE + HOOK + "    match: {labels: {team: slaes}}\n",
     [f"9:21: sinks.ops.match.labels: {UNFIT}"]),
    (BASE + HOOK + f"    match: {{pipelines: [{SALES}, {OTHER}]}}\n",
     []),
    (BASE + f"  - {{pipeline: {OTHER}}}\n" + HOOK + f"    match: {{labels: {{team: sales}}, pipelines: [{OTHER}]}}\n",
     [f"10:21: sinks.ops.match.labels: {UNFIT}"]),
    (BASE + "sinks: {console: {type: stdout, match: {labels: {a: b}}}}\n",
     [f"4:49: sinks.console.match.labels: {UNFIT}"]),
    (BASE + HOOK + "    events: ['account.*']\n    match: {labels: {a: b}}\n", []),
    (BASE + HOOK + f"    match: {{labels: {{team: sales}}, pipelines: [{SALES}]}}\n", []),
    (BASE + HOOK + "reports: {a: {at: '08:00', sinks: [ops], match: {labels: {team: slaes}}}}\n",
     [f"9:58: reports.a.match.labels: {UNFIT}"]),
    # silences
    (BASE + f"silences: [{{match: {{labels: {{team: slaes}}}}, {UNTIL}}}]",
     [f"4:29: silences[0].match.labels: {UNFIT}"]),
    (BASE + f"silences: [{{match: {{pipelines: [{OTHER}]}}, {UNTIL}}}]",
     [f"4:20: silences[0].match: {UNFIT}"]),
    (BASE + f"silences: [{{match: {{labels: {{team: sales}}, accounts: [default]}}, {UNTIL}}}]", []),
    (BASE + "silences: [{match: {accounts: [default]}, from: 2020-01-01T00:00:00Z, until: 2020-01-02T00:00:00Z}]",
     [f"4:78: silences[0].until: {PAST}"]),
    (BASE + "silences: [{match: {accounts: [default]}, weekly: {days: [sat], from: '01:00', to: '02:00', "
     "timezone: UTC}}]", []),
    # events that only rules, or a limit, lead to
    (BASE + HOOK + "    events: ['pipeline.*', 'account.*']\n", [f"9:14: sinks.ops.events[0]: {NO_RULES}"]),
    *((BASE + HOOK + f"    events: [{type_}]\n", [f"9:14: sinks.ops.events[0]: {ONLY_RULES.format(type_, rule)}"])
      for type_, rule in RULES.items()),
    (RULED + HOOK + "    events: ['pipeline.*']\n", []),
    (BASE + HOOK + "    events: ['pipeline.*']\n    match: {labels: {team: slaes}}\n",
     [f"10:21: sinks.ops.match.labels: {UNFIT}"]),
    (RULED + f"  - {{pipeline: {OTHER}, labels: {{team: b}}}}\n" + HOOK
     + "    events: ['pipeline.*']\n    match: {labels: {team: b}}\n", [f"12:14: sinks.ops.events[0]: {NO_RULES}"]),
    (RULED + HOOK + f"    events: ['pipeline.*']\n    match: {{pipelines: [{SALES}]}}\n", []),
    (BASE + HOOK + "    events: [pipeline.gap]\n", []),
    (BASE + HOOK + "    events: ['*']\n", []),
    (BASE + HOOK + "    events: ['execution.*']\n", []),
    (RULED.replace("consecutive: 3", "consecutive: 1"),
     ["5:36: watch[0].rules.failing.consecutive: opens a problem at each failure; write 2 or more, or a rate"]),
    *((RULED.replace("failing: {consecutive: 3}", f"{key}: "),
       [f"5:{14 + len(key) + 1}: watch[0].rules.{key}: {OFF}; write {key}: {example}, or remove the key"])
      for key, example in EMPTY.items()),
    (RULED.replace("failing: {consecutive: 3}", "slow: {}"), []),
    (RULED.replace("failing: {consecutive: 3}", "tokens: {execution: 20001, per_day: 20000}"),
     [f"5:33: watch[0].rules.tokens.execution: {OVER_DAY}"]),
    *((RULED.replace("failing: {consecutive: 3}", f"tokens: {tokens}"), [])
      for tokens in ("{execution: 20000, per_day: 20000}", "{execution: 20000}", "{per_day: 20000}")),
    # pagers
    (RULED + PAGER % "", []),
    (BASE + PAGER % "", [f"4:9: sinks.phone: {NO_PAGE}"]),
    (BASE.replace("sales}", "sales}, rules: {}") + PAGER % "", [f"4:9: sinks.phone: {NO_PAGE}"]),
    (BASE.replace("sales}", "sales}, overdue_after: {new: 1m}") + PAGER % "", []),
    (BASE.replace("sales}", "sales}, rules: {silent: 6h}") + PAGER % "", []),
    (BASE.replace("sales}", "sales}, rules: {slow: {}}") + PAGER % "", []),
    (BASE.replace("sales}", "sales}, rules: {tokens: {per_day: 9}, new_error: true}") + PAGER % "",
     [f"4:9: sinks.phone: {NO_PAGE}"]),
    (RULED + PAGER % ", events: [pipeline.slow]",
     [f"6:108: sinks.phone: {NO_PAGE.replace('failing: {consecutive: 3}', 'slow: {}')}"]),
    (BASE.replace("sales}", "sales}, rules: {silent: 6h}") + PAGER % ", events: [pipeline.failing]",
     [f"4:108: sinks.phone: {NO_PAGE}"]),
    (RULED + f"  - {{pipeline: {OTHER}, labels: {{team: support}}}}\n" + PAGER % ", match: {labels: {team: support}}",
     [f"7:9: sinks.phone: {NO_PAGE}"]),
    (BASE + PAGER % ", events: ['account.*', 'sink.*']", []),
    (RULED + PAGER % ", events: [execution.success, 'problem.*', 'watcher.*', pipeline.recovered, 'delivery.*']",
     [f"6:108: sinks.phone.events: {OPENS}: delivery.dead, execution.success; {LEAVE_OUT}"]),
    (RULED + PAGER % ", events: ['account.*', execution.failed, 'pipeline.*']",
     [f"6:108: sinks.phone.events: {OPENS}: {MOMENTS}; {LEAVE_OUT}"]),
    (RULED.replace("labels: {}", "overdue_after: {new: 1m}") + PAGER % f", {CLOSING}", []),
    (RULED + PAGER % ", match: {labels: {team: support}}", [f"6:116: sinks.phone.match.labels: {UNFIT}"]),
    # groups
    (RULED + HOOK + "    group: {by: [pipeline, labels.team]}\n",
     [f'11:28: sinks.ops.group.by[1]: "labels.team" {LOOSE}']),
    (RULED + PAGER % ", group: {by: [labels.team]}", [f'6:113: sinks.phone.group.by[0]: "labels.team" {LOOSE}']),
    (BASE + HOOK + "    group: {by: [labels.team]}\n", []),
    (RULED + PAGER % ", group: {max: 9}",
     ["6:113: sinks.phone.group.max: is only for a webhook without template, so it does nothing; remove it"]),
    (BASE + HOOK + "    group: {max: 9}\n", []),
    (BASE + HOOK + "    retry: {schedule: [1h], give_up_after: 1h}\n",
     [f"9:44: sinks.ops.retry.give_up_after: {ONCE}"]),
    (BASE + HOOK + "    retry: {schedule: [59m, 2h], give_up_after: 1h}\n", []),
    # receivers
    (RULED + PAGER % ", remind_every: 4h", [f"6:114: sinks.phone.remind_every: {NOTE}"]),
    *((BASE + posts("https://hooks.slack.com/services/x", template), [f"4:18: sinks.x.url: {OF_SLACK}"])
      for template in ("discord", "alertmanager")),
    (BASE + posts("https://discord.com/api/webhooks/1/x", "slack"), [f"4:18: sinks.x.url: {OF_DISCORD}"]),
    (BASE + HOOK.replace("https://hooks.example.com/s3cret", "https://events.pagerduty.com/v2/enqueue"),
     [f"7:10: sinks.ops.url: {OF_PAGERDUTY}"]),
    (BASE + posts("https://discord.com/api/webhooks/1/x/slack", "slack"), []),
    (BASE + posts("https://acme.environment.api.powerplatform.com/x", "slack"), []),
    (BASE + posts("https://chat.acme.io/hooks/x", "slack"), []),
    (BASE + HOOK.replace("https://hooks.example.com/s3cret", "https://discord.com/api/webhooks/1/x"),
     [f"7:10: sinks.ops.url: {OF_DISCORD}"]),
    (BASE + "sinks: {x: {type: slack_bot, token: xoxb-1, channel: C0123456789, url: 'https://hooks.slack.com/x'}}\n",
     [f"4:72: sinks.x.url: {OF_SLACK}"]),
    *((BASE + f"sinks: {{m: {{type: email, tls: {tls}, server: 'h.acme.io:{port}', from: w@h.io, to: [o@h.io]}}}}\n",
       [f"4:31: sinks.m.tls: {tls} does not fit port {port}; remove tls; 465 is the port for tls, 587 for starttls"]
       if is_wrong else [])
      for tls, port, is_wrong in (("tls", 587, True), ("tls", 25, True), ("starttls", 465, True), ("tls", 465, False),
                                  ("starttls", 587, False), ("tls", 2465, False), ("none", 25, False))),
    # the heartbeat
    (BASE + "heartbeat: {url: 'https://hc-ping.com/your-check'}\n",
     [f"4:18: heartbeat.url: {NO_CHECK}"]),
    (BASE + "heartbeat: {url: 'https://hc-ping.com/0b5c8f1e'}\n", []),
    # webhooks
    (BASE + HOOK.replace(f"    secret: {SECRET}\n", ""), [f"5:3: sinks.ops: {NO_SECRET}"]),
    (BASE + HOOK.replace("https:", "http:"),
     [f"7:10: sinks.ops.url: http:// to hooks.example.com: {READ} events; write https://"]),
    (BASE + "sinks: {chat: {type: webhook, template: slack, url: 'https://hooks.slack.com/services/x'}}", []),
    *((BASE + HOOK.replace("https://hooks.example.com/s3cret", url),
       [f"7:10: sinks.ops.url: {PAGE}"] if is_page else []) for url, is_page in ADDRESSES.items()),
    # http
    (BASE + "http: {listen: ':8766'}", [f"4:16: http.listen: {NO_TOKEN}"]),
    (BASE + "http: {listen: '0.0.0.0:8766', token: ''}", [f"4:16: http.listen: {NO_TOKEN}"]),
    *((BASE + f"http: {{listen: '{host}:8766'}}", []) for host in ("127.0.0.1", "[::1]", "localhost")),
    (BASE + f"http: {{listen: ':8766', token: {'t' * 16}}}", []),
    (BASE + f"http: {{listen: ':8766', token: {'t' * 15}}}", [f"4:32: http.token: {SHORT}"]),
    # how it is written
    (BASE.replace("{team: sales}", "{team: “sales”}"), [f"3:69: watch[0].labels.team: {CURLY}"]),
    (BASE.replace("{team: sales}", "{team: '“sales”', to: no“}"), []),
    # accounts
    (BASE.replace("k}}", "k, base_url: 'http://api.example.com'}}"),
     [f"1:44: accounts.default.base_url: http:// to api.example.com: {READ} key; write https://"]),
    # examples
    (BASE.replace(SALES, "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"), [f"3:16: watch[0].pipeline: {COPY}"]),
    (BASE.replace(SALES, "77aa0000-0000-4000-8000-000000000000"), [f"3:16: watch[0].pipeline: {COPY}"]),
    # store
    (BASE + "store: {url: 'sqlite:////no/such/folder/watcher.db'}",
     ["4:14: store.url: there is no folder /no/such/folder; make it, or correct the path"]),
    (BASE + "store: {url: 'sqlite:///%s/w.db'}" % ("x" * 300), None),
    (BASE + "store: {url: 'postgresql://db/watcher'}", []),
    # all of them, by their place
    (NAMED.replace(SALES, "77aa0000-0000-4000-8000-000000000000") + "store: {url: sqlite:////no/such/w.db}",
     [f"3:16: watch[0].pipeline: {COPY}",
      "4:14: store.url: there is no folder /no/such; make it, or correct the path"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "lines"), TABLE)
def test_what_is_likely_a_mistake_is_reported_where_it_is(text: str, lines: list[str] | None, warned: Warned) -> None:
    found = [line for line in warned(text) if UNTOLD not in line]
    assert len(found) == 1 if lines is None else found == lines


def told(own: str, *sinks: str) -> str:
    """Return two watches, the first with these settings, and webhooks with these."""
    watches = f"  - {{pipeline: {SALES}, labels: {{team: sales}}{own}}}\n  - {{pipeline: {OTHER}{own}}}\n"
    hooks = [f"  {n}: {{type: webhook, url: 'https://h.example', secret: {SECRET}{s}}}\n" for n, s in enumerate(sinks)]
    return f"accounts: {{default: {{api_key: k}}}}\nwatch:\n{watches}" + ("sinks:\n" + "".join(hooks) if hooks else "")


FAILING, LABELLED = ", rules: {failing: {consecutive: 3}, new_error: true}", ", match: {labels: {team: sales}}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (told(FAILING, ""), []),
        (told("", ""), []),
        (told(""), []),  # somebody reads stdout
        (told(FAILING), [f"3:5: watch: {UNTOLD} pipeline.failing"]),  # once: all others are the same
        (told(FAILING, LABELLED), [f"4:5: watch: {UNTOLD} pipeline.failing"]),
        (told("", LABELLED), [f"4:5: watch: {UNTOLD} execution.failed"]),
        (told(", rules: {new_error: true}", LABELLED), [f"4:5: watch: {UNTOLD} execution.failed"]),
        (told(FAILING, LABELLED, ", events: [pipeline.silent]"), [f"4:5: watch: {UNTOLD} pipeline.failing"]),
        (told(FAILING, LABELLED, ", events: [pipeline.failing]"), []),
    ],
)
def test_a_watch_of_which_nobody_is_told_is_named(text: str, lines: list[str], warned: Warned) -> None:
    found = [line.partition(";") for line in warned(text) if UNTOLD in line]
    assert [before for before, _, _ in found] == lines
    expected = " see watcher check --who" if "sinks:" in text else " add one under sinks"
    assert all(remedy == expected for _, _, remedy in found)


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
40 22 0:45 / /srv rw - nfs4 files:/srv rw
41 40 8:1 / /srv/local\\040disk rw - xfs /dev/sdb1 rw
42 22 0:46 / /mnt rw master:1 propagate_from:2 - fuse.sshfs me@there: rw
43 22 0:47 / /over rw - nfs there: rw
44 43 8:2 / /over rw - ext4 /dev/sdc1 rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/watcher", None),
        ("/srv/watcher", "nfs4"),
        ("/srv/local disk/watcher", None),
        ("/mnt", "fuse.sshfs"),
        ("/srvx", None),
        ("/over/watcher", None),
    ],
)
def test_a_folder_on_a_network_disk_is_known_by_its_mount(folder: str, kind: str | None) -> None:
    assert network_disk(Path(folder), MOUNTS) == kind


def test_a_store_at_no_good_place_is_said(warned: Warned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned(BASE, WATCHER_STORE_URL="sqlite:////no/such/w.db") == [
        "$WATCHER_STORE_URL: store.url: there is no folder /no/such; make it, or correct the path"
    ]
    mounts = tmp_path / "mountinfo"
    monkeypatch.setattr("watcher.config.checks._MOUNTS", mounts)
    assert warned(BASE) == []  # not Linux
    mounts.write_text("40 22 0:45 / / rw - nfs4 files:/srv rw\n")
    (line,) = warned(BASE)
    assert line.startswith("1:1: store.url: ")
    assert line.endswith(
        "is on a network disk (nfs4), where locks may fail and the file be damaged; "
        "name a local disk, or use PostgreSQL"
    )


def pipelines(count: int, failing: str = "") -> str:
    """Return a file that watches so many pipelines, of which two at a time share a label, with this rule `failing`."""
    ids = (uuid5(UUID(SALES), str(number)) for number in range(count))
    rules = f", rules: {{failing: {failing}}}" if failing else ""
    watches = "".join(f"  - {{pipeline: {id_}, labels: {{team: t{at // 2}}}{rules}}}\n" for at, id_ in enumerate(ids))
    return f"accounts: {{default: {{api_key: k}}}}\nwatch:\n{watches}"


def chat(more: str = "", template: str = "slack") -> str:
    return f"sinks: {{chat: {{type: webhook, template: {template}, url: 'https://hooks.example.com/x'{more}}}}}\n"


BOT = "sinks: {chat: {type: slack_bot, token: xoxb-1, channel: C0123456789%s}}\n"
MAIL = "sinks: {mail: {type: email, server: smtp.acme.io, from: w@acme.io, to: [o@acme.io]%s}}\n"
NTFY = "sinks: {ntfy: {type: apprise, url: 'ntfys://ntfy.sh/t'%s}}\n"
ACCOUNT = ", group: {by: [account], wait: 10s}"
FAILURES = ", events: [execution.failed, 'pipeline.*']"


@pytest.mark.parametrize(
    ("count", "rules", "sink", "messages"),
    [
        # without a rule five failures of each pipeline, alone
        (10, "", chat(), 50),
        (10, "", chat(", events: ['execution.*']"), 50),
        (10, "", chat(", events: ['pipeline.*', 'account.*']"), 0),
        (10, "", chat(", match: {labels: {team: t1}}"), 10),
        # or in groups: a message each ten seconds, or each half minute, and never more than there are failures
        (10, "", chat(ACCOUNT), 6),
        (10, "", chat(", group: {by: [labels.team]}"), 10),
        (10, "", chat(", group: {by: [labels.other, type]}"), 20),
        (10, "", chat(", group: {wait: 1s}"), 50),
        # with a rule the failures before its problem, and one message each for openings, acknowledgements, closings
        (10, "{consecutive: 3}", chat(), 20 + 3),
        (10, "{consecutive: 20}", chat(), 50 + 3),
        (10, "{rate: 20%, at_least: 2}", chat(), 10 + 3),
        (10, "{consecutive: 3}", chat(ACCOUNT), 6 + 3),
        (10, "{consecutive: 3}", chat(", group: {by: [labels.team], wait: 10s}"), 20 + 30),  # two in each group
        (3, "{consecutive: 3}", chat(), 6 + 9),
        (4, "{consecutive: 3}", chat(), 8 + 3),
        # unless execution.failed is named
        (10, "{consecutive: 3}", chat(FAILURES), 50 + 3),
        (10, "{consecutive: 3}", chat(", events: ['execution.*', 'pipeline.*']"), 20 + 3),
        *((10, "{consecutive: 3}", sink % ACCOUNT, 6 + 3) for sink in (MAIL, NTFY)),
        (10, "{consecutive: 3}", chat(template="discord"), 20 + 3),
        (10, "{consecutive: 3}", chat(template="teams"), 20 + 3),
        # where each problem is sent alone
        (10, "{consecutive: 3}", chat(template="alertmanager"), 50 + 30),
        (10, "{consecutive: 3}", HOOK, 50 + 30),
        (10, "{consecutive: 3}", BOT % ACCOUNT, 6 + 30),
        # incidents
        (10, "{consecutive: 3}", PAGER % "", 30),
        (10, "{consecutive: 3}", PAGER % ", group: {by: [account]}", 3),
        (10, "", PAGER % "", 0),
    ],
)
def test_messages_of_an_outage_are_counted_as_sent(
    count: int, rules: str, sink: str, messages: int, load: Load
) -> None:
    settings = load(pipelines(count, rules) + sink)
    ((_, found),) = [each for each in settings.sinks.items() if each[0] != "stdout"]
    assert isinstance(found, RemoteSettings)
    assert outage_messages([each for each in settings.watch if fits(each, found.match)], found) == messages


def test_a_sink_too_slow_for_an_outage_is_warned_of_with_a_remedy_that_helps(warned: Warned) -> None:
    said = "an outage of all its pipelines (40) leads to 200 messages, and the last goes after 3 m 19 s"
    remedy = "write group: {by: [account], wait: 10s}"
    assert warned(pipelines(40) + chat()) == [f"43:9: sinks.chat: {said}; {remedy}"]
    (line,) = warned(pipelines(40) + chat(", group: {wait: 10s}"))
    assert line.endswith(f"sinks.chat.group: {said}; {remedy}")
    assert warned(pipelines(40) + chat(ACCOUNT)) == []
    (line,) = warned(pipelines(40, "{consecutive: 3}") + BOT % ACCOUNT)
    assert line.endswith(
        "leads to 126 messages, and the last goes after 2 m 5 s; write group: {by: [account], wait: 10s}, "
        "with rate_limit: 5/s or, if its receiver takes less, several sinks with match"
    )
    assert warned(pipelines(40, "{consecutive: 3}") + BOT % f"{ACCOUNT}, rate_limit: 5/s") == []


@pytest.mark.parametrize(
    "sink", [chat(", rate_limit: 1/m"), HOOK + "    rate_limit: 1/m\n", PAGER % ", rate_limit: 1/m"]
)
def test_a_rate_of_one_message_a_minute_is_too_low_for_a_single_pipeline(sink: str, warned: Warned) -> None:
    (line,) = warned(pipelines(1, "{consecutive: 3}") + sink)
    assert "an outage of all its pipelines (1) leads to" in line
    assert "rate_limit: 1/s" in line


def test_a_last_message_after_half_a_minute_or_after_the_wait_is_soon_enough(warned: Warned) -> None:
    assert warned(pipelines(31) + chat(", group: {wait: 1m}, rate_limit: 1/s")) == []
    assert warned(pipelines(6) + chat()) == []
    assert len(warned(pipelines(7) + chat())) == 1
    (line,) = warned(pipelines(200) + PAGER % ", rate_limit: 1/s, events: [execution.failed]")
    assert OPENS in line


LOCAL = (
    *("localhost", "127.0.0.2", "[::1]", "10.1.2.3", "172.31.0.1", "192.168.0.9", "169.254.1.1", "[fd00::1]"),
    *("[::ffff:10.0.0.1]", "receiver", "receiver.local", "ops.prod.svc", "a.svc.cluster.local", "db.internal."),
)


@pytest.mark.parametrize("host", LOCAL)
def test_what_stays_in_the_house_may_go_in_clear(host: str, warned: Warned) -> None:
    assert warned(BASE + HOOK.replace("https://hooks.example.com", f"http://{host}:8080")) == []


@pytest.mark.parametrize("host", ["203.0.114.5", "172.32.0.1", "[2606:4700::1]", "[::ffff:8.8.8.8]", "notlocal.com"])
def test_what_leaves_it_should_not(host: str, warned: Warned) -> None:
    (line,) = warned(BASE + HOOK.replace("https://hooks.example.com", f"http://{host}:8080"))
    assert f"http:// to {host.strip('[]')}: " in line.replace("0:808", "").replace("::ffff:808:808", "::ffff:8.8.8.8")


def test_nothing_of_a_secret_or_of_a_value_from_elsewhere_is_shown(warned: Warned) -> None:
    Path("url").write_text("http://hooks.example.com/s3cret\n")
    lines = warned(
        BASE + "sinks:\n  ops: {type: webhook, url_file: url, match: {labels: {team: '${TEAM}'}}}\n", TEAM="slaes"
    )
    assert [line.split(": ")[1] for line in lines] == [
        "watch",
        "sinks.ops",
        "sinks.ops.url_file",
        "sinks.ops.match.labels",
    ]
    assert not [line for line in lines if "s3cret" in line or "slaes" in line or "sales" in line]
