"""Checks for values that contradict each other, and warnings about valid values that are likely mistakes.

The checks read the plain data of the file, not `Settings`, so they work whatever else is wrong with the file.
"""

import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import SecretStr
from yarl import URL

from watcher.config.document import ConfigProblem, Document, KeyPath, write_path
from watcher.config.error_messages import NO_EXECUTIONS
from watcher.config.models import AnySink, PollingSettings, Settings, WatchSettings
from watcher.domain.event import EVENT_KINDS, EventType
from watcher.domain.problems import CLOSED_BY, CLOSINGS, PROBLEM_KINDS
from watcher.domain.routing import APART_COUNT, types_matching
from watcher.rules import RulesSettings, rules_of
from watcher.runtime.clock import Clock
from watcher.runtime.http_client import is_private_host
from watcher.runtime.settings import did_you_mean, key_of
from watcher.runtime.units import is_loopback, parse_address, parse_duration, spell_duration
from watcher.sinks.email import TLS_PORT, EmailSettings
from watcher.sinks.settings import GroupSettings, HttpSinkSettings, Match, RemoteSettings, SilenceMatch
from watcher.sinks.stdout import StdoutSettings
from watcher.sinks.webhook import TemplateFile, WebhookSettings


def fill_in(document: Document) -> None:
    """Fill in the account of watches if there is only one, and a stdout sink if the file has none.

    Report watches whose account is missing or unknown, and a second stdout sink.
    """
    names = list(document.table(("accounts",)))
    watches = _watches(document)
    for watch in watches:
        if names:
            _name_account(document, watch, names)
        else:
            document.mark_reported((*watch, "account"))
    if watches and not names and not isinstance(document.get(("accounts",)), list | str):
        remedy = "write accounts: {default: {api_key: '${CLERK_API_KEY}'}}"
        document.report((*watches[0], "account"), "there is no account to ask with", remedy=remedy, block=True)
    _ensure_stdout(document)


def check(document: Document) -> None:
    """Report values that contradict each other. Problems of single values are reported before."""
    _check_repetitions(document)
    for watch in _watches(document):  # an empty key counts as absent, and would mean every execution
        if document.table(watch).get("executions", ()) is None:
            document.report((*watch, "executions"), "has no value", remedy=NO_EXECUTIONS, key=True)
    _check_intervals(document)
    _check_silences(document)
    _check_reports(document)


def _name_account(document: Document, watch: KeyPath, names: list[str]) -> None:
    path = (*watch, "account")
    shown = ", ".join(write_path((name,)) for name in names)
    given = document.get(path)
    if given is None and len(names) == 1:
        document.table(watch)["account"] = names[0]
    elif given is None:
        remedy = f"add account: with one of {shown}"
        document.report(path, "names no account, and there are several", remedy=remedy, block=True)
    elif (text := document.text(path)) is not None and text not in names:
        document.report(path, f"{document.subject(path)} is not defined", remedy=f"accounts are: {shown}")


def _ensure_stdout(document: Document) -> None:
    if document.get(("sinks",)) is None:
        document.data["sinks"] = {}
    sinks = document.table(("sinks",))
    types: list[KeyPath] = [("sinks", name, "type") for name in sinks]
    paths = [path for path in types if document.text(path) == "stdout"]
    for path in paths[1:]:
        problem = f"a second stdout sink, the first is at {document.place_for(path, paths[0])}"
        document.report(path, problem, remedy="merge the two: events: takes a list")
    if not paths:
        numbered = (f"stdout-{number}" for number in range(2, len(sinks) + 3))
        free = next(name for name in ("stdout", *numbered) if name not in sinks)
        sinks[free] = {"type": "stdout"}


def _watches(document: Document) -> list[KeyPath]:
    items = document.items(("watch",))
    return [("watch", index) for index, item in enumerate(items) if isinstance(item, dict)]


