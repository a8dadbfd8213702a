"""What is likely a mistake in a silence: that it keeps nothing back, or for very long."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from watcher.config.document import Document
from watcher.config.match_warnings import of_match
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.silences import SilenceMatch
from watcher.config.sink_warnings import OF_PIPELINES, sent_to
from watcher.config.yaml_tree import Path
from watcher.domain.event import EventType
from watcher.domain.problems import CLOSINGS
from watcher.domain.routing import types_matching

_LONG = timedelta(days=366)

_OF_WATCHES = OF_PIPELINES | {EventType.PROBLEM_REMINDER}
"""What has a pipeline and its labels."""

_OF_ACCOUNTS = _OF_WATCHES | types_matching(("account.*",))


def of_silences(document: Document, settings: Settings, *, now: datetime) -> Iterator[Problem]:
    """Return what a person should check in the silences. `now` is the wall clock."""
    for index, silence in enumerate(settings.silences):
        path = ("silences", index)
        until = (*path, "until")
        if silence.until_at <= now:
            problem = f"{document.subject(until)} has passed: this silence keeps nothing back"
            yield document.remark(until, problem, remedy="remove the silence, or write a later moment")
            continue
        if silence.until_at - now > _LONG:
            problem = f"{document.subject(until)} is more than a year away"
            remedy = "check the year; what a sink is never to get is for its events and match"
            yield document.remark(until, problem, remedy=remedy)
        yield from _of_match(document, settings, match=silence.match, path=(*path, "match"))


def _of_match(document: Document, settings: Settings, *, match: SilenceMatch, path: Path) -> Iterator[Problem]:
    if match.labels or match.pipelines:
        unfit = list(
            of_match(
                document,
                settings,
                path=path,
                labels=match.labels,
                pipelines=match.pipelines,
                accounts=match.accounts,
            )
        )
        if unfit:
            yield from unfit
            return
    types = types_matching(match.events or ("*",)) - CLOSINGS
    if not types:
        problem = "what only says that a problem is over is never kept back"
        yield document.remark((*path, "events"), problem, remedy="name what opened the problem, or remove the silence")
        return
    types &= _OF_WATCHES if match.labels or match.pipelines else _OF_ACCOUNTS if match.accounts else types
    if not types:
        key = "labels" if match.labels else "pipelines" if match.pipelines else "accounts"
        problem = f"none of these events has {key}, so nothing is kept back"
        yield document.remark((*path, "events"), problem, remedy=f"remove {key}, or name events such as execution.*")
        return
    targets = [name for name, sink in settings.sinks.items() if sink.target is not None]
    if not any(types & sent_to(settings, name=name) for name in match.sinks or targets):
        problem = f"none of this is ever sent to {'these sinks' if match.sinks else 'a sink that can be silenced'}"
        yield document.remark(path, problem, remedy="compare it with the events of the sinks, or remove the silence")
