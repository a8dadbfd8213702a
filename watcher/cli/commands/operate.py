"""The commands that show the lists of a running daemon, or ask the daemon to do something."""

import getpass
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

import typer

from watcher.cli.commands.status import unknown_text
from watcher.cli.console import age, console_on, print_done, print_list, until
from watcher.cli.daemon_client import Answer, DaemonClient, JsonOption, Query, UrlOption, find_daemon
from watcher.cli.lookup import one_of
from watcher.cli.shell import ConfigOption, exit_at_signals, put_all_out, put_error
from watcher.domain.errors import DaemonError, Exit, UsageError
from watcher.runtime.settings import did_you_mean
from watcher.runtime.terminal import harmless
from watcher.sinks.stdout import event_line, reason_of, shows_whole_ids

EVENT_FIELDS = ("time", "type", "data.account", "data.pipeline.id", "data.pipeline.name", "subject", "reason", "id")
ACK_FIELDS = ("acknowledged.by", "acknowledged.until", "acknowledged.at", "acknowledged.comment")
PROBLEM_FIELDS = ("id", "severity", "openedAt", "title", "reason", "closedAt", "count", *ACK_FIELDS)
SHOWN_PROBLEM_FIELDS = ("id", "severity", "openedAt", "closedAt", "count", "title")
SILENCE_FIELDS = ("id", "active", "from", "until", "weekly", "pipelines", "match", "by", "comment")
DELIVERY_FIELDS = ("id", "type", "execution", "sink", "state", "attempts", "answer", "recordedAt", "nextTryAt", "event")

EVERY_S = 1.0
"""Seconds between two requests of `--follow`."""

ACK_COUNT = 200
"""Maximum number of problems that one request acknowledges."""

SinkArgument = Annotated[str, typer.Argument(metavar="SINK", help="The sink's name, or a unique beginning of it.")]
PipelineOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Any of these pipelines; an id or a beginning of one will do.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ForOption = Annotated[str | None, typer.Option("--for", metavar="2h", help="For how long.")]
CommentOption = Annotated[str | None, typer.Option(help="Why, for the others.")]