def _texts(document: Document, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and value of each text in a list, except those that are excused or have a problem."""
    for index, _ in enumerate(document.items(path)):
        at = (*path, index)
        if (text := document.text(at)) is not None:
            yield at, text


def _check_repetitions(document: Document) -> None:
    first: dict[object, KeyPath] = {}

    def note(path: KeyPath, value: object, problem: str, *, remedy: str) -> None:
        if (other := first.setdefault((remedy, value), path)) != path:
            document.report(path, problem.format(document.place_for(path, other)), remedy=remedy)

    for name in document.table(("accounts",)):
        if (key := document.text(path := ("accounts", name, "api_key"))) is not None:
            same = "the same key as another account's at {}"
            note(path, key, same, remedy="one account per key: its rate limit is one")
    watched = "already watched at {} with the same account"
    for watch in _watches(document):
        account = document.text((*watch, "account"))
        if account is None:
            continue
        if (pipeline := document.text(at := (*watch, "pipeline"))) is not None:
            note(at, (account, _canonical(pipeline)), watched, remedy="merge the two entries")
        for at, execution in _texts(document, (*watch, "executions")):
            note(at, (account, _canonical(execution)), watched, remedy="remove one of them")


def _canonical(text: str) -> str:
    # Return the same text for all ways to write one UUID.
    return text.lower().removeprefix("urn:uuid:").strip("{}").replace("-", "")


def _check_intervals(document: Document) -> None:
    paths: list[KeyPath] = [("polling", key) for key in ("max_interval", "min_interval")]
    if any(map(document.is_reported, paths)):
        return
    defaults = (PollingSettings.model_fields[f"{key}_s"].default for _, key in paths)
    longest_s, shortest_s = (
        parse_duration(document.text(path) or default) for path, default in zip(paths, defaults, strict=True)
    )
    if longest_s < shortest_s:
        at = next(path for path in paths if document.get(path) is not None)
        remedy = "raise max_interval, or lower min_interval"
        document.report(at, "max_interval is below min_interval", remedy=remedy)


def _check_silences(document: Document) -> None:
    """Report unknown sinks and accounts in silences: with a misspelt name a silence silences nothing."""
    sinks = [name for name in document.table(("sinks",)) if document.get(("sinks", name, "type")) != "stdout"]
    known = {"sinks": sinks, "accounts": list(document.table(("accounts",)))}
    for index, _ in enumerate(document.items(("silences",))):
        for key, names in known.items():
            for at, name in _texts(document, ("silences", index, "match", key)):
                if name not in names:
                    shown = ", ".join(write_path((each,)) for each in names) or "none, for stdout never is"
                    problem = f"{document.subject(at)} is no {key[:-1]} that can be silenced"
                    document.report(at, problem, remedy=f"these are: {shown}")


def _check_reports(document: Document) -> None:
    """Report each sink in `reports` that does not exist, or that is a pager: pagers show only current problems."""
    sinks = document.table(("sinks",))
    known = [str(name) for name in sinks if document.get(("sinks", name, "template")) not in _PAGERS]
    for report in document.table(("reports",)):
        for at, name in _texts(document, ("reports", report, "sinks")):
            if name not in known:
                remedy = did_you_mean(name, known, rest=f"these are: {', '.join(known)}")
                document.report(at, f"{document.subject(at)} is no sink that can show a report", remedy=remedy)


_PAGERS = ("pagerduty", "alertmanager")

# Warnings

_EXAMPLE = re.compile(r"[0-9a-f]{4}0000-0000-4000-8000-0{10}[0-9a-f]{2}|0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f")
"""The form of the ids in our examples. Almost no id of the API looks like this."""

_OF_PIPELINES = types_matching(("execution.*", "pipeline.*"))
_RULE_OF = {type_: kind.setting for type_, kind in EVENT_KINDS.items() if kind.setting.startswith("rules")}
"""An example of the rule that leads to each event. The closings of problems are left out."""

_OF_RULES = {*_RULE_OF, *(CLOSED_BY[kind] for kind in _RULE_OF if kind in CLOSED_BY)}
_WITHOUT_RULES = types_matching(("execution.*",)) - _OF_RULES
_NEVER_CLOSED = {*EventType} - PROBLEM_KINDS - CLOSINGS - types_matching(("problem.*", "watcher.*"))

_PAGES = re.compile(
    r"https?://(?!hooks\.|events\.)(?:[\w-]+\.)*(?:slack|discord(?:app)?|teams\.(?:live|microsoft)|pagerduty)\.com/(?!api/)"
)
"""The addresses of pages of chats and pagers. People may copy such an address instead of the URL of a webhook."""

_TEMPLATE_OF = {"hooks.slack.com": "slack", "discord.com": "discord", "events.pagerduty.com": "pagerduty"}
"""The template of each receiver that is known by its host. Discord also takes Slack's messages, at one of its paths."""

_UNFIT_TLS = {25: "tls", 587: "tls", TLS_PORT: "starttls"}
"""The value of `tls` that does not work at a port of a mail server."""

_BY_ACCOUNT = {"by": ["account"], "wait": "10s"}
"""The group that is advised for a sink that would get too many messages."""

_LATE_S = 30.0
"""The longest acceptable time until the last message about an outage. It is the default of `group.wait`."""

_FAILED_COUNT = 5
"""The number of executions of each pipeline that fail in the minute of an outage for which messages are counted."""

_LOCAL_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc")
"""The endings of local host names. A name without a dot is local, too, such as `receiver` in Compose."""

_SQLITE = "sqlite:///"
_MOUNTS = Path("/proc/self/mountinfo")
_NETWORK_DISKS = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "fuse.sshfs"})


