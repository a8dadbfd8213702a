"""What is allowed in a configuration and is likely a mistake all the same. Nothing here keeps a file from being used.

The rules read validated settings, and the document only for places and for what may be shown. A rule warns only where
it can name what would be lost or read by strangers: whoever is warned for nothing reads no warning.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from itertools import combinations

from pydantic import SecretStr
from yarl import URL

from watcher.config.document import Document
from watcher.config.locate import DEFAULTS
from watcher.config.models import AnySink, Settings, WatchSettings
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.webhook import WebhookSettings
from watcher.domain.event import EventType
from watcher.domain.routing import types_matching
from watcher.runtime.settings import did_you_mean
from watcher.runtime.units import is_loopback, parse_address

_EXAMPLE = re.compile(r"[0-9a-f]{4}0000-0000-4000-8000-0{10}[0-9a-f]{2}")
"""How the ids of our examples look, and next to no id of the API's."""

_LOCAL_NETWORKS = tuple(
    ip_network(each)
    for each in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "0.0.0.0/32"),
        *("::1/128", "fc00::/7", "fe80::/10", "::/128"),
    )
)
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home.arpa", "svc")
"""Where a name ends that is of this machine or network alone; so is one without a dot (`receiver`, in Compose)."""

_ALWAYS = types_matching(("account.*",))
_OF_EXECUTIONS = types_matching(("execution.*",)) - {EventType.EXECUTION_OVERDUE}
_OF_PIPELINES = types_matching(("execution.*", "pipeline.*"))
_FAILING = {EventType.PIPELINE_FAILING, EventType.PIPELINE_RECOVERED}
_SILENT = {EventType.PIPELINE_SILENT, EventType.PIPELINE_ACTIVE}


def warnings_of(document: Document, settings: Settings, *, environ: Mapping[str, str]) -> tuple[Problem, ...]:
    """Return what a person should check, sorted by its place in the file."""
    found = (
        *_of_accounts(document, settings),
        *_of_watches(document, settings),
        *_of_sinks(document, settings),
        *_of_doubles(document, settings),
        *_of_listening(document, settings),
        *_of_variables(document, environ=environ),
    )
    return tuple(sorted(found, key=lambda each: (each.line, each.column)))


def _of_accounts(document: Document, settings: Settings) -> Iterator[Problem]:
    named = {watch.account for watch in settings.watch}
    for name, account in settings.accounts.items():
        if name not in named:
            remedy = "watch something with it, or remove it"
            yield document.remark(("accounts", name), "no watch names this account", remedy=remedy, key=True)
        if host := _exposed(account.base_url):
            problem = f"http:// to {host}: whoever is on the way can read the key"
            yield document.remark(("accounts", name, "base_url"), problem, remedy="write https://")


def _of_watches(document: Document, settings: Settings) -> Iterator[Problem]:
    for index, watch in enumerate(settings.watch):
        if _EXAMPLE.fullmatch(str(watch.pipeline)):
            remedy = "copy yours from the pipeline's address in Clerk Chat"
            yield document.remark(("watch", index, "pipeline"), "looks like the id of an example", remedy=remedy)
        if len(watch.executions) == 1 and _EXAMPLE.fullmatch(watch.executions[0]):
            problem = "looks like the id of an example, and nothing else of this pipeline is watched"
            remedy = "remove executions to watch every one, or name yours"
            yield document.remark(("watch", index, "executions", 0), problem, remedy=remedy)


def _of_sinks(document: Document, settings: Settings) -> Iterator[Problem]:
    for name, sink in settings.sinks.items():
        path = ("sinks", name)
        unfit = list(_of_match(document, settings, sink=sink, path=(*path, "match")))
        yield from unfit
        if not unfit and not types_matching(sink.events) & _possible(settings, name=name, sink=sink):
            problem = "nothing that is watched can lead to any of these"
            remedy = (
                "execution.overdue needs overdue_after, pipeline.gap a pipeline watched whole, "
                "other pipeline.* a rule, sink.* another sink"
            )
            yield document.remark((*path, "events"), problem, remedy=remedy)
        if isinstance(sink, WebhookSettings):
            yield from _of_webhook(document, sink, path=path)


def _of_webhook(document: Document, sink: WebhookSettings, *, path: Path) -> Iterator[Problem]:
    if not sink.secret and sink.template is None:
        problem = "has no secret, so its receiver cannot verify that events are yours"
        yield document.remark((*path, "secret"), problem, remedy="make one: watcher init --secret", block=True)
    if host := _exposed(sink.url.get_secret_value()):
        problem = f"http:// to {host}: whoever is on the way can read the events"
        yield document.remark((*path, "url"), problem, remedy="write https://")


