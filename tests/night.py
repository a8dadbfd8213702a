"""The night of trouble: the real program against a fake Clerk Chat API, and how much of it reaches people.

The whole one takes ten minutes, the short one ninety seconds.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from random import Random
from time import time
from typing import Any, NamedTuple

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer
from e2e import checks
from e2e.endpoint import Receiver
from e2e.stage import API_KEYS, Document, Stage, webhook
from mail_server import MailServer
from pager_rig import FakePagerDuty
from receivers_rules import check_pagerduty, check_slack, texts_of
from worker_rig import FakeClock

import watcher
from watcher.domain.problems import PROBLEM_KINDS
from watcher.runtime.clock import Clock
from watcher.simulator.faults import Fault, Faults, Window
from watcher.simulator.scenarios import pipeline_named
from watcher.simulator.world import Lifecycle, Node, StatusPhase, World, seeded_uuid

ROOT = Path(watcher.__file__).parents[1]
"""The program that runs is the one that this process imports."""

ROUTING_KEY = "c" * 32
BEGINS_S = 10.0
"""The first execution begins this long after the world: the program has started and has read each list by then."""

LASTS_S, BURST_SHARE = 1.5, 0.6
OUTAGE, BURST, SMALL, NOVEL = "LLM provider 503", "the calendar answered 502", "opted out", "no consent on file"

FORTY = [f"Agent {number:02}" for number in range(1, 41)]
SPECIAL = ["Booking", "Intake", "Reminder", "Survey", "Invoices", "Digest"]
"""Booking fails first and alone, Intake and Reminder fail now and then, executions of Survey hang and are slow,
Invoices succeeds with nothing done, has a new kind of error and costs much, Digest falls silent."""

WEST = ["Concierge", "Follow-up"]
"""The pipelines of the account whose key is refused for a while."""


class Span(NamedTuple):
    """A time in seconds since the world began."""

    from_s: float
    until_s: float

    def has(self, at_s: float) -> bool:
        return self.from_s <= at_s < self.until_s


@dataclass(frozen=True, slots=True)
class Night:
    """When what happens, in seconds since the world began, and the limits that go with it.

    An execution is a failure, empty, novel or expensive if it *ends* in that span. Somebody acknowledges all problems
    that are open at `ack_at_s`, the dead receiver lives again at `back_at_s`, and no execution begins after `ends_s`.
    Then `patience_s` may pass until nothing waits: less than the rule `silent`.
    """

    every_s: float
    outage: Span
    silent: Span
    refused: Span
    fails: Mapping[str, Span]
    survey: Mapping[str, Span]
    invoices: Mapping[str, Span]
    ack_at_s: float
    back_at_s: float
    ends_s: float
    patience_s: float
    limits: Mapping[str, str]


WHOLE = Night(
    every_s=5.9,
    outage=Span(155, 255),
    fails={"Booking": Span(12, 60), "Intake": Span(30, 140), "Reminder": Span(150, 245)},
    survey={"hang": Span(90, 190), "slow": Span(290, 330)},
    invoices={"empty": Span(50, 90), "novel": Span(120, 126), "expensive": Span(200, 260)},
    silent=Span(370, 490),
    refused=Span(180, 300),
    ack_at_s=215,
    back_at_s=400,
    ends_s=560,
    patience_s=60,
    limits={"quiet": "5m", "overdue": "50s", "slow": "20s", "silent": "90s", "degraded": "60s"},
)
SHORT = Night(
    every_s=3,
    outage=Span(30, 48),
    fails={"Booking": Span(10, 36), "Intake": Span(14, 28), "Reminder": Span(28, 42)},
    survey={"hang": Span(26, 44), "slow": Span(36, 46)},
    invoices={"empty": Span(10, 22), "novel": Span(34, 37), "expensive": Span(30, 44)},
    silent=Span(22, 52),
    refused=Span(12, 18),  # the key is tried again after a minute, and its mail waits half a minute
    ack_at_s=52,
    back_at_s=55,
    ends_s=95,
    patience_s=15,
    limits={"quiet": "6s", "overdue": "8s", "slow": "4s", "silent": "28s", "degraded": "5s"},
)


class Figure(NamedTuple):
    """A line of the table. A figure that is unknown breaks its bound; one without a bound is only shown."""

    words: str
    value: float | None
    most: float | None = None

    @property
    def is_broken(self) -> bool:
        return self.most is not None and (self.value is None or self.value > self.most)

    def __str__(self) -> str:
        value = "never" if self.value is None else f"{self.value:,.1f}".removesuffix(".0")
        bound = "" if self.most is None else f"≤ {self.most:g}"
        return f"{'✕' if self.is_broken else ' '} {self.words:<58}{value:>9}  {bound}".rstrip()


def execution(
    name: str, *, lasts_s: float = LASTS_S, error: str | None = None, nodes_count: int = 3, tokens: int = 90
) -> Lifecycle:
    """Return an execution that is running at once, whose first node fails if it does."""
    names = ["Answer", "Ask the model", "Say goodbye"][:nodes_count]
    nodes = [Node(name, name, name, 0.0, lasts_s, tokens=tokens // nodes_count) for name in names]
    nodes[0] = replace(nodes[0], error=error)
    phases = (StatusPhase("running", 0.0), StatusPhase("failed" if error else "success", lasts_s))
    return Lifecycle(name, phases, tuple(nodes), error=error)


def fill(world: World, names: Sequence[str], night: Night) -> None:
    """Add the whole night, and a past in which the errors of outage and bursts are known."""
    dice = Random("night")

    def add(name: str, at_s: float, **how: Any) -> None:
        world.add(execution(seeded_uuid(dice), **how), pipeline=pipeline_named(name), begins_s=at_s)

    for place, name in enumerate(names):
        for at_s, error in ((-2.0, None), (-3600.0, OUTAGE), (-3700.0, BURST), (-3800.0, SMALL)):
            add(name, at_s, error=error)
        every_s = night.every_s / 3 if name == "Survey" else night.every_s  # `slow` needs twenty successes
        at_s = BEGINS_S + every_s * place / len(names)
        while at_s < night.ends_s:
            if not (name == "Digest" and night.silent.has(at_s)):
                add(name, at_s, **_how(name, at_s + LASTS_S, night, dice))
            at_s += every_s
    for begins_s, ends_s in (*[night.survey["hang"]] * 3, night.survey["slow"]) if "Survey" in names else ():
        add("Survey", begins_s, lasts_s=ends_s - begins_s)


def _how(name: str, ends_s: float, night: Night, dice: Random) -> Mapping[str, Any]:
    """Return what is special about an execution that ends at that time."""
    if name in FORTY and night.outage.has(ends_s):
        return {"error": OUTAGE}
    if name in night.fails and night.fails[name].has(ends_s):
        is_burst = name != "Booking"
        return {} if is_burst and dice.random() > BURST_SHARE else {"error": BURST if is_burst else SMALL}
    odd: Document = {"empty": {"nodes_count": 1}, "novel": {"error": NOVEL}, "expensive": {"tokens": 25_000}}
    return next((odd[kind] for kind, span in night.invoices.items() if name == "Invoices" and span.has(ends_s)), {})


def watches(night: Night) -> list[Document]:
    """Return the 46 watches of the main account, with every rule, and those of the other account."""
    limits = night.limits
    rules = {
        "failing": {"consecutive": 3, "quiet_for": limits["quiet"], "also": {"fewer_nodes_than": 2}},
        "silent": limits["silent"],
        "slow": {"times": 3, "at_least": limits["slow"]},
        "tokens": {"execution": 20_000, "per_day": 60_000},
        "new_error": True,
    }
    return [
        {"pipeline": pipeline_named(name).id, "name": name, "account": account, "rules": rules}
        | {"overdue_after": {"running": limits["overdue"]}}
        for account, names in (("default", [*SPECIAL, *FORTY]), ("west", WEST))
        for name in names
    ]


class Message(NamedTuple):
    """What a chat or a pager took, when (Unix seconds), and all that it shows, its headline first."""

    at: float
    headline: str
    text: str


class Channels:
    """An incoming webhook of Slack that takes a message a second, and the Events API of PagerDuty."""

    def __init__(self) -> None:
        self.chat: list[Message] = []
        self.chat_refused_count = 0
        self.pages: list[Message] = []
        self.pager = FakePagerDuty(FakeClock())
        self.app = web.Application()
        self.app.add_routes([web.post("/chat", self._chat), web.post("/pager", self._pager)])

    async def _chat(self, request: web.Request) -> web.Response:
        payload = check_slack(await request.read())
        if self.chat and time() - self.chat[-1].at < 0.95:
            self.chat_refused_count += 1
            return web.Response(status=429, headers={"Retry-After": "1"})
        self.chat.append(Message(time(), payload["text"].partition("\n")[0], "\n".join(texts_of(payload))))
        return web.Response(text="ok")

    async def _pager(self, request: web.Request) -> web.Response:
        event = check_pagerduty(await request.read())
        if event["routing_key"] != ROUTING_KEY:
            return web.Response(status=400)
        count = len(self.pager.pages)
        self.pager.take(event)
        if len(self.pager.pages) > count:
            self.pages.append(Message(time(), event["payload"]["summary"], "\n".join(texts_of(event))))
        return web.json_response({"status": "success"}, status=202)


def sinks(channels: str, mail: MailServer, audit: Receiver, crm: Receiver) -> Document:
    """Return a quiet chat, a loud pager, a mailbox, a webhook that gets everything, and one whose receiver is dead."""
    to_slack = {"type": "webhook", "template": "slack", "url": f"{channels}/chat"}
    to_pager = {"type": "webhook", "template": "pagerduty", "url": f"{channels}/pager", "routing_key": ROUTING_KEY}
    return {
        "chat": {**to_slack, "group": {"by": ["account"], "wait": "10s"}},
        "phone": {**to_pager, "group": {"by": ["account"]}},
        "mail": mail.block(group={"by": ["account"]}),
        "audit": webhook(audit),
        "crm": webhook(crm, events=["pipeline.*", "account.*"], retry={"schedule": ["1s", "5s", "30s"]}),
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What there is to judge once the night is over."""

    night: Night
    worlds: tuple[World, World]
    channels: Channels
    subjects: Sequence[str]
    audit: Receiver
    open_problems: Sequence[Document]
    events: Sequence[Document]
    deliveries: Sequence[Document]
    acknowledged_count: int
    settled_after_s: float | None