def find_warnings(document: Document, settings: Settings) -> tuple[ConfigProblem, ...]:
    """Return all warnings about valid settings, sorted by their places in the files."""
    now = Clock().now()
    for name, account in settings.accounts.items():
        _warn_of_clear_text(document, ("accounts", name, "base_url"), account.base_url, what="key")
    _warn_of_rules(document, settings.defaults.rules, path=("defaults", "rules"))
    for index, watch in enumerate(settings.watch):
        _warn_of_rules(document, watch.rules, path=("watch", index, "rules"), default=settings.defaults.rules)
        at = ("watch", index, "pipeline")
        if at not in document.excused and _EXAMPLE.fullmatch(str(watch.pipeline)):
            remedy = "copy yours from the pipeline's address in Clerk Chat"
            document.warn(at, "looks like the id of an example", remedy=remedy)
    _warn_of_unsent(document, settings)
    _warn_of_sinks(document, settings)
    _warn_of_store(document, settings)
    _warn_of_http(document, settings)
    if settings.heartbeat is not None and settings.heartbeat.url.get_secret_value().endswith("/your-check"):
        problem, remedy = "is an example, so nobody notices when the pings stop", "copy the URL of a check of your own"
        document.warn(("heartbeat", "url"), problem, remedy=remedy)
    for name, report in settings.reports.items():
        _warn_of_match(document, settings, ("reports", name, "match"), report.match)
    for index, silence in enumerate(settings.silences):
        if silence.window(now)[1] <= now:
            problem, remedy = "is in the past, so nothing is silenced", "correct it, or remove this silence"
            document.warn(("silences", index, "until"), problem, remedy=remedy)
        _warn_of_match(document, settings, ("silences", index, "match"), silence.match)
    return tuple(sorted(document.warnings))


def network_disk(folder: Path, mounts: str) -> str | None:
    """Return the file system of a folder on a network disk, else `None`. `mounts` is `/proc/self/mountinfo`."""
    kind, deepest = "", -1
    for line in mounts.splitlines():
        head, _, tail = line.partition(" - ")
        point = Path(head.split(" ")[4].replace(r"\040", " "))
        if folder.is_relative_to(point) and len(point.parts) >= deepest:  # the later of two mounts at one place counts
            kind, deepest = tail.partition(" ")[0], len(point.parts)
    return kind if kind in _NETWORK_DISKS else None


def _warn_of_clear_text(document: Document, path: KeyPath, url: str, *, what: str) -> None:
    parts = URL(url)
    host = (parts.host or "").rstrip(".").lower()
    is_local = is_private_host(host) or ("." not in host and ":" not in host) or host.endswith(_LOCAL_NAMES)
    if parts.scheme == "http" and not is_local:
        problem = f"http:// to {host}: whoever is on the way can read the {what}"
        document.warn(path, problem, remedy="write https://")