def _of_match(document: Document, settings: Settings, *, sink: AnySink, path: Path) -> Iterator[Problem]:
    """Warn of a `match` that lets nothing through of what is watched, and of pipelines in it that nobody watches."""
    if not types_matching(sink.events) & _OF_PIPELINES:
        return
    watched = {watch.pipeline for watch in settings.watch}
    strangers = [index for index, pipeline in enumerate(sink.match.pipelines) if pipeline not in watched]
    for index in strangers:
        remedy = "add a watch for it, or remove it here"
        yield document.remark((*path, "pipelines", index), "no watch has this pipeline", remedy=remedy)
    if not any(_has_labels(watch, sink.match.labels) for watch in settings.watch):
        remedy = _remedy_for(document, settings, sink=sink, path=(*path, "labels"))
        yield document.remark((*path, "labels"), "no watch has these labels", remedy=remedy)
    elif not strangers and not any(_fits(watch, sink) for watch in settings.watch):
        problem = "no watch has both these labels and one of these pipelines"
        yield document.remark(path, problem, remedy="give the pipeline's watch these labels, or remove one of the two")


def _remedy_for(document: Document, settings: Settings, *, sink: AnySink, path: Path) -> str:
    rest = "give a watch these labels, or remove them here"
    if any(document.is_hidden((*path, key)) for key in sink.match.labels):
        return rest
    places = [("watch", index, "labels", key) for index, watch in enumerate(settings.watch) for key in watch.labels]
    known = {f"{place[-1]}: {document.get(place)}" for place in places if not document.is_hidden(place)}
    unknown = [word for word in map(": ".join, sink.match.labels.items()) if word not in known]
    return did_you_mean(unknown[0], sorted(known), rest=rest) if unknown else rest


def _has_labels(watch: WatchSettings, labels: Mapping[str, str]) -> bool:
    return labels.items() <= watch.labels.items()


def _fits(watch: WatchSettings, sink: AnySink) -> bool:
    in_pipelines = not sink.match.pipelines or watch.pipeline in sink.match.pipelines
    return in_pipelines and _has_labels(watch, sink.match.labels)


def _possible(settings: Settings, *, name: str, sink: AnySink) -> frozenset[EventType]:
    """Return what may ever be sent to a sink: its events, once what it matches can lead to them."""
    fitting = [watch for watch in settings.watch if _fits(watch, sink)]
    others = any(each.target for key, each in settings.sinks.items() if key != name)
    return _ALWAYS.union(
        _OF_EXECUTIONS if fitting else (),
        {EventType.EXECUTION_OVERDUE} if any(watch.overdue_after_s for watch in fitting) else (),
        {EventType.PIPELINE_GAP} if not all(watch.executions for watch in fitting) else (),
        _FAILING if any(watch.rules and watch.rules.failing for watch in fitting) else (),
        _SILENT if any(watch.rules and watch.rules.silent_s for watch in fitting) else (),
        types_matching(("sink.*",)) if others else (),
    )


def _of_doubles(document: Document, settings: Settings) -> Iterator[Problem]:
    """Warn of two sinks with one URL that the same event may go to."""
    hooks = {name: sink for name, sink in settings.sinks.items() if isinstance(sink, WebhookSettings)}
    for (name, sink), (other, second) in combinations(hooks.items(), 2):
        types = types_matching(sink.events) & types_matching(second.events) - {EventType.WATCHER_TEST}
        together = any(_fits(watch, sink) and _fits(watch, second) for watch in settings.watch)
        same = _place(sink) == _place(second)
        if same and (types - _OF_PIPELINES or (types and together)):
            line = document.line(("sinks", name, "url"))
            problem = f"the same URL as another sink's at line {line}: what both ask for arrives twice"
            yield document.remark(("sinks", other, "url"), problem, remedy="merge the two: events takes a list")


def _place(sink: WebhookSettings) -> tuple[str, SecretStr | None]:
    """Return where a sink's events end up: at PagerDuty all have one URL."""
    return str(URL(sink.url.get_secret_value())), sink.routing_key


def _of_listening(document: Document, settings: Settings) -> Iterator[Problem]:
    """Warn of a file that opens the pages to others; a variable does so on purpose, as the image's."""
    path = ("http", "listen")
    if document.is_in_file(path) and not is_loopback(parse_address(settings.http.listen).host):
        problem = (
            f"{settings.http.listen} can be reached from other machines; they may read /livez, /readyz and /metrics"
        )
        yield document.remark(path, problem, remedy="write 127.0.0.1 in its place unless they should")


def _of_variables(document: Document, *, environ: Mapping[str, str]) -> Iterator[Problem]:
    for variable, path in DEFAULTS.items():
        value, written = environ.get(variable), document.get(path)
        if value and document.is_in_file(path) and value.strip() != str(written).strip():
            problem = f"{document.subject(path)} wins over ${variable}, which says otherwise"
            yield document.remark(path, problem, remedy="remove the key to use the variable, or unset the variable")


def _exposed(url: str) -> str | None:
    """Return the host of a URL that sends in clear to somewhere beyond this machine and its network, else `None`."""
    parts = URL(url)
    host = (parts.host or "").rstrip(".").lower()
    return host if parts.scheme == "http" and not _is_local(host) else None


def _is_local(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return "." not in host or any(host.endswith(f".{end}") for end in _LOCAL_NAMES)
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in _LOCAL_NETWORKS)