async def spend(stage: Stage, night: Night) -> Outcome:
    """Let the night happen, and wait until nothing waits any more, or patience is over."""
    world, west = World(Clock()), World(Clock())
    fill(world, [*SPECIAL, *FORTY], night)
    fill(west, WEST, night)
    refused = Faults(windows=(Window(Fault.UNAUTHORIZED, *night.refused),))
    urls = [(await stage.simulator(world)).base_url, (await stage.simulator(west, faults=refused)).base_url]
    channels, mail = Channels(), await stage.enter(MailServer())
    server = await stage.enter(TestServer(channels.app))
    audit, crm = await stage.receiver(), await stage.receiver()
    await crm.close()
    document = {
        "accounts": {
            name: {"api_key": key, "base_url": url, "rate_limit": "100/s"}
            for name, key, url in zip(("default", "west"), API_KEYS, urls, strict=True)
        },
        "watch": watches(night),
        "polling": {"degraded_after": night.limits["degraded"]},
        "sinks": sinks(str(server.make_url("")), mail, audit, crm),
    }
    life = await stage.start(document, environ={"PYTHONPATH": str(ROOT)})
    api = await stage.enter(aiohttp.ClientSession(f"{await life.started()}/api/v1/"))
    assert world.now_s() < BEGINS_S, "the program took too long to start"
    await _until(world, night.ack_at_s)
    taken, body = [f"problems/{problem['id']}/ack" for problem in await listed(api, "problems")], {"by": "dana"}
    answers = await asyncio.gather(*(api.post(path, json=body) for path in taken))
    assert {answer.status for answer in answers} <= {200, 409}  # some may have closed meanwhile
    await _until(world, night.back_at_s)
    await crm.__aenter__()
    await _until(world, night.ends_s)
    settled_after_s = None
    while settled_after_s is None and world.now_s() < night.ends_s + night.patience_s:
        await asyncio.sleep(1)
        open_problems, waiting = await listed(api, "problems"), await listed(api, "deliveries", state="waiting")
        if not [*lost(audit, world, west), *open_problems, *waiting]:
            settled_after_s = world.now_s() - night.ends_s
    events = await listed(api, "events")
    deliveries = [*waiting, *await listed(api, "deliveries", state="delivered", sink="chat")]
    for state in ("silenced", "dead"):  # all others are delivered, or accepted
        deliveries += await listed(api, "deliveries", state=state)
    assert await life.stop() == 0
    subjects = [each.message["Subject"] for each in mail.mails]
    kept, taken_count = (open_problems, events, deliveries), sum(answer.status == 200 for answer in answers)
    return Outcome(night, (world, west), channels, subjects, audit, *kept, taken_count, settled_after_s)


