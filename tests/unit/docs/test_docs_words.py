"""People read the words of the field: what is coined here is learnt by nobody."""

import re
from pathlib import Path

import pytest
from documents import DOCS

ROOT = DOCS.parent
FOLDERS = ("*.md", "docs/**/*.md", "docs/**/*.svg", "config/*.yaml", "deploy/**/*.yaml", "watcher/cli/**/*.yaml")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(folder))
COINED = "told|tells|lanes?|how-manieth|known ground|looked at|looks? at|trying on|on the edges?|longest gap"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_a_page_has_no_word_that_is_only_ours(page: Path) -> None:
    text = re.sub(r"`test_\w+`", "", page.read_text(encoding="utf-8"))
    assert re.findall(rf"\b(?:{COINED})\b", text, re.IGNORECASE) == []