def _warn_of_rules(
    document: Document, rules: RulesSettings | None, *, path: KeyPath, default: RulesSettings | None = None
) -> None:
    """Warn of likely mistakes in a block of rules. In a watch a rule without a value turns its `default` off."""
    rules, written = rules or RulesSettings(), document.table(path)
    if "failing" in written and rules.failing is not None and rules.failing.consecutive == 1:
        problem, remedy = "opens a problem at each failure", "write 2 or more, or a rate"
        document.warn((*path, "failing", "consecutive"), problem, remedy=remedy)
    for name, field in RulesSettings.model_fields.items():
        key = key_of(RulesSettings, name=name)
        if written.get(key, key) is None and not getattr(default, name, None):
            remedy = f"write {key}: {(field.examples or [''])[0]}, or remove the key"
            document.warn((*path, key), "has no value, so this rule is off", remedy=remedy)
    if (
        "tokens" in written
        and (tokens := rules.tokens) is not None
        and (tokens.execution or 0) > (tokens.per_day or math.inf)
    ):
        problem = f"is more than per_day {tokens.per_day}: one such execution uses more than a day may"
        document.warn((*path, "tokens", "execution"), problem, remedy="lower execution, or raise per_day")


def _warn_of_unsent(document: Document, settings: Settings) -> None:
    """Warn of each watch of which no sink but stdout is sent an opening of its rules, or without rules a failure.

    If stdout is the only sink, somebody reads it: then only rules are worth a warning, and one is enough.
    """
    sinks = [sink for sink in settings.sinks.values() if not isinstance(sink, StdoutSettings)]
    for index, watch in enumerate(settings.watch):
        kinds = {rule.opens for rule in rules_of(watch.rules) if rule.opens}
        types = kinds or {EventType.EXECUTION_FAILED}
        if any(types & types_matching(sink.events) and fits(watch, sink.match) for sink in sinks):
            continue
        if sinks or kinds:
            problem = f"of this watch no sink but stdout is sent {' or '.join(sorted(types))}"
            remedy = "see watcher check --who" if sinks else "add one under sinks"
            document.warn(("watch", index), problem, remedy=remedy, block=True)
        if not sinks and kinds:
            return


def _warn_of_http(document: Document, settings: Settings) -> None:
    tokens = [(name, value) for name, value in settings.http if isinstance(value, SecretStr) and value]
    for name in (name for name, value in tokens if len(value) < 16):
        problem, remedy = "has fewer than 16 characters: others may guess it", "make one: openssl rand -hex 32"
        document.warn(("http", name), problem, remedy=remedy)
    host = parse_address(settings.http.listen).host
    # An address that a variable of the image sets is no mistake: many people need only probes and metrics.
    if document.written(("http", "listen")) and not tokens and not is_loopback(host):
        problem = "without a token only probes and metrics are served beyond this machine"
        document.warn(("http", "listen"), problem, remedy="set http.token, or listen on 127.0.0.1")


def _warn_of_sinks(document: Document, settings: Settings) -> None:
    for name, sink in settings.sinks.items():
        path = ("sinks", name)
        watches = [watch for watch in settings.watch if fits(watch, sink.match)]
        if types_matching(sink.events) & _OF_PIPELINES:
            _warn_of_match(document, settings, (*path, "match"), sink.match)
        _warn_of_events(document, watches, sink, path=path)
        if isinstance(sink, RemoteSettings):
            _warn_of_rate(document, watches, sink, path=path)
            _warn_of_group(document, watches, sink, path=(*path, "group"))
        for key, problem, remedy in _mistakes_of(sink):
            document.warn((*path, *key), problem, remedy=remedy)
        if isinstance(sink, WebhookSettings):
            _warn_of_clear_text(document, (*path, "url"), sink.url.get_secret_value(), what="events")
            if sink.template is None and not sink.secret:
                problem = "has no secret, so its receiver cannot verify that events are yours"
                document.warn((*path, "secret"), problem, remedy="make one: watcher init --secret", block=True)
            if sink.template == "pagerduty":
                _warn_of_pager(document, watches, sink, path=path)