async def listed(api: aiohttp.ClientSession, path: str, **query: str) -> list[Document]:
    """Return all items of a list, page by page. The last page of events has a `next`, too: its own."""
    items: list[Document] = []
    before, after = None, ""
    while after != before:
        params = {"limit": "200", **query, **({"after": after} if after else {})}
        async with api.get(path, params=params, raise_for_status=True) as response:
            page = await response.json()
        items += page["items"]
        before, after = after, page.get("next", after)
    return items


async def _until(world: World, at_s: float) -> None:
    await asyncio.sleep(max(0.0, at_s - world.now_s()))


def lost(audit: Receiver, *worlds: World) -> list[str]:
    """Return the executions of the night whose end the plain webhook was not told."""
    ended = {f"execution.{status}": audit.subjects[f"execution.{status}"] for status in ("success", "failed")}
    executions = [each for world in worlds for each in world.executions() if each.begins_s >= 0]
    return [each.id for each in executions if each.id not in ended[f"execution.{each.lifecycle.phases[-1].status}"]]


def figures(outcome: Outcome) -> Iterator[Figure]:
    """Yield each figure of a night, with its bound."""
    channels, world = outcome.channels, outcome.worlds[0]
    failures = [each for each in world.executions() if each.lifecycle.error == OUTAGE and each.begins_s > 0]
    first_at = world.epoch.timestamp() + min(each.begins_s for each in failures) + LASTS_S
    rang_at = next((page.at for page in channels.pages if OUTAGE in page.text), None)
    yield Figure("failures of the outage", len(failures))
    yield Figure("s from the first of them to its page", rang_at and rang_at - first_at, 25)
    yield Figure("pages", len(channels.pages), 8)
    yield Figure("messages in the chat", len(channels.chat), 40)
    yield Figure("requests that the chat refused first (429)", channels.chat_refused_count)
    yield Figure("mails", len(outcome.subjects), 25)
    yield Figure("problems that somebody acknowledged", outcome.acknowledged_count)
    waits = in_chat_after_s(outcome)
    known = [wait for wait in waits if wait is not None]
    yield Figure("openings", len(waits))
    yield Figure("s from an opening to the chat, the longest", max(known, default=None), 15)
    yield Figure("openings that never came to the chat", waits.count(None), 0)
    yield from _of_losses(outcome)


