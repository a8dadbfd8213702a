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
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Any, cast

import pytest
from mail_server import HOST, MailServer
from pydantic import ValidationError
from receiver import Receiver, Reply, answer, hangs, says
from sample_events import ERROR, HOSTILE_PARTS, execution_id, failed, of_text, sample
from worker_rig import DELIVERED, FakeClock

from watcher.cli.commands.starter import config_schema
from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.sinks.apprise import MESSAGE_BYTES, AppriseSettings, AppriseSink, plain_message
from watcher.sinks.protocol import SendOutcome, SendResult, SinkContext

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver(says(answer(200, body=b"{}"))) as receiver:
        yield receiver


def settings(url: str, **keys: Any) -> AppriseSettings:
    return AppriseSettings.model_validate({"type": "apprise", "url": url, **keys})


async def sent(url: str, *batch: Delivery, **keys: Any) -> SendResult:
    return await settings(url, **keys).open(SinkContext(FakeClock())).send(batch)


async def message_of(receiver: Receiver, *batch: Delivery) -> dict[str, Any]:
    """Send a batch; return the one message that arrives."""
    assert await sent(f"json://{HOST}:{receiver.port}/hook", *batch) == SendResult(SendOutcome.DELIVERED, "ok")
    (request,) = receiver.requests
    message: dict[str, Any] = json.loads(request.body)
    return message


# what arrives


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        (EventType.PIPELINE_FAILING, "failure"),
        (EventType.EXECUTION_OVERDUE, "warning"),
        (EventType.EXECUTION_SUCCESS, "success"),
        (EventType.PIPELINE_RECOVERED, "success"),
        (EventType.EXECUTION_RUNNING, "info"),
        (EventType.WATCHER_TEST, "info"),
    ],
)
def test_how_bad_it_is_goes_with_it(type_: EventType, kind: str) -> None:
    assert plain_message([sample(type_)])[2] == kind


async def test_a_group_is_one_message_for_bad_news_and_good(receiver: Receiver) -> None:
    good = [sample(EventType.EXECUTION_SUCCESS, number=number) for number in (40, 41)]
    message = await message_of(receiver, *map(failed, range(30)), *good)
    assert (message["title"][:47], message["type"]) == ("✕ 30 failed, 2 succeeded in Sales agent (12:00:", "failure")
    assert "30 \N{MULTIPLICATION SIGN} Greeting: upstream timeout" in message["message"]
    assert "The newest 5:" in message["message"]


