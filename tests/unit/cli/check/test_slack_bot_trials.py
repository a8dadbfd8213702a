"""Trying a Slack app: whose token it is, and whether it may post in the channel, without posting."""

import json
from collections.abc import AsyncIterator

import pytest
from fake_slack import CHANNEL, OTHER_CHANNEL, TOKEN, FakeSlack
from receiver import Receiver, answer, says

from watcher.cli.check.connectivity import Trial, trial_deliveries, try_everything
from watcher.config.models import Settings
from watcher.delivery.sinks.slack_api import ERROR_REMEDIES
from watcher.domain.errors import Exit
from watcher.runtime.clock import SystemClock


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


async def tried(slack: FakeSlack, *, send: bool = False, **more: object) -> Trial:
    settings, clock = Settings.model_validate({"sinks": {"chat": slack.block(**more)}}), SystemClock()
    deliveries = trial_deliveries(settings, clock=clock) if send else {}
    (trial,) = await try_everything(settings, clock=clock, deliveries=deliveries)
    assert trial.target == "sinks.chat"
    assert trial.place == slack.url.removesuffix("/api")
    assert TOKEN not in repr(trial)
    return trial


async def test_a_token_and_a_channel_that_work_are_named_and_nothing_is_posted(slack: FakeSlack) -> None:
    trial = await tried(slack)
    assert trial.code is Exit.DONE
    assert trial.words == f"takes the token of watcher in Acme, which knows {CHANNEL}; nothing sent"
    assert slack.calls == ["auth.test", "conversations.info"]
    assert not slack.messages


async def test_without_a_scope_to_read_it_says_what_shows_whether_it_may_post(slack: FakeSlack) -> None:
    slack.scopes = "chat:write"
    trial = await tried(slack)
    assert (trial.code, "is shown by --send, or with the scope channels:read" in trial.words) == (Exit.DONE, True)


@pytest.mark.parametrize(
    ("scopes", "code"),
    [
        ("chat:write,channels:read", Exit.UNREACHABLE),
        ("chat:write.public,chat:write,channels:read", Exit.DONE),
    ],
)
async def test_an_app_must_be_in_the_channel_or_may_post_in_all(slack: FakeSlack, scopes: str, code: Exit) -> None:
    slack.scopes, slack.members = scopes, set()
    trial = await tried(slack)
    assert trial.code is code
    assert trial.hint == ("" if code is Exit.DONE else "invite the app to the channel: /invite @watcher")


@pytest.mark.parametrize("error", ["invalid_auth", "account_inactive", "token_revoked"])
async def test_a_token_that_is_refused_says_what_to_do(slack: FakeSlack, error: str) -> None:
    slack.says.append(error)
    trial = await tried(slack)
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, f"fails ({error})", ERROR_REMEDIES[error])
    assert slack.calls == ["auth.test"]


async def test_a_token_that_may_not_write_says_which_scope_it_lacks(slack: FakeSlack) -> None:
    slack.scopes = "channels:read"
    assert (await tried(slack)).hint == ERROR_REMEDIES["missing_scope"]


async def test_a_channel_that_is_not_there_or_archived_says_what_to_do(slack: FakeSlack) -> None:
    assert (await tried(slack, channel="C0000000000")).hint == ERROR_REMEDIES["channel_not_found"]
    slack.archived.add(OTHER_CHANNEL)
    assert (await tried(slack, channel=OTHER_CHANNEL)).hint == ERROR_REMEDIES["is_archived"]


async def test_a_server_that_is_not_slack_or_not_there_says_so(slack: FakeSlack) -> None:
    slack.down = True
    assert (await tried(slack)).words == "answers 503"
    nowhere = await tried(slack, url=f"{slack.url}/elsewhere")
    assert (nowhere.words, nowhere.hint) == ("answers 404", "is url that of Slack's Web API?")
    await slack._runner.cleanup()
    assert (await tried(slack)).words == "fails (refused)"


async def test_a_test_message_is_posted_and_a_refusal_says_what_to_do(slack: FakeSlack) -> None:
    assert (await tried(slack, send=True)).words == "accepted a watcher.test (200)"
    assert slack.heads() == ["✓ Test message from clerk-watcher to its sink chat"]
    slack.members.clear()
    trial = await tried(slack, send=True)
    assert (trial.words, trial.hint) == ("fails (not_in_channel)", ERROR_REMEDIES["not_in_channel"])


GOOD = {"ok": True, "user": "watcher", "team": "Acme", "channel": {"is_member": True}}


async def tried_with(slack: FakeSlack, body: bytes) -> Trial:
    async with Receiver(says(answer(200, body=body))) as receiver:
        settings = Settings.model_validate({"sinks": {"chat": slack.block(url=f"{receiver.url}/api")}})
        (trial,) = await try_everything(settings, clock=SystemClock(), deliveries={})
    return trial


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 4000, "answers 200 without ok"),
        (b"[]", "answers 200 without ok"),
        (b"<html>", "answers 200 without ok"),
        (json.dumps(GOOD | {"ok": "yes"}).encode(), "answers 200 without ok"),
        (json.dumps(GOOD | {"user": None}).encode(), "answers 200 without user"),
        (json.dumps(GOOD | {"team": {"a": 1}}).encode(), "answers 200 without team"),
        (json.dumps(GOOD | {"team": " "}).encode(), "answers 200 without team"),
        (json.dumps(GOOD | {"channel": "C1"}).encode(), "answers 200 without channel"),
    ],
)
async def test_an_answer_of_another_shape_is_not_slacks(slack: FakeSlack, body: bytes, words: str) -> None:
    trial = await tried_with(slack, body)
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, words, "is url that of Slack's Web API?")


async def test_names_are_cut_and_control_no_terminal(slack: FakeSlack) -> None:
    trial = await tried_with(slack, json.dumps(GOOD | {"user": "\x1b[31mred", "team": "x" * 500}).encode())
    assert trial.code is Exit.DONE
    assert f"takes the token of \\x1b[31mred in {'x' * 79}…, which" in trial.words
