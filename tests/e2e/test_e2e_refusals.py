"""What the daemon refuses to start with for now: reported on stderr, nothing on stdout, exit code 1.

What a person must correct is tested in this process, in `tests/unit/commands`.
"""

import socket

import pytest
from e2e.programme import Outcome, outcome_of
from e2e.stage import Document, Stage, document_of, world_of

pytestmark = pytest.mark.untraced


async def test_a_second_daemon_on_the_same_file_says_who_holds_it(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.started()
    outcome = await _run(stage, document)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"in use by pid {life.pid} on {socket.gethostname()}" in outcome.stderr
    assert not life.is_over


async def test_what_is_likely_a_mistake_is_logged_at_the_start_and_keeps_nothing_from_starting(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    hook = {"type": "webhook", "url": "http://127.0.0.1:9/hush", "match": {"labels": {"team": "nobody's"}}}
    life = await stage.start(document_of({"default": simulator}) | {"sinks": {"ops": hook}})
    await life.started()
    problems = [entry["problem"].partition(": sinks.ops")[2] for entry in life.logged("config.warning")]
    assert [problem.partition(",")[0].partition(";")[0] for problem in problems] == [
        ": has no secret",
        ".match.labels: no watch fits all of what is given",
    ]
    assert b"hush" not in life.stderr.lines.everything()


async def _run(stage: Stage, document: Document) -> Outcome:
    return await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
