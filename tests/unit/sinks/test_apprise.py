"""Sinks by way of Apprise: its real library, to receivers on real sockets."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from html import escape
from pathlib import Path
from typing import Any, cast

import pytest
from mail_server import HOST, MailServer
from pydantic import ValidationError
from receiver import Receiver, answer, hangs, says
from sample_events import HOSTILE, HOSTILE_PARTS, data_of, sample
from worker_rig import DELIVERED, FakeClock

from watcher.cli.commands.starter import config_schema
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.sinks.apprise import MESSAGE_BYTES, AppriseSettings, AppriseSink, plain_message
from watcher.sinks.protocol import SendOutcome, SendResult, Sink, SinkContext

FAILED, RECOVERED = EventType.EXECUTION_FAILED, EventType.PIPELINE_RECOVERED


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200, body=b"{}"))) as receiver:
        yield receiver


def settings(url: str, **keys: Any) -> AppriseSettings:
    return AppriseSettings.model_validate({"type": "apprise", "url": url, **keys})


def sink(url: str, **keys: Any) -> Sink:
    return settings(url, **keys).open(SinkContext(FakeClock()))


async def sent(url: str, delivery: Delivery, **keys: Any) -> SendResult:
    return await sink(url, **keys).send([delivery])


def hostile(error: str) -> Delivery:
    """Return a failure in which all that others write is hostile."""
    data = data_of(FAILED)
    data["pipeline"]["name"] = HOSTILE
    data["labels"] = {"team": HOSTILE}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "@everyone", "error": error}] * 9
    return sample(FAILED, data=data)


# what arrives


async def test_a_message_has_headline_error_facts_ids_and_link(receiver: Receiver) -> None:
    data = data_of(FAILED) | {"link": "https://example.com/@sales/runs/1"}
    data["execution"]["failedNodes"] += [{"id": "n", "name": "Booking", "error": "no slot"}]
    assert await sent(f"json://{HOST}:{receiver.port}/hook", sample(FAILED, data=data)) == SendResult(
        SendOutcome.DELIVERED, "ok"
    )
    (request,) = receiver.requests
    body = json.loads(request.body)
    assert (body["title"], body["type"]) == ("✕ Sales agent failed at Greeting", "failure")
    error, ids, link, facts, nodes = body["message"].split("\n\n")  # what matters most first: the end may be cut
    assert (error, nodes) == ("upstream timeout after 30 s", "Also failed:\nBooking: no slot")
    assert facts == (
        "Ended: 2026-11-24 12:00:31 UTC · Status: failed, was running · Ran: 2 m 31 s · Labels: team=sales · "
        "Account: default"
    )
    assert data["execution"]["id"] in ids
    assert sample(FAILED).event_id.hex in ids.replace("-", "")
    assert link == "Open: https://example.com/@sales/runs/1"


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        (EventType.PIPELINE_FAILING, "failure"),
        (EventType.EXECUTION_OVERDUE, "warning"),
        (EventType.EXECUTION_SUCCESS, "success"),
        (RECOVERED, "success"),
        (EventType.EXECUTION_RUNNING, "info"),
        (EventType.WATCHER_TEST, "info"),
    ],
)
async def test_how_bad_it_is_goes_with_it(receiver: Receiver, type_: EventType, kind: str) -> None:
    await sent(f"json://{HOST}:{receiver.port}", sample(type_))
    assert json.loads(receiver.requests[0].body)["type"] == kind


async def test_a_group_is_one_message_for_bad_news_and_good(receiver: Receiver) -> None:
    batch = [sample(FAILED, number=number) for number in range(30)]
    batch += [sample(EventType.EXECUTION_SUCCESS, number=number) for number in (40, 41)]
    ops = sink(f"json://{HOST}:{receiver.port}")
    assert (await ops.send(batch)).outcome is SendOutcome.DELIVERED
    (message,) = (json.loads(request.body) for request in receiver.requests)
    assert (message["title"][:47], message["type"]) == ("✕ 30 failed, 2 succeeded in Sales agent (12:00:", "failure")
    assert "30 \N{MULTIPLICATION SIGN} Greeting: upstream timeout" in message["message"]
    assert "The newest 5:" in message["message"]


async def test_ntfy_gets_no_more_than_it_takes(receiver: Receiver) -> None:
    for part in HOSTILE_PARTS:
        assert (await sent(f"ntfy://{HOST}:{receiver.port}/topic", hostile(part * 2000))).outcome is DELIVERED.outcome
    for request in receiver.requests:
        body = json.loads(request.body)
        assert len(body["message"].encode()) <= 4096
        assert len(body["title"].encode()) <= 1024
        assert str(sample(FAILED).event_id) in body["message"]  # what is cut is the error


async def test_what_takes_little_is_sent_one_message_that_begins_with_the_headline(receiver: Receiver) -> None:
    url = f"json://{HOST}:{receiver.port}?overflow=split"
    service = settings(url).open(SinkContext(FakeClock()))
    assert isinstance(service, AppriseSink)
    plugin = cast("Any", service)._service_notify.__self__._apprise.services[0]
    plugin.body_maxlen, plugin.title_maxlen = 160, 0  # as those of an SMS
    assert (await service.send([hostile("x" * 2000)])).outcome is SendOutcome.DELIVERED
    (request,) = receiver.requests
    assert json.loads(request.body)["message"].startswith("✕ ")
    assert len(json.loads(request.body)["message"]) <= 160


# mail


ADDRESSES = "from=watcher@a.example&to=ops@b.example&mode=insecure"


async def test_a_mail_is_plain_text_or_shows_markup_as_it_is() -> None:
    async with MailServer() as server:
        for more in ("", "&format=html"):
            url = f"mailto://{HOST}:{server.port}?{ADDRESSES}{more}"
            assert (await sent(url, hostile("<script>x</script>"))).outcome is SendOutcome.DELIVERED
    text, html = server.mails
    assert text.message["To"] == "ops@b.example"
    assert text.message["Subject"].startswith("✕ </x> *b* <!channel>")
    assert text.message.get_content_type() == "text/plain"
    assert text.message.get_content().startswith("<script>x</script>")
    assert "&lt;script&gt;x&lt;/script&gt;" in html.body("html")
    assert "<script>" not in html.body("html")


# what does not get through


@pytest.mark.parametrize(("code", "more"), [(503, {}), (400, {}), (404, {}), (302, {"Location": "/there"})])
async def test_a_code_is_all_that_is_said_of_a_failure(receiver: Receiver, code: int, more: dict[str, str]) -> None:
    receiver.reply = says(answer(code, body=b"no", **more))
    result = await sent(f"json://{HOST}:{receiver.port}/hook?retry=3&optional=yes", sample(FAILED))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, str(code))
    assert result.remedy
    assert len(receiver.requests) == 1  # tried again by the worker alone, and no redirect is followed


async def test_a_service_that_is_not_there_is_a_failed_connection() -> None:
    result = await sent(f"json://{HOST}:1/hook", sample(FAILED))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "connection")


async def test_what_fails_without_a_reason_says_so() -> None:
    async with MailServer() as server:
        server.replies = {"DATA": "554 no"}
        result = await sent(f"mailto://{HOST}:{server.port}?{ADDRESSES}", sample(FAILED))
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "no cause given")


class Kept(logging.Handler):
    """Keeps what reaches the program's own logging."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def test_nothing_that_apprise_says_reaches_a_log(receiver: Receiver) -> None:
    kept, root = Kept(), logging.getLogger()
    root.addHandler(kept)
    receiver.reply = says(answer(500))
    assert (await sent(f"json://user:s3cr3t@{HOST}:{receiver.port}/s3cr3t", sample(FAILED))).answer == "500"
    with pytest.raises(ValidationError):
        settings("tgram://s3cr3t")
    assert kept.records == []


