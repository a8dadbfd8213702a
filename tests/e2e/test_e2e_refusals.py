"""What the program refuses to start with: everything about it on stderr, nothing on stdout (SPEC 6).

The exit code is 2 for what a person must correct, 1 for what may pass by itself.
"""

import re
import socket
from importlib.metadata import version
from pathlib import Path

from e2e.programme import Outcome, outcome_of
from e2e.stage import Document, Stage, document_of, world_of


async def test_the_version_is_told() -> None:
    outcome = await outcome_of("--version", folder=Path.cwd())
    assert outcome == Outcome(0, f"clerk-watcher {version('clerk-watcher')}\n", "")


async def test_a_second_daemon_on_the_same_file_is_told_who_holds_it(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    document = document_of({"default": simulator})
    life = await stage.start(document)
    await life.started()
    outcome = await _run(stage, document)
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"in use by pid {life.pid} on {socket.gethostname()}" in outcome.stderr
    assert not life.is_over


async def test_every_mistake_is_told_with_its_place(stage: Stage) -> None:
    document = {
        "accounts": {"default": {"api_key": "k", "rate_limit": 5}},
        "polling": {"min_interval": "soon"},
        "sinks": {"ops": {"type": "webhook"}},
        "store": {"urll": "sqlite:///watcher.db"},
    }
    outcome = await _run(stage, document)
    assert (outcome.code, outcome.stdout) == (2, "")
    told = [line for line in outcome.stderr.splitlines() if re.match(r"(error: )?\S*watcher\.yaml:\d+:\d+: ", line)]
    for key in ("accounts.default.rate_limit", "polling.min_interval", "sinks.ops", "store.urll"):
        assert any(key in line for line in told), outcome.stderr
    numbers = [int(re.findall(r"watcher\.yaml:(\d+):", line)[0]) for line in told]
    assert numbers == sorted(numbers)


async def test_nothing_to_watch_is_a_mistake(stage: Stage) -> None:
    outcome = await _run(stage, {"accounts": {"default": {"api_key": "k"}}})
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nothing to watch" in outcome.stderr


async def test_no_configuration_is_a_mistake_that_names_where_it_was_sought(stage: Stage) -> None:
    outcome = await outcome_of("run", folder=stage.folder)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "watcher.yaml" in outcome.stderr


async def test_a_port_that_is_taken_is_named(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        outcome = await _run(stage, document_of({"default": simulator}) | {"http": {"listen": listen}})
    assert (outcome.code, outcome.stdout) == (1, "")
    assert f"http.listen: cannot listen on {listen}" in outcome.stderr
    assert not simulator.journal.entries


async def test_a_store_in_a_folder_that_is_not_there_is_named(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    outcome = await _run(stage, document_of({"default": simulator}) | {"store": {"url": "sqlite:///nowhere/w.db"}})
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "nowhere/w.db cannot be used" in outcome.stderr


async def test_what_is_likely_a_mistake_is_logged_at_the_start_and_keeps_nothing_from_starting(stage: Stage) -> None:
    simulator = await stage.simulator(world_of(2, ends_within_s=60.0))
    hook = {"type": "webhook", "url": "http://127.0.0.1:9/hush", "match": {"labels": {"team": "nobody's"}}}
    life = await stage.start(document_of({"default": simulator}) | {"sinks": {"ops": hook}})
    await life.started()
    problems = [entry["problem"].partition(": sinks.ops")[2] for entry in life.logged("config.warning")]
    assert [problem.partition(",")[0].partition(";")[0] for problem in problems] == [
        ": has no secret",
        ".match.labels: no watch has these labels",
    ]
    assert b"hush" not in life.stderr.lines.everything()


async def _run(stage: Stage, document: Document) -> Outcome:
    return await outcome_of("run", "--config", str(stage.write(document)), folder=stage.folder)
