"""What is likely a mistake in a sink: events that never come, a receiver that does not take what is sent."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

from pydantic import SecretStr
from yarl import URL

from watcher.config.document import Document
from watcher.config.exposure import exposed_host
from watcher.config.match_warnings import fits, of_match
from watcher.config.models import AnySink, Settings, WatchSettings
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Path
from watcher.delivery.grouping import key_of
from watcher.delivery.sinks.apprise import AppriseSettings
from watcher.delivery.sinks.settings import RemoteSettings
from watcher.delivery.sinks.slack_bot import SlackBotSettings
from watcher.delivery.sinks.webhook import WebhookSettings
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSED_BY, PROBLEM_KINDS
from watcher.domain.routing import types_matching
from watcher.domain.silences import DeliveryFields
from watcher.runtime.settings import did_you_mean
from watcher.runtime.units import write_duration

_OPENED_BY: Mapping[EventType, frozenset[EventType]] = {
    **{type_: frozenset(kind for kind, end in CLOSED_BY.items() if end is type_) for type_ in CLOSED_BY.values()},
    EventType.PROBLEM_REMINDER: PROBLEM_KINDS,
    EventType.PROBLEM_CLOSED: PROBLEM_KINDS,
}
"""What comes only after something else, whatever `events` says, and after what."""

OF_PIPELINES = types_matching(("execution.*", "pipeline.*"))
_OF_EXECUTIONS = types_matching(("execution.*",)) - {EventType.EXECUTION_OVERDUE}

_NAMED_COUNT = 2
_SHORTEST_S = 60.0
"""Whoever is reminded more often than this stops reading."""


class _Place(NamedTuple):
    """Where events end up, which may be a secret, and the key that says so."""

    key: str
    url: str
    within: SecretStr | str | None = None


def of_sinks(document: Document, settings: Settings) -> Iterator[Problem]:
    """Return what a person should check in the sinks."""
    for name, sink in settings.sinks.items():
        path = ("sinks", name)
        yield from _of_events(document, settings, name=name, sink=sink)
        if isinstance(sink, WebhookSettings):
            yield from _of_webhook(document, sink, path=path)
        if isinstance(sink, SlackBotSettings) and (host := exposed_host(sink.url)):
            problem = f"http:// to {host}: whoever is on the way can read the token"
            yield document.remark((*path, "url"), problem, remedy="write https://")
        if isinstance(sink, RemoteSettings):
            yield from _of_group(document, settings, sink, path=path)
            yield from _of_reminders(document, settings, name=name, sink=sink)
    yield from _of_doubles(document, settings)


def sent_to(settings: Settings, *, name: str) -> frozenset[EventType]:
    """Return what a sink may ever be sent: what it asks for, where that can be, and what only follows on that."""
    sink = settings.sinks[name]
    first = types_matching(sink.events) & _possible(settings, name=name, sink=sink)
    ends = {type_ for type_, openings in _OPENED_BY.items() if first & openings}
    return first.union(ends, _OF_EXECUTIONS if EventType.EXECUTION_OVERDUE in first else ())


def _of_events(document: Document, settings: Settings, *, name: str, sink: AnySink) -> Iterator[Problem]:
    path, types = ("sinks", name), types_matching(sink.events)
    if types & OF_PIPELINES:
        at, match = (*path, "match"), sink.match
        if unfit := list(of_match(document, settings, path=at, labels=match.labels, pipelines=match.pipelines)):
            yield from unfit
            return
    followers = list(_of_followers(document, sink, path=(*path, "events")))
    yield from followers
    if not followers and not types & _possible(settings, name=name, sink=sink):
        problem = "nothing that is watched can lead to any of these"
        remedy = (
            "execution.overdue needs overdue_after, pipeline.gap a pipeline watched whole, "
            "other pipeline.* a rule, sink.* another sink"
        )
        yield document.remark((*path, "events"), problem, remedy=remedy)


def _of_followers(document: Document, sink: AnySink, *, path: Path) -> Iterator[Problem]:
    """Warn of the end of a problem where its opening is not asked for."""
    types = types_matching(sink.events)
    for index, glob in enumerate(sink.events):
        named = types_matching((glob,))
        openings = frozenset[EventType]().union(*(_OPENED_BY.get(type_, frozenset({type_})) for type_ in named))
        if not openings & types:
            at = (*path, index)
            names = "what opens problems, such as pipeline.failing"
            if len(openings) <= _NAMED_COUNT:
                names = " or ".join(sorted(openings))
            problem = f"{document.subject(at)} comes only where its problem's opening went"
            yield document.remark(at, problem, remedy=f"add {names}, or remove it")


def _of_webhook(document: Document, sink: WebhookSettings, *, path: Path) -> Iterator[Problem]:
    if not sink.secret and sink.template is None:
        problem = "has no secret, so its receiver cannot verify that events are yours"
        yield document.remark((*path, "secret"), problem, remedy="make one: watcher init --secret", block=True)
    if host := exposed_host(sink.url.get_secret_value()):
        problem = f"http:// to {host}: whoever is on the way can read the events"
        yield document.remark((*path, "url"), problem, remedy="write https://")


def _of_group(document: Document, settings: Settings, sink: RemoteSettings, *, path: Path) -> Iterator[Problem]:
    if sink.group is None:
        return
    for index, field in enumerate(sink.group.by):
        at = (*path, "group", "by", index)
        if field in sink.group.by[:index]:
            remedy = "remove it, or write what else events of one group have in common"
            yield document.remark(at, f"{document.subject(at)} stands there twice", remedy=remedy)
        elif field.startswith("labels.") and not _has_label(settings, field):
            remedy = _label_remedy(document, settings, at)
            yield document.remark(at, "no watch has this label, so no events are grouped", remedy=remedy)
    if all(key_of(DeliveryFields("", type_), ()) is None for type_ in types_matching(sink.events)):
        problem = "only execution.* and pipeline.gap are grouped, and this sink asks for none of them"
        yield document.remark((*path, "group"), problem, remedy="remove it, or add them to events", key=True)


def _has_label(settings: Settings, field: str) -> bool:
    return any(field.removeprefix("labels.") in watch.labels for watch in settings.watch)


def _label_remedy(document: Document, settings: Settings, at: Path) -> str:
    rest = "give a watch this label, or remove it here"
    known = sorted({f"labels.{name}" for watch in settings.watch for name in watch.labels})
    return rest if document.is_hidden(at) else did_you_mean(str(document.get(at)), known, rest=rest)


def _of_reminders(document: Document, settings: Settings, *, name: str, sink: RemoteSettings) -> Iterator[Problem]:
    path, every_s = ("sinks", name, "remind_every"), sink.remind_every_s
    if every_s is None:
        asks_for_openings = bool(types_matching(sink.events) & PROBLEM_KINDS)
        for index, glob in enumerate(sink.events):
            if glob == EventType.PROBLEM_REMINDER and asks_for_openings:
                at = ("sinks", name, "events", index)
                problem = f"{document.subject(at)} never comes without remind_every"
                yield document.remark(at, problem, remedy="add remind_every: 4h, or remove it")
        return
    if every_s < _SHORTEST_S:
        problem = f"sends one message every {write_duration(every_s)} for each open problem"
        yield document.remark(path, problem, remedy="write 4h, or at least 1m")
    if not sent_to(settings, name=name) & PROBLEM_KINDS:
        problem = "this sink is sent no opening of a problem, so there is nothing to remind of"
        remedy = "add openings to its events, such as pipeline.failing or account.degraded, or remove this"
        yield document.remark(path, problem, remedy=remedy, key=True)


def _possible(settings: Settings, *, name: str, sink: AnySink) -> frozenset[EventType]:
    """Return what may ever be sent to a sink before anything else was, once what it matches can lead to that."""
    fitting = [watch for watch in settings.watch if _fits(watch, sink)]
    rules = [watch.rules for watch in fitting if watch.rules is not None]
    others = any(each.target for key, each in settings.sinks.items() if key != name)
    return frozenset({EventType.ACCOUNT_DEGRADED}).union(
        _OF_EXECUTIONS if fitting else (),
        {EventType.EXECUTION_OVERDUE} if any(watch.overdue_after_s for watch in fitting) else (),
        {EventType.PIPELINE_GAP} if not all(watch.executions for watch in fitting) else (),
        {EventType.PIPELINE_FAILING} if any(rule.failing for rule in rules) else (),
        {EventType.PIPELINE_SILENT} if any(rule.silent_s for rule in rules) else (),
        {EventType.SINK_FAILING, EventType.SINK_DISABLED} if others else (),
    )


def _of_doubles(document: Document, settings: Settings) -> Iterator[Problem]:
    """Warn of two sinks with one URL or channel that the same event may go to."""
    places = {name: place for name, sink in settings.sinks.items() if (place := _place(sink)) is not None}
    for (name, place), (other, second) in combinations(places.items(), 2):
        if place == second and _share_events(settings, settings.sinks[name], settings.sinks[other]):
            what, line = "URL" if place.key == "url" else place.key, document.line(("sinks", name, place.key))
            problem = f"the same {what} as another sink's at line {line}: what both ask for arrives twice"
            yield document.remark(("sinks", other, place.key), problem, remedy="merge the two: events takes a list")


def _share_events(settings: Settings, sink: AnySink, second: AnySink) -> bool:
    types = types_matching(sink.events) & types_matching(second.events) - {EventType.WATCHER_TEST}
    together = any(_fits(watch, sink) and _fits(watch, second) for watch in settings.watch)
    return bool(types - OF_PIPELINES or (types and together))


def _fits(watch: WatchSettings, sink: AnySink) -> bool:
    return fits(watch, labels=sink.match.labels, pipelines=sink.match.pipelines)


def _place(sink: AnySink) -> _Place | None:
    """Return where a sink's events end up: at PagerDuty and in Slack, as an app, all have one URL."""
    if isinstance(sink, WebhookSettings):
        return _Place("url", str(URL(sink.url.get_secret_value())), sink.routing_key)
    if isinstance(sink, SlackBotSettings):
        return _Place("channel", str(URL(sink.url)), sink.channel)
    if isinstance(sink, AppriseSettings):
        return _Place("url", sink.url.get_secret_value())
    return None
