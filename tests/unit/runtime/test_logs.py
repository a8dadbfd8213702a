"""What is logged, how it looks, and what libraries never get to say."""

import asyncio
import io
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from virtual import FakeClock

from watcher.runtime.logs import LogFormat, configure_logs, flush_logs

SECRET = "postgresql://me:secret@host"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def text_of(stream: io.StringIO) -> str:
    assert flush_logs(within_s=5)
    return stream.getvalue()


def lines(stream: io.StringIO) -> list[Any]:
    return [json.loads(line) for line in text_of(stream).splitlines()]


def configured(
    *,
    level: str = "info",
    format_: LogFormat = "json",
    stream: io.StringIO | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> io.StringIO:
    out = stream or io.StringIO()
    configure_logs(level=level, format_=format_, stream=out, monotonic=monotonic)
    return out


def test_a_line_is_json_with_event_level_time_and_values() -> None:
    out = configured()
    structlog.get_logger().error("account.degraded", account="default", reason="unauthorized")
    (line,) = lines(out)
    moment = line.pop("timestamp")
    assert moment.endswith("Z")
    assert line == {"event": "account.degraded", "level": "error", "account": "default", "reason": "unauthorized"}


def test_for_a_person_the_time_is_local_with_its_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        out = configured(format_="console")
        structlog.get_logger().info("a.thing")
        assert text_of(out).split()[0].endswith("+09:00")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_the_level_hides_what_is_below_it(level: str, shown: list[str]) -> None:
    out = configured(level=level)
    log = structlog.get_logger()
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("a.thing")
    assert [line["level"] for line in lines(out)] == shown


@pytest.mark.parametrize(
    ("format_", "stream", "is_json", "is_coloured"),
    [
        ("auto", Terminal(), False, True),
        ("auto", io.StringIO(), True, False),
        ("json", Terminal(), True, False),
        ("console", io.StringIO(), False, False),
        ("console", Terminal(), False, True),
    ],
)
def test_the_format_is_the_one_asked_for_else_what_suits_the_stream(
    format_: LogFormat, stream: io.StringIO, *, is_json: bool, is_coloured: bool
) -> None:
    out = configured(format_=format_, stream=stream)
    structlog.get_logger().warning("a.thing", account="default")
    text = text_of(out)
    assert text.startswith("{") is is_json
    assert ("\x1b[" in text) is is_coloured
    assert "a.thing" in text


def test_the_default_stream_is_stderr_and_stdout_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(level="info", format_="auto")
    structlog.get_logger().info("a.thing")
    assert flush_logs(within_s=5)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["event"] == "a.thing"


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize("name", ["sqlalchemy.engine", "sqlalchemy.pool", "apscheduler.scheduler", "aiohttp.access"])
def test_what_libraries_say_below_warning_never_shows(level: str, name: str) -> None:
    out = configured(level=level)
    library = logging.getLogger(name)
    library.debug("SELECT ? with %s", SECRET)
    library.info("connected to %s", SECRET)
    assert text_of(out) == ""


def test_a_library_that_warns_is_named_without_its_text() -> None:
    out = configured()
    logging.getLogger("aiohttp.client").warning("could not reach %s", SECRET)
    (line,) = lines(out)
    assert (line["event"], line["library"], line["level_name"]) == ("library.warned", "aiohttp.client", "WARNING")
    assert line["error"] is None
    assert SECRET not in text_of(out)


def test_what_is_broken_off_at_the_end_is_no_trouble_of_a_library() -> None:
    out = configured()
    library = logging.getLogger("apscheduler.executors.default")
    library.error("Job raised an exception", exc_info=asyncio.CancelledError())
    assert text_of(out) == ""


def test_a_library_that_warns_all_the_time_is_logged_once_a_minute() -> None:
    clock = FakeClock()
    out = configured(monotonic=clock.monotonic)
    for passed_s in (0, 30, 29.9, 0.1, 30):
        clock.advance(passed_s)
        for error in (OSError(24, "none left"), RuntimeError()):
            logging.getLogger("asyncio").error("accept failed", exc_info=error)
    assert [line["error"] for line in lines(out)] == ["OSError", "RuntimeError"] * 2


def test_a_library_that_fails_is_logged_with_the_kind_of_the_error_alone() -> None:
    out = configured()
    logging.getLogger("asyncio").error("Task failed: %s", SECRET, exc_info=OSError(SECRET))
    (line,) = lines(out)
    assert (line["library"], line["level_name"], line["error"]) == ("asyncio", "ERROR", "OSError")
    assert SECRET not in text_of(out)
    assert "Traceback" not in text_of(out)
