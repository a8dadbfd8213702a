"""What no single value can tell: which account a watch means, what is given twice, what contradicts what.

The rules read the plain data, so that they find their problems however much else is wrong with the file.
"""

from watcher.config.document import Document, Path, write_path
from watcher.config.error_messages import NO_EXECUTIONS

_STDOUT_NAMES = ("stdout", "console")


def fill_in(document: Document) -> None:
    """Give every watch its account and the sinks their stdout, as far as the file leaves no choice."""
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
    """Report what contradicts something else in the file, once what is wrong with single values is reported."""
    _check_repetitions(document)
    for watch in _watches(document):  # read as absent, a list that holds nothing would mean every execution there is
        if document.table(watch).get("executions", ()) is None:
            document.report((*watch, "executions"), "has no value", remedy=NO_EXECUTIONS, key=True)
    _check_silences(document)


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
        document.report(path, f"{document.subject(path)} is not defined", remedy=f"accounts are: {shown}")


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


def _check_repetitions(document: Document) -> None:
    """Report what may be there once: a key, and with one account a pipeline and an execution."""
    first: dict[object, Path] = {}

    def note(path: Path, value: object, problem: str, *, remedy: str) -> None:
        if (other := first.setdefault((remedy, value), path)) != path:
            document.report(path, problem.format(document.line(other)), remedy=remedy)

    for name in document.table(("accounts",)):
        if (key := document.text(path := ("accounts", name, "api_key"))) is not None:
            same = "the same key as another account's at line {}"
            note(path, key, same, remedy="one account per key: its rate limit is one")
    watched = "already watched at line {} with the same account"
    for watch in _watches(document):
        account = document.text((*watch, "account"))
        executions: list[Path] = [
            (*watch, "executions", at) for at, _ in enumerate(document.items((*watch, "executions")))
        ]
        for at in ((*watch, "pipeline"), *executions):
            if account is not None and (id_ := document.text(at)) is not None:
                remedy = "remove one of them" if "executions" in at else "merge the two entries"
                note(at, (account, _canonical(id_)), watched, remedy=remedy)


def _canonical(text: str) -> str:
    """Return the same text for all ways to write one UUID."""
    return text.lower().removeprefix("urn:uuid:").strip("{}").replace("-", "")


def _check_silences(document: Document) -> None:
    """Report names that nothing has: a silence that is misspelt keeps nothing back."""
    sinks = [name for name in document.table(("sinks",)) if document.get(("sinks", name, "type")) != "stdout"]
    known = {"sinks": sinks, "accounts": list(document.table(("accounts",)))}
    for index, _ in enumerate(document.items(("silences",))):
        for key, names in known.items():
            path = ("silences", index, "match", key)
            for at in ((*path, item) for item in range(len(document.items(path)))):
                if (name := document.text(at)) is not None and name not in names:
                    shown = ", ".join(write_path((each,)) for each in names) or "none"
                    problem = f"{document.subject(at)} is no {key[:-1]} that can be silenced"
                    document.report(at, problem, remedy=f"these are: {shown}")
