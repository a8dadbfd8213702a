"""What is allowed in a configuration and is likely a mistake all the same. Nothing here keeps a file from being used.

The rules read validated settings, and the document only for places and for what may be shown. A rule warns only where
it can name what would be lost or read by strangers: whoever is warned for nothing reads no warning.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from watcher.config.document import Document
from watcher.config.exposure import exposed_host
from watcher.config.locate import DEFAULTS
from watcher.config.models import Settings
from watcher.config.problems import Problem
from watcher.config.rules_settings import RulesSettings
from watcher.config.silence_warnings import of_silences
from watcher.config.sink_warnings import of_sinks
from watcher.config.yaml_tree import Path
from watcher.runtime.units import is_loopback, parse_address

_EXAMPLE = re.compile(r"[0-9a-f]{4}0000-0000-4000-8000-0{10}[0-9a-f]{2}")
"""How the ids of our examples look, and next to no id of the API's."""

_SHORTEST_SILENCE_S = 60.0


def warnings_of(
    document: Document, settings: Settings, *, environ: Mapping[str, str], now: datetime
) -> tuple[Problem, ...]:
    """Return what a person should check, sorted by its place in the file. `now` is the wall clock."""
    found = (
        *_of_accounts(document, settings),
        *_of_watches(document, settings),
        *of_sinks(document, settings),
        *of_silences(document, settings, now=now),
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
        if host := exposed_host(account.base_url):
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
        if watch.rules is not None:
            yield from _of_rules(document, watch.rules, path=("watch", index, "rules"))


def _of_rules(document: Document, rules: RulesSettings, *, path: Path) -> Iterator[Problem]:
    if rules.silent_s is not None and rules.silent_s < _SHORTEST_SILENCE_S:
        at = (*path, "silent")
        problem = f"{document.subject(at)} is so short that any pause between two executions opens a problem"
        yield document.remark(at, problem, remedy="write 6h, or at least 1m")
    failing = rules.failing
    if failing is not None and failing.rate is not None and failing.rate * failing.of_last < 1:
        at = (*path, "failing", "rate")
        problem = f"{document.subject(at)} of {failing.of_last} ends is less than one: a single failure opens a problem"
        yield document.remark(at, problem, remedy="raise it, or of_last")


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
