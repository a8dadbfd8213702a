import io
import re

import pytest
from rich.console import Console

from watcher.cli.console import console_on, say, table

ODD = "</x> *b* [red]no[/red] \x1b[31m \u202e :smile:"


def said(*parts: str | tuple[str, str], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    say(console_on(stream), *parts)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_nothing_in_a_text_is_obeyed_and_letters_stand_for_missing_signs() -> None:
    assert said(ODD) == "</x> *b* [red]no[/red] \\x1b[31m \\u202e :smile:\n"
    assert said(("✓ ", "green"), "a · b ✕", encoding="ascii") == "+ a - b x\n"


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (200, ["state", "name", "open", "answer", "last failed"]),
        (80, ["state", "name", "open", "answer"]),
        (62, ["state", "name", "open"]),
        (50, ["state", "name"]),
    ],
)
def test_a_table_leaves_out_its_last_columns_before_a_name_is_cut_below_40(width: int, columns: list[str]) -> None:
    name = "Novelty agent of the northern branches no. 1, second team"
    item = {"state": "failing", "name": name, "open": 144, "answer": "503 " * 9, "lastFailedAt": "2026-11-24T12:00:00Z"}
    console = Console(file=(shown := io.StringIO()), width=width)
    console.print(table([*item], [item], console=console))
    head, row, *_ = shown.getvalue().splitlines()
    assert re.split(r" {2,}", head.strip()) == columns
    assert (name if width == 200 else name[:38]) in row


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colours_are_as_the_environment_asks(variable: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    assert ("\x1b[" in said(("✓", "green"))) is coloured
