"""The program with its state in PostgreSQL: a server that goes away and comes back, and a login that is refused."""

import asyncio
from pathlib import Path

import pytest
from e2e import checks
from e2e.programme import outcome_of
from e2e.stage import Stage, all_have_ended, document_of, webhook, world_of
from postgres import WITH_PASSWORD, PostgresServer

pytestmark = pytest.mark.untraced

OTHERS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'"


async def test_a_server_that_restarts_and_ends_connections_loses_nothing(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(60, ends_within_s=8.0))
    receiver = await stage.receiver()
    life = await stage.start(document_of({"default": simulator}, {"ops": webhook(receiver)}))
    await life.started()
    database = stage.store_url.partition("@/")[2].partition("?")[0]
    for count in (20, 60):
        await life.until(lambda count=count: len(receiver.events()) >= count, what=f"{count} arrived")  # type: ignore[misc]
        await asyncio.to_thread(postgres.run, OTHERS.format(database))
        await asyncio.to_thread(postgres.stop)
        await life.until(lambda: life.logged("store.failed"), what="it missed the server")
        await asyncio.to_thread(postgres.start)
    await life.until(
        lambda: all(all_have_ended(events, simulator.world) for events in (receiver.events(), life.events())),
        what="all was reported",
    )
    assert await life.stop() == 0
    assert checks.of_all(simulator, life.emitted, receiver) == []


async def test_a_refused_login_ends_it_and_shows_no_password(postgres_stage: Stage) -> None:
    stage = postgres_stage
    simulator = await stage.simulator(world_of(1, ends_within_s=1.0))
    await asyncio.to_thread((stage.folder / "db").write_text, "hunter2\n")
    url = stage.store_url.replace("postgres@", f"{WITH_PASSWORD}@")
    document = document_of({"default": simulator}) | {"store": {"url": url, "password_file": "db"}}
    life = await stage.start(document)
    assert await life.end(within_s=10) == 2
    said = life.stderr.lines.everything().decode()
    assert "password authentication failed" in said
    path: Path = stage.folder / "watcher.yaml"
    checked = await outcome_of("check", "--config", str(path), folder=stage.folder)
    assert checked.code == 0
    assert "hunter2" not in said + checked.stdout + checked.stderr
