"""A standby that lacks the last seconds takes over while replicas run: what it lacks is seen and told again."""

import asyncio
import json

import pytest
from e2e import checks
from e2e.chaos import Replicas, document_of_accounts, have_ended, keys_of, world_of_accounts
from e2e.endpoint import Answer
from e2e.stage import ENDS, Stage
from postgres import PostgresServer

pytestmark = pytest.mark.ci

ACCOUNTS, PLACES, LOST_S = 4, 2, 5.0


async def test_what_a_database_of_five_seconds_ago_lacks_is_told_once_the_replicas_reload_from_it(
    postgres_stage: Stage, postgres: PostgresServer
) -> None:
    stage, url = postgres_stage, postgres_stage.store_url
    world = world_of_accounts(ACCOUNTS, 80, span_s=20.0, seed=stage.dice.randrange(1_000_000))
    simulator = await stage.simulator(world, api_keys=keys_of(ACCOUNTS, PLACES))
    is_lost = False  # what is recorded meanwhile
    receiver = await stage.receiver(lambda _: Answer.REFUSE if is_lost else Answer.TAKE)
    document = document_of_accounts(simulator, {"ops": receiver}, rate=20)
    replicas = Replicas(stage, url, postgres, simulator.request_log, document, ACCOUNTS, PLACES)
    await replicas.start_all()
    await replicas.until_spread(within_s=60)

    copy = await asyncio.to_thread(postgres.copy, url)
    is_lost = True
    await asyncio.sleep(LOST_S)
    await asyncio.to_thread(postgres.put_in_place, copy, url)
    is_lost = False

    wanted = have_ended(world)
    await stage.board.until(
        lambda: wanted <= {each["subject"] for type_ in ENDS for each in receiver.events(type_)},
        within_s=60,
        what="every end was told",
    )
    assert set(await replicas.end_all()) == {0}
    assert all(life.logged("store.connection_lost") for life in stage.lives)
    assert checks.of_completeness(receiver.kept(), simulator) == []
    recorded = {
        json.loads(bytes(body))["subject"]
        for (body,) in await asyncio.to_thread(
            postgres.run, "SELECT body FROM event WHERE type IN ('execution.success', 'execution.failed')", url
        )
    }
    assert wanted <= recorded
    for life in stage.lives:
        said = life.stderr.lines.everything()
        assert b"Traceback" not in said
        assert b"this is a bug" not in said