def _mistakes_of(sink: AnySink) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield the key, the problem and the remedy of each likely mistake that a sink's own block shows."""
    if isinstance(sink, RemoteSettings) and sink.retry.schedule[0] >= sink.retry.give_up_after_s:
        key, problem = ("retry", "give_up_after"), "is over before the second attempt, so nothing is tried again"
        yield key, problem, "raise it, or lower the first step of schedule"
    if isinstance(sink, EmailSettings) and sink.tls == _UNFIT_TLS.get(port := sink.endpoint.port):
        yield ("tls",), f"{sink.tls} does not fit port {port}", "remove tls; 465 is the port for tls, 587 for starttls"
    if isinstance(sink, HttpSinkSettings):
        url, template = URL(sink.address), sink.template if isinstance(sink, WebhookSettings) else None
        wanted = _TEMPLATE_OF.get((url.host or "").lower(), template)
        if isinstance(sink, WebhookSettings) and _PAGES.match(sink.address):
            yield ("url",), "is the address of a page, not of a webhook", "copy the webhook's URL: see docs/receivers"
        elif wanted != template and not isinstance(template, TemplateFile) and not url.path.endswith("/slack"):
            problem = f"is of {url.host}, which takes only messages of template {wanted}"
            yield ("url",), problem, f"write type: webhook and template: {wanted}, or correct the URL"
        if template is not None and sink.group is not None and sink.group.max is not None:
            yield ("group", "max"), "is only for a webhook without template, so it does nothing", "remove it"
        if template == "pagerduty" and sink.remind_every_s:
            problem = "only adds a note to the incident: PagerDuty rings until somebody acknowledges it there"
            yield ("remind_every",), problem, "remove it; PagerDuty's own escalation policy is what rings again"


def _warn_of_group(document: Document, watches: list[WatchSettings], sink: RemoteSettings, *, path: KeyPath) -> None:
    known = set[str]().union(*(watch.labels for watch in watches))
    for index, name in enumerate(sink.group.by if sink.group is not None and watches else ()):
        if name.startswith("labels.") and name.removeprefix("labels.") not in known:
            problem = f"{document.subject(at := (*path, 'by', index))} is a label that no watch of this sink has"
            document.warn(at, f"{problem}, so nothing is grouped", remedy="give watches the label, or write account")


def _warn_of_pager(document: Document, watches: list[WatchSettings], pager: AnySink, *, path: KeyPath) -> None:
    types, at = types_matching(pager.events), (*path, "events")
    if found := sorted(types & _NEVER_CLOSED):
        problem = f"opens incidents that nothing closes: {', '.join(found)}"
        document.warn(at, problem, remedy="leave events out: by default it gets what opens a problem")
    kinds = types & PROBLEM_KINDS & _OF_PIPELINES
    if kinds and watches and not any(kinds & _kinds_opened_by(watch) for watch in watches):
        problem = "no rule and no overdue_after can open a problem of a pipeline for this pager: "
        key = EVENT_KINDS[next(iter(kinds))].setting if len(kinds) == 1 else _rule_for(kinds)
        problem += "it would page for accounts and sinks at most"
        document.warn(at, problem, remedy=f"add {key} to a watch", block=True)


def _kinds_opened_by(watch: WatchSettings) -> set[EventType]:
    """Return the kinds of problems that the rules and limits of a watch may open."""
    by_limits = {EventType.EXECUTION_OVERDUE} if watch.overdue_after_s else set()
    return by_limits | {rule.opens for rule in rules_of(watch.rules) if rule.opens}


def _warn_of_events(document: Document, watches: list[WatchSettings], sink: AnySink, *, path: KeyPath) -> None:
    if document.get((*path, "events")) is None or not watches or any(watch.rules for watch in watches):
        return
    for index, glob in enumerate(sink.events):
        types = types_matching((glob,))
        if types & _OF_RULES and not types & _WITHOUT_RULES:
            named = sorted(types & _RULE_OF.keys() or types & _OF_RULES)
            problem = f"only rules lead to {' and '.join(named)}, and no watch of this sink has any"
            document.warn((*path, "events", index), problem, remedy=f"add {_rule_for(types)} to a watch")


def _rule_for(types: Collection[EventType]) -> str:
    """Return an example of a rule that leads to one of these events, or to the opening that one of them closes."""
    return next(rule for opening, rule in _RULE_OF.items() if {opening, CLOSED_BY.get(opening)} & {*types})


