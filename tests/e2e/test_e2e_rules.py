"""Rules of a pipeline in the running program: a problem outlasts a kill, and ends with its rule."""

import pytest
from e2e.stage import FAILING, Stage, document_of, failing_world, webhook

pytestmark = pytest.mark.untraced


async def test_a_problem_outlasts_a_kill_and_ends_where_it_began_once_its_rule_is_removed(stage: Stage) -> None:
    simulator, receiver = await stage.simulator(failing_world()), await stage.receiver()
    rules = {"failing": {"consecutive": 3}}
    document = document_of({"default": simulator}, {"ops": webhook(receiver) | {"events": ["pipeline.failing"]}})
    document["watch"] = [{"pipeline": FAILING.id, "account": "default", "rules": rules}]
    document["polling"] = {"min_interval": "300ms", "max_interval": "1s", "first_sight": "notify"}
    life = await stage.start(document)
    await life.until(receiver.events, what="the problem was opened")
    await life.kill()
    life = await stage.start(document)
    await life.started()
    stage.write(document | {"watch": [{"pipeline": FAILING.id, "account": "default"}]})
    await life.until(lambda: len(receiver.events()) > 1, what="the problem was closed")
    assert await life.stop() == 0
    opening, closing = receiver.events()
    assert (opening["type"], closing["type"]) == ("pipeline.failing", "problem.closed")
    assert closing["data"]["reason"] == "removed"
    assert closing["data"]["problem"]["id"] == opening["data"]["problem"]["id"]
    assert opening["data"]["execution"]["failedNodes"]
