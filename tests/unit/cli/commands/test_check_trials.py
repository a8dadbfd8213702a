"""Trying keys, sinks and stores on real sockets: what is asked, what is sent, what is reported of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trustme
from fake_slack import CHANNEL, TOKEN, FakeSlack
from mail_server import PASSWORD, USERNAME, MailServer
from postgres import EMPTY, PostgresServer, shape
from receiver import Receiver, answer, says
from receiver import Reply as Answering
from standardwebhooks import Webhook
from tls import serving

from watcher.clerk.api import Reply
from watcher.cli.check.trials import CheckResult, slow_words, try_everything
from watcher.config.models import Settings
from watcher.domain.errors import Exit
from watcher.domain.execution import ExecutionSnapshot, Outcome
from watcher.domain.timestamps import Monotonic
from watcher.rules.slow import Slow, SlowSettings
from watcher.runtime.clock import Clock
from watcher.runtime.metrics import Metrics
from watcher.runtime.units import Address
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.scenarios import populate
from watcher.simulator.server import SIM_KEY, Simulator
from watcher.simulator.world import World
from watcher.sinks.slack_api import ERROR_REMEDIES
from watcher.web.health import Checks, health_routes
from watcher.web.server import HttpServer

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
RUN = "9a1b0000-0000-4000-8000-000000000001"


async def all_tried(document: dict[str, Any], *, send: bool = False) -> list[CheckResult]:
    settings, clock = Settings.model_validate({"http": {"listen": "127.0.0.1:0"}, **document}), Clock()
    return [*await try_everything(settings, clock=clock, send=send)]


async def tried(document: dict[str, Any], *, send: bool = False) -> CheckResult:
    (trial,) = await all_tried(document, send=send)
    return trial


def filled(pipelines_count: int = 5, executions_count: int = 8) -> World:
    world = World(Clock())
    populate(world, pipelines_count=pipelines_count, executions_count=executions_count)
    return world


def account(base_url: str, **keys: str) -> dict[str, Any]:
    watch = {"pipeline": PIPELINE, "account": "eu", "executions": [RUN]}
    return {"accounts": {"eu": {"api_key": SIM_KEY, "base_url": base_url, **keys}}, "watch": [watch]}


def hook(url: str, **keys: Any) -> dict[str, Any]:
    sinks = {"ops": {"type": "webhook", "url": f"{url}/secret/path", **keys}, "stdout": {"type": "stdout"}}
    return {"sinks": sinks}


async def test_every_pipeline_is_tried_and_without_one_a_pipeline_nobody_knows() -> None:
    async with Simulator(filled()) as simulator:
        trial = await tried(account(simulator.base_url) | {"watch": []})
        (entry,) = simulator.request_log.entries
    assert (trial.code, trial.words) == (Exit.DONE, "accepts the key; nothing is watched with it")
    assert (entry.endpoint, entry.code) == ("list", 404)
    world = filled(pipelines_count=3, executions_count=1)
    ids = [*world.pipelines, PIPELINE]
    watches = [{"pipeline": pipeline, "account": "eu"} for pipeline in ids]
    async with Simulator(world) as simulator:
        of_key, of_watch = await all_tried(account(simulator.base_url, rate_limit="50/s") | {"watch": watches})
        asked = [(entry.endpoint, entry.pipeline) for entry in simulator.request_log.entries]
    assert (of_key.code, of_key.words) == (Exit.DONE, "accepts the key")
    assert (of_watch.target, of_watch.code) == ("watch[3]", Exit.NOT_FOUND)
    assert of_watch.hint.startswith("correct its id")
    assert asked == [("list", pipeline) for pipeline in ids]


async def test_the_first_request_waits_for_nothing_the_others_for_the_pace_of_the_key(receiver: Receiver) -> None:
    world = filled(pipelines_count=4, executions_count=1)
    watches = [{"pipeline": pipeline.id, "account": "eu"} for pipeline in world.pipelines.values()]
    async with Simulator(world) as simulator:
        document = account(simulator.base_url, rate_limit="20/s") | {"watch": watches}
        began_at = Clock().monotonic()
        settings = Settings.model_validate(document)
        await try_everything(settings, clock=Clock(), send=False)
    assert Clock().monotonic() - began_at >= 3 / 20
    receiver.reply = says(answer(404))
    trials = await asyncio.wait_for(all_tried(account(receiver.url, rate_limit="1/h") | {"watch": []}), 5)
    assert [trial.code for trial in trials] == [Exit.DONE]


UNKNOWN = "22222222-3c4d-4e5f-8a9b-0c1d2e3f4a5b"
CODES = Mapping[str, int]


def answering(receiver: Receiver, codes: CODES) -> Answering:
    """Answer by the first of these texts that is in the address, with a list otherwise."""

    async def reply(writer: asyncio.StreamWriter) -> None:
        line = receiver.requests[-1].line
        code = next((code for text, code in codes.items() if text in line), 200)
        body = b'{"data": [], "total": 0}'
        ok = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        await says(ok if code == 200 else answer(code))(writer)

    return reply


WHOLE, ANOTHER, NAMED = {"pipeline": PIPELINE}, {"pipeline": UNKNOWN}, {"pipeline": PIPELINE, "executions": [RUN]}
ACCEPTED = ("accounts.eu", 0, "accepts the key")
TO_KEY, NOT_KNOWN = " to this key (403)", "does not know pipeline"
KEY_REFUSED, DOWN = (("accounts.eu", 4, it) for it in ("refuses this key (403)", "answers with a server error (502)"))
UNKNOWN_PIPELINE = ("watch[0]", 5, f"{NOT_KNOWN} {PIPELINE} (404)")


@pytest.mark.parametrize(
    ("codes", "watches", "found", "asked_count"),
    [
        ({UNKNOWN: 403}, [ANOTHER, WHOLE], [ACCEPTED, ("watch[0]", 4, f"refuses pipeline {UNKNOWN}{TO_KEY}")], 2),
        ({"/": 403}, [WHOLE], [KEY_REFUSED, ("watch[0]", 4, f"refuses pipeline {PIPELINE}{TO_KEY}")], 1),
        ({"/": 401}, [WHOLE, ANOTHER], [("accounts.eu", 4, "refuses this key (401)")], 1),  # it would be answered again
        ({PIPELINE: 502, UNKNOWN: 404}, [ANOTHER, WHOLE], [DOWN, ("watch[0]", 5, f"{NOT_KNOWN} {UNKNOWN} (404)")], 2),
        ({}, [NAMED], [ACCEPTED], 1),
        ({"/": 404}, [NAMED], [ACCEPTED, UNKNOWN_PIPELINE], 1),
    ],
)
async def test_what_is_answered_is_said_of_the_key_or_of_the_watch(
    receiver: Receiver, codes: CODES, watches: list[dict[str, Any]], found: list[tuple[str, int, str]], asked_count: int
) -> None:
    receiver.reply = answering(receiver, codes)
    document = account(receiver.url, rate_limit="1000/s")
    trials = await all_tried(document | {"watch": [{"account": "eu", **watch} for watch in watches]})
    assert [(trial.target, int(trial.code), trial.words) for trial in trials] == found
    assert len(receiver.requests) == asked_count


@pytest.mark.parametrize("watch", [{}, {"executions": [RUN]}])
async def test_what_is_no_answer_of_the_api_is_reported_as_such(watch: dict[str, Any]) -> None:
    async with Simulator(filled(), faults=Faults(windows=(Window(Fault.HTML),))) as simulator:
        trial = await tried(account(simulator.base_url) | {"watch": [{"pipeline": PIPELINE, "account": "eu", **watch}]})
    assert (trial.code, trial.words) == (Exit.UNREACHABLE, "does not answer as Clerk Chat's API does (200)")


START, AFTER_S = datetime(2026, 11, 24, 10, tzinfo=UTC), timedelta(seconds=1)
LIMIT = "95 % took at most 42 s, limit 2 m 6 s"
HIGHER_LIMIT = "95 % took at most 2 m 6 s, limit 6 m 18 s"
REPORTED = "would have been reported for"
WHOLE_LIST, FIRST_PAGE = "the list shows", "the first page of the list shows"


def ended(*durations_s: float, status: str = "success") -> list[ExecutionSnapshot]:
    """Return executions that took so long, one after the other."""
    return [
        ExecutionSnapshot(
            f"e{nth}", status, started_at=START + nth * AFTER_S, finished_at=START + (nth + took_s) * AFTER_S
        )
        for nth, took_s in enumerate(durations_s)
    ]


NO_PAST = [
    ExecutionSnapshot("a", "success"),
    ExecutionSnapshot("b", "success", started_at=START, finished_at=START),
    ExecutionSnapshot("c", "success", started_at=START, finished_at=START - AFTER_S),
    ExecutionSnapshot("d", "running", started_at=START),
    *ended(42, status="failed"),
]
MANY = [*[42] * 20, 127, 126, *[42] * 20, 400, *[42] * 5]


@pytest.mark.parametrize("newest_first", [True, False])
@pytest.mark.parametrize(
    ("rows", "others", "words"),
    [
        (ended(*[42] * 7), {}, f"{WHOLE_LIST} 7 successes, 20 are needed"),
        ([*NO_PAST, *ended(42, 42)], {}, f"{WHOLE_LIST} 2 successes, 20 are needed"),
        (ended(*[42] * 20), {}, f"{WHOLE_LIST} 20 successes and none after them; {LIMIT}"),
        (ended(*[42] * 20, 127), {}, f"{REPORTED} 1 of 1 success after the first 20 ({WHOLE_LIST} 21); {LIMIT}"),
        (ended(*MANY), {}, f"{REPORTED} 2 of 28 successes after the first 20 ({WHOLE_LIST} 48); {HIGHER_LIMIT}"),
        (ended(*[42] * 50, status="failed"), {}, f"{FIRST_PAGE} 0 successes, 20 are needed"),
        (ended(*[42] * 7), {"total": 8}, f"{FIRST_PAGE} 7 successes, 20 are needed"),
        (ended(*[42] * 7), {"total": 7}, f"{WHOLE_LIST} 7 successes, 20 are needed"),
        (ended(*[42] * 19), {"skipped": 31}, f"{FIRST_PAGE} 19 successes, 20 are needed"),
    ],
)
def test_a_watch_with_slow_says_how_often_it_would_have_been_reported(
    rows: list[ExecutionSnapshot], others: dict[str, int], words: str, *, newest_first: bool
) -> None:
    listed = tuple(rows[::-1] if newest_first else rows)
    rule = Slow(SlowSettings())
    page = Reply(Outcome.OK, Monotonic(0.0), None, 200, rows=listed, **others)  # type: ignore[arg-type]
    assert slow_words(rule, page) == f"slow: {words}"
    assert "shows 0 successes, 20 are needed" in slow_words(rule, page, executions=["none"])


async def test_a_watch_with_slow_hides_no_failure_of_another_or_of_the_key(receiver: Receiver) -> None:
    slow = {"pipeline": PIPELINE, "account": "eu", "rules": {"slow": {}}}
    unknown = {"pipeline": UNKNOWN, "account": "eu", "rules": {"slow": {}}}
    document = account(receiver.url, rate_limit="1000/s") | {"watch": [slow, unknown]}
    receiver.reply = answering(receiver, {UNKNOWN: 403})
    shown, refused = "slow: the list shows 0 successes, 20 are needed", f"refuses pipeline {UNKNOWN} to this key (403)"
    assert [(trial.target, int(trial.code), trial.words) for trial in await all_tried(document)] == [
        ACCEPTED,
        ("watch[0]", 0, shown),
        ("watch[1]", 4, refused),
    ]
    receiver.reply = answering(receiver, {UNKNOWN: 502})
    assert [(trial.target, int(trial.code)) for trial in await all_tried(document)] == [
        ("accounts.eu", 4),
        ("watch[0]", 0),
    ]


@pytest.mark.parametrize("place", ["api_key", "api_key_file"])
async def test_a_key_that_is_refused_is_reported_without_the_key(place: str) -> None:
    keys = {"api_key": "sk-wrong"} | ({} if place == "api_key" else {place: "/run/secrets/key"})
    async with Simulator(filled()) as simulator:
        trial = await tried(account(simulator.base_url, **keys))
    assert (trial.code, trial.words) == (Exit.UNREACHABLE, "refuses this key (401)")
    assert trial.hint == f"copy the key again from Clerk Chat; it is read from accounts.eu.{place}"
    assert "sk-wrong" not in repr(trial)


async def test_an_api_whose_certificate_is_not_trusted_names_the_way_out() -> None:
    async with Receiver(tls=serving(trustme.CA(), "127.0.0.1")) as api:
        trial = await tried(account(api.url))
    assert (trial.code, trial.words) == (Exit.UNREACHABLE, "cannot be reached (tls)")
    assert trial.hint.startswith("SSL_CERT_FILE, or tls.ca_file of a sink, names the CA to trust")


async def test_a_webhook_or_its_proxy_is_connected_to_and_sent_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = await tried(hook(receiver.url))
    assert (trial.target, trial.place, trial.code) == ("sinks.ops", receiver.url, Exit.DONE)
    assert trial.words == "connected, nothing sent"
    assert receiver.requests == []
    monkeypatch.setenv("http_proxy", receiver.url)
    trial = await tried(hook("http://hooks.invalid"))
    assert (trial.place, trial.code) == ("http://hooks.invalid", Exit.DONE)
    assert trial.words == "proxy connected, nothing sent"


LOGIN = "HTTPS_PROXY=http://user:password@host:port (HTTP_PROXY for http://)"
NOT_THERE = "the proxy cannot be reached: correct its URL in HTTPS_PROXY"


@pytest.mark.parametrize(
    ("proxy", "cause", "hint"),
    [
        ("http://me:hunter2@{host}", "proxy_auth", LOGIN),
        ("nowhere.invalid:3128", "proxy", NOT_THERE),
        ("http://me:hunter2@127.0.0.1:1", "proxy", NOT_THERE),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_in_trouble_is_not_taken_for_the_target(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, scheme: str, proxy: str, cause: str, hint: str
) -> None:
    receiver.reply = says(answer(407))
    monkeypatch.setenv(f"{scheme}_proxy", proxy.format(host=receiver.url.removeprefix("http://")))
    of_api = await tried(account(f"{scheme}://api.invalid"))
    of_sink = await tried(hook(f"{scheme}://hooks.invalid"), send=True)
    assert (of_api.words, of_sink.words) == (f"cannot be reached ({cause})", f"fails ({cause})")
    for trial in (of_api, of_sink):
        assert (trial.code, hint in trial.hint) == (Exit.UNREACHABLE, True)
        assert "hunter2" not in repr(trial)


async def test_a_407_without_a_proxy_is_the_receivers_own(receiver: Receiver) -> None:
    receiver.reply = says(answer(407))
    assert (await tried(hook(receiver.url), send=True)).words == "answers 407"
    assert "(407)" in (await tried(account(receiver.url))).words


@pytest.mark.parametrize(
    ("url", "keys", "words", "hint"),
    [
        ("http://127.0.0.1:1", {}, "fails (refused)", "correct the URL"),
        ("http://nowhere.invalid", {}, "fails (dns)", "correct the URL"),
        (
            "http://127.0.0.1:1",
            {"allow_private": "false"},
            "fails (private)",
            "its address is private: correct url, or set allow_private: true if that is meant",
        ),
    ],
)
async def test_a_webhook_that_is_not_there_says_why(url: str, keys: dict[str, str], words: str, hint: str) -> None:
    trial = await tried(hook(url, **keys))
    assert (trial.code, trial.words, hint in trial.hint) == (Exit.UNREACHABLE, words, True)


async def test_a_test_event_is_signed_as_the_real_thing(receiver: Receiver) -> None:
    trial = await tried(hook(receiver.url, secret=SECRET, events=["execution.failed"]), send=True)
    (request,) = receiver.requests
    event = Webhook(SECRET).verify(request.body, request.headers)
    assert event == json.loads(request.body)
    assert (event["type"], event["source"], event["data"]["sink"]) == ("watcher.test", "/sinks/ops", "ops")
    assert event["id"] == request.headers["webhook-id"]
    assert (trial.code, trial.words) == (Exit.DONE, "accepted a watcher.test (204)")


async def test_what_is_only_accepted_is_said_to_be_so(receiver: Receiver) -> None:
    receiver.reply = says(answer(202))
    trial = await tried(hook(receiver.url, template="pagerduty", routing_key="k" * 32), send=True)
    assert (trial.code, trial.words) == (Exit.DONE, "accepted a watcher.test, and has yet to show it (202)")
    actions = [json.loads(request.body)["event_action"] for request in receiver.requests]
    assert actions == ["trigger", "resolve"]


async def test_a_test_alert_at_alertmanager_lasts_a_minute(receiver: Receiver) -> None:
    receiver.reply = says(answer(200))
    assert (await tried(hook(receiver.url, template="alertmanager"), send=True)).code is Exit.DONE
    ((alert,),) = (json.loads(request.body) for request in receiver.requests)
    left = datetime.fromisoformat(alert["endsAt"]) - datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


async def test_the_token_of_a_slack_app_is_taken_and_nothing_is_posted(slack: FakeSlack) -> None:
    trial = await tried({"sinks": {"chat": slack.block()}})
    assert (trial.target, trial.code, trial.place) == ("sinks.chat", Exit.DONE, slack.url.removesuffix("/api"))
    assert trial.words == f"takes the token; whether it may post in {CHANNEL} is shown by --send; nothing sent"
    assert slack.calls == ["auth.test"]


@pytest.mark.parametrize(
    ("error", "path", "words", "hint"),
    [
        ("invalid_auth", "", "fails (invalid_auth)", ERROR_REMEDIES["invalid_auth"]),
        ("token_revoked", "", "fails (token_revoked)", ERROR_REMEDIES["token_revoked"]),
        ("", "/elsewhere", "answers 404", "is url that of Slack's Web API?"),
    ],
)
async def test_a_refused_token_and_what_is_not_slack_say_what_to_do(
    slack: FakeSlack, error: str, path: str, words: str, hint: str
) -> None:
    slack.says.extend([error] if error else [])
    trial = await tried({"sinks": {"chat": slack.block(url=f"{slack.url}{path}")}})
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, words, hint)
    assert TOKEN not in repr(trial)


async def test_the_heartbeat_is_pinged_once_and_its_path_not_shown(receiver: Receiver) -> None:
    heartbeat = {"heartbeat": {"url": f"{receiver.url}/s3cret"}}
    trial = await tried(heartbeat)
    assert (trial.target, trial.place, trial.code) == ("heartbeat.url", receiver.url, Exit.DONE)
    assert trial.words == "accepts a ping"
    assert [request.line for request in receiver.requests] == ["GET /s3cret HTTP/1.1"]
    receiver.reply = says(answer(404))
    trial = await tried(heartbeat)
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, "answers 404", "correct url of heartbeat")
    trial = await tried({"heartbeat": {"url": "http://127.0.0.1:1/s3cret"}})
    assert (trial.code, trial.words, "s3cret" in repr(trial)) == (Exit.UNREACHABLE, "fails (refused)", False)


@pytest.mark.parametrize("metrics", [b"other_build_info 1\n", None])
async def test_an_address_of_something_else_cannot_be_listened_on(metrics: bytes | None, receiver: Receiver) -> None:
    receiver.reply = says(answer(404) if metrics is None else answer(200, body=metrics))
    listen = receiver.url.removeprefix("http://")
    trial = await tried({"http": {"listen": listen}})
    assert (trial.target, trial.place, trial.code) == ("http.listen", listen, Exit.UNREACHABLE)
    assert trial.words == "cannot be listened on (Address already in use)"
    assert trial.hint == "choose another address or port"


async def test_an_address_is_free_or_of_our_daemon_unless_of_another_machine() -> None:
    trial = await tried({"http": {"listen": "192.0.2.1:8080"}})
    assert (trial.code, trial.words) == (Exit.UNREACHABLE, "cannot be listened on (Cannot assign requested address)")

    async def none() -> Sequence[str]:
        return ()

    async def refresh() -> None:
        pass

    clock, checks = Clock(), Checks(tuple, none, refresh)
    server = HttpServer(health_routes(lambda: checks, Metrics().text, clock=clock), clock=clock)
    port = await server.listen(Address("127.0.0.1", 0))
    document = {"http": {"listen": f"127.0.0.1:{port}"}}
    trial = await tried(document)
    assert (trial.code, trial.words, trial.hint) == (Exit.DONE, "is in use by a daemon that runs already", "")
    await server.close()
    for _ in range(2):
        trial = await tried(document)
        assert (trial.code, trial.words) == (Exit.DONE, "is free")


async def tried_store(url: str, **settings: str) -> CheckResult:
    trial = await tried({"store": {"url": url, **settings}})
    assert (trial.target, trial.place) == ("store.url", url.partition("?")[0])
    return trial


@pytest.mark.parametrize(
    ("url", "words", "hint"),
    [
        ("postgresql://127.0.0.1:1/x", "cannot be connected to: ", "see its URL, store.password_file and the server"),
        ("nowhere", 'database "nowhere" does not exist', "see its URL, store.password_file and the server"),
        ("theirs", "is a database, but not one of clerk-watcher", "name another"),
    ],
)
async def test_an_unusable_store_says_why_and_what_to_do(
    postgres: PostgresServer, url: str, words: str, hint: str
) -> None:
    with postgres.database(EMPTY) as theirs:
        postgres.run("CREATE TABLE theirs (id int)", theirs)
        urls = {"nowhere": postgres.url("nowhere"), "theirs": theirs}
        trial = await tried_store(urls.get(url, url), password="hunter2")
    assert (trial.code, trial.hint) == (Exit.UNREACHABLE, hint)
    assert words in trial.words
    assert "hunter2" not in trial.words


async def test_a_store_is_left_as_it_is_and_one_without_room_is_not_empty(postgres: PostgresServer) -> None:
    with postgres.database() as full, postgres.database(EMPTY) as empty:
        assert [(await tried_store(url)).words for url in (full, empty)] == ["can be used", "can be used; it is empty"]
        assert shape(postgres, empty) == [[], [], [], []]
    assert await all_tried({}) == []
    with postgres.database(EMPTY) as empty:
        lacking = await tried_store(f"{empty}&options=-csearch_path%3Dnowhere")
        postgres.run("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN", empty)
        refused = await tried_store(empty.replace("//postgres@", "//guest@"))
        postgres.run("DROP ROLE guest", empty)
    assert (lacking.code, lacking.words) == (Exit.UNREACHABLE, "has no schema of its search_path")
    assert lacking.hint == "create the schema, or correct its URL"
    assert (refused.code, refused.words) == (Exit.UNREACHABLE, "refuses this user")
    assert refused.hint == "grant it all rights in its schema"


@pytest.mark.parametrize("send", [False, True])
async def test_a_mail_server_is_logged_in_to_and_sent_a_test_if_that_is_asked_for(*, send: bool) -> None:
    async with MailServer(login=True) as server:
        block = server.block(username=USERNAME, password=PASSWORD)
        trial = await tried({"sinks": {"mail": block}}, send=send)
        wrong = await tried({"sinks": {"mail": block | {"password": "s3cret"}}}, send=send)
    assert (trial.code, trial.place) == (Exit.DONE, block["server"])
    assert trial.words == ("accepted a watcher.test (250)" if send else "connected and logged in, nothing sent")
    subjects = [mail.message["Subject"] for mail in server.mails]
    assert subjects == (["✓ Test message from clerk-watcher to its sink mail"] if send else [])
    assert (wrong.code, "535" in wrong.words, "s3cret" in repr(wrong)) == (Exit.UNREACHABLE, True, False)
    assert wrong.hint.startswith("correct username and password")