def in_chat_after_s(outcome: Outcome) -> list[float | None]:
    """Return how long after each opening it was in the chat: a message names or counts it, and its delivery says so."""
    of_chat = [each for each in outcome.deliveries if (each["sink"], each["state"]) == ("chat", "delivered")]
    delivered = {each["event"]: _unix(each["settledAt"]) for each in of_chat}
    waits: list[float | None] = []
    for event in outcome.events:
        if event["type"] in PROBLEM_KINDS:
            opened_at = _unix(event["data"]["problem"]["openedAt"])
            said_at = next((each.at for each in outcome.channels.chat if _says(each, event, opened_at)), None)
            is_there = said_at is not None and event["id"] in delivered
            waits.append(max(said_at or 0, delivered[event["id"]]) - opened_at if is_there else None)
    return waits


def _says(message: Message, opening: Document, opened_at: float) -> bool:
    data, kind = opening["data"], opening["type"].partition(".")[2]
    name = data["pipeline"]["name"] if "pipeline" in data else data.get("account") or data["sink"]
    counts = re.search(rf"\d (\w+ ){{0,3}}{kind}", message.text)
    return message.at >= opened_at and (name in message.text or counts is not None)


def _of_losses(outcome: Outcome) -> Iterator[Figure]:
    audit, deliveries = outcome.audit, outcome.deliveries
    received = [event["id"] for attempt in audit.attempts for event in attempt.events]
    recorded = {event["id"] for event in outcome.events}
    disorder = [*checks.of_sequences(audit.kept()), *checks.of_order(audit.attempts)]
    waiting = [each for each in deliveries if each["state"] not in {"delivered", "silenced", "dead"}]
    silenced = Counter(each.get("answer", "") for each in deliveries if each["state"] == "silenced")
    yield Figure("events at the plain webhook", len(set(received)))
    yield Figure("of them twice", len(received) - len(set(received)), 0)
    yield Figure("signatures that are not right", len(audit.forgeries), 0)
    yield Figure("streams with holes, or events out of order", len(disorder), 0)
    yield Figure("ends that the plain webhook was not told", len(lost(audit, *outcome.worlds)), 0)
    yield Figure("events that only the API or only the webhook has", len(recorded ^ set(received)), 0)
    yield Figure("deliveries that wait", len(waiting), 0)
    yield Figure("dead letters", sum(each["state"] == "dead" for each in deliveries), 0)
    for answer, count in silenced.most_common():
        yield Figure(f"silenced: {answer or 'without a word'}", count, None if answer else 0)
    yield Figure("s after the end until nothing waited", outcome.settled_after_s, outcome.night.patience_s)
    yield Figure("problems that are still open", len(outcome.open_problems), 0)
    yield Figure("incidents that are still open at the pager", len(outcome.channels.pager.open()), 0)
    yield Figure("triggers of incidents that were resolved", len(outcome.channels.pager.complaints), 0)


def _unix(time_: str) -> float:
    return datetime.fromisoformat(time_).timestamp()


def broken(outcome: Outcome) -> list[str]:
    """Return the lines of the table whose bound does not hold."""
    return [str(figure) for figure in figures(outcome) if figure.is_broken]


def table(outcome: Outcome) -> str:
    """Return the figures, then each page and the first messages in the chat, by the seconds of the night."""
    began_at = outcome.worlds[0].epoch.timestamp()
    lines = [str(figure) for figure in figures(outcome)]
    for title, messages in (("pages", outcome.channels.pages), ("chat", outcome.channels.chat[:60])):
        lines += ["", title, *(f"{message.at - began_at:6.1f}  {message.headline}" for message in messages)]
    return "\n".join([*lines, "", "mails", *outcome.subjects[:60]])
