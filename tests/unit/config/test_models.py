"""What the blocks of a file mean: reports, silences, the URL of the store, and the schema of all."""

import sys
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from unit.config.conftest import Load, Mistakes

from watcher.config.models import Settings
from watcher.domain.report import ReportSchedule
from watcher.domain.routing import WeeklyHours
from watcher.store.store_url import check_store_url

REPORTING = (
    "accounts: {default: {api_key: k}}\nsinks:\n  mail: {type: webhook, url: https://h.example, secret: '${SIGNING}'}\n"
    "  pager: {type: webhook, template: pagerduty, routing_key: '${PAGER}'}\n"
    "  alerts: {type: webhook, template: alertmanager, url: http://alertmanager:9093}\n"
)
SIGNING = "whsec_" + "A" * 32


def report(keys: str) -> str:
    return f"{REPORTING}reports:\n  morning: {{{keys}}}\n"


def test_a_report_is_due_by_the_clock_of_its_zone_by_default_every_day_by_utc(load: Load) -> None:
    text = report('at: "08:30", days: [mon, fri], timezone: Europe/Berlin, sinks: [mail, stdout]')
    found = load(text, SIGNING=SIGNING, PAGER="a" * 32).reports
    morning = found["morning"]
    assert morning.schedule == ReportSchedule(frozenset({0, 4}), 8 * 60 + 30, ZoneInfo("Europe/Berlin"))
    assert (list(found), morning.sinks) == (["morning"], ("mail", "stdout"))
    daily = load(report("at: 08:00, sinks: [mail]"), SIGNING=SIGNING, PAGER="a" * 32).reports["morning"]
    assert daily.schedule == ReportSchedule(frozenset(range(7)), 8 * 60, ZoneInfo("UTC"))
    assert daily.schedule.last_two(datetime(2026, 11, 24, 8, tzinfo=UTC))[1].hour == 8


NO_TIME = "is not a time of day; write it like 08:00, from 00:00 to 23:59"
NO_REPORT = "is no sink that can show a report"
KNOWN = "hese are: mail, stdout"
NO_ZONE = "is no time zone that this system knows; write one such as Europe/Berlin, and see that tzdata is installed"
DAYS = 'did you mean "mon"? Allowed: mon, tue, wed, thu, fri, sat, sun'
REPORT_MISTAKES = [
    ("at: 08:00, sinks: [mial]", f'32: reports.morning.sinks[0]: "mial" {NO_REPORT}; did you mean "mail"? T{KNOWN}'),
    ("at: 08:00, sinks: [x]", f'32: reports.morning.sinks[0]: "x" {NO_REPORT}; t{KNOWN}'),
    ("at: 08:00, sinks: [mail, pager]", f'38: reports.morning.sinks[1]: "pager" {NO_REPORT}; t{KNOWN}'),
    ("at: 08:00, sinks: [alerts]", f'32: reports.morning.sinks[0]: "alerts" {NO_REPORT}; t{KNOWN}'),
    ("at: 24:00, sinks: [mail]", f'17: reports.morning.at: "24:00" {NO_TIME}'),
    ("at: 8 am, sinks: [mail]", f'17: reports.morning.at: "8 am" {NO_TIME}'),
    ("sinks: [mail]", '3: reports.morning: needs at; write at: "08:00"'),
    ("at: 08:00", "3: reports.morning: needs sinks; write sinks: [mail, chat]"),
    ("at: 08:00, sinks: []", "31: reports.morning.sinks: is empty; give at least one"),
    ("at: 08:00, days: [], sinks: [mail]", "30: reports.morning.days: is empty; give at least one"),
    ("at: 08:00, days: [monday], sinks: [mail]", f'31: reports.morning.days[0]: "monday" is not known; {DAYS}'),
    ("at: 08:00, timezone: Europe/Berln, sinks: [mail]", f'34: reports.morning.timezone: "Europe/Berln" {NO_ZONE}'),
]


@pytest.mark.parametrize(("keys", "problem"), REPORT_MISTAKES)
def test_a_mistake_in_a_report_is_one_line_with_its_remedy(keys: str, problem: str, mistakes: Mistakes) -> None:
    found = mistakes(report(keys), SIGNING=SIGNING, PAGER="a" * 32)
    assert found == [f"watcher.yaml:7:{problem}", "1 problem in watcher.yaml"]


HEAD = (
    "accounts: {default: {api_key: k}}\nsinks:\n  out: {type: stdout}\n  ops: {type: webhook, url: https://h.example}\n"
)
FROM, UNTIL = "from: 2026-12-24T00:00:00Z", "until: 2026-12-27T00:00:00Z"
MATCH = "match: {accounts: [default]}"
WRITE = "write date, time and zone, such as 2026-12-24T00:00:00Z or 2026-12-24T00:00:00+01:00"


