"""People read the words of the field: what is coined here is learnt by nobody."""

import ast
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import DOCS

ROOT = DOCS.parent
FOLDERS = ("*.md", "docs/**/*.md", "docs/**/*.svg", "config/*.yaml", "deploy/**/*.yaml", "watcher/cli/**/*.yaml")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(folder))
FILES = sorted((ROOT / "watcher").rglob("*.py"))
COINED = "told|tells|lanes?|how-manieth|known ground|looked at|looks? at|trying on|on the edges?|longest gap"
VAGUE = (
    "kept back|keeps? back|lets? go|given up|(?:begins?|began|makes?|made) anew|doubts?|believe[sd]?|waits? behind"
    "|followers?|so often|so many|so much"
)
"""Paraphrases of silenced, released, dead letter, reload, unconfirmed, blocked, and of numbers."""

RELATIVE = re.compile(r"(What|Whatever|Of|Where|Whom|Whoever|Who|Whose|That|So|How|When|Which)\b")
"""Who does what to what? A sentence that begins with one of these says it late, or never."""


def prose_of(path: Path) -> Iterator[str]:
    """Yield the docstrings and the comments of a file."""
    source = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")


def names(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_page_has_no_word_that_is_only_ours(page: Path) -> None:
    text = re.sub(r"`test_\w+`", "", page.read_text(encoding="utf-8"))
    assert re.findall(rf"\b(?:{COINED})\b", text, re.IGNORECASE) == []


@pytest.mark.ci
@pytest.mark.parametrize("path", FILES, ids=names)
def test_a_file_of_the_program_says_in_the_words_of_the_field_who_does_what(path: Path) -> None:
    prose = list(prose_of(path))
    assert [text for text in prose if re.search(rf"\b(?:{COINED}|{VAGUE})\b", text, re.IGNORECASE)] == []
    assert [text for text in prose if RELATIVE.match(text)] == []


@pytest.mark.ci
def test_the_name_of_a_class_has_one_meaning() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in FILES]
    counts = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []
