"""Trying keys and webhooks on real sockets: what is asked, what is sent, what is told of it."""

import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from receiver import Receiver, Reply, answer, hangs, resets, says
from standardwebhooks import Webhook

from watcher.clock import SystemClock
from watcher.config.models import Settings
from watcher.errors import Exit
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.server import SIM_KEY
from watcher.simulator.simulate import SimulateOptions, build_simulator, build_world
from watcher.trials import Trial, _kind, try_everything

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
RUN = "9a1b0000-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def tried(document: dict[str, Any], *, send: bool = False) -> Trial:
    (trial,) = await try_everything(Settings.model_validate(document), clock=SystemClock(), send=send)
    return trial


def account(base_url: str, **keys: str) -> dict[str, Any]:
    watch = {"pipeline": PIPELINE, "account": "eu", "executions": [RUN]}
    return {"accounts": {"eu": {"api_key": SIM_KEY, "base_url": base_url, **keys}}, "watch": [watch]}


def hook(url: str, **keys: Any) -> dict[str, Any]:  # noqa: ANN401 (whatever a block holds)
    sinks = {"ops": {"type": "webhook", "url": f"{url}/secret/path", **keys}, "stdout": {"type": "stdout"}}
    return {"sinks": sinks}


async def test_a_key_is_tried_with_an_execution_that_is_watched() -> None:
    world = build_world(SimulateOptions(pipelines_count=1, executions_count=1), clock=SystemClock())
    (execution,) = world.executions()
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        document = account(simulator.base_url)
        document["watch"][0] |= {"pipeline": execution.pipeline.id, "executions": [execution.id]}
        trial = await tried(document)
        (entry,) = simulator.journal.entries
    assert (trial.target, trial.place, trial.works) == ("accounts.eu", "http://127.0.0.1", True)
    assert "takes the key" in trial.words
    assert (entry.endpoint, entry.execution) == ("get", execution.id)


async def test_a_key_that_watches_nothing_is_tried_with_an_execution_nobody_knows() -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        trial = await tried(account(simulator.base_url) | {"watch": []})
        (entry,) = simulator.journal.entries
    assert trial.works
    assert trial.words == "takes the key, but does not know the execution it was asked for"
    assert (entry.endpoint, entry.code) == ("get", 404)


async def test_a_key_that_watches_a_whole_pipeline_is_tried_once_with_its_list() -> None:
    world = build_world(SimulateOptions(pipelines_count=1, executions_count=1), clock=SystemClock())
    (pipeline,) = world.pipelines()
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        document = account(simulator.base_url)
        document["watch"].append({"pipeline": pipeline.id, "account": "eu"})
        trial = await tried(document)
        (entry,) = simulator.journal.entries
    assert (trial.works, trial.words) == (True, "takes the key")
    assert (entry.endpoint, entry.pipeline) == ("list", pipeline.id)


async def test_a_list_that_is_not_known_is_told_as_such() -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        trial = await tried(account(simulator.base_url) | {"watch": [{"pipeline": PIPELINE, "account": "eu"}]})
    assert (trial.code, trial.words) == (Exit.NOT_FOUND, f"takes the key, but does not know pipeline {PIPELINE}")
    assert trial.hint.startswith("correct its id")


@pytest.mark.parametrize(("watch", "wanted"), [({}, "a list of executions"), ({"executions": [RUN]}, "an execution")])
async def test_what_is_no_answer_of_the_api_is_told_by_what_was_wanted(watch: dict[str, Any], wanted: str) -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        simulator.faults = Faults(windows=(Window(Fault.HTML),))
        trial = await tried(account(simulator.base_url) | {"watch": [{"pipeline": PIPELINE, "account": "eu", **watch}]})
    assert (trial.works, trial.words) == (False, f"answers with something else than {wanted} (200)")


