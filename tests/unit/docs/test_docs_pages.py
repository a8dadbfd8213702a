"""The pages say what the code does: what is made from it, what they name, what people copy, and their pictures."""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
import typer.main
from documents import DOCS, slow_openings
from documents import PAGES as MADE
from documents.messages import MESSAGES
from documents.openings import SECOND, table
from documents.pictures import FOLDER, PICTURES, mistakes_picture, record, svg
from virtual import PIPELINE, Start, said

from watcher.cli.main import COMMANDS, app, register
from watcher.config.loader import load_config
from watcher.daemon.from_settings import routes_of, watches_of
from watcher.sinks.alert import Alert


@pytest.mark.ci
@pytest.mark.parametrize(("path", "page"), MADE.items(), ids=lambda value: getattr(value, "name", ""))
def test_a_page_that_is_made_from_the_code_is_not_older_than_it(path: Path, page: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == page(), "run `make docs`"


ALERTS = (DOCS / "alerts.md").read_text(encoding="utf-8")
RUN = "9a1b0000-0000-4000-8000-000000000001"


@pytest.mark.ci
def test_the_page_says_how_often_each_rule_opens_a_problem() -> None:
    assert table() in (DOCS / "inside" / "rules.md").read_text(encoding="utf-8")


@pytest.mark.ci
def test_the_page_says_how_often_slow_is_wrong() -> None:
    assert slow_openings.table() in (DOCS / "inside" / "rules.md").read_text(encoding="utf-8")


def test_the_simulated_rule_is_the_one_that_check_counts_with() -> None:
    (rule, *_), draw = slow_openings.COLUMNS.values(), slow_openings.heavy_tail(1.5)
    random = Random(7)
    durations = [round(draw(random, max(0, nth)) * SECOND) for nth in range(-20, slow_openings.ENDS_COUNT)]
    assert slow_openings.openings(draw, seed=7, past_count=20)[0] == rule.count_slow(durations) > 0


async def test_an_execution_that_waits_for_a_person_is_told_once(start: Start, tmp_path: Path) -> None:
    _, example = re.findall(r"## An execution waits for a person(.*?)```yaml\n(.*?)```", ALERTS, re.DOTALL)[0]
    file = tmp_path / "watcher.yaml"
    file.write_text(f"accounts: {{default: {{api_key: k}}}}\n{example}")
    settings = load_config(file, environ={"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/x"})
    (watch,) = watches_of(settings)
    named = replace(watch, pipeline=PIPELINE, executions=(RUN,))
    account = await start(RUN, watches=[named], route=routes_of(settings)["waiting"])

    async def told(status: str, *, for_s: float) -> list[str]:
        account.api.script[RUN] = said(RUN, status)
        await account.run_for(for_s)
        return [Alert.of(event).headline for event in await account.events()]

    assert await told("running", for_s=3600) == []
    assert await told("paused", for_s=590) == []
    (overdue,) = await told("paused", for_s=3600)
    assert overdue.startswith("! Sales agent has been paused for 10 m")
    assert await told("running", for_s=61) == ["✓ Sales agent is running, no longer overdue"]
    assert len(await told("paused", for_s=3600)) == 1
    assert await told("success", for_s=61) == ["✓ Sales agent succeeded, no longer overdue"]


PAGES = sorted([*DOCS.rglob("*.md"), *DOCS.parent.glob("*.md")])
PLACE = re.compile(r"(?:^|\$ |`|&& |\| )watcher ((?:[^`|\n#&;>]|'[^']*')+)", re.MULTILINE)


@pytest.fixture(scope="module")
def options() -> dict[str, set[str]]:
    """The options of each command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_WATCHER_COMPLETE", "complete_bash")  # completion needs the options of all commands
        register([])
    commands = vars(typer.main.get_command(app))["commands"].items()
    return {name: {option for each in command.params for option in each.opts} for name, command in commands}


def copied(page: Path) -> Iterator[list[str]]:
    for found in PLACE.finditer(page.read_text(encoding="utf-8")):
        words = shlex.split(found[1].rstrip("\\"))
        if words and words[0] in COMMANDS:
            yield words


def test_a_command_in_the_docs_has_its_options_and_each_is_in_the_tables(options: dict[str, set[str]]) -> None:
    for page in PAGES:
        for name, *words in copied(page):
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert given <= options[name] | {"--help"}, (page.name, name, words)
    commands = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8")
    first_cells = re.findall(r"^\| (`watcher .*?) \|", commands, re.MULTILINE)
    assert set(re.findall(r"`watcher ([\w-]+)", " ".join(first_cells))) == COMMANDS.keys()


ROOT, INSIDE = DOCS.parent, DOCS / "inside"
GUARANTEES = (INSIDE / "guarantees.md").read_text(encoding="utf-8")
TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("page", ["guarantees.md", "architecture.md", "map.md", "decisions.md", "ownership.md"])
def test_a_module_that_is_named_exists_and_has_the_function_that_is_named_with_it(page: str) -> None:
    text = " ".join((INSIDE / page).read_text(encoding="utf-8").split())
    modules = set(re.findall(r"`((?:watcher|tests)/[\w/]+\.py)`", text))
    functions = re.findall(r"`(?:\w+\.)?(\w+)` (?:\(|in |of )`(watcher/[\w/]+\.py)`", text)
    assert modules
    assert functions
    assert [name for name in modules if not (ROOT / name).is_file()] == []
    missing = [(name, file) for name, file in functions if not re.search(rf"\b{name}\b", (ROOT / file).read_text())]
    assert missing == []


def test_a_link_within_the_project_leads_somewhere_and_a_guarantee_to_a_test() -> None:
    for page in PAGES:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page.name
    assert set(re.findall(r"`(test_\w+)`", GUARANTEES)) <= TESTS
    promises = GUARANTEES.split("\n## ")[1:-1]
    assert [promise.splitlines()[0] for promise in promises if "Verified by `test_" not in promise] == []


def test_where_a_new_thing_goes_is_said_in_forty_words_a_row() -> None:
    page = (INSIDE / "architecture.md").read_text(encoding="utf-8")
    rows = page.partition("## Where a new thing goes")[2].splitlines()
    assert [row for row in rows if row.startswith("|") and len(row.replace("|", " ").split()) > 40] == []


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_to_a_section_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\(((?!https?:)[^)#]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if link[1] not in anchors(page.parent / link[0] if link[0] else page)] == []


TEXTS = "".join(page.read_text(encoding="utf-8") for page in PAGES)
DRAWN = sorted(FOLDER.glob("*.svg"))


@pytest.mark.ci
def test_the_picture_of_mistakes_is_what_check_says_of_them_now() -> None:
    assert (FOLDER / "mistakes.svg").read_text(encoding="utf-8") == mistakes_picture(), "run `make pictures`"


@pytest.mark.parametrize("name", MESSAGES)
def test_the_picture_of_a_message_is_what_its_receiver_gets_now(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == MESSAGES[name](), "run `make pictures`"


def test_a_picture_is_small_fetches_nothing_and_is_shown_with_words() -> None:
    assert set(PICTURES) <= {path.name for path in DRAWN}
    for path in DRAWN:
        text = path.read_text(encoding="utf-8")
        assert len(text.encode()) <= 120_000, path.name
        assert not re.search(r"""(?:href|src)=|url\(["']?http""", text), path.name
        assert not re.search(r"<style|var\(|rgba\(|xml:space|class=\"terminal-r\d|clip", text), path.name
    for path in (*DRAWN, *FOLDER.glob("*.png")):
        assert re.search(rf"!\[[^\]]{{18,}}\]\((?:docs/|\.\./)?pictures/{path.name}\)", TEXTS), path.name
    assert [path.name for path in FOLDER.glob("*.png") if path.stat().st_size > 150_000] == []


def test_every_word_and_every_sign_stands_at_its_own_column() -> None:
    picture = svg(["    ^^ here  ✕ x"], title="t", made_from="itself")
    placed = re.findall(r'x="([0-9.]+)" y="20" textLength="([0-9.]+)">([^<]*)<', picture)
    assert placed == [("48.8", "85.4", "^^ here"), ("158.6", "12.2", "✕"), ("183", "12.2", "x")]


@pytest.mark.ci
def test_a_picture_shows_what_a_command_writes_on_a_terminal() -> None:
    lines = record("init", "--secret")
    assert lines[0].startswith("whsec_")
    assert lines[0] in svg(lines, title="watcher init --secret", made_from="itself")
