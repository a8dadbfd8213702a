"""What the demonstration shows people, and what its receiver takes."""

import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from examples import EVENT

from watcher.cli.commands.demo import SECRET, DemoReceiver, summary
from watcher.sinks.webhook import sign, signing_key


def test_the_summary_counts_what_was_delivered_and_what_was_missed() -> None:
    receiver = DemoReceiver(lambda _: None)
    receiver.delivered, receiver.refused = {"1", "2"}, {"1"}
    receiver.statuses = {"a": "success", "b": "running", "c": "failed"}
    text = summary(receiver, truth={"a": "success", "b": "failed", "c": "failed", "d": "running"})
    assert text == (
        "3 executions: 1 success, 1 failed, 1 open, 1 ends missed · "
        "2 events delivered, 1 after a retry, 0 with a wrong signature"
    )


@pytest.mark.parametrize("signed", [True, False])
async def test_the_receiver_takes_what_is_signed_and_takes_it_once(*, signed: bool) -> None:
    emitted: list[dict[str, Any]] = []
    receiver = DemoReceiver(emitted.append)
    application = web.Application()
    application.router.add_post("/clerk", receiver.receive)
    body = json.dumps(EVENT).encode()
    signature = sign(body, message_id=EVENT["id"], timestamp="1", keys=[signing_key(SECRET)]) if signed else "v1,no"
    headers = {"webhook-id": EVENT["id"], "webhook-timestamp": "1", "webhook-signature": signature}
    async with TestClient(TestServer(application)) as client:
        codes = [(await client.post("/clerk", data=body, headers=headers)).status for _ in range(3)]
    assert set(codes) - {500} == ({204} if signed else {401})
    assert emitted == ([EVENT] if signed else [])
    assert bool(receiver.unsigned_count) is not signed
