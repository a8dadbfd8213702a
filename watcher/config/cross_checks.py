"""What no single value can tell: which account a watch means, what is given twice, what contradicts what.

The rules read the plain data, so that they find their problems however much else is wrong with the file.
"""

from collections import Counter
from collections.abc import Iterator

from watcher.config.document import Document, write_path
from watcher.config.error_messages import NO_EXECUTIONS
from watcher.config.models import PollingSettings
from watcher.config.rules_settings import FailingSettings
from watcher.config.yaml_tree import Path
from watcher.delivery.sinks.settings import GroupSettings, RetrySettings
from watcher.runtime.settings import Block
from watcher.runtime.units import parse_duration, write_duration

_STDOUT_NAMES = ("stdout", "console")


def fill_in(document: Document) -> None:
    """Give every watch its account and the sinks their stdout, as far as the file leaves no choice."""
    _name_accounts(document)
    _ensure_stdout(document)


def check(document: Document) -> None:
    """Report what contradicts something else in the file, once what is wrong with single values is reported."""
    _check_keys(document)
    _check_pipelines(document)
    _check_lists(document)
    _check_executions(document)
    _check_intervals(document)
    _check_groups(document)
    _check_rules(document)
    _check_silences(document)


def _name_accounts(document: Document) -> None:
    names = list(document.table(("accounts",)))
    watches = _watches(document)
    for watch in watches if names else ():
        _name_account(document, watch, names)
    if watches and not names and not isinstance(document.get(("accounts",)), list | str):
        remedy = "write accounts: {default: {api_key: '${CLERK_API_KEY}'}}"
        document.report((*watches[0], "account"), "there is no account to ask with", remedy=remedy, block=True)
    for watch in () if names else watches:
        document.mark_reported((*watch, "account"))


def _name_account(document: Document, watch: Path, names: list[str]) -> None:
    path = (*watch, "account")
    shown = ", ".join(write_path((name,)) for name in names)
    given = document.get(path)
    if given is None and len(names) == 1:
        document.table(watch)["account"] = names[0]
    elif given is None:
        remedy = f"add account: with one of {shown}"
        document.report(path, "names no account, and there are several", remedy=remedy, block=True)
    elif (text := document.text(path)) is not None and text not in names:
        problem = f"{document.subject(path)} is not defined"
        document.report(path, problem, remedy=f"accounts are: {shown}")


def _ensure_stdout(document: Document) -> None:
    if document.get(("sinks",)) is None:
        document.data["sinks"] = {}
    sinks = document.table(("sinks",))
    types: list[Path] = [("sinks", name, "type") for name in sinks]
    paths = [path for path in types if document.text(path) == "stdout"]
    for path in paths[1:]:
        problem = f"a second stdout sink, the first is at line {document.line(paths[0])}"
        document.report(path, problem, remedy="merge the two: events: takes a list")
    if not paths:
        numbered = (f"stdout-{number}" for number in range(2, len(sinks) + 3))
        free = next(name for name in (*_STDOUT_NAMES, *numbered) if name not in sinks)
        sinks[free] = {"type": "stdout"}


def _watches(document: Document) -> list[Path]:
    items = document.items(("watch",))
    return [("watch", index) for index, item in enumerate(items) if isinstance(item, dict)]


def _check_keys(document: Document) -> None:
    first: dict[str, Path] = {}
    for name in document.table(("accounts",)):
        path = ("accounts", name, "api_key")
        key = document.text(path)
        if key is not None and (other := first.setdefault(key, path)) != path:
            problem = f"the same key as another account's at line {document.line(other)}"
            document.report(path, problem, remedy="one account per key: its rate limit is one")


def _check_pipelines(document: Document) -> None:
    first: dict[tuple[str, str], Path] = {}
    for watch in _watches(document):
        path = (*watch, "pipeline")
        account, pipeline = document.text((*watch, "account")), document.text(path)
        if account is None or pipeline is None:
            continue
        if (other := first.setdefault((account, _canonical(pipeline)), path)) != path:
            problem = f"already watched at line {document.line(other)} with the same account"
            document.report(path, problem, remedy="merge the two entries")


def _check_lists(document: Document) -> None:
    """Report a list of executions that holds nothing: read as absent, it would mean every execution there is."""
    for watch in _watches(document):
        if document.table(watch).get("executions", ()) is None:
            document.report((*watch, "executions"), "has no value", remedy=NO_EXECUTIONS, key=True)


def _check_executions(document: Document) -> None:
    for account in {document.text((*watch, "account")) for watch in _watches(document)} - {None}:
        of_account = [watch for watch in _watches(document) if document.text((*watch, "account")) == account]
        counts = Counter(execution for _, execution in _executions(document, of_account))
        repeated = {execution for execution, count in counts.items() if count > 1}
        first: dict[str, Path] = {}
        for path, execution in _executions(document, of_account) if repeated else ():
            if execution in repeated and (other := first.setdefault(execution, path)) != path:
                problem = f"already watched at line {document.line(other)} with the same account"
                document.report(path, problem, remedy="remove one of them")


def _executions(document: Document, watches: list[Path]) -> Iterator[tuple[Path, str]]:
    for watch in watches:
        for index, item in enumerate(document.items((*watch, "executions"))):
            path = (*watch, "executions", index)
            if isinstance(item, str) and not document.is_reported(path):
                yield path, _canonical(item)


def _canonical(text: str) -> str:
    """Return the same text for all ways to write one UUID."""
    return text.lower().removeprefix("urn:uuid:").strip("{}").replace("-", "")