def _warn_of_rate(document: Document, watches: list[WatchSettings], sink: RemoteSettings, path: KeyPath) -> None:
    """Warn of a sink whose `rate_limit` is too low if all of its pipelines fail at once."""
    count = outage_messages(watches, sink)
    if (last_s := (count - 1) / sink.rate_limit) <= max(_LATE_S, sink.group.wait_s if sink.group else 0.0):
        return
    grouped = sink.model_copy(update={"group": GroupSettings.model_validate(_BY_ACCOUNT)})
    least = math.ceil((outage_messages(watches, grouped) - 1) / _LATE_S)
    remedy = "write group: {by: [account], wait: 10s}"
    if least > sink.rate_limit:
        remedy += f", with rate_limit: {least}/s or, if its receiver takes less, several sinks with match"
    problem = f"an outage of all its pipelines ({len(watches)}) leads to {count} messages"
    problem += f", and the last goes after {spell_duration(last_s)}"
    document.warn((*path, "group"), problem, remedy=remedy, block=document.get((*path, "group")) is None)


def outage_messages(watches: Sequence[WatchSettings], sink: RemoteSettings) -> int:
    """Return the number of messages to a sink in the worst plausible minute.

    In it `_FAILED_COUNT` executions of each pipeline fail, and each problem opens, is acknowledged and closes. Chats
    and mail get no failures of a pipeline whose problem they know, unless `events` names `execution.failed`.
    """
    rules, types = sink.rules, types_matching(sink.events)
    together = rules.problem_group or rules.incidents
    problems_by, failures_by = (each.by if each is not None else ("pipeline",) for each in (together, rules.group))
    failed, opened = Counter[object](), Counter[object]()
    for watch in watches:
        labels = {f"labels.{name}": value for name, value in watch.labels.items()}
        fields, failing = {"account": watch.account, "type": "", **labels}, (watch.rules or RulesSettings()).failing
        count = _FAILED_COUNT if EventType.EXECUTION_FAILED in types and not rules.incidents else 0
        if failing is not None and EventType.PIPELINE_FAILING in types:
            opened[tuple(fields.get(name, watch.pipeline) for name in problems_by)] += 1
            count = min(count, (failing.consecutive or failing.at_least) - 1) if rules.covers else count
        failed[tuple(fields.get(name, watch.pipeline) for name in failures_by)] += count
    apart = APART_COUNT if rules.problem_group else 0
    openings = sum(1 if together and count > apart else count for count in opened.values())
    most = math.ceil(60 / rules.group.wait_s) if rules.group else _FAILED_COUNT * len(watches)
    return 3 * openings + sum(min(count, most) for count in failed.values())


def _warn_of_store(document: Document, settings: Settings) -> None:
    url = settings.store.url
    if not url.startswith(_SQLITE):
        return
    folder, mounts = Path(os.path.realpath(url.removeprefix(_SQLITE))).parent, ""
    with suppress(OSError):  # not Linux
        mounts = _MOUNTS.read_text()
    if not os.path.isdir(folder):  # noqa: PTH112 (`Path.is_dir` raises an error without permission)
        document.warn(("store", "url"), f"there is no folder {folder}", remedy="make it, or correct the path")
    elif kind := network_disk(folder, mounts):
        problem = f"{folder} is on a network disk ({kind}), where locks may fail and the file be damaged"
        document.warn(("store", "url"), problem, remedy="name a local disk, or use PostgreSQL")


def fits(watch: WatchSettings, match: Match | SilenceMatch) -> bool:
    """Return whether a match may select events of this watch."""
    in_pipelines = not match.pipelines or watch.pipeline in match.pipelines
    accounts = match.accounts if isinstance(match, SilenceMatch) else ()
    return in_pipelines and (not accounts or watch.account in accounts) and match.labels.items() <= watch.labels.items()


def _warn_of_match(document: Document, settings: Settings, path: KeyPath, match: Match | SilenceMatch) -> None:
    if not any(fits(watch, match) for watch in settings.watch):
        key = ("labels",) if match.labels else ()
        remedy = "give a watch its labels, or correct it here"
        document.warn((*path, *key), "no watch fits all of what is given", remedy=remedy)
