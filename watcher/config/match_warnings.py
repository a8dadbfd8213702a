"""What is likely a mistake in a `match`: of a sink, or of a silence."""

from collections.abc import Collection, Iterator, Mapping
from uuid import UUID

from watcher.config.document import Document
from watcher.config.models import Settings, WatchSettings
from watcher.config.problems import Problem
from watcher.config.yaml_tree import Path
from watcher.runtime.settings import did_you_mean


def fits(
    watch: WatchSettings,
    *,
    labels: Mapping[str, str],
    pipelines: Collection[UUID] = (),
    accounts: Collection[str] = (),
) -> bool:
    """Return whether a watch has all these labels, and one of these pipelines and accounts, where any are named."""
    in_pipelines = not pipelines or watch.pipeline in pipelines
    in_accounts = not accounts or watch.account in accounts
    return in_pipelines and in_accounts and labels.items() <= watch.labels.items()


def of_match(
    document: Document,
    settings: Settings,
    *,
    path: Path,
    labels: Mapping[str, str],
    pipelines: Collection[UUID],
    accounts: Collection[str] = (),
) -> Iterator[Problem]:
    """Warn of what no watch has: a pipeline, all the labels, or all of it at once."""
    watched = {watch.pipeline for watch in settings.watch}
    strangers = [index for index, pipeline in enumerate(pipelines) if pipeline not in watched]
    for index in strangers:
        remedy = "add a watch for it, or remove it here"
        yield document.remark((*path, "pipelines", index), "no watch has this pipeline", remedy=remedy)
    if not any(fits(watch, labels=labels) for watch in settings.watch):
        remedy = _remedy_for(document, settings, labels=labels, path=(*path, "labels"))
        yield document.remark((*path, "labels"), "no watch has these labels", remedy=remedy)
    elif strangers or any(
        fits(watch, labels=labels, pipelines=pipelines, accounts=accounts) for watch in settings.watch
    ):
        return
    elif accounts:
        problem = "no watch fits all of what is given"
        yield document.remark(path, problem, remedy="remove a key, or change what it names")
    else:
        problem = "no watch has both these labels and one of these pipelines"
        yield document.remark(path, problem, remedy="give the pipeline's watch these labels, or remove one of the two")


def _remedy_for(document: Document, settings: Settings, *, labels: Mapping[str, str], path: Path) -> str:
    rest = "give a watch these labels, or remove them here"
    if any(document.is_hidden((*path, key)) for key in labels):
        return rest
    places = [("watch", index, "labels", key) for index, watch in enumerate(settings.watch) for key in watch.labels]
    known = {f"{place[-1]}: {document.get(place)}" for place in places if not document.is_hidden(place)}
    unknown = [word for word in map(": ".join, labels.items()) if word not in known]
    return did_you_mean(unknown[0], sorted(known), rest=rest) if unknown else rest