def _check_intervals(document: Document) -> None:
    lowest, highest = ("polling", "min_interval"), ("polling", "max_interval")
    low, high = (_duration_at(document, path, PollingSettings) for path in (lowest, highest))
    if low is None or high is None or low <= high:
        return
    at = highest if document.get(highest) is not None else lowest
    name, other = (highest[1], lowest) if at == highest else (lowest[1], highest)
    where = f"line {document.line(other)}" if document.get(other) is not None else "the default"
    problem = f"{document.subject(at)} is {'below' if at == highest else 'above'} {other[1]} ({where})"
    document.report(at, problem, remedy=f"change {name} or {other[1]}")


def _duration_at(document: Document, path: Path, model: type[Block]) -> float | None:
    """Return the seconds there, else the model's default; `None` if it is known to be wrong."""
    if document.is_reported(path):
        return None
    default: str = model.model_fields[f"{path[-1]}_s"].default
    return parse_duration(document.text(path) or default)


def _check_groups(document: Document) -> None:
    """Report a group that cannot be what it says.

    One that is open for longer than its events are kept waiting: they would die before they are sent. And one with
    a `max` where one message has room for any number.
    """
    for name in document.table(("sinks",)):
        wait, end = ("sinks", name, "group", "wait"), ("sinks", name, "retry", "give_up_after")
        if not isinstance(document.get(wait[:-1]), dict):
            continue
        is_batch = document.get(("sinks", name, "type")) == "webhook" and not document.get(("sinks", name, "template"))
        if not is_batch and document.get(most := ("sinks", name, "group", "max")) is not None:
            problem = "max is of batches, and here one message tells of all events of a group"
            document.report(most, problem, remedy="remove it", key=True)
        wait_s, end_s = _duration_at(document, wait, GroupSettings), _duration_at(document, end, RetrySettings)
        if wait_s is None or end_s is None or wait_s < end_s:
            continue
        at = wait if document.get(wait) is not None else end
        problem = (
            f"a group is open for {write_duration(wait_s)}, and what waits for {write_duration(end_s)} "
            "(retry.give_up_after) is given up"
        )
        document.report(at, problem, remedy="lower group.wait or raise retry.give_up_after")


def _check_rules(document: Document) -> None:
    for watch in _watches(document):
        rules = (*watch, "rules")
        if not isinstance(document.get(rules), dict) or document.is_reported(rules):
            continue
        if all(value is None for value in document.table(rules).values()):
            document.report(rules, "holds no rule", remedy="give failing or silent, or remove it")
        if document.get((*rules, "silent")) is not None and document.get((*watch, "executions")) is not None:
            remedy = "remove it, or remove executions to watch every one"
            document.report((*rules, "silent"), "needs a pipeline that is watched whole", remedy=remedy, key=True)
        if isinstance(document.get((*rules, "failing")), dict):
            _check_failing(document, (*rules, "failing"))


def _check_failing(document: Document, path: Path) -> None:
    given = {key for key, value in document.table(path).items() if value is not None}
    if {"consecutive", "rate"} <= given:
        document.report(path, "both consecutive and rate are given", remedy="keep one", key=True)
    elif not given & {"consecutive", "rate"}:
        document.report(path, "needs consecutive or rate", remedy="write consecutive: 3, or rate: 20%", key=True)
    elif "consecutive" in given:
        for key in ("of_last", "within", "at_least"):
            if key in given:
                document.report((*path, key), "says something of rate only", remedy="remove it", key=True)
    else:
        at_least, of_last = (_count(document, (*path, key)) for key in ("at_least", "of_last"))
        if at_least is not None and of_last is not None and at_least > of_last:
            at = next(key for key in ("at_least", "of_last") if key in given)
            problem = f"at_least {at_least} is more than of_last {of_last}, so it would never hold"
            document.report((*path, at), problem, remedy="raise of_last or lower at_least")


def _count(document: Document, path: Path) -> int | None:
    if document.is_reported(path):
        return None
    default: int = FailingSettings.model_fields[str(path[-1])].default
    return int(document.text(path) or default)


def _check_silences(document: Document) -> None:
    """Report names that nothing has: a silence that is misspelt keeps nothing back."""
    sinks, accounts = document.table(("sinks",)), document.table(("accounts",))
    stdout = [name for name in sinks if document.text(("sinks", name, "type")) == "stdout"]
    silenceable = [name for name in sinks if name not in stdout]
    for index, _ in enumerate(document.items(("silences",))):
        match = ("silences", index, "match")
        for path, name in _names(document, (*match, "sinks")):
            if name in stdout:
                remedy = "remove it: stdout is the record of what happened"
                document.report(path, f"{document.subject(path)} is stdout, which is never silenced", remedy=remedy)
            elif name not in sinks:
                _report_undefined(document, path, "sinks", silenceable)
        for path, name in _names(document, (*match, "accounts")):
            if name not in accounts:
                _report_undefined(document, path, "accounts", list(accounts))


def _names(document: Document, path: Path) -> Iterator[tuple[Path, str]]:
    for index in range(len(document.items(path))):
        if (name := document.text((*path, index))) is not None:
            yield (*path, index), name


def _report_undefined(document: Document, path: Path, what: str, names: list[str]) -> None:
    shown = ", ".join(write_path((name,)) for name in names)
    remedy = f"{what} are: {shown}" if shown else f"there are no {what} to silence"
    document.report(path, f"{document.subject(path)} is not defined", remedy=remedy)