# what hangs


class BlockingService:
    """Hangs until it is let go, then answers by `answer`."""

    def __init__(self, answer: Callable[[str], str | None] = lambda _: None) -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.begun = asyncio.Event()
        self.go_on = threading.Event()
        self._loop = asyncio.get_running_loop()

    def notify(self, title: str, _body: str, _type: str) -> str | None:
        self.asked.append(title)
        self._loop.call_soon_threadsafe(self.begun.set)
        self.go_on.wait(30)
        return self.answer(title)

    def open(self, *, timeout_s: float) -> AppriseSink:
        return AppriseSink(self.notify, timeout_s=timeout_s, context=SinkContext(FakeClock()))


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "apprise"]


async def test_while_a_message_hangs_nothing_else_is_sent_and_no_threads_pile_up() -> None:
    service = BlockingService()
    ops = service.open(timeout_s=0.05)
    before = set(threads())  # of other tests, which may end meanwhile
    answers = await asyncio.gather(*(ops.send([sample(FAILED, number=number)]) for number in range(16)))
    assert {(result.outcome, result.answer) for result in answers} == {(SendOutcome.RETRY, "timeout")}
    assert (len(service.asked), len(set(threads()) - before)) == (1, 1)
    service.go_on.set()
    for thread in threads():
        await asyncio.to_thread(thread.join)
    assert (await ops.send([sample(FAILED)])).outcome is SendOutcome.DELIVERED


async def test_a_message_may_take_longer_than_each_of_its_answers() -> None:
    service = BlockingService(lambda _: time.sleep(0.15))
    service.go_on.set()
    assert (await service.open(timeout_s=0.1).send([sample(FAILED)])).outcome is SendOutcome.DELIVERED
    assert len(service.asked) == 1


async def test_an_attempt_that_is_broken_off_waits_for_no_thread() -> None:
    service = BlockingService()
    ops = service.open(timeout_s=30)
    sending = asyncio.create_task(ops.send([sample(FAILED)]))
    await service.begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert all(thread.daemon for thread in threads())  # nor does the process at its end
    service.go_on.set()


