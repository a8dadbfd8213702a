from simulator_facts import answered_statuses, busiest_second

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


def test_the_busiest_second_slides() -> None:
    assert busiest_second(written(*at(0.0, 0.6, 0.9, 1.2, 1.5, 3.0))) == 4


def test_the_busiest_second_is_that_of_one_key() -> None:
    assert busiest_second(written(*at(0.0, 0.2), *at(0.1, key=1))) == 2


def test_the_summary_counts_by_trouble() -> None:
    entries = [LoggedRequest(at=0, key=0, endpoint="get", code=code) for code in (200, 429, 429, 500, 503, 401, 404)]
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", fault=Fault.RESET))
    entries.append(LoggedRequest(at=0, key=0, endpoint="get", code=200, fault=Fault.HTML))
    expected = f"served 9 · 401{TIMES}1 404{TIMES}1 429{TIMES}2 5xx{TIMES}2 html{TIMES}1 reset{TIMES}1"
    assert written(*entries).summary() == expected


def test_old_entries_are_forgotten_but_stay_counted() -> None:
    request_log = written(*at(1.0, 2.0, 3.0), kept_count=2)
    assert [entry.at for entry in request_log.entries] == [2.0, 3.0]
    assert request_log.served_count == 3


def test_answered_statuses_come_from_lists_too() -> None:
    request_log = RequestLog()
    request_log.open(LoggedRequest(1.0, 0, "get", execution="e", answered="new"))
    for status in ("running", "running", "success"):
        request_log.open(LoggedRequest(2.0, 0, "list", rows={"e": status, "f": "paused"}))
    assert answered_statuses(request_log, "e") == ["new", "running", "success"]
    assert answered_statuses(request_log, "f") == ["paused"]
