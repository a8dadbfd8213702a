from simulator_facts import answered_statuses, busiest_second, requests_of

from watcher.simulator.faults import Fault
from watcher.simulator.server import LoggedRequest, RequestLog

TIMES = "\N{MULTIPLICATION SIGN}"


def written(*entries: LoggedRequest, kept_count: int = 100) -> RequestLog:
    request_log = RequestLog(kept_count=kept_count)
    for entry in entries:
        request_log.open(entry)
        request_log.close(entry)
    return request_log


def at(*times: float, key: int | None = 0) -> list[LoggedRequest]:
    return [LoggedRequest(at=each, key=key, endpoint="get") for each in times]


def answered(*statuses: str | None, execution: str = "e") -> list[LoggedRequest]:
    return [LoggedRequest(at=0, key=0, endpoint="get", execution=execution, answered=status) for status in statuses]


def test_an_empty_request_log_has_no_busy_second() -> None:
    assert busiest_second(RequestLog()) == 0


def test_the_busiest_second_slides() -> None:
    assert busiest_second(written(*at(0.0, 0.6, 0.9, 1.2, 1.5, 3.0))) == 4


def test_a_second_does_not_hold_both_its_ends() -> None:
    assert busiest_second(written(*at(0.0, 1.0, 2.0))) == 1


def test_the_busiest_second_is_that_of_one_key() -> None:
    assert busiest_second(written(*at(0.0, 0.2), *at(0.1, key=1))) == 2


def test_answered_statuses_are_those_of_the_execution_without_repetitions() -> None:
    request_log = written(
        *answered("new", "running", None, "running", "paused", "running"), *answered("failed", execution="f")
    )
    assert answered_statuses(request_log, "e") == ["new", "running", "paused", "running"]
    assert len(requests_of(request_log, "e")) == 6


def test_the_summary_counts_by_trouble() -> None:
    entries = [LoggedRequest(at=0, key=0, endpoint="get", code=code) for code in (200, 429, 429, 500, 503, 401, 404)]
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", fault=Fault.RESET))
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", code=200, fault=Fault.HTML))
    expected = f"served 9 · 401{TIMES}1 404{TIMES}1 429{TIMES}2 5xx{TIMES}2 html{TIMES}1 reset{TIMES}1"
    assert written(*entries).summary() == expected


def test_the_summary_of_a_calm_life_is_short() -> None:
    assert written(LoggedRequest(at=0, key=0, endpoint="get", code=200)).summary() == "served 1"


def test_old_entries_are_forgotten_but_stay_counted() -> None:
    request_log = written(*at(1.0, 2.0, 3.0), kept_count=2)
    assert [entry.at for entry in request_log.entries] == [2.0, 3.0]
    assert request_log.served_count == 3


def test_answered_statuses_come_from_lists_too() -> None:
    request_log = RequestLog()
    request_log.open(LoggedRequest(1.0, 0, "get", execution="e", answered="new"))
    for status in ("running", "running", "success"):
        request_log.note_page(request_log.open(LoggedRequest(2.0, 0, "list")), rows={"e": status, "f": "paused"})
    assert answered_statuses(request_log, "e") == ["new", "running", "success"]
    assert answered_statuses(request_log, "f") == ["paused"]


def test_what_old_pages_answered_is_forgotten() -> None:
    request_log = RequestLog(kept_pages_count=2)
    for status in ("new", "running", "success"):
        request_log.note_page(request_log.open(LoggedRequest(1.0, 0, "list")), rows={"e": status})
    assert [entry.rows for entry in request_log.entries] == [None, {"e": "running"}, {"e": "success"}]
