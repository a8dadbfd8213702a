"""What the configuration has maintenance keep: ended executions, and problems that are open."""

from collections.abc import Mapping
from functools import partial

from watcher.config.models import Settings, WatchSettings
from watcher.daemon.build import rules_of
from watcher.daemon.maintenance import RetentionPolicy
from watcher.domain.watch import limits_dwell
from watcher.store.records import OpenProblem


def retention_policy_of(settings: Settings) -> RetentionPolicy:
    """Return what maintenance is to keep."""
    watches = {(watch.account, str(watch.pipeline)): watch for watch in settings.watch}
    named = {key: frozenset(watch.executions) for key, watch in watches.items()}
    return RetentionPolicy(
        sinks=tuple(settings.sinks),
        retention_s=settings.store.retention_s,
        named=lambda account, pipeline, execution: execution in named.get((account, pipeline), ()),
        pipelines=frozenset(key for key, executions in named.items() if not executions),
        listed_s=max(settings.store.retention_s, settings.polling.lookback_s),
        watches_for=partial(_watches_for, settings, watches),
        ruled=frozenset(key for key, watch in watches.items() if watch.rules),
    )


def _watches_for(settings: Settings, watches: Mapping[tuple[str, str], WatchSettings], problem: OpenProblem) -> bool:
    """Return whether the configuration has what a problem is about, and what watches for it."""
    if problem.pipeline is None:
        return problem.name in (settings.sinks if problem.kind == "sink" else settings.accounts)
    watch = watches.get((problem.name, problem.pipeline))
    if watch is None:
        return False
    if problem.execution is not None:
        is_watched = not watch.executions or problem.execution in watch.executions
        return is_watched and problem.status is not None and limits_dwell(watch.overdue_after_s, problem.status)
    return watch.rules is not None and rules_of(watch.rules).watch_for(problem.problem.kind)
