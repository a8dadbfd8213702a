import re
from pathlib import Path

import pytest
from documents import DOCS
from documents.messages import MESSAGES
from documents.pictures import FOLDER, PICTURES, mistakes_picture, record, svg

PAGES = "".join(page.read_text(encoding="utf-8") for page in (DOCS.parent / "README.md", *DOCS.glob("*.md")))
DRAWN = sorted(FOLDER.glob("*.svg"))


def test_the_picture_of_mistakes_is_what_check_says_of_them_now() -> None:
    assert (FOLDER / "mistakes.svg").read_text(encoding="utf-8") == mistakes_picture(), "run `make pictures`"


@pytest.mark.parametrize("name", MESSAGES)
def test_the_picture_of_a_message_is_what_its_receiver_gets_now(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == MESSAGES[name](), "run `make pictures`"


def test_every_picture_that_is_made_is_there() -> None:
    assert set(PICTURES) <= {path.name for path in DRAWN}


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_a_picture_is_small_fetches_nothing_needs_no_style_sheet_and_cuts_no_line_off(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) <= 120_000
    assert not re.search(r"""(?:href|src)=|url\(["']?http""", text)
    assert not re.search(r"<style|var\(|rgba\(|xml:space|class=\"terminal-r\d|clip", text)


@pytest.mark.parametrize("path", DRAWN, ids=lambda path: path.name)
def test_a_picture_is_shown_with_words_for_those_who_do_not_see_it(path: Path) -> None:
    shown = re.search(rf"!\[([^\]]+)\]\((?:docs/)?pictures/{path.name}\)", PAGES)
    assert shown
    assert len(shown[1]) > len("a picture of it")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.png")), ids=lambda path: path.name)
def test_a_screenshot_is_small_and_shown_with_words(path: Path) -> None:
    assert path.stat().st_size <= 150_000
    assert re.search(rf"!\[[^\]]{{20,}}\]\((?:docs/)?pictures/{path.name}\)", PAGES)


def test_every_word_and_every_sign_stands_at_its_own_column() -> None:
    picture = svg(["    ^^ here  ✕ x"], title="t", made_from="itself")
    placed = re.findall(r'x="([0-9.]+)" y="20" textLength="([0-9.]+)">([^<]*)<', picture)
    assert placed == [("48.8", "85.4", "^^ here"), ("158.6", "12.2", "✕"), ("183", "12.2", "x")]


def test_a_picture_shows_what_a_command_writes_on_a_terminal() -> None:
    lines = record("init", "--secret")
    assert lines[0].startswith("whsec_")
    assert lines[0] in svg(lines, title="watcher init --secret", made_from="itself")
