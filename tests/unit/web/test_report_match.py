"""A report with `match`: two customers, and in the mail to one of them not a word of the other."""

import email
import email.policy
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from console_rig import a_desk
from unit.web.test_report import LIMIT, Night, moment

from watcher.domain.delivery import Delivery
from watcher.domain.event import EventType
from watcher.domain.event_factory import EventFactory
from watcher.domain.report import shorten_report
from watcher.domain.routing import Router
from watcher.domain.timestamps import Micros
from watcher.sinks.email import EmailSettings, mail_of
from watcher.sinks.report import report_lines
from watcher.sinks.settings import Match
from watcher.web import report as web_report
from watcher.web.report import make_report

OURS = {"Acme sales": "default", "Acme support": "default"}
THEIRS = {f"Bolt canary {number}": "bolt-canary" for number in range(8)} | {"Bolt canary beside": "default"}
NAMES = OURS | THEIRS
IDS = {name: str(UUID(int=number + 1)) for number, name in enumerate(NAMES)}
MATCH = Match(labels={"customer": "acme"})
SETTINGS = {
    "accounts": {name: {"api_key": f"secret-{name}"} for name in ("default", "bolt-canary")},
    "watch": [
        {
            "pipeline": IDS[name],
            "account": account,
            "name": name,
            "labels": {"customer": "acme" if name in OURS else "bolt-canary"},
        }
        for name, account in NAMES.items()
    ],
    "sinks": {name: {"type": "webhook", "url": f"https://{name}.example.com"} for name in ("acme", "bolt-canary-sink")},
    "http": {"public_url": "https://watcher.example.com"},
    "silences": [
        {
            "match": match,
            "from": f"2026-11-24T0{hour}:00:00Z",
            "until": f"2026-11-24T0{hour}:30:00Z",
            "comment": comment,
        }
        for hour, match, comment in (
            (4, {"labels": {"customer": "acme"}}, "their deploy"),
            (5, {"accounts": ["default"]}, "canary move"),
            (6, {"labels": {"customer": "bolt-canary"}}, "canary"),
        )
    ],
}


@pytest.fixture
async def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Night]:
    """Record a night of both customers: that of the other one is far worse, and newer."""
    monkeypatch.setattr("unit.web.test_report.NAMES", NAMES)
    monkeypatch.setattr("unit.web.test_report.IDS", IDS)
    async with a_desk(tmp_path, is_filled=False, **SETTINGS) as desk:
        night = Night(desk)
        await night.trouble("Acme sales", "01:00", "01:30", error="no such calendar", count=3)
        await night.end("Acme sales", "01:10", 7, 3, "no such calendar")
        await night.end("Acme support", "01:10", 10, 0)
        for name in THEIRS:
            await night.end(name, "02:00", 1, 90, f"canary error of {name}")
        await night.trouble("bolt-canary", "03:12", kind=EventType.ACCOUNT_DEGRADED, reason="unauthorized", cause="401")
        await night.trouble("bolt-canary-sink", "04:00", kind=EventType.SINK_FAILING, answer="503")
        error = {"node": "canary node", "text": "canary text", "fingerprint": "5e" * 16}
        for name in THEIRS:
            for hour in ("05", "06"):
                await night.trouble(name, f"{hour}:10", f"{hour}:20", error="canary failure", count=99)
            await night.record("06:30", EventType.PIPELINE_NEW_ERROR, name, error=error)
            await night.record("06:31", EventType.DELIVERY_DEAD, "bolt-canary-sink", count=20, answer="422")
            await night.trouble(name, "07:00", error="canary failure", count=99)
        desk.clock.us = moment("08:00")
        yield night


async def report(night: Night, match: Match | None = MATCH) -> dict[str, Any]:
    times = {"since": Micros(moment("08:00") - 86_400_000_000), "until": moment("08:00")}
    return await make_report(night.desk.console, **times, name="acme", timezone="UTC", match=match)


async def test_every_line_and_sum_is_of_the_pipelines_that_match(night: Night) -> None:
    made = await report(night)
    assert report_lines(made, limit=LIMIT) == [
        "? Acme sales, Acme support: unknown, since 08:00",
        "✓ Acme sales keeps failing, last at Greeting: no such calendar, 01:00 to 01:30, over",
        "‖ Acme sales, Acme support: silenced: their deploy, 04:00 to 04:30",
        "‖ Acme sales, Acme support: silenced, 05:00 to 05:30",
        "All 2: 85.0 % of 20 succeeded; median 4.0 s, p95 4.0 s; 0 open problems; 200 tokens",
    ]
    assert [each["name"] for each in made["pipelines"]] == ["Acme sales", "Acme support"]
    assert made["errors"] == [{"pipeline": "Acme sales", "node": "Greeting", "text": "no such calendar", "count": 3}]
    assert made["link"] == "https://watcher.example.com/executions?label=customer:acme"


async def test_without_a_match_it_is_of_all_and_another_match_is_of_one_pipeline(night: Night) -> None:
    assert len((await report(night, Match()))["pipelines"]) == len(NAMES)
    one = await report(night, Match(labels={"customer": "acme"}, pipelines=(UUID(IDS["Acme support"]),)))
    assert [each["name"] for each in one["pipelines"]] == ["Acme support"]
    assert one["total"]["ended"] == 10
    assert one["link"].endswith(f"/executions?label=customer:acme&pipeline={IDS['Acme support']}")
    none = await report(night, Match(labels={"customer": "gone"}))
    assert (none["pipelines"], none["happened"], none["total"]["ended"]) == ([], [], 0)


async def test_no_byte_of_the_mail_is_about_another_customer(night: Night) -> None:
    every = [await report(night), await report(night, None)]
    mails = []
    for made in every:
        (at,) = {moment("08:00")}
        when = datetime(2026, 11, 24, 8, tzinfo=UTC)
        short = shorten_report(made)
        entry = EventFactory(Router({})).report("acme", short, sinks=["acme"], moment=when, after=0, at=when)
        event = entry.event
        delivery = Delivery("acme", 1, event.ordering_key, event.id, event.type, event.body, at, at)
        block = EmailSettings.model_validate(
            {"type": "email", "server": "mail.example.com", "from": "watcher@example.com", "to": ["ops@acme.example"]}
        )
        raw = mail_of([delivery], block, at=when, public_url="https://watcher.example.com")
        parts = email.message_from_bytes(raw, policy=email.policy.default).walk()
        contents = [part.get_content() for part in parts if not part.is_multipart()]
        mails.append("\n".join([raw.decode(), event.body.decode(), *contents]).lower())
    ours, all_ = mails
    assert "acme sales" in ours
    words = ("canary", "bolt", *(IDS[name] for name in THEIRS))
    assert [word for word in words if word in ours] == []
    assert "canary" in all_  # of all pipelines it would be there


async def test_many_troubles_of_others_hide_none_of_ours(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_report, "PROBLEMS_COUNT", 2)
    monkeypatch.setattr(web_report, "ERROR_KINDS_COUNT", 1)
    monkeypatch.setattr("watcher.web.listing.EXAMINED_COUNT", 3)
    monkeypatch.setattr("watcher.web.listing.FEW_COUNT", 3)
    made = await report(night)
    assert [each["kind"] for each in made["happened"]] == ["unknown", "pipeline.failing", "silenced", "silenced"]
    assert [each["count"] for each in made["errors"]] == [3]