async def test_ntfy_gets_no_more_than_it_takes(receiver: Receiver) -> None:
    for part in HOSTILE_PARTS:
        result = await sent(f"ntfy://{HOST}:{receiver.port}/topic", of_text(part * (2000 // len(part))))
        assert result.outcome is DELIVERED.outcome
    for request in receiver.requests:
        body = json.loads(request.body)
        assert len(body["message"].encode()) <= 4096
        assert len(body["title"].encode()) <= 1024
        assert str(failed().event_id) in body["message"]  # what is cut is the error


async def test_what_takes_little_is_sent_one_message_that_begins_with_the_headline(receiver: Receiver) -> None:
    service = settings(f"json://{HOST}:{receiver.port}?overflow=split").open(SinkContext(FakeClock()))
    plugin = cast("Any", service)._service_notify.__self__._apprise.services[0]
    plugin.body_maxlen, plugin.title_maxlen = 160, 0  # as those of an SMS
    assert (await service.send([of_text("x" * 2000)])).outcome is SendOutcome.DELIVERED
    (request,) = receiver.requests
    message = json.loads(request.body)["message"]
    assert (message[:2], len(message) <= 160) == ("✕ ", True)


ADDRESSES = "from=watcher@a.example&to=ops@b.example&mode=insecure"


async def test_a_mail_is_plain_text_or_shows_markup_as_it_is() -> None:
    async with MailServer() as server:
        for more in ("", "&format=html"):
            result = await sent(f"mailto://{HOST}:{server.port}?{ADDRESSES}{more}", of_text("<script>x</script>"))
            assert result.outcome is SendOutcome.DELIVERED
    text, html = server.mails
    assert (text.message["To"], text.message["Subject"][:10]) == ("ops@b.example", "✕ <script>")
    assert text.message.get_content_type() == "text/plain"
    assert text.message.get_content().startswith("<script>x</script>")
    assert "&lt;script&gt;x&lt;/script&gt;" in html.body("html")
    assert "<script>" not in html.body("html")


# what does not get through


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        *((says(answer(code, body=b"no")), str(code)) for code in (503, 400, 404)),
        (says(answer(302, Location="/there")), "302"),
        (hangs, "timeout"),
    ],
)
async def test_a_code_is_all_that_is_said_of_a_failure(receiver: Receiver, reply: Reply, said: str) -> None:
    receiver.reply = reply
    url = f"json://{HOST}:{receiver.port}/hook?retry=3&optional=yes&rto=60"
    result = await sent(url, failed(), timeout="100ms" if said == "timeout" else "15s")
    assert (result.outcome, result.answer, bool(result.remedy)) == (SendOutcome.RETRY, said, True)
    assert len(receiver.requests) == 1  # tried again by the worker alone, and no redirect is followed


async def test_a_service_that_fails_says_so_and_nothing_of_it_reaches_a_log(receiver: Receiver) -> None:
    async with MailServer() as server:
        server.replies = {"DATA": "554 no"}
        mail = f"mailto://{HOST}:{server.port}?{ADDRESSES}"
        for url, said in ((mail, "no cause given"), (f"json://{HOST}:1/hook", "connection")):
            result = await sent(url, failed())
            assert (result.outcome, result.answer) == (SendOutcome.RETRY, said)
    logging.getLogger().addHandler(kept := BufferingHandler(100))
    receiver.reply = says(answer(500))
    assert (await sent(f"json://user:s3cr3t@{HOST}:{receiver.port}/s3cr3t", failed())).answer == "500"
    with pytest.raises(ValidationError):
        settings("tgram://s3cr3t")
    assert kept.buffer == []


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
    answers = await asyncio.gather(*(ops.send([failed(number)]) for number in range(16)))
    assert {(result.outcome, result.answer) for result in answers} == {(SendOutcome.RETRY, "timeout")}
    assert (len(service.asked), len(set(threads()) - before)) == (1, 1)
    service.go_on.set()
    for thread in threads():
        await asyncio.to_thread(thread.join)
    assert (await ops.send([failed()])).outcome is SendOutcome.DELIVERED


async def test_a_message_may_take_longer_than_its_answers_and_be_broken_off() -> None:
    service = BlockingService(lambda _: time.sleep(0.15))
    service.go_on.set()
    assert (await service.open(timeout_s=0.1).send([failed()])).outcome is SendOutcome.DELIVERED
    assert len(service.asked) == 1
    service = BlockingService()
    sending = asyncio.create_task(service.open(timeout_s=30).send([failed()]))
    await service.begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert all(thread.daemon for thread in threads())  # nor does the process at its end
    service.go_on.set()


# settings


async def test_only_the_scheme_is_ever_shown_and_it_brings_the_defaults_of_chat() -> None:
    ops = settings("NTFYS://user:s3cr3t@ntfy.example.com/s3cr3t")
    assert ops.target == "ntfys://"
    assert not any(word in repr(ops) for word in ("s3cr3t", "example"))
    assert "--send" in await ops.connect()  # which alone would tell
    assert ops.rules.rate_per_s == 1
    assert "execution.failed" in ops.events
    assert "execution.success" not in ops.events


WITHOUT = """
import sys
sys.modules["apprise"] = None  # as if it were not installed
from watcher.__main__ import main
for words in (["check", "--config", sys.argv[1]], ["schema"]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as ended:
        print(ended.code, file=sys.stderr)
"""
WITH_NONE = """
import sys
from watcher.__main__ import main
sys.argv[1:] = ["check", "--config", sys.argv[1]]
try:
    main()
finally:
    loaded = {"apprise", "jinja2", "psycopg", "requests", "sqlalchemy"} & sys.modules.keys()
    print("loaded:", *sorted(loaded))
    import watcher.daemon.app
    print("jinja2" in sys.modules)
"""
WATCH = """accounts: {default: {api_key: k}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f}]
"""


def python(program: str, file: Path, text: str) -> subprocess.CompletedProcess[str]:
    file.write_text(text)
    return subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=False)


