import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from e2e.programme import Board, begin, outcome_of
from receiver import Receiver, answer, hangs, says

Command = Callable[..., tuple[int, str, str]]
OnTerminal = Callable[..., str]

WATCH = """
watch:
  - pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f
    executions: [9a1b0000-0000-4000-8000-000000000001, 9a1b0000-0000-4000-8000-000000000002]
"""
GOOD = f"accounts: {{default: {{api_key: k, base_url: 'http://127.0.0.1:1'}}}}{WATCH}"
ROWS = "account\twants\tallowed\tdelay\tgap\ndefault\t0.033\t4.9\t3\t60\n"


def write(text: str, *, name: str = "watcher.yaml") -> None:
    Path(name).write_text(text)


def test_a_good_file_gives_its_plan(command: Command) -> None:
    write(GOOD)
    assert command("check") == (0, ROWS, "")


def test_on_a_terminal_the_plan_is_a_table(on_terminal: OnTerminal) -> None:
    write(GOOD)
    first, head, row, *_ = on_terminal("check").splitlines()
    assert first == "✓ watcher.yaml  1 account, 1 watch, 1 sink"
    assert head.split() == ["account", "wants", "allowed", "expected", "delay", "longest", "gap"]
    assert row.split() == ["default", "0.033/s", "4.9/s", "3", "s", "60", "s"]


def test_mistakes_are_lines_in_a_pipe(command: Command) -> None:
    write(f"log: {{level: loud}}\npolling: {{cadence: fix}}\n{GOOD}", name="mine.yaml")
    code, out, err = command("check", "--config", "mine.yaml")
    assert (code, out) == (2, "")
    first, second, total = err.splitlines()
    assert first.startswith('mine.yaml:1:14: log.level: "loud" is not known; allowed: ')
    assert second.startswith('mine.yaml:2:20: polling.cadence: "fix" is not known; did you mean "fixed"?')
    assert total == "2 problems in mine.yaml"


@pytest.mark.parametrize("word", ["check", "run"])
def test_mistakes_are_shown_in_their_lines_on_a_terminal(word: str, on_terminal: OnTerminal) -> None:
    write(f"log: {{level: loud}}\n{GOOD}")
    assert on_terminal(word).splitlines() == [
        'error: watcher.yaml:1:14: log.level: "loud" is not known',
        "    1 | log: {level: loud}",
        "      |              ^^^^ allowed: debug, info, warning, error",
        "1 problem in watcher.yaml",
    ]


def test_nothing_to_watch_is_refused_as_run_refuses_it(command: Command) -> None:
    write("accounts: {default: {api_key: k}}")
    code, out, err = command("check")
    assert (code, out) == (2, "")
    assert err.startswith("error: nothing to watch: ")


def test_no_file_at_all_is_refused(command: Command) -> None:
    code, out, err = command("check")
    assert (code, out) == (2, "")
    assert err.startswith("error: no configuration: ")


@pytest.mark.parametrize(
    ("listen", "warned"), [("0.0.0.0:8080", True), ("':80'", True), ("127.0.0.2:1", False), ("'[::1]:80'", False)]
)
def test_an_address_others_can_reach_is_warned_of(
    listen: str,
    warned: bool,  # noqa: FBT001 (a column of the table)
    command: Command,
) -> None:
    write(f"http: {{listen: {listen}}}\n{GOOD}")
    code, out, err = command("check")
    assert (code, out) == (0, ROWS)
    assert err.startswith("warning: http.listen: ") is warned


def test_a_key_that_cannot_be_tried_exits_4(command: Command) -> None:
    write(GOOD)
    code, out, err = command("check", "--online")
    assert (code, err) == (4, "")
    head, *rows = out.removeprefix(f"{ROWS}\n").splitlines()
    assert head == "target\tworks\tms\tanswer"
    ((target, works, ms, answer),) = (row.split("\t") for row in rows)
    assert (target, works, answer) == ("accounts.default", "no", "cannot be reached")
    assert ms.isdigit()


def test_on_a_terminal_a_trial_says_what_to_do(on_terminal: OnTerminal) -> None:
    write(GOOD)
    *_, line, hint = on_terminal("check", "--online").splitlines()
    assert line.startswith("✕ accounts.default  http://127.0.0.1  cannot be reached (")
    assert hint.startswith("  hint: correct base_url")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def test_a_test_event_is_sent_to_every_webhook(receiver: Receiver) -> None:
    document = f"{GOOD}\nsinks: {{ops: {{type: webhook, url: '{receiver.url}/secret'}}}}"
    write(document)
    outcome = await outcome_of("check", "--send", folder=Path.cwd())
    assert outcome.code == 4  # for the key
    assert "\nsinks.ops\tyes\t" in outcome.stdout
    assert "secret" not in outcome.stdout + outcome.stderr
    assert [request.line for request in receiver.requests] == ["POST /secret HTTP/1.1"]


async def test_when_all_of_them_work_it_is_fine(receiver: Receiver) -> None:
    receiver.reply = says(answer(404))  # as the API answers for an execution it does not know
    write(GOOD.replace("http://127.0.0.1:1", receiver.url))
    outcome = await outcome_of("check", "--online", folder=Path.cwd())
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "\naccounts.default\tyes\t" in outcome.stdout


async def test_a_pipeline_that_is_not_known_is_an_exit_code_of_its_own(receiver: Receiver) -> None:
    receiver.reply = says(answer(404))
    pipeline = "77aa0000-0000-4000-8000-000000000000"
    write(GOOD.replace("http://127.0.0.1:1", receiver.url).replace(WATCH, f"\nwatch: [{{pipeline: {pipeline}}}]\n"))
    outcome = await outcome_of("check", "--online", folder=Path.cwd())
    assert (outcome.code, outcome.stderr) == (5, "")
    assert f"does not know pipeline {pipeline}" in outcome.stdout


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_it_can_be_interrupted_while_nobody_answers(receiver: Receiver, signum: signal.Signals) -> None:
    receiver.reply = hangs
    board = Board()
    write(GOOD.replace("http://127.0.0.1:1", receiver.url))
    life = await begin("check", "--online", folder=Path.cwd(), board=board)
    try:
        while not receiver.requests:  # noqa: ASYNC110 (another process sets no event)
            await asyncio.sleep(0.01)
        assert await life.stop(signum) == 128 + signum
        assert life.stderr.lines.everything() == b""
    finally:
        await life.clear_away()
