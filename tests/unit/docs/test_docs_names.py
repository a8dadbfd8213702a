import re
from pathlib import Path

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
def test_a_test_that_verifies_a_guarantee_exists(name: str) -> None:
    assert name in TESTS


@pytest.mark.parametrize("page", ["guarantees.md", "architecture.md", "decisions.md", "ownership.md"])
def test_a_module_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`((?:watcher|tests)/[\w/]+\.py)`", (DOCS / page).read_text(encoding="utf-8")))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_guarantee_is_verified_by_tests() -> None:
    promises = PAGE.split("\n## ")[1:-1]
    assert [promise.splitlines()[0] for promise in promises if "Verified by `test_" not in promise] == []


@pytest.mark.parametrize("page", ["guarantees.md", "architecture.md", "decisions.md", "ownership.md"])
def test_a_function_that_is_named_with_its_module_exists(page: str) -> None:
    text = " ".join((DOCS / page).read_text(encoding="utf-8").split())
    named = re.findall(r"`(?:\w+\.)?(\w+)` (?:\(|in |of )`(watcher/[\w/]+\.py)`", text)
    assert named
    missing = [(name, file) for name, file in named if not re.search(rf"\b{name}\b", (ROOT / file).read_text())]
    assert missing == []


@pytest.mark.parametrize("page", sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")]), ids=lambda page: page.name)
def test_a_link_within_the_project_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_unit_test_is_named_after_a_module_of_its_package() -> None:
    unit, lost = ROOT / "tests" / "unit", []
    for file in sorted(unit.rglob("test_*.py")):
        package = file.parent.relative_to(unit)
        modules = {module.stem for module in (ROOT / "watcher" / package).glob("*.py")}
        name = file.stem.removeprefix("test_")
        if package.name not in {"deploy", "docs"} and not any(f"{name}_".startswith(f"{each}_") for each in modules):
            lost.append(str(file.relative_to(ROOT)))
    assert lost == [], "name it test_<module>.py or test_<module>_<topic>.py"


def anchors(page: Path) -> set[str]:
    """Return what a link into a page may name: its headings, as GitHub writes them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", sorted([*DOCS.glob("*.md"), *ROOT.glob("*.md")]), ids=lambda page: page.name)
def test_a_link_to_a_section_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)] == []