BOTH = "write both like 2026-12-24T00:00:00Z, or weekly: {days: [sat, sun], …}"


def weekly(*, days: str = "[sat, sun]", to: str = '"08:00"', timezone: str = "Europe/Berlin") -> str:
    return f'weekly: {{days: {days}, from: "20:00", to: {to}, timezone: {timezone}}}'


WEEKLY = weekly()


def silence(*keys: str) -> str:
    return f"{HEAD}silences:\n  - {{{', '.join(keys)}}}\n"


def test_a_weekly_silence_is_of_hours_by_the_clock_of_its_zone(load: Load) -> None:
    (one,) = load(silence(MATCH, weekly(days="[mon, sun]", to="24:00"))).silences
    assert one.weekly is not None
    assert one.weekly.hours == WeeklyHours(frozenset({0, 6}), 20 * 60, 24 * 60, ZoneInfo("Europe/Berlin"))
    (over_night,) = load(silence(MATCH, WEEKLY)).silences
    saturday = datetime(2026, 11, 28, 12, tzinfo=UTC)
    begin, end = over_night.window(saturday)
    assert (begin.isoformat(), end.isoformat()) == ("2026-11-28T19:00:00+00:00", "2026-11-29T07:00:00+00:00")


def test_a_silence_means_what_it_says_and_without_the_key_there_is_none(load: Load) -> None:
    match = (
        "match: {labels: {team: sales}, events: ['execution.*'], sinks: [ops], accounts: [default], "
        "pipelines: [0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]}"
    )
    until = "until: '2026-12-27t01:30:00.5+01:00'"
    (one,) = load(silence(match, FROM, until, "comment: shop closed")).silences
    assert (one.from_at, one.until_at) == (
        datetime(2026, 12, 24, tzinfo=UTC),
        datetime(2026, 12, 27, 0, 30, 0, 500_000, tzinfo=UTC),
    )
    assert (dict(one.match.labels), one.match.events) == ({"team": "sales"}, ("execution.*",))
    assert one.match.sinks == ("ops",)
    assert one.match.pipelines == (UUID("0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"),)
    assert (one.match.accounts, one.comment) == (("default",), "shop closed")
    assert load(HEAD).silences == load(f"{HEAD}silences:\n").silences == load(f"{HEAD}silences: []").silences == ()


EMPTY = 'match: is empty; name what is meant; for everything write events: ["*"]'
NO_DATE = f"is not a date with a time; {WRITE}"
SILENCED = "that can be silenced; these are"
OF, NOT_AFTER = "silences[0]", "is not after from; write a later moment"
DAY_WORDS = "allowed: mon, tue, wed, thu, fri, sat, sun"
UNTIL_FOR_FOR = "write until: with the moment it ends, such as 2026-12-24T00:00:00Z"
WITHOUT_ZONE = "36: silences[0].weekly: needs timezone; write timezone: Europe/Berlin"
UNDER_MATCH = (
    '93: silences[0].sinks: unknown key "sinks"; it belongs under match. Allowed: match, from, until, weekly, comment'
)
SILENCE_MISTAKES = [
    # what is meant
    (("match: {}", FROM, UNTIL), f"13: silences[0].{EMPTY}"),
    (("match: {sinks: []}", FROM, UNTIL), f"13: silences[0].{EMPTY}"),
    ((FROM, UNTIL), "5: silences[0]: needs match; write match: {labels: {team: sales}}"),
    (("match: {sinks: [opps]}", FROM, UNTIL), f'22: silences[0].match.sinks[0]: "opps" is no sink {SILENCED}: ops'),
    (("match: {sinks: [out]}", FROM, UNTIL), f'22: silences[0].match.sinks[0]: "out" is no sink {SILENCED}: ops'),
    (("match: {accounts: [x]}", FROM, UNTIL), f'25: {OF}.match.accounts[0]: "x" is no account {SILENCED}: default'),
    (
        ("match: {events: [execution.faild]}", FROM, UNTIL),
        (
            '23: silences[0].match.events[0]: "execution.faild" matches no event type; '
            'did you mean "execution.failed"? Write execution.new, execution.running, execution.paused, '
            "execution.success, execution.failed, execution.unrecognized, execution.overdue, execution.lost, "
            "execution.expensive"
        ),
    ),
    # once
    ((MATCH,), f"5: silences[0].from: needs from and until; {BOTH}"),
    ((MATCH, UNTIL), f"5: silences[0].from: needs from; {BOTH}"),
    ((MATCH, FROM), f"5: silences[0].until: needs until; {BOTH}"),
    ((MATCH, "from: 2026-12-24", UNTIL), f'42: silences[0].from: "2026-12-24" has no zone; {WRITE}'),
    ((MATCH, "from: 2026-13-24T00:00:00Z", UNTIL), f'42: silences[0].from: "2026-13-24T00:00:00Z" {NO_DATE}'),
    ((MATCH, "from: 0001-01-01T00:00:00+23:00", UNTIL), f'42: silences[0].from: "0001-01-01T00:00:00+23:00" {NO_DATE}'),
    ((MATCH, "from: [a]", UNTIL), "42: silences[0].from: is not a single value; write one value"),
    ((MATCH, FROM, "until: 2026-12-24T01:00:00+01:00"), f'71: {OF}.until: "2026-12-24T01:00:00+01:00" {NOT_AFTER}'),
    ((MATCH, FROM, UNTIL, "for: 2h"), f'93: {OF}.for: unknown key "for"; {UNTIL_FOR_FOR}'),
    # each week
    ((MATCH, FROM, WEEKLY), "72: silences[0].weekly: is given beside from or until; keep from and until, or weekly"),
    ((MATCH, weekly(days="[saturday]")), f'52: {OF}.weekly.days[0]: "saturday" is not known; {DAY_WORDS}'),
    ((MATCH, weekly(to='"24:01"')), f'82: {OF}.weekly.to: "24:01" {NO_TIME.replace("23:59", "24:00")}'),
    ((MATCH, "weekly: {days: [sat], from: '20:00', to: '08:00'}"), WITHOUT_ZONE),
    ((MATCH, FROM, UNTIL, "sinks: [ops]"), UNDER_MATCH),
    ((MATCH, weekly(timezone="Berlin")), f'101: {OF}.weekly.timezone: "Berlin" {NO_ZONE}'),
]


