import io

import pytest

from watcher.cli.console import console_on, say

ODD = "</x> *b* [red]no[/red] \x1b[31m \u202e :smile:"


def said(*parts: str | tuple[str, str], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    say(console_on(stream), *parts)
    stream.flush()
    return raw.getvalue().decode(encoding)


def test_nothing_in_a_text_is_obeyed() -> None:
    assert said(ODD) == "</x> *b* [red]no[/red] \\x1b[31m \\u202e :smile:\n"


def test_where_there_are_no_signs_letters_stand_for_them() -> None:
    assert said(("✓ ", "green"), "a · b ✕", encoding="ascii") == "+ a - b x\n"


@pytest.mark.parametrize(("variable", "coloured"), [("FORCE_COLOR", True), ("NO_COLOR", False)])
def test_colours_are_as_the_environment_asks(variable: str, coloured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "1")
    assert ("\x1b[" in said(("✓", "green"))) is coloured