@pytest.mark.ci
def test_without_the_extra_a_file_that_needs_it_is_refused_and_the_schema_is_the_same(tmp_path: Path) -> None:
    urls = ("ntfys://ntfy.sh/topic", "s3cr3t://x")
    sinks = "".join(f"  phone{number}: {{type: apprise, url: {url}}}\n" for number, url in enumerate(urls))
    done = python(WITHOUT, file := tmp_path / "watcher.yaml", f"{WATCH}sinks:\n{sinks}")
    needs = "apprise needs the extra; from a checkout: pip install '.[apprise]'"
    assert done.stderr.splitlines() == [
        *(f"{file}:{line}:32: sinks.phone{line - 4}.url: {needs}" for line in (4, 5)),
        *(f"2 problems in {file}", "2", "0"),
    ]
    assert json.loads(done.stdout) == config_schema()


@pytest.mark.ci
def test_what_no_sink_needs_is_not_loaded(tmp_path: Path) -> None:
    done = python(WITH_NONE, tmp_path / "watcher.yaml", WATCH)
    assert (done.returncode, done.stdout.splitlines()[-2:]) == (0, ["loaded:", "False"]), done.stderr


# texts


@pytest.mark.parametrize("part", HOSTILE_PARTS)
def test_nobody_is_mentioned_by_what_others_write(part: str) -> None:
    title, body, _ = plain_message([of_text(f"{part} @here <@!1> @everyone me@example.com")])
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
    labels = {f"label{number}": text * 50 for number in range(10)}
    nodes = {"failedNodes": [{"id": "n", "name": "Node", "error": text * 900}] * 5}
    batch = [failed(number, labels=labels, execution=nodes) for number in range(count)]
    title, body, _ = plain_message(batch)
    assert len(escape(f"{title}\n{body}").encode()) <= MESSAGE_BYTES
    assert body[0] == (text if count == 1 else "5") or body.startswith("Node")


async def test_a_message_says_what_failed_and_where_its_links_lead(receiver: Receiver) -> None:
    link, nodes = "https://example.com/@sales/runs/1", [{"name": "Greeting", "error": ERROR}]
    nodes.append({"name": "Booking", "error": "no slot"})
    message = await message_of(receiver, failed(link=link, execution={"failedNodes": nodes}))
    assert (message["title"], message["type"]) == ("✕ Sales agent failed at Greeting", "failure")
    error, ids, links, facts, also = message["message"].split("\n\n")  # what matters most first: the end may be cut
    assert (error, also, links) == (ERROR, "Also failed:\nBooking: no slot", f"Open: {link}")
    when = "Ended: 2026-11-24 12:00:31 UTC"
    assert facts == f"{when} · Status: failed, was running · Ran: 2 m 31 s · Labels: team=sales · Account: default"
    assert (execution_id() in ids, failed().event_id.hex in ids.replace("-", "")) == (True, True)
    link, runbook, pages = "https://example.com/runs/1", "https://wiki.example.com/sales", "https://watcher.example.com"
    batch = [failed(number, link=link, runbook=runbook) for number in (1, 2)]
    _, one, _ = plain_message(batch[:1], pages)
    links = dict(line.split(": ", 1) for line in one.split("\n\n")[2].splitlines())
    assert (links["Open"], links["Runbook"]) == (link, runbook)
    assert links["Details"].startswith(f"{pages}/executions/default/")
    assert f"\n\nDetails: {pages}/executions?pipeline=" in plain_message(batch, pages)[1]
