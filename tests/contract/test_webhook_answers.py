"""One table of answers for every kind of sink that posts: what each means, and that none costs time or memory."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from fake_slack import CHANNEL, TOKEN
from receiver import Receiver, Reply, answer, closes, hangs, resets, says, sink_to
from sample_events import failed
from structlog.testing import capture_logs

from watcher.runtime.http_client import REMEDIES
from watcher.sinks.protocol import RETRY_AFTER_CAP_S, SendOutcome, SendResult, Sink
from watcher.sinks.webhook import PRESETS, TemplateFile

KINDS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "batch": {"group": {}},
    **{name: {"template": name} for name in PRESETS},
    "pagerduty": {"template": "pagerduty", "routing_key": "k" * 32},
    "own": {"template": TemplateFile("chat.json.j2", '{"text": {{ headline | tojson }}}')},
    "slack_bot": {"type": "slack_bot", "token": TOKEN, "channel": CHANNEL},
}
TEMPLATES = frozenset(kind for kind, block in KINDS.items() if "template" in block)
WITH_MINIMAL = frozenset({"slack", "slack_bot"})
MISSED = {"slack": "ok", "discord": "a message"}
"""What the body of a success must be."""

DELIVERED, ACCEPTED, RETRY = SendOutcome.DELIVERED, SendOutcome.ACCEPTED, SendOutcome.RETRY

MESSAGE = b'{"type":0,"content":"","embeds":[],"id":"1"}'

CODES: Mapping[int, SendOutcome] = {
    **dict.fromkeys((200, 201, 203, 204, 206, 207, 226, 299), DELIVERED),
    202: ACCEPTED,
    **dict.fromkeys((300, 301, 302, 303, 304, 307, 308), RETRY),
    **dict.fromkeys((401, 402, 403, 404, 405, 406, 407, 408, 409, 411, 415, 418, 421, 423, 425, 426, 451, 499), RETRY),
    **dict.fromkeys((400, 413, 422), SendOutcome.REFUSED),
    410: SendOutcome.GONE,
    429: SendOutcome.BUSY,
    **dict.fromkeys((500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 524, 599), RETRY),
}


HEEDED_S: Mapping[str, float] = {
    "30": 30,
    "Tue, 24 Nov 2026 10:02:00 GMT": 120,
    "Tue, 24 Nov 2026 09:00:00 GMT": 0,
    "999999999999": RETRY_AFTER_CAP_S,
    "Fri, 31 Dec 9999 23:59:59 GMT": RETRY_AFTER_CAP_S,
    "-5": 0,
    "1e9": RETRY_AFTER_CAP_S,
    "soon": 0,
    "": 0,
}
"""For how long each `Retry-After` is heeded."""


def expected(kind: str, code: int) -> SendResult:
    """Return what a receiver with an empty answer means."""
    outcome = CODES[code]
    if kind == "slack_bot":  # Slack's Web API says in a 200 what it did
        is_taken = outcome in {DELIVERED, ACCEPTED}
        return SendResult(RETRY if is_taken else outcome, "200 without ok" if code == 200 else str(code))
    if kind not in TEMPLATES:
        outcome = DELIVERED if outcome is ACCEPTED else outcome
    if kind in MISSED and outcome is DELIVERED:
        return SendResult(RETRY, f"{code} without {MISSED[kind]}")
    if kind == "teams" and outcome is DELIVERED:
        outcome = ACCEPTED
    return SendResult(outcome, str(code))


def sink_of(url: str, kind: str, **more: Any) -> AbstractAsyncContextManager[Sink]:
    return sink_to(url, **{"timeout": "2s", **KINDS[kind], **more})


async def sent(receiver: Receiver, kind: str, **more: object) -> SendResult:
    async with sink_of(receiver.url, kind, **more) as sink:
        return await sink.send([failed()])


@pytest.mark.parametrize("kind", KINDS)
async def test_every_code_means_what_the_table_says(receiver: Receiver, kind: str) -> None:
    async with sink_of(receiver.url, kind) as sink:
        for code in CODES:
            receiver.requests.clear()
            receiver.reply = says(answer(code, Location=f"{receiver.url}/elsewhere"))
            result = await sink.send([failed()])
            wanted = expected(kind, code)
            assert (result.outcome, result.answer) == (wanted.outcome, wanted.answer), code
            assert bool(result.remedy) is (wanted.outcome not in {DELIVERED, ACCEPTED}), code
            assert result.minimal_left is (kind in WITH_MINIMAL and wanted.outcome is SendOutcome.REFUSED), code
            assert len(receiver.requests) == 1, code


@pytest.mark.parametrize(
    ("kind", "code", "said", "outcome"),
    [
        ("slack", 200, b"ok", DELIVERED),
        ("slack", 200, b"ok\n", DELIVERED),
        *(("slack", 200, said, RETRY) for said in (b"", b"OK", b"okay", b"not ok", b"no_text", b'{"ok": true}')),
        ("slack", 200, b"<!doctype html><title>Sign in</title>", RETRY),
        ("slack", 200, b"ok" + b" " * 5_000_000 + b"not", DELIVERED),  # of megabytes only the beginning is read
        ("slack", 200, b"x" * 5_000_000, RETRY),
        ("discord", 200, MESSAGE, DELIVERED),
        ("discord", 200, MESSAGE[:-1] + b',"x":"' + b"y" * 5_000_000 + b'"}', DELIVERED),  # of it the beginning is read
        *(("discord", 200, said, RETRY) for said in (b"", b"ok", b'{"ok": true}')),
        ("discord", 200, b'<!doctype html><title>Sign in</title>{"embeds"', RETRY),
        ("discord", 201, MESSAGE, RETRY),
        ("discord", 204, b"", RETRY),
    ],
    ids=lambda value: value[:8] if isinstance(value, bytes) else None,
)
async def test_a_success_has_its_body(
    receiver: Receiver, kind: str, code: int, said: bytes, outcome: SendOutcome
) -> None:
    receiver.reply = says(answer(code, body=said))
    result = await sent(receiver, kind)
    assert (result.outcome, bool(result.remedy)) == (outcome, outcome is RETRY)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_receiver_may_ask_to_be_left_alone(receiver: Receiver, kind: str) -> None:
    async with sink_of(receiver.url, kind) as sink:
        for code, (header, heeded_s) in product((429, 503), HEEDED_S.items()):
            receiver.reply = says(answer(code, Retry_After=header))
            result = await sink.send([failed()])
            assert (result.outcome, result.retry_after_s) == (CODES[code], heeded_s), header


async def all_sent(receiver: Receiver, *, timeout: str) -> Mapping[str, SendResult]:
    """Send by all kinds at once: each waits for its time limit."""
    results = await asyncio.gather(*(sent(receiver, kind, timeout=timeout) for kind in KINDS))
    return dict(zip(KINDS, results, strict=True))


@pytest.mark.parametrize(
    ("reply", "answered"),
    [(hangs, "timeout"), (closes, "reset"), (resets, "reset"), (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "connection")],
)
async def test_no_answer_is_a_failed_attempt(receiver: Receiver, reply: Reply, answered: str) -> None:
    receiver.reply = reply
    failure = SendResult(RETRY, answered, remedy=REMEDIES[answered])
    assert await all_sent(receiver, timeout="400ms") == dict.fromkeys(KINDS, failure)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_broken_handshake_is_a_failed_attempt(kind: str) -> None:
    async def speak_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(200, body=b"ok"))
        writer.close()

    async with await asyncio.start_server(speak_plainly, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with sink_of(f"https://127.0.0.1:{port}/", kind) as sink:
            result = await sink.send([failed()])
    assert (result.outcome, result.answer) == (RETRY, "tls")
    assert result.remedy == f"wrong version number: {REMEDIES['tls']}"


@pytest.mark.parametrize("kind", sorted(WITH_MINIMAL))
@pytest.mark.parametrize("code", [400, 413, 422])
async def test_what_is_refused_goes_in_minimal_form_next(receiver: Receiver, kind: str, code: int) -> None:
    receiver.reply = says(answer(code))
    async with sink_of(receiver.url, kind) as sink:
        first = await sink.send([failed()])
        second = await sink.send([replace(failed(), attempts=1, rejections=1)])
    assert (first.outcome, first.minimal_left) == (SendOutcome.REFUSED, True)
    assert (second.outcome, second.minimal_left) == (SendOutcome.REFUSED, False)
    whole, minimal = receiver.requests
    assert len(minimal.body) < len(whole.body)
    assert whole.headers.get("webhook-id") == minimal.headers.get("webhook-id")
    assert first.remedy.startswith("a minimal message is tried next")


@pytest.mark.parametrize(
    ("kind", "said", "answered"),
    [
        ("slack", b"invalid_payload", "400 invalid_payload"),
        ("slack", b"no_service\n", "400 no_service"),
        ("slack", b"services/T0/B0/token", "400"),
        ("slack", b"invalid_payload services/T0/B0/token", "400"),
        ("pagerduty", b'{"status":"invalid event","message":"m","errors":["e"]}', "400"),
        ("plain", b"invalid_payload", "400"),
        ("discord", b'{"message":"m","code":50035}', "400"),
    ],
)
async def test_of_a_receivers_words_only_the_codes_of_its_documentation_are_passed_on(
    receiver: Receiver, kind: str, said: bytes, answered: str
) -> None:
    receiver.reply = says(answer(400, body=said))
    result = await sent(receiver, kind)
    assert (result.outcome, result.answer) == (SendOutcome.REFUSED, answered)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("code", [200, 400, 401, 503])
async def test_what_a_receiver_echoes_is_shown_nowhere(receiver: Receiver, kind: str, code: int) -> None:
    echoed = ["services/T0/B0/t0ken", "services\\/T0\\/B0\\/t0ken", "t0ken", "s1g", "l0gin", "k" * 32, TOKEN]
    for body in (" ".join(echoed), json.dumps({"ok": False, "error": "t0ken", "status": "k" * 32, "message": echoed})):
        receiver.reply = says(answer(code, body=body.encode()))
        url = f"{receiver.url}/services/T0/B0/t0ken".replace("://", "://l0gin:l0gin@")
        with capture_logs() as logs:
            result = await sent(receiver, kind) if kind == "slack_bot" else None
            if result is None:
                async with sink_of(f"{url}?sig=s1g", kind, headers={"Authorization": "Bearer t0ken"}) as sink:
                    result = await sink.send([failed()])
        assert [word for word in echoed if word in f"{logs} {result}"] == []


@pytest.mark.parametrize("kind", ["slack", "discord", "slack_bot"])
async def test_a_success_whose_body_never_comes_is_a_timeout(receiver: Receiver, kind: str) -> None:
    async def reply(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        await hangs(writer)

    receiver.reply = reply
    assert await sent(receiver, kind, timeout="200ms") == SendResult(RETRY, "timeout", remedy=REMEDIES["timeout"])


@pytest.mark.parametrize(
    ("kind", "code", "remedy"),
    [
        ("slack", 403, "make a new one"),
        ("slack", 404, "make a new one"),
        ("slack", 410, "the channel is archived"),
        ("slack", 401, "correct headers or secret"),
        ("discord", 404, "make a new one"),
        ("discord", 429, "lower rate_limit"),
        ("teams", 401, "is the flow turned on"),
        ("pagerduty", 400, "is routing_key that of"),
        ("plain", 404, "nothing takes messages at this url"),
    ],
)
async def test_what_is_known_of_a_receiver_goes_first(receiver: Receiver, kind: str, code: int, remedy: str) -> None:
    receiver.reply = says(answer(code, body=b"no_service"))
    assert remedy in (await sent(receiver, kind)).remedy
