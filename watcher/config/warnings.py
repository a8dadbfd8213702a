"""What is allowed in a configuration and is likely a mistake all the same. Nothing here keeps a file from being used.

Each warning is of a mistake that people make, and names what would be lost, or read by strangers: whoever is warned
for nothing reads no warning.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path as FilePath

from yarl import URL

from watcher.config.document import Document, Path, Problem
from watcher.config.models import AnySink, Settings, WatchSettings
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS, Severity, severity_of
from watcher.domain.routing import types_matching
from watcher.runtime.http_client import is_private_host
from watcher.sinks.settings import Match, SilenceMatch
from watcher.sinks.webhook import WebhookSettings

_EXAMPLE = re.compile(r"[0-9a-f]{4}0000-0000-4000-8000-0{10}[0-9a-f]{2}")
"""How the ids of our examples look, and next to no id of the API's."""

_OF_PIPELINES = types_matching(("execution.*", "pipeline.*"))
_OF_RULES = _OF_PIPELINES - types_matching(("execution.*", "pipeline.gap"))
_ALL = frozenset(EventType)
_NEVER_CLOSED = {type_ for type_ in _ALL if severity_of(type_) is not Severity.INFO} - PROBLEM_KINDS
_FOR_PAGERS = 'events: [pipeline.failing, pipeline.silent, execution.overdue, "account.*", "sink.*"]'

_LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc")
"""Where a name ends that is of this machine or network alone; so is one without a dot (`receiver`, in Compose)."""

_SQLITE = "sqlite:///"
_MOUNTS = FilePath("/proc/self/mountinfo")
_NETWORK_DISKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs"})


def warnings_of(document: Document, settings: Settings) -> tuple[Problem, ...]:
    """Return what a person should check, sorted by its place in the file."""
    found = [*chain.from_iterable(document.excused.values())]
    for name, account in settings.accounts.items():
        found += _of_clear_text(document, ("accounts", name, "base_url"), account.base_url, what="key")
    found += [*_of_watches(document, settings), *_of_sinks(document, settings), *_of_store(document, settings)]
    for index, silence in enumerate(settings.silences):
        found += _of_match(document, settings, ("silences", index, "match"), silence.match)
    return tuple(sorted(found, key=lambda each: (each.line, each.column)))


def network_disk(folder: FilePath, mounts: str) -> str | None:
    """Return the kind of network disk that a folder is on, by what `/proc/self/mountinfo` says; `None` if on none."""
    kind, deepest = "", -1
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        point = FilePath(head.split(" ")[4].replace(r"\040", " "))
        if folder.is_relative_to(point) and len(point.parts) >= deepest:  # of two at one place the later one is seen
            kind, deepest = tail.partition(" ")[0], len(point.parts)
    return kind if kind in _NETWORK_DISKS else None


def _of_clear_text(document: Document, path: Path, url: str, *, what: str) -> Iterator[Problem]:
    """Warn of what is sent in clear to somewhere beyond this machine and its network."""
    parts = URL(url)
    host = (parts.host or "").rstrip(".").lower()
    is_local = is_private_host(host) or ("." not in host and ":" not in host) or host.endswith(_LOCAL_NAMES)
    if parts.scheme == "http" and not is_local:
        problem = f"http:// to {host}: whoever is on the way can read the {what}"
        yield document.remark(path, problem, remedy="write https://")


def _of_watches(document: Document, settings: Settings) -> Iterator[Problem]:
    for index, watch in enumerate(settings.watch):
        if _EXAMPLE.fullmatch(str(watch.pipeline)):
            remedy = "copy yours from the pipeline's address in Clerk Chat"
            yield document.remark(("watch", index, "pipeline"), "looks like the id of an example", remedy=remedy)


def _of_sinks(document: Document, settings: Settings) -> Iterator[Problem]:
    for name, sink in settings.sinks.items():
        path = ("sinks", name)
        if types_matching(sink.events) & _OF_PIPELINES:
            yield from _of_match(document, settings, (*path, "match"), sink.match)
        yield from _of_events(document, settings, sink, path=path)
        if isinstance(sink, WebhookSettings):
            yield from _of_clear_text(document, (*path, "url"), sink.url.get_secret_value(), what="events")
            if sink.template is None and not sink.secret:
                problem = "has no secret, so its receiver cannot verify that events are yours"
                yield document.remark((*path, "secret"), problem, remedy="make one: watcher init --secret", block=True)
            if sink.template == "pagerduty" and (found := sorted(types_matching(sink.events) & _NEVER_CLOSED)):
                problem = f"opens incidents that nothing closes: {', '.join(found)}"
                yield document.remark((*path, "events"), problem, remedy=f"write {_FOR_PAGERS}")


def _of_events(document: Document, settings: Settings, sink: AnySink, *, path: Path) -> Iterator[Problem]:
    """Warn of events that are asked for by name, and that no watch can lead to."""
    fitting = [watch for watch in settings.watch if _fits(watch, sink.match)]
    for index, glob in enumerate(sink.events) if document.get((*path, "events")) is not None else ():
        at, types = (*path, "events", index), types_matching((glob,))
        if types & _OF_RULES and types != _ALL and not any(watch.rules for watch in fitting):
            problem = "only rules lead to pipeline.failing and pipeline.silent, and no watch has any"
            yield document.remark(at, problem, remedy="add rules: {failing: {consecutive: 3}} to a watch")
        elif types == {EventType.EXECUTION_OVERDUE} and not any(watch.overdue_after_s for watch in fitting):
            problem = f"{document.subject(at)} never comes: no watch has overdue_after"
            yield document.remark(at, problem, remedy="add overdue_after: {running: 15m} to a watch")


def _of_store(document: Document, settings: Settings) -> Iterator[Problem]:
    url = settings.store.url
    if not url.startswith(_SQLITE):
        return
    folder, mounts = FilePath(os.path.realpath(url.removeprefix(_SQLITE))).parent, ""
    with suppress(OSError):  # not Linux
        mounts = _MOUNTS.read_text()
    if not os.path.isdir(folder):  # noqa: PTH112 (`is_dir` raises where it may not look)
        yield document.remark(("store", "url"), f"there is no folder {folder}", remedy="make it, or correct the path")
    elif kind := network_disk(folder, mounts):
        problem = f"{folder} is on a network disk ({kind}), where locks may fail and the file be damaged"
        yield document.remark(("store", "url"), problem, remedy="name a local disk, or use PostgreSQL")


def _fits(watch: WatchSettings, match: Match | SilenceMatch) -> bool:
    """Return whether a watch has all these labels, and one of these pipelines and accounts, where any are named."""
    in_pipelines = not match.pipelines or watch.pipeline in match.pipelines
    accounts = match.accounts if isinstance(match, SilenceMatch) else ()
    return in_pipelines and (not accounts or watch.account in accounts) and match.labels.items() <= watch.labels.items()


def _of_match(document: Document, settings: Settings, path: Path, match: Match | SilenceMatch) -> Iterator[Problem]:
    if not any(_fits(watch, match) for watch in settings.watch):
        key = ("labels",) if match.labels else ()
        remedy = "give a watch its labels, or correct it here"
        yield document.remark((*path, *key), "no watch fits all of what is given", remedy=remedy)
