"""What is built from settings, where no other test sees it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from watcher.config.loader import load_config
from watcher.config.models import Settings, SilenceSettings
from watcher.daemon.from_settings import fingerprint_of_settings, fingerprint_of_sink, silences_of, watches_of
from watcher.daemon.maintenance import watches_for
from watcher.domain.event import EventKey, EventType
from watcher.domain.problems import Problem
from watcher.rules.failing import Failing, FailingSettings
from watcher.rules.silent import Silent
from watcher.sinks.webhook import TemplateFile, WebhookSettings
from watcher.store.changes import OpenProblem

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"
BLOCK: dict[str, Any] = {"type": "webhook", "url": "https://h/path", "secret": SECRET, "headers": {"A": "b"}}


class LaterSettings(WebhookSettings):
    """The same block as a later version knows it."""

    colour: str | None = None


def test_a_block_has_the_same_fingerprint_in_every_version() -> None:
    assert fingerprint_of_sink(WebhookSettings(**BLOCK)) == fingerprint_of_sink(LaterSettings(**BLOCK))


@pytest.mark.parametrize(
    "change", [{"url": "https://h/other"}, {"secret": SECRET[:-1] + "y"}, {"headers": {"A": "c"}}, {"timeout": "15s"}]
)
def test_whatever_is_written_differently_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint_of_sink(WebhookSettings(**BLOCK)) != fingerprint_of_sink(WebhookSettings(**BLOCK | change))


PIPELINE, OTHER, RUN = (str(UUID(int=number)) for number in (1, 2, 9))
FILE = f"""
accounts: {{default: {{api_key: k}}}}
sinks: {{ops: {{type: webhook, url: "https://h", secret: {SECRET}}}}}
watch:
  - pipeline: {PIPELINE}
    overdue_after: {{running: 1m}}
    rules: {{failing: {{rate: 20%, of_last: 50, within: 6h, at_least: 10}}, silent: 2h}}
  - pipeline: {OTHER}
    executions: [{RUN}]
    overdue_after: {{running: 1m}}
    rules: {{failing: {{consecutive: 3, recover_after: 5, quiet_for: 30s}}}}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "watcher.yaml"
    file.write_text(FILE)
    return load_config(file, environ={})


def test_rules_are_what_the_file_says(settings: Settings) -> None:
    whole, named = watches_of(settings)
    often = FailingSettings.model_validate({"rate": "20%", "of_last": 50, "within": "6h", "at_least": 10})
    assert whole.rules == (Failing(often), Silent(7200.0))
    in_row = FailingSettings.model_validate({"consecutive": 3, "recover_after": 5, "quiet_for": "30s"})
    assert named.rules == (Failing(in_row),)


FAILING, SILENT, OVERDUE = EventType.PIPELINE_FAILING, EventType.PIPELINE_SILENT, EventType.EXECUTION_OVERDUE
DEGRADED, SINK_FAILING = EventType.ACCOUNT_DEGRADED, EventType.SINK_FAILING


@pytest.mark.parametrize(
    ("kind", "about", "watched"),
    [
        (FAILING, ("account", "default", PIPELINE), True),
        (SILENT, ("account", "default", PIPELINE), True),
        (SILENT, ("account", "default", OTHER), False),
        (FAILING, ("account", "default", str(UUID(int=3))), False),
        (FAILING, ("account", "eu", PIPELINE), False),
        (DEGRADED, ("account", "default"), True),
        (DEGRADED, ("account", "eu"), False),
        (SINK_FAILING, ("sink", "ops"), True),
        (SINK_FAILING, ("sink", "default"), False),
        (OVERDUE, ("account", "default", PIPELINE, RUN, "running"), True),
        (OVERDUE, ("account", "default", PIPELINE, RUN, "paused"), False),  # its limit is gone
        (OVERDUE, ("account", "default", PIPELINE, RUN, "escalated"), True),  # which no event has ended
        (OVERDUE, ("account", "default", PIPELINE, RUN), False),  # it is overdue no more
        (OVERDUE, ("account", "default", OTHER, RUN, "running"), True),
        (OVERDUE, ("account", "default", OTHER, str(UUID(int=8)), "running"), False),
    ],
)
def test_watched_problems_go_on(settings: Settings, kind: EventType, about: tuple[str, ...], *, watched: bool) -> None:
    problem = Problem(UUID(int=1), kind, datetime(2026, 11, 24, tzinfo=UTC), EventKey(b"", 1))
    watches = {(watch.account, watch.pipeline): watch for watch in watches_of(settings)}
    assert watches_for(settings, watches, OpenProblem(problem, *about)) is watched