@pytest.mark.parametrize(("keys", "message"), SILENCE_MISTAKES)
def test_a_mistake_in_a_silence_has_one_line(keys: tuple[str, ...], message: str, mistakes: Mistakes) -> None:
    assert mistakes(silence(*keys)) == [f"watcher.yaml:6:{message}", "1 problem in watcher.yaml"]


def test_a_sink_to_be_silenced_must_be_there(mistakes: Mistakes) -> None:
    text = f"accounts: {{default: {{api_key: k}}}}\nsilences: [{{match: {{sinks: [ops]}}, {FROM}, {UNTIL}}}]"
    assert mistakes(text)[0].endswith('"ops" is no sink that can be silenced; these are: none, for stdout never is')


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgres://watcher@db",
        "postgresql:///watcher?host=/var/run/postgresql&connect_timeout=2",
        "postgresql://watcher@a:5432,b,[::1]:5433/watcher?target_session_attrs=read-write&load_balance_hosts=random",
        "postgresql://db.invalid/watcher?hostaddr=192.0.2.1,192.0.2.2&keepalives_idle=5",
        "postgresql://db/watcher?sslmode=verify-full&sslrootcert=/not/there&sslnegotiation=direct",
        "postgresql://db/watcher?gssencmode=require&options=-csearch_path%3Dwatcher",
    ],
)
def test_what_libpq_takes_is_a_store_url_whatever_server_there_is(url: str) -> None:
    assert check_store_url(url) == url


def test_without_the_driver_it_is_said_how_to_install_it(mistakes: Mistakes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert mistakes("store: {url: 'postgresql://db/watcher'}") == [
        "watcher.yaml:1:14: store.url: postgresql needs the extra; from a checkout: pip install '.[postgres]'",
        "1 problem in watcher.yaml",
    ]


SCHEMA: dict[str, Any] = Settings.model_json_schema()
BLOCKS: dict[str, Any] = SCHEMA["$defs"]


def test_the_schema_speaks_the_words_of_the_file_and_says_what_may_be_left_out() -> None:
    timeout = BLOCKS["AccountSettings"]["properties"]["timeout"]
    assert (timeout["type"], timeout["default"]) == ("string", "10s")
    assert BLOCKS["RetrySettings"]["properties"]["schedule"]["default"][0] == "1s"
    assert BLOCKS["AccountSettings"]["required"] == []
    assert BLOCKS["WebhookSettings"]["required"] == ["type"]
    assert [kind["type"] for kind in BLOCKS["WebhookSettings"]["properties"]["secret"]["anyOf"]] == ["string", "array"]
    assert BLOCKS["WatchSettings"]["required"] == ["pipeline"]
    executions = BLOCKS["WatchSettings"]["properties"]["executions"]
    assert executions["minItems"] == 1
    assert "default" not in executions
    assert all(block["additionalProperties"] is False for block in (SCHEMA, *BLOCKS.values()))