async def test_a_key_that_is_refused_is_told_without_the_key() -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        trial = await tried(account(simulator.base_url, api_key="sk-wrong"))
    assert (trial.works, trial.words) == (False, "refuses this key (401)")
    assert trial.hint == "copy the key again from Clerk Chat; it is read from accounts.eu.api_key"
    assert "sk-wrong" not in repr(trial)


async def test_a_key_from_a_file_is_told_by_its_file() -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        trial = await tried(account(simulator.base_url, api_key="wrong", api_key_file="/run/secrets/key"))
    assert trial.hint.endswith("accounts.eu.api_key_file")


async def test_an_api_in_trouble_is_told_with_its_code() -> None:
    world = build_world(SimulateOptions(), clock=SystemClock())
    async with build_simulator(SimulateOptions(port=0), world=world) as simulator:
        simulator.faults = Faults(windows=(Window(Fault.SERVER_ERROR),))
        trial = await tried(account(simulator.base_url))
    assert not trial.works
    assert trial.words.startswith("is in trouble (5")


async def test_an_api_that_is_not_there_cannot_be_reached() -> None:
    trial = await tried(account("http://127.0.0.1:1"))
    assert (trial.works, trial.words) == (False, "cannot be reached")


async def test_a_webhook_is_connected_to_and_sent_nothing(receiver: Receiver) -> None:
    trial = await tried(hook(receiver.url))
    assert (trial.target, trial.place, trial.works) == ("sinks.ops", "http://127.0.0.1", True)
    assert trial.words == "connected, nothing sent"
    assert receiver.requests == []


async def test_behind_a_proxy_the_proxy_is_connected_to(receiver: Receiver, no_proxy: pytest.MonkeyPatch) -> None:
    no_proxy.setenv("http_proxy", receiver.url)
    trial = await tried(hook("http://hooks.invalid"))
    assert (trial.place, trial.works, trial.words) == ("http://hooks.invalid", True, "proxy connected, nothing sent")


@pytest.mark.parametrize(
    ("url", "words"),
    [("http://127.0.0.1:1", "fails (connection)"), ("http://nowhere.invalid", "fails (dns)")],
)
async def test_a_webhook_that_cannot_be_connected_to_says_why(url: str, words: str) -> None:
    trial = await tried(hook(url))
    assert (trial.works, trial.words) == (False, words)
    assert trial.hint


async def test_a_webhook_that_speaks_no_tls_says_so(receiver: Receiver) -> None:
    receiver.reply = says(b"220 smtp\r\n")
    trial = await tried(hook(receiver.url.replace("http://", "https://"), timeout="1s"))
    assert not trial.works
    assert "secret" not in repr(trial)


@pytest.mark.parametrize(
    ("error", "kind"), [(TimeoutError(), "timeout"), (ssl.SSLError(), "tls"), (ConnectionResetError(), "connection")]
)
def test_what_went_wrong_has_one_name(error: OSError, kind: str) -> None:
    assert _kind(error) == kind


async def test_a_test_event_is_signed_as_the_real_thing(receiver: Receiver) -> None:
    trial = await tried(hook(receiver.url, secret=SECRET, events=["execution.failed"]), send=True)
    (request,) = receiver.requests
    event = Webhook(SECRET).verify(request.body, request.headers)
    assert event == json.loads(request.body)
    assert (event["type"], event["source"], event["data"]["sink"]) == ("watcher.test", "/sinks/ops", "ops")
    assert event["id"] == request.headers["webhook-id"]
    assert (trial.works, trial.words) == (True, "took a watcher.test (204)")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (says(answer(404)), "answers 404"),
        (says(answer(302)), "answers 302"),
        (resets, "fails (connection)"),
        (hangs, "fails (timeout)"),
    ],
)
async def test_a_webhook_that_does_not_take_it_says_why(receiver: Receiver, reply: Reply, words: str) -> None:
    receiver.reply = reply
    trial = await tried(hook(receiver.url, timeout="300ms"), send=True)
    assert (trial.works, trial.words) == (False, words)
    assert "secret" not in repr(trial)
