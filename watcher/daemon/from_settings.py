"""Values made from settings: routes, silences, watches, rules, API clients, and fingerprints for comparing settings."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b

from pydantic import SecretStr
from yarl import URL

from watcher.config.models import AccountSettings, AnySink, Settings, SilenceSettings
from watcher.domain.routing import Route, Silence, types_matching
from watcher.domain.watch import Watch
from watcher.polling.poll_item import CONFIRM_WITHIN_S, PollRules
from watcher.rules import rules_of
from watcher.runtime.http_client import Client, proxy_for
from watcher.runtime.pacing import SHARE
from watcher.sinks.stdout import StdoutSettings

OUTRUN_AFTER_S = 300.0
"""A scan is outrun after as many pages without progress as half of the rate limit allows in this time."""

OUTRUN_PAGES = 50
"""The least number of pages without progress after which a scan is outrun: during a pause of 15 minutes a list may grow
by as many."""


def routes_of(settings: Settings) -> dict[str, Route]:
    """Return the routes of all sinks."""
    return {
        name: Route(
            types_matching(sink.events),
            dict(sink.match.labels),
            frozenset(map(str, sink.match.pipelines)),
            (rules := sink.rules).group,
            rules.problem_group,
            rules.opening_wait_s,
        )
        for name, sink in settings.sinks.items()
    }


def silences_of(settings: Settings, stored: Sequence[SilenceSettings] = ()) -> list[Silence]:
    """Return the silences of the file and the stored ones.

    No silence applies to stdout, which is the record of all events.
    """
    any_time = datetime.fromtimestamp(0, UTC)  # a weekly silence goes by `weekly`, the others do not need the time
    silenced = {name for name, sink in settings.sinks.items() if not isinstance(sink, StdoutSettings)}
    return [
        Silence(
            *each.window(any_time),
            types=types_matching(each.match.events) if each.match.events else None,
            accounts=frozenset(each.match.accounts),
            pipelines=frozenset(map(str, each.match.pipelines)),
            sinks=frozenset(silenced.intersection(each.match.sinks) if each.match.sinks else silenced),
            labels=dict(each.match.labels),
            weekly=each.weekly.hours if each.weekly else None,
            comment=each.comment or "",
        )
        for each in (*settings.silences, *stored)
    ]


def poll_rules_of(settings: Settings, *, account: str) -> PollRules:
    """Return the rules for polling an account."""
    polling, rate_per_s = settings.polling, settings.accounts[account].rate_limit
    return PollRules(
        details=polling.details,
        first_sight=polling.first_sight,
        lookback_us=round(polling.lookback_s * 1_000_000),
        history_us=round(max(polling.lookback_s, settings.store.retention_s) * 1_000_000),
        pages_at_most=max(OUTRUN_PAGES, round(rate_per_s * OUTRUN_AFTER_S / 2)),
        confirmed_at_most=rate_per_s * SHARE * CONFIRM_WITHIN_S / 2,
        min_interval_s=polling.min_interval_s,
        max_interval_s=polling.max_interval_s,
        lost_after=polling.lost_after,
        lost_grace_s=polling.lost_grace_s,
        degraded_after_s=polling.degraded_after_s,
    )


def open_client(settings: AccountSettings, *, connections: int, check: Callable[[], None] = lambda: None) -> Client:
    """Return the API client of an account, which calls `check` before each request. Needs a running event loop."""
    return Client(
        api_key=settings.api_key.get_secret_value(),
        timeout_s=settings.timeout_s,
        connections=connections,
        proxy=proxy_for(URL(settings.base_url)),
        check=check,
    )


def watches_of(settings: Settings, account: str | None = None) -> list[Watch]:
    """Return the watches of one account, or of all accounts."""
    return [
        Watch(
            account=watch.account,
            pipeline=str(watch.pipeline),
            executions=watch.executions,
            name=watch.name,
            labels=dict(watch.labels),
            overdue_after_s={str(status): limit_s for status, limit_s in watch.overdue_after_s.items()},
            rules=rules_of(watch.rules),
            max_tokens=watch.rules.tokens.execution if watch.rules and watch.rules.tokens else None,
            runbook=watch.runbook,
        )
        for watch in settings.watch
        if account in (None, watch.account)
    ]


def fingerprint_of_settings(settings: Settings) -> str:
    """Return a hash of the settings, by which replicas compare their configurations.

    Secrets are left out, and so are settings that may differ between replicas. Only keys that the file sets count: a
    later version may have more keys, and other defaults.
    """
    content = settings.model_dump(
        mode="json", exclude_unset=True, exclude={"http": True, "log": True, "store": {"url"}}, warnings=False
    )
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def fingerprint_of_key(api_key: SecretStr) -> str:
    """Return a hash of an API key. It identifies the key in the store, where each key has one owner.

    The hash does not reveal the key: keys are long and random, so nobody can guess them.
    """
    return blake2b(api_key.get_secret_value().encode(), digest_size=16, person=b"watcher api key").hexdigest()


def fingerprint_of_sink(settings: AnySink) -> str:
    """Return a hash of a sink's block in the file. If the hash changes, a disabled sink is enabled again.

    Only keys that the file sets count: a later version may have more keys, and other defaults.
    """
    content = json.dumps(settings.model_dump(exclude_unset=True), default=_revealed)
    return blake2b(content.encode(), digest_size=16).hexdigest()


def _revealed(value: object) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else repr(value)
