"""People press buttons in Slack while the daemon is killed, reloads, is taken over, and its connections end."""

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
from e2e.programme import PATIENCE_S, Life, page
from e2e.stage import Document, Stage, document_of, world_of
from fake_slack import APP_TOKEN, FakeSlack

PROBLEMS_COUNT = 6
PEOPLE = ("ann", "bob", "cleo")
KINDS = ("kill", "disconnect", "disconnect", "close", "reload", "takeover")


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with FakeSlack() as slack:
        slack.again_s = 1.0
        yield slack


class Chat:
    """Replicas with one Slack app, and people who press buttons on the messages of open problems.

    A person presses what a message shows, and goes on once the message has changed, or an answer came.
    """

    def __init__(self, stage: Stage, slack: FakeSlack, document: Document, *, replicas_count: int) -> None:
        self.stage, self.slack, self.document = stage, slack, document
        self.dice: Random = stage.dice
        self.count = replicas_count
        self.lives: dict[int, Life] = {}
        self.acted: list[str] = []
        self.answered = 0
        self.reloads = 0

    async def start(self, place: int) -> None:
        self.lives[place] = await self.stage.start(self.document, name=str(place))

    async def start_all(self) -> None:
        for place in range(self.count):
            await self.start(place)
        await self.slack.until(lambda: len(self.slack.buttons()) == PROBLEMS_COUNT, within_s=PATIENCE_S)

    def shown(self) -> dict[str, tuple[str, str]]:
        """Return the text and the value of each message's button, by the number of the message."""
        found = {}
        for (_, number), message in self.slack.messages.items():
            for block in message.content.get("blocks", ()):
                for each in block.get("elements", ()):
                    if "action_id" in each:
                        found[number] = (each["text"]["text"], each["value"])
        return found

    async def press(self) -> None:
        """Press any button; return once that had an effect, or was answered."""
        user, before, answers = self.dice.choice(PEOPLE), self.shown(), len(self.slack.answers)
        nth = self.dice.randrange(len(before))
        number, (text, value) = list(before.items())[nth]
        id_ = await self.slack.press(nth=nth, user=user)
        await self.slack.until(lambda: id_ in self.slack.confirmed, within_s=2 * PATIENCE_S)
        await self.slack.until(
            lambda: self.shown().get(number) != (text, value) or len(self.slack.answers) > answers,
            within_s=2 * PATIENCE_S,
        )
        if len(self.slack.answers) > answers:
            self.answered += 1
        else:
            self.acted.append(text)

    async def disturb(self, kind: str) -> None:
        place = self.dice.choice(list(self.lives))
        if kind == "kill":
            await self.lives[place].kill()
            await self.start(place)
        elif kind == "takeover":
            await self.lives[place].stop()
            await self.start(place)
        elif kind == "reload":
            self.reloads += 1
            self.document["sinks"]["chat"]["timeout"] = f"{10 + self.reloads}s"
            for each in self.lives:
                await asyncio.to_thread(self.stage.write, self.document, name=str(each))
        elif self.slack.sockets:
            await self.slack.disconnect(self.dice.choice(["warning", "refresh_requested"]), closes=kind == "close")

    async def listed(self, path: str) -> list[dict[str, Any]]:
        """Return the whole list that the API has at a path, by any replica."""
        address, items, after = await self.lives[0].started(), list[dict[str, Any]](), ""
        while True:
            found = json.loads((await page(f"{address}/api/v1{path}&limit=200{after and f'&after={after}'}"))[1])
            items += found["items"]
            if found.get("next") in {None, after}:
                return items
            after = found["next"]


CASES = [
    pytest.param("sqlite", 1, 20, 4, id="sqlite", marks=pytest.mark.ci),
    pytest.param("postgres", 2, 20, 4, id="postgres", marks=pytest.mark.ci),
    pytest.param("sqlite", 1, 1000, 80, id="sqlite-long", marks=pytest.mark.soak),
    pytest.param("postgres", 2, 1000, 80, id="postgres-long", marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("stage", "replicas_count", "presses_count", "troubles_count"), CASES, indirect=["stage"])
async def test_each_press_acts_once_and_messages_show_what_the_store_has(
    stage: Stage, replicas_count: int, presses_count: int, troubles_count: int, slack: FakeSlack
) -> None:
    simulator = await stage.simulator(world_of(3, ends_after_s=3000, ends_within_s=4000))
    document = document_of({"default": simulator})
    account = document["accounts"].pop("default") | {"api_key": "a-key-that-is-refused"}
    document["watch"] = []
    for number in range(PROBLEMS_COUNT):
        document["accounts"][f"a{number}"] = account | {"api_key": f"refused-{number}"}
        document["watch"].append({"pipeline": f"0b5c8f1e-2c3a-4f1e-9d8a-{number:012}", "account": f"a{number}"})
    document["sinks"] = {"chat": slack.block(app_token=APP_TOKEN, rate_limit="1000/s", events=["account.*"])}
    chat = Chat(stage, slack, document, replicas_count=replicas_count)
    await chat.start_all()
    every = presses_count // troubles_count
    for nth in range(presses_count):
        if nth % every == every // 2:
            disturbing = asyncio.create_task(chat.disturb(KINDS[(nth // every) % len(KINDS)]))
            await chat.press()
            await disturbing
        else:
            await chat.press()
    problems = await chat.listed("/problems?state=open")
    assert len(problems) == PROBLEMS_COUNT
    acknowledged = {each["id"].replace("-", ""): "acknowledged" in each for each in problems}
    texts = {value.partition(".")[0]: text for text, value in chat.shown().values()}
    assert texts == {id_: "Give back" if is_acked else "Acknowledge" for id_, is_acked in acknowledged.items()}
    events = await chat.listed("/events?type=problem.acknowledged")
    assert len(events) == chat.acted.count("Acknowledge")
    assert len(chat.acted) + chat.answered == presses_count
    logged = b"".join(each.stderr.lines.everything() for each in stage.lives)
    assert b"xapp-" not in logged
    assert b"SECRET" not in logged
    assert json.dumps(slack.answers).count("out of date") == chat.answered