def test_a_silence_is_never_for_stdout() -> None:
    times = {"from": "2026-12-24T00:00:00Z", "until": "2026-12-27T00:00:00Z"}
    silences = [{"match": {"events": ["execution.*"]}, **times}, {"match": {"sinks": ["ops"]}, **times}]
    sinks = {"out": {"type": "stdout"}, "ops": BLOCK, "chat": BLOCK}
    everything, one = silences_of(Settings.model_validate({"sinks": sinks, "silences": silences}))
    assert (everything.sinks, one.sinks, one.types) == ({"ops", "chat"}, {"ops"}, None)
    assert EventType.EXECUTION_LOST in (everything.types or ())
    assert EventType.ACCOUNT_DEGRADED not in (everything.types or ())
    stored = SilenceSettings.model_validate({"match": {"sinks": ["out"]}, **times})
    *_, of_stdout = silences_of(Settings.model_validate({"sinks": sinks}), [stored])
    assert of_stdout.sinks == frozenset()
    (nothing,) = silences_of(Settings.model_validate({"sinks": {"out": {"type": "stdout"}}, "silences": silences[:1]}))
    assert nothing.sinks == frozenset()


def test_a_silence_keeps_back_what_matches_all_that_its_block_names() -> None:
    match = {"labels": {"team": "sales"}, "accounts": ["default"], "pipelines": [str(UUID(int=1))]}
    block: dict[str, Any] = {"match": match, "from": "2026-12-24T00:00:00Z", "until": "2026-12-27T00:00:00Z"}
    (silence,) = silences_of(Settings.model_validate({"sinks": {"ops": BLOCK}, "silences": [block]}))
    assert (silence.labels, silence.accounts) == ({"team": "sales"}, {"default"})
    assert silence.pipelines == {str(UUID(int=1))}
    assert (silence.starts_at.isoformat(), silence.ends_at.day) == ("2026-12-24T00:00:00+00:00", 27)
    hours = {"days": ["sat"], "from": "20:00", "to": "08:00", "timezone": "UTC"}
    weekly = [{"match": match, "weekly": hours}]
    (silence,) = silences_of(Settings.model_validate({"sinks": {"ops": BLOCK}, "silences": weekly}))
    saturday = datetime(2026, 11, 28, 22, tzinfo=UTC)
    assert silence.during(saturday).ends_at == saturday + timedelta(hours=10)


# What makes a configuration another one

GIVEN: dict[str, Any] = {
    "accounts": {"a": {"api_key": "secret-a"}, "b": {"api_key": "secret-b"}},
    "watch": [{"account": "a", "pipeline": PIPELINE}],
    "sinks": {"ops": {"type": "webhook", "url": "https://example.com/in"}},
    "store": {"url": "sqlite:////var/lib/one.db", "retention": "30d"},
    "http": {"listen": "127.0.0.1:9100"},
    "log": {"level": "info"},
}


def fingerprint(**changed: object) -> str:
    return fingerprint_of_settings(Settings.model_validate(GIVEN | changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"http": {"listen": "127.0.0.1:9101"}},
        {"log": {"level": "debug"}},
        {"store": {"url": "sqlite:////var/lib/other.db", "retention": "30d"}},
        {"accounts": {"b": {"api_key": "new-b"}, "a": {"api_key": "new-a"}}},
    ],
)
def test_what_one_replica_may_have_for_itself_and_secrets_make_it_no_other(changed: dict[str, object]) -> None:
    assert fingerprint(**changed) == fingerprint()


@pytest.mark.parametrize(
    "changed",
    [
        {"accounts": {"a": {"api_key": "secret-a"}}},
        {"accounts": {**GIVEN["accounts"], "b": {"api_key": "secret-b", "rate_limit": "9/s"}}},
        {"watch": []},
        {"sinks": {"ops": {"type": "webhook", "url": "https://example.com/in", "rate_limit": "9/s"}}},
        {"store": {"url": "sqlite:////var/lib/one.db", "retention": "29d"}},
        {"polling": {"max_interval": "50s"}},
    ],
)
def test_whatever_else_is_written_there_does(changed: dict[str, object]) -> None:
    assert fingerprint(**changed) != fingerprint()
    assert "secret" not in json.dumps(fingerprint(**changed))


def test_what_a_template_file_holds_is_part_of_it() -> None:
    def sinks(source: str) -> dict[str, object]:
        block = {"type": "webhook", "url": "https://example.com/in", "template": TemplateFile("chat.j2", source)}
        return {"sinks": {"ops": block}}

    assert fingerprint(**sinks("{}")) == fingerprint(**sinks("{}"))
    assert fingerprint(**sinks("{}")) != fingerprint(**sinks("[]"))
    one, other = (Settings.model_validate(GIVEN | sinks(source)).sinks["ops"] for source in ("{}", "[]"))
    assert fingerprint_of_sink(one) != fingerprint_of_sink(other)
