"""Trying a Slack app: whose token it is, and whether it may post in the channel, without posting."""

from collections.abc import AsyncIterator

import pytest
from fake_slack import CHANNEL, TOKEN, FakeSlack
from receiver import Receiver, answer, says

from watcher.cli.connectivity import Trial, try_everything
from watcher.config.models import Settings
from watcher.domain.errors import Exit
from watcher.runtime.clock import Clock
from watcher.sinks.slack_bot import ERROR_REMEDIES


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        yield slack


async def tried(slack: FakeSlack, *, send: bool = False, **more: object) -> Trial:
    settings, clock = Settings.model_validate({"sinks": {"chat": slack.block(**more)}}), Clock()
    (trial,) = await try_everything(settings, clock=clock, send=send)
    assert trial.target == "sinks.chat"
    assert trial.place == slack.url.removesuffix("/api")
    assert TOKEN not in repr(trial)
    return trial


async def test_a_token_that_works_is_taken_and_nothing_is_posted(slack: FakeSlack) -> None:
    trial = await tried(slack)
    assert trial.code is Exit.DONE
    assert trial.words == f"takes the token; whether it may post in {CHANNEL} is shown by --send; nothing sent"
    assert slack.calls == ["auth.test"]


@pytest.mark.parametrize("error", ["invalid_auth", "account_inactive", "token_revoked"])
async def test_a_token_that_is_refused_says_what_to_do(slack: FakeSlack, error: str) -> None:
    slack.says.append(error)
    trial = await tried(slack)
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, f"fails ({error})", ERROR_REMEDIES[error])
    assert slack.calls == ["auth.test"]


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


async def tried_with(slack: FakeSlack, body: bytes) -> Trial:
    async with Receiver(says(answer(200, body=body))) as receiver:
        settings = Settings.model_validate({"sinks": {"chat": slack.block(url=f"{receiver.url}/api")}})
        (trial,) = await try_everything(settings, clock=Clock(), send=False)
    return trial


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" * 4000, "answers 200 without ok"),
        (b"[]", "answers 200 without ok"),
        (b"<html>", "answers 200 without ok"),
        (b'{"ok": "yes"}', "answers 200 without ok"),
    ],
)
async def test_an_answer_of_another_shape_is_not_slacks(slack: FakeSlack, body: bytes, words: str) -> None:
    trial = await tried_with(slack, body)
    assert (trial.code, trial.words, trial.hint) == (Exit.UNREACHABLE, words, "is url that of Slack's Web API?")


async def test_a_word_that_slack_does_not_document_is_not_passed_on(slack: FakeSlack) -> None:
    trial = await tried_with(slack, b'{"ok": false, "error": "a_word_of_its_own"}')
    assert (trial.code, trial.words, bool(trial.hint)) == (Exit.UNREACHABLE, "answers 200 with an unknown error", True)
