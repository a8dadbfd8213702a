"""Says where pages and the program use words that only this project has, or a class has the name of another.

`make lint`, `make test` and `.ci/run` run it. It prints each place, and exits with 1 if there is one.
"""

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "docs/**/*.md", "docs/**/*.svg", "config/*.yaml", "deploy/**/*.yaml", "watcher/cli/**/*.yaml")
COINED = "told|tells|lanes?|how-manieth|known ground|looked at|looks? at|trying on|on the edges?|longest gap"
VAGUE = (
    "kept back|keeps? back|lets? go|given up|(?:begins?|began|makes?|made) anew|doubts?|believe[sd]?|waits? behind"
    "|followers?|so often|so many|so much"
)
"""Paraphrases of silenced, released, dead letter, reload, unconfirmed, blocked, and of numbers."""

RELATIVE = re.compile(r"(What|Whatever|Of|Where|Whom|Whoever|Who|Whose|That|So|How|When|Which)\b")
"""Who does what to what? A sentence that begins with one of these says it late, or never."""


def faults_of_page(text: str) -> list[str]:
    """Return the words of a page that are only ours, but for the names of tests and the API's field `told`."""
    return re.findall(rf"\b(?:{COINED})\b", re.sub(r"`test_\w+`|([`\"])told\1|/told\.py", "", text), re.IGNORECASE)


def faults_of_program(source: str) -> Iterator[str]:
    """Yield what is wrong with the docstrings and comments of a file of the program."""
    docstrings = [
        node.value.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT]
    for text in docstrings + comments:
        yield from re.findall(rf"\b(?:{COINED}|{VAGUE})\b", text, re.IGNORECASE)
        if RELATIVE.match(text):
            yield f"{text[:60]!r} begins with a relative word: say who does what to what"


def faults(root: Path) -> Iterator[str]:
    """Yield all faults of a project, each with its file."""
    for page in sorted(page for pattern in PAGES for page in root.glob(pattern) if page.name != "CHANGELOG.md"):
        for fault in faults_of_page(page.read_text(encoding="utf-8")):
            yield f"{page.relative_to(root)}: {fault}"
    files_of_class = defaultdict[str, list[str]](list)
    for file in sorted((root / "watcher").rglob("*.py")):
        source, name = file.read_text(encoding="utf-8"), str(file.relative_to(root))
        for fault in faults_of_program(source):
            yield f"{name}: {fault}"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ClassDef):
                files_of_class[node.name].append(name)
    for name, files in files_of_class.items():
        if len(files) > 1:
            yield f"{name} is a class in {' and '.join(files)}: one name, one meaning"


if __name__ == "__main__":
    found = list(faults(ROOT))
    print(*found, sep="\n", end="\n" * bool(found))  # noqa: T201 (this is a command)
    sys.exit(bool(found))
