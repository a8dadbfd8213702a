"""The program with sinks by way of Apprise: one that hangs holds up nobody, no URL shows anywhere."""

import asyncio
import ssl

import pytest
import receiver as sockets
import trustme
from e2e.programme import outcome_of, page
from e2e.stage import RETRY, Document, Stage, all_have_ended, document_of, webhook, world_of

SECRETS = (b"user-1f6a", b"pass-77c2", b"path-90be")


def apprise(receiver: sockets.Receiver) -> Document:
    url = f"json://user-1f6a:pass-77c2@127.0.0.1:{receiver.port}/path-90be"
    return {"type": "apprise", "url": url, "events": ["*"], "rate_limit": "1000/s", "timeout": "1s", "retry": RETRY}


@pytest.mark.ci
async def test_services_that_hang_or_refuse_hold_up_nobody_and_their_urls_show_nowhere(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(40, ends_after_s=3.0, ends_within_s=4.0))
    hanging = await stage.enter(sockets.Receiver(sockets.hangs))
    refusing = await stage.enter(sockets.Receiver(sockets.says(sockets.answer(403))))
    taking = await stage.enter(sockets.Receiver(sockets.says(sockets.answer(200))))
    other = await stage.receiver()
    sinks = {"hang": apprise(hanging), "ill": apprise(refusing), "phone": apprise(taking), "well": webhook(other)}
    life = await stage.start(document_of({"default": simulator}, sinks) | {"log": {"level": "debug"}})
    pages = await life.started()
    await life.until(lambda: all_have_ended(other.events(), simulator.world), what="all was reported")
    await life.until(lambda: _all_arrived(taking, other.kept()), what="the phone had all of it")
    shown = [(await page(f"{pages}{path}"))[1].encode() for path in ("/metrics", "/readyz?verbose")]
    assert await life.stop() == 0

    assert hanging.requests
    assert {"403", "timeout"} <= {line["answer"] for line in life.logged("delivery.failed")}
    kept = [path.read_bytes() for path in await asyncio.to_thread(lambda: list(stage.folder.glob("watcher.db*")))]
    places = [life.stdout.lines.everything(), life.stderr.lines.everything(), *shown, *kept]
    assert [secret for secret in SECRETS for place in places if secret in place] == []
    assert not life.logged("library.warned")


async def test_a_check_shows_the_scheme_alone(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(1, ends_within_s=60.0))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with await asyncio.start_server(_refuse, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"jsons://user-1f6a:pass-77c2@127.0.0.1:{port}/path-90be?verify=no"
        document = document_of({"default": simulator}, {"phone": {"type": "apprise", "url": url}})
        path = await asyncio.to_thread(stage.write, document)
        outcome = await outcome_of("check", "--online", "--send", "--config", str(path), folder=stage.folder)
    assert outcome.code == 4
    assert outcome.stdout.splitlines()[-1].endswith("\tanswers 403")
    shown = outcome.stdout + outcome.stderr
    assert not any(secret in shown for secret in (*(each.decode() for each in SECRETS), f":{port}", "127.0.0.1"))


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await sockets.says(sockets.answer(403, connection="close"))(writer)
    writer.close()


def _all_arrived(receiver: sockets.Receiver, events: list[bytes]) -> bool:
    """Say whether each of these events was in a message."""
    everything = b"".join(request.body for request in receiver.requests)
    return all(event[event.index(b'"id":"') + 6 :][:36] in everything for event in events)
