from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from unit.config.conftest import Load, Mistakes

from watcher.domain.report import ReportSchedule

HEAD = (
    "accounts: {default: {api_key: k}}\nsinks:\n  mail: {type: webhook, url: https://h.example, secret: '${SIGNING}'}\n"
    "  pager: {type: webhook, template: pagerduty, routing_key: '${PAGER}'}\n"
    "  alerts: {type: webhook, template: alertmanager, url: http://alertmanager:9093}\n"
)
SIGNING = "whsec_" + "A" * 32


def report(keys: str) -> str:
    return f"{HEAD}reports:\n  morning: {{{keys}}}\n"


def test_a_report_is_due_by_the_clock_of_its_zone(load: Load) -> None:
    text = report('at: "08:30", days: [mon, fri], timezone: Europe/Berlin, sinks: [mail, stdout]')
    found = load(text, SIGNING=SIGNING, PAGER="a" * 32).reports
    morning = found["morning"]
    assert morning.schedule == ReportSchedule(frozenset({0, 4}), 8 * 60 + 30, ZoneInfo("Europe/Berlin"))
    assert (list(found), morning.sinks) == (["morning"], ("mail", "stdout"))


def test_a_report_is_by_default_due_on_every_day_by_utc(load: Load) -> None:
    found = load(report("at: 08:00, sinks: [mail]"), SIGNING=SIGNING, PAGER="a" * 32).reports["morning"]
    assert found.schedule == ReportSchedule(frozenset(range(7)), 8 * 60, ZoneInfo("UTC"))
    assert found.schedule.last_two(datetime(2026, 11, 24, 8, tzinfo=UTC))[1].hour == 8


NO_TIME = "is not a time of day; write it like 08:00, from 00:00 to 23:59"
NO_REPORT = "is no sink that can show a report"
KNOWN = "hese are: mail, stdout"
NO_ZONE = "is no time zone that this system knows; write one such as Europe/Berlin, and see that tzdata is installed"
DAYS = 'did you mean "mon"? Allowed: mon, tue, wed, thu, fri, sat, sun'
MISTAKES = [
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


@pytest.mark.parametrize(("keys", "problem"), MISTAKES)
def test_a_mistake_is_reported_with_what_would_be_right(keys: str, problem: str, mistakes: Mistakes) -> None:
    found = mistakes(report(keys), SIGNING=SIGNING, PAGER="a" * 32)
    assert found == [f"watcher.yaml:7:{problem}", "1 problem in watcher.yaml"]
