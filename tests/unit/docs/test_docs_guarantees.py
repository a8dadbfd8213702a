import re

import pytest
from documents import DOCS

ROOT = DOCS.parent
PAGE = (DOCS / "guarantees.md").read_text(encoding="utf-8")
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)`", PAGE))))
def test_a_test_that_holds_a_guarantee_exists(name: str) -> None:
    assert name in TESTS


@pytest.mark.parametrize("page", ["guarantees.md"])
def test_a_module_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`(watcher/[\w/]+\.py)`", (DOCS / page).read_text(encoding="utf-8")))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_guarantee_is_held_by_tests() -> None:
    promises = PAGE.split("\n## ")[1:-1]
    assert [promise.splitlines()[0] for promise in promises if "Held by `test_" not in promise] == []