async def test_a_server_that_never_answers_is_a_timeout(receiver: Receiver) -> None:
    receiver.reply = hangs
    result = await sent(f"json://{HOST}:{receiver.port}?rto=60", sample(FAILED), timeout="100ms")
    assert (result.outcome, result.answer) == (SendOutcome.RETRY, "timeout")


def test_only_the_scheme_is_ever_shown() -> None:
    ops = settings("NTFYS://user:s3cr3t@ntfy.example.com/s3cr3t")
    assert ops.target == "ntfys://"
    assert "s3cr3t" not in repr(ops)
    assert "example" not in repr(ops)


async def test_to_connect_is_left_to_sending() -> None:
    assert "--send" in await settings("ntfys://ntfy.example.com/topic").connect()


def test_it_brings_the_defaults_of_chat() -> None:
    ops = settings("ntfys://ntfy.example.com/topic")
    assert ops.rules.rate_per_s == 1
    assert "execution.failed" in ops.events
    assert "execution.success" not in ops.events


WITHOUT = """
import sys
sys.modules["apprise"] = None  # as if it were not installed
sys.argv = ["watcher", *sys.argv[1:]]
from watcher.__main__ import main
main()
"""
WITH_NONE = """
import sys
sys.argv = ["watcher", "check", "--config", sys.argv[1]]
from watcher.__main__ import main
try:
    main()
finally:
    loaded = {"apprise", "jinja2", "psycopg", "requests", "sqlalchemy"} & sys.modules.keys()
    print("loaded:", *sorted(loaded))
"""
WATCH = """accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]
"""


def python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)


def test_without_the_extra_a_file_that_needs_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    urls = ("ntfys://ntfy.sh/topic", "s3cr3t://x")
    sinks = "".join(f"  phone{number}: {{type: apprise, url: {url}}}\n" for number, url in enumerate(urls))
    file.write_text(f"{WATCH}sinks:\n{sinks}")
    done = python(WITHOUT, "check", "--config", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    needs = "apprise needs the extra; from a checkout: pip install '.[apprise]'"
    assert done.stderr.splitlines() == [
        f"{file}:4:32: sinks.phone0.url: {needs}",
        f"{file}:5:32: sinks.phone1.url: {needs}",
        f"2 problems in {file}",
    ]


def test_without_the_extra_the_schema_is_the_same() -> None:
    assert json.loads(python(WITHOUT, "schema").stdout) == config_schema()


def test_what_no_sink_needs_is_not_loaded(tmp_path: Path) -> None:
    file = tmp_path / "watcher.yaml"
    file.write_text(WATCH)
    done = python(WITH_NONE, str(file))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "loaded:")


@pytest.mark.parametrize("part", HOSTILE_PARTS)
def test_nobody_is_mentioned_by_what_others_write(part: str) -> None:
    data = data_of(FAILED)
    text = f"{part} @here <@!1> me@example.com"
    data["pipeline"]["name"], data["labels"] = text, {"team": text}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "@everyone", "error": text}] * 3
    title, body, _ = plain_message([sample(FAILED, data=data)])
    shown = f"{title}\n{body}"
    assert not any(mention in shown for mention in ("@everyone", "@here", "<@!1>", "<@U0>"))
    assert "me@example.com" in shown
    assert all(character.isprintable() or character in "\n\u200b" for character in shown)


@pytest.mark.parametrize("type_", set(EventType) - {EventType.WATCHER_REPORT})
def test_every_event_has_a_title_and_a_body_with_its_id(type_: EventType) -> None:
    title, body, _ = plain_message([sample(type_)])
    assert title
    assert str(sample(type_).event_id) in body


@pytest.mark.parametrize("text", ["x", "&", '"', "漢", "🎉"])
@pytest.mark.parametrize("count", [1, 50])
def test_what_is_too_long_loses_its_end(text: str, count: int) -> None:
    data = data_of(FAILED)
    data["labels"] = {f"label{number}": text * 50 for number in range(10)}
    data["execution"]["failedNodes"] = [{"id": "n", "name": "Node", "error": text * 900}] * 5
    batch = [sample(FAILED, number=number, data=data) for number in range(count)]
    title, body, _ = plain_message(batch)
    assert len(escape(f"{title}\n{body}").encode()) <= MESSAGE_BYTES
    assert body[0] == (text if count == 1 else "5") or body.startswith("Node")


def test_links_are_lines_with_what_they_lead_to() -> None:
    data = data_of(FAILED) | {"link": "https://example.com/runs/1", "runbook": "https://wiki.example.com/sales"}
    batch = [sample(FAILED, number=number, data=data) for number in (1, 2)]
    _, one, _ = plain_message(batch[:1], "https://watcher.example.com")
    links = dict(line.split(": ", 1) for line in one.split("\n\n")[2].splitlines())
    assert (links["Open"], links["Runbook"]) == (data["link"], data["runbook"])
    assert links["Details"].startswith("https://watcher.example.com/executions/default/")
    _, group, _ = plain_message(batch, "https://watcher.example.com")
    assert "\n\nDetails: https://watcher.example.com/executions?pipeline=" in group