def events(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those to come.")] = False,
    type_: Annotated[list[str] | None, typer.Option("--type", metavar="GLOB", help="Only such, as execution.*")] = None,
    pipeline: PipelineOption = None,
    execution: Annotated[str | None, typer.Option(metavar="ID", help="Only of this one; 4 characters may do.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only with these labels.")] = None,
    since: Annotated[str | None, typer.Option(metavar="2h", help="No older, or since a time.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Print events in the order of recording.

    Without --since it prints only new events with -f, all events of an --execution, and else those of the last hour.
    With -f the command asks the daemon every second, goes on after the daemon was away, and misses no event.

    Examples:
      watcher events -f --type 'execution.failed' --label team=sales --since 2h
      watcher events --pipeline 'Sales agent'

    """
    exit_at_signals()
    daemon = find_daemon(config, url=url)
    _check_labels(daemon, [each for each in label or () if not each.startswith("!")])
    labels, pipelines = [each.replace("=", ":", 1) for each in label or ()], _each_of(daemon, "pipeline", pipeline)
    if execution and len(execution) < 4:
        raise UsageError("--execution: write 4 characters of its id or more")
    if execution and not (follow and len(execution) == 36):  # with -f a whole id may be of an execution to come
        page = daemon.ask("GET", "/executions", query=[("q", execution), ("limit", "200")])
        word = execution.partition("…")[0]  # a page shortens an id to its beginning and `…`
        execution = one_of(page["items"], word, kind="execution", listed_by="watcher events", same="id")["id"]
    lists = {"type": type_, "pipeline": pipelines, "label": labels, "execution": execution and [execution]}
    query = [(name, value) for name, values in lists.items() for value in values or ()]
    since = since or ("1ms" if follow else None if execution else "1h")
    found = _events(daemon, query, since=since, follow=follow)
    if as_json or not sys.stdout.isatty():
        rows = found if as_json else ({**event, "reason": reason_of(event["data"])} for event in found)
        print_list(EVENT_FIELDS, rows, as_json=as_json)
        return
    console = console_on(sys.stdout)
    for event in found:
        console.print(event_line(event, whole_ids=shows_whole_ids(console)), soft_wrap=True)


def _each_of(daemon: DaemonClient, kind: str, words: Sequence[str] | None) -> Sequence[str]:
    """Return the ids of the pipelines, or the names of the accounts or sinks, that `words` name."""
    known = daemon.ask("GET", "/status")[f"{kind}s"] if words else []
    key = "id" if kind == "pipeline" else "name"
    return [one_of(known, word, kind=kind, same=key)[key] for word in words or ()]


def _check_labels(daemon: DaemonClient, labels: Sequence[str]) -> None:
    """Raise `UsageError` for a label without a value, `DaemonError` if no pipeline has all of these labels."""
    if any("=" not in each for each in labels):
        raise UsageError("--label: write KEY=VALUE, such as --label team=sales")
    pipelines = daemon.ask("GET", "/status")["pipelines"] if labels else ()
    carried = [{f"{key}={value}" for key, value in each["labels"].items()} for each in pipelines]
    if not labels or any(each.issuperset(labels) for each in carried):
        return
    known = sorted(set[str]().union(*carried))
    wrong = next((each for each in labels if each not in known), " and ".join(labels))
    remedy = did_you_mean(wrong, known) or "watcher status --json lists them"
    raise DaemonError(harmless(f"no pipeline has label {wrong}; {remedy}"), code=Exit.NOT_FOUND)


def _events(client: DaemonClient, query: Query, *, since: str | None, follow: bool) -> Iterator[dict[str, Any]]:
    """Yield each event once, page by page. With `follow` never end, and go on after the daemon was away."""
    position: Query = [("since", since)] if since else []
    after: str | None = None
    is_away = False
    while True:
        try:
            page = client.ask("GET", "/events", query=[*query, ("limit", "200"), *position])
        except DaemonError as error:
            if not follow or after is None or error.is_refusal:
                raise
            if not is_away:
                put_error(f"warning: {str(error).splitlines()[0]}; trying again every second")
            is_away = True
            time.sleep(EVERY_S)
            continue
        if is_away:
            put_error("warning: the daemon answers again; no event was missed")
        is_away = False
        yield from page["items"]
        if page["next"] == after:
            if not follow:
                return
            put_all_out()
            time.sleep(EVERY_S)
        after = page["next"]
        position = [("after", after)]


def problems(
    *,
    state: Annotated[Literal["open", "closed", "all"], typer.Option(help="Which of them.")] = "open",
    verbose: Annotated[bool, typer.Option("--verbose", help="Also what each sink was sent, or why not.")] = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """List the open problems, and what closes them. Those that nobody has acknowledged come first.

    Examples:
      watcher problems --verbose
      watcher problems --state all --json | jq .title

    """
    daemon = find_daemon(config, url=url)
    items = daemon.items("/problems", [("state", state)])
    if verbose:
        items = (Answer(each, told=daemon.ask("GET", f"/problems/{each['id']}")["told"]) for each in items)
    _print_problems(items, as_json=as_json, verbose=verbose)
    status = daemon.ask("GET", "/status")
    others = [f"{each['title']}: {each['reason']}" for each in status["needs"] if each["kind"] != "problem"]
    for text in filter(None, (*others, unknown_text(status))):
        put_error(f"warning: {harmless(text)}")


def _print_problems(items: Iterable[Answer], *, as_json: bool = False, verbose: bool = False) -> None:
    if as_json:
        print_list((), items, as_json=True)
    elif not sys.stdout.isatty():
        fields = (*PROBLEM_FIELDS, "told") if verbose else PROBLEM_FIELDS
        print_list(fields, ({**each, "told": "; ".join(_told(each, str))} for each in items))
    else:
        print_list(SHOWN_PROBLEM_FIELDS, ({**each, "notes": [*_notes(each)]} for each in items))


def _notes(problem: dict[str, Any]) -> Iterator[str]:
    """Yield the reason, the acknowledgement, and of an open problem what closes it and what to do."""
    yield problem["reason"]
    if (taken := problem.get("acknowledged")) is not None:
        by, comment = (taken.get(key, "") for key in ("by", "comment"))
        words = f"acknowledged{by and f' by {by}'} {age(taken['at'])} ago{until(taken.get('until'))}"
        yield f"{words}{comment and f': {comment}'}"
    is_open = "closedAt" not in problem
    if is_open and "closesWhen" in problem:
        idle = f"; no execution has ended for {age(problem['lastEndedAt'])}" if "lastEndedAt" in problem else ""
        yield f"closes when {problem['closesWhen']}{idle}"
    if is_open and "remedy" in problem:
        yield f"what to do: {problem['remedy']}"
    yield from _told(problem, age)


def _told(problem: dict[str, Any], moment: Callable[[str], str]) -> Iterator[str]:
    """Yield for each sink what it was sent of a problem, and why not the rest; `moment` shows the times."""
    for each in problem.get("told", ()):
        said = [f"sent {sent['type']} {moment(sent['at'])}" for sent in each.get("sent", ())]
        if "waiting" in each:
            due = f" ({moment(each['until'])})" if "until" in each else ""
            said.append(f"not yet: {each['waiting']}{due}")
        yield f"{each['sink']}: {', '.join([*said, *filter(None, [each.get('never')])])}"


def ack(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids, titles, or beginnings of them.")] = None,
    *,
    every: Annotated[
        bool, typer.Option("--all", help="All that nobody has acknowledged; with --undo, all others.")
    ] = False,
    duration: ForOption = None,
    comment: CommentOption = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Acknowledge open problems: you look after them.

    No reminders of these problems are sent for the time of --for, by default until they are closed. Sinks that got the
    opening of a problem also get your acknowledgement. --all lists the problems and asks first; without a terminal it
    needs --yes.

    Examples:
      watcher ack 3f2a --for 2h --comment 'calling the vendor'
      watcher ack --all --comment 'the vendor is down'

    """
    if bool(ids) == every:
        said = "takes ids or --all, not both" if every else "needs the ids of problems (see watcher problems), or --all"
        raise UsageError(f"ack {said}")
    _check_can_ask("ack --all", yes=yes or not every)
    daemon = find_daemon(config, url=url)
    known = [*daemon.items("/problems")]
    named = [one_of(known, id_, kind="open problem", listed_by="watcher problems") for id_ in ids or ()]
    chosen = named or [each for each in known if ("acknowledged" in each) == undo]
    titles = {each["id"]: each["title"] for each in chosen}
    if not titles and not as_json:
        print_done(f"nothing to {'take back' if undo else 'acknowledge'}", {}, as_json=False)
    if titles and every and not yes:
        _print_problems(chosen)
        typer.confirm(f"{'Take back' if undo else 'Acknowledge'} all of these ({len(titles):,})?", abort=True)
    if undo:
        for id_, title in titles.items():
            answer = daemon.ask("DELETE", f"/problems/{id_}/ack")
            print_done(f"no longer acknowledged: {title}", answer, as_json=as_json)
        return
    asked = _given(**{"for": duration}, comment=comment, by=_person())
    for start in range(0, len(titles), ACK_COUNT):
        body = {"ids": [*titles][start : start + ACK_COUNT], **asked}
        for each in daemon.ask("POST", "/problems/ack", body=body)["items"]:
            done = f"acknowledged{until(each['acknowledged'].get('until'))}: {each['title']}"
            print_done(f"{done}. Undo: watcher ack {each['id'][:8]} --undo", each, as_json=as_json)


def _check_can_ask(command: str, *, yes: bool) -> None:
    """Raise `UsageError` if the command has to ask and there is no terminal."""
    if not yes and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(f"{command} asks first, and this is no terminal; add --yes")


def silence(
    *,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="All of these labels.")] = None,
    pipeline: PipelineOption = None,
    account: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Any of these accounts.")] = None,
    event: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Any of these, as execution.*")] = None,
    sink: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only what goes to these sinks.")] = None,
    duration: ForOption = None,
    comment: CommentOption = None,
    listed: Annotated[bool, typer.Option("--list", help="List the silences, those of the file, too.")] = False,
    end: Annotated[str | None, typer.Option(metavar="ID", help="End this silence.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Silence messages for a while.

    A message is silenced if it matches every option that is given: all of the labels, and any of the values of another
    option. If a problem is still open when the silence ends, its opening is sent then. stdout is never silenced. To
    end a silence of the file, edit the file.

    Examples:
      watcher silence --label team=sales --for 2h --comment deploy
      watcher silence --pipeline Onboarding --for 30m

    """
    daemon = find_daemon(config, url=url)
    if listed:
        print_list(SILENCE_FIELDS, daemon.ask("GET", "/silences")["items"], as_json=as_json)
    elif end:
        answer = daemon.ask("DELETE", f"/silences/{quote(end, safe='')}")
        print_done(f"silence {end} has ended", answer, as_json=as_json)
    elif duration is None:
        raise UsageError("silence needs --for, such as --for 2h; or write --list, or --end ID")
    else:
        _check_labels(daemon, label or ())
        labels, pipelines = dict(each.split("=", 1) for each in label or ()), _each_of(daemon, "pipeline", pipeline)
        accounts, sinks = _each_of(daemon, "account", account), _each_of(daemon, "sink", sink)
        match = _given(labels=labels, pipelines=pipelines, accounts=accounts, events=event, sinks=sinks)
        if not match:
            raise UsageError("silence needs --pipeline, --label, --account or --sink; for everything --event '*'")
        asked = _given(**{"for": duration}, comment=comment, by=_person())
        made = daemon.ask("POST", "/silences", body={"match": match, **asked})
        share = f"{made['pipelines']} of {len(daemon.ask('GET', '/status')['pipelines'])} pipelines"
        done = f"silenced{until(made['until'])} ({share}). Undo: watcher silence --end {made['id']}"
        print_done(done, made, as_json=as_json)


def deliveries(
    *,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="waiting, silenced, delivered, accepted or dead.")
    ] = None,
    sink: Annotated[str | None, typer.Option(metavar="NAME", help="Only those to this sink.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """List deliveries, newest first.

    Each row has the number of attempts and the last answer.

    Examples:
      watcher deliveries --state dead
      watcher deliveries --sink ops --json | jq .answer

    """
    daemon = find_daemon(config, url=url)
    query = _given(state=state, sink=sink and _sink(daemon, sink)["name"]).items()
    print_list(DELIVERY_FIELDS, daemon.items("/deliveries", [*query]), as_json=as_json)


def _sink(daemon: DaemonClient, name: str) -> Answer:
    return one_of(daemon.ask("GET", "/status")["sinks"], name, kind="sink")


def replay(
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of dead letters.")] = None,
    *,
    sink: Annotated[str, typer.Option(metavar="NAME", help="The sink they were for.")],
    state: Annotated[Literal["dead"] | None, typer.Option(help="All dead letters of this sink.")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Send dead letters again, with the same ids. It asks first; without a terminal it needs --yes.

    Examples:
      watcher replay --sink ops --state dead
      watcher replay --sink ops --yes 1204 1207

    """
    if wrong := [each for each in ids or () if not re.fullmatch("[0-9]{1,18}", each)]:
        raise UsageError(f'"{harmless(wrong[0])}" is no id of a delivery; watcher deliveries --state dead lists them')
    _check_can_ask("replay", yes=yes)
    daemon = find_daemon(config, url=url)
    found = _sink(daemon, sink)
    name, count = found["name"], len(ids) if ids else found["dead"]
    if not count:
        print_done(f"nothing to send again: {name} has no dead letters", {"replayed": 0}, as_json=as_json)
        return
    if not yes:
        what = "1 delivery" if count == 1 else f"{count:,} deliveries"
        typer.confirm(f"{what} to {name} will be sent again under the same ids. Continue?", abort=True)
    answer = daemon.ask("POST", "/deliveries/replay", body=_given(sink=name, ids=ids, state=state))
    print_done(f"sent again to {name}: {answer['replayed']:,}", answer, as_json=as_json)


def scan(
    pipeline: Annotated[str, typer.Argument(help="Its name or id, or a unique beginning of one.")],
    *,
    as_json: JsonOption = False,
    url: UrlOption = None,
    config: ConfigOption = None,
) -> None:
    """Read the list of a pipeline at once.

    Use it when you have just triggered the agent: the execution is seen as soon as rate_limit allows.

    Examples:
      watcher scan 'Sales agent'
      watcher scan 0b5c --url http://watcher.internal:8080

    """
    daemon = find_daemon(config, url=url)
    status = daemon.ask("GET", "/status")
    found = one_of(status["pipelines"], pipeline, kind="pipeline")
    answer = daemon.ask("POST", f"/pipelines/{found['account']}/{found['id']}/scan")
    state = {each["name"]: each["state"] for each in status["accounts"]}[found["account"]]
    done = f"its list is read as soon as possible: {found.get('name', found['id'])}"
    print_done(done if state == "well" else f"{done}; its account is {state}", answer, as_json=as_json)


def enable_sink(
    sink: SinkArgument, *, as_json: JsonOption = False, url: UrlOption = None, config: ConfigOption = None
) -> None:
    """Enable a sink that its receiver disabled by 410 Gone.

    The sink's waiting deliveries are then sent.

    Examples:
      watcher enable-sink ops
      watcher enable-sink ops --url http://watcher.internal:8080

    """
    daemon = find_daemon(config, url=url)
    name = _sink(daemon, sink)["name"]
    answer = daemon.ask("POST", f"/sinks/{quote(name, safe='')}/enable")
    done = "is enabled" if answer["done"] else "will be enabled once a daemon owns it"
    print_done(f"{name} {done}; what waits for it is sent", answer, as_json=as_json)


def test_sink(
    sink: SinkArgument, *, as_json: JsonOption = False, url: UrlOption = None, config: ConfigOption = None
) -> None:
    """Send a test message to a sink.

    It prints the receiver's answer. Exit codes: 0 delivered, 1 not delivered.

    Examples:
      watcher test-sink ops
      watcher test-sink ops --json | jq .answer

    """
    daemon = find_daemon(config, url=url)
    name = _sink(daemon, sink)["name"]
    result = daemon.ask("POST", f"/sinks/{quote(name, safe='')}/test")
    remedy = f". {result['remedy']}" if "remedy" in result else ""
    words = f"{name}: {result['answer']} in {result['tookMs']:.0f} ms{remedy}"
    print_done(words, result, as_json=as_json, failed=not result["delivered"])
    if not result["delivered"]:
        raise typer.Exit(Exit.FAILED)


def _person() -> str | None:
    """Return the name of the person who runs the command, `None` if the system does not know it."""
    with suppress(OSError, KeyError):  # a user without an entry, as in a container
        return getpass.getuser()
    return None


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}
