import asyncio
import io
import re
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from e2e.programme import Board, begin
from receiver import Receiver, answer, hangs, says
from rich.console import Console
from unit.cli.conftest import OnTerminal
from unit.conftest import Command

from watcher.cli.check.output import (
    exactly,
    print_plan,
    print_plan_rows,
    report_lines,
    roughly,
    silence_lines,
)
from watcher.cli.check.plan import EXPLAINED, plan, plan_account
from watcher.config.loader import load_config
from watcher.config.models import PollingSettings, Settings
from watcher.runtime.http_client import REMEDIES

KEY = "k3y" * 10 + "zz"

WATCH = """
watch:
  - pipeline: 3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31
    executions: [9a1b0000-0000-4000-8000-000000000001, 9a1b0000-0000-4000-8000-000000000002]
"""
GOOD = f"http: {{listen: '127.0.0.1:0'}}\naccounts: {{default: {{api_key: k, base_url: 'http://127.0.0.1:1'}}}}{WATCH}"
ROWS = "account\tneeded\tbudget\tdelay\tinterval\ndefault\t0.033\t4.9\t3\t60\n"


def write(text: str, *, name: str = "watcher.yaml") -> None:
    Path(name).write_text(text)


def test_a_good_file_gives_its_plan_may_be_named_without_an_option_and_need_have_no_store_yet(command: Command) -> None:
    write(GOOD)
    write(GOOD, name="mine.yaml")
    for words in ((), ("mine.yaml",)):
        assert command("check", *words) == (0, ROWS, "")
    Path("watcher.db").write_bytes(b"dear diary")
    assert command("check") == (0, ROWS, "")


SILENCES = """
sinks: {phone: {type: webhook, url: "https://h.example", secret: whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz}}
silences:
  - {match: {events: ["execution.*"], sinks: [phone]}, from: 2026-01-01T00:00:00Z, until: 2026-12-01T12:30:00Z,
     comment: moving}
  - {match: {accounts: [default]}, from: 2026-01-01T00:00:00Z, until: 2026-01-02T00:00:00Z}
  - match: {sinks: [phone]}
    weekly: {days: [sat], from: "20:00", to: "08:00", timezone: Europe/Berlin}
"""


def test_the_plan_says_what_is_silent_and_what_will_be(command: Command) -> None:
    write(f"{GOOD}{SILENCES}")
    settings = load_config(Path("watcher.yaml"), environ={})
    now = "silent now until 2026-12-01 12:30 UTC: execution.*, phone (moving)"
    friday, sunday = (datetime(2026, 11, day, 1, tzinfo=UTC) for day in (27, 29))
    assert silence_lines(settings, at=friday) == [now, "silent from 2026-11-28 19:00 until 2026-11-29 07:00 UTC: phone"]
    assert silence_lines(settings, at=sunday) == [now, "silent now until 2026-11-29 07:00 UTC: phone"]
    code, out, err = command("check")
    assert (code, out) == (0, ROWS)
    assert err.startswith("note: silent ")


REPORTS = """
sinks: {mail: {type: email, server: smtp.acme.io, from: w@acme.io, to: [o@acme.io]}}
reports:
  morning: {at: "08:00", days: [mon, fri], timezone: Europe/Berlin, sinks: [mail, stdout]}
  daily: {at: "00:30", sinks: [mail]}
"""


@pytest.mark.parametrize(
    ("at", "morning", "daily"),
    [
        (datetime(2026, 12, 1, 12, tzinfo=UTC), "Fri 2026-12-04", "Wed 2026-12-02"),
        (datetime(2026, 12, 4, 6, 59, tzinfo=UTC), "Fri 2026-12-04", "Sat 2026-12-05"),
        (datetime(2026, 12, 4, 7, tzinfo=UTC), "Mon 2026-12-07", "Sat 2026-12-05"),
    ],
)
def test_the_plan_says_when_each_report_is_due_next(at: datetime, morning: str, daily: str, command: Command) -> None:
    write(f"{GOOD}{REPORTS}")
    assert report_lines(load_config(Path("watcher.yaml"), environ={}), at=at) == [
        f"report morning: next {morning} 08:00 Europe/Berlin, to mail, stdout",
        f"report daily: next {daily} 00:30 UTC, to mail",
    ]
    code, out, err = command("check")
    assert (code, out) == (0, ROWS)
    assert [line.split(": next ")[0] for line in err.splitlines()] == ["note: report morning", "note: report daily"]


def test_mistakes_are_shown_in_their_lines_on_a_terminal(on_terminal: OnTerminal) -> None:
    write(f"log: {{level: loud}}\n{GOOD}")
    assert on_terminal("check").splitlines() == [
        'error: watcher.yaml:1:14: log.level: "loud" is not known',
        "    1 | log: {level: loud}",
        "      |              ^^^^ allowed: debug, info, warning, error",
        "1 problem in watcher.yaml",
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("mine.yaml", "--config", "mine.yaml"), "FILE and --config are the same; give one of them"),
        (("--without-secrets", "--online"), "--online and --send need the secrets; leave out --without-secrets"),
        (("--without-secrets", "--send"), "--online and --send need the secrets; leave out --without-secrets"),
    ],
)
def test_what_cannot_go_together_is_a_usage_error(words: tuple[str, ...], problem: str, command: Command) -> None:
    code, out, err = command("check", *words)
    assert (code, out) == (2, "")
    assert problem in err


ROOT = Path(__file__).parents[4]
EXAMPLE_FILES = sorted(
    (*ROOT.glob("config/*.yaml"), *ROOT.glob("deploy/config/*.yaml"), ROOT / "deploy/postgres/watcher.yaml")
)


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_without_secrets_every_example_is_fine_and_each_secret_a_warning(path: Path, command: Command) -> None:
    code, out, err = command("check", str(path), "--without-secrets")
    assert code == 0, err
    assert out.startswith("account\t")
    lines = [line for line in err.splitlines() if not line.startswith(("note: silent ", "note: report "))]
    assert all(line.startswith(f"warning: {path}:") for line in lines)
    absent = [line for line in lines if "is not set" in line or "cannot read" in line]
    assert absent
    others = ("looks like the id of an example", "is in the past", "is an example, so nobody notices")
    assert len(absent) + sum(any(words in line for words in others) for line in lines) == len(lines)
    assert command("check", str(path)).code == 2


ABSENT = """
accounts:
  a: {api_key: "${A}", rate_limit: "${RATE}/s"}
  b: {api_key_file: "${CREDENTIALS_DIRECTORY}/key", base_url: "${URL}"}
watch:
  - {pipeline: "${P1}", account: a, labels: {team: "${TEAM}"}}
  - {pipeline: "${P2}", account: b, executions: ["${E1}", "${E2}"]}
sinks:
  ops: {type: webhook, url_file: /none/u, secret: ["${S1}"], headers: {A: "${T} ${U}"}, tls: {ca_file: /none/ca.pem}}
  chat: {type: slack_bot, token_file: /none/t, channel: "${CH}"}
  team: {type: apprise, url: "${APPRISE_URL}"}
  mail: {type: email, server: "${SMTP}", tls: "${TLS}", username: w, password: "${PW}", from: "${FROM}", to: ["${TO}"]}
  post: {type: email, server: h, username: w, password_file: /none/p, from: w@h.ex, to: [o@h.ex], ca_file: /none/m}
  discord: {type: webhook, template: discord, url: "${D}"}
  phone: {type: webhook, template: pagerduty, routing_key: "${PD}", events: ["account.*"]}
store: {url: "postgresql://u@${DB}/db", password_file: /none/db}
http: {token: "${TOKEN}"}
"""


BLOCKS = """\
    overdue_after: {running: '${V}'}
    rules: {silent: '${V}', failing: {consecutive: '${V}'}, slow: {times: '${V}'}}
    labels: '${V}'
    runbook: '${V}'
sinks:
  o: {type: webhook, url: 'https://h/', events: ['${V}', account.degraded], headers: '${V}'}
  p: {type: webhook, url: 'https://h/', match: {pipelines: ['${V}'], labels: {a: '${V}'}}}
  q: {type: webhook, url: 'https://h/', retry: {schedule: ['${V}']}, group: {wait: 1s}}
  r: {type: webhook, url: 'https://h/', secret: '${V}', match: '${V}', events: '${V}', tls: '${V}'}
silences:
  - {match: {labels: {a: '${V}'}, accounts: ['${V}']}, from: '${V}', until: '${V}'}
  - {match: {accounts: ['${V}']}, weekly: {days: ['${V}'], from: '${V}', to: '${V}', timezone: UTC}}
heartbeat: {url: '${V}', every: '${V}'}
"""


def test_without_secrets_what_is_absent_hides_no_other_mistake(command: Command) -> None:
    write(ABSENT)
    code, out, err = command("check", "--without-secrets")
    assert (code, out.count("\n")) == (0, 3)
    assert err.count("is not set") == ABSENT.count("${")
    assert err.count("cannot read /none/") == ABSENT.count("/none/")
    assert len(err.splitlines()) == ABSENT.count("${") + ABSENT.count("/none/")
    write(
        f"accounts: {{default: {{api_key: k}}}}\nwatch:\n  - pipeline: 3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31\n{BLOCKS}"
    )
    code, _, err = command("check", "--without-secrets")
    assert (code, err.count("${V} is not set")) == (0, BLOCKS.count("${V}"))
    write(GOOD.replace("api_key: k", "api_key_file: '${CREDENTIALS_DIRECTORY}/key', rate_limit: 5"))
    code, out, err = command("check", "--without-secrets")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == "1 problem in watcher.yaml"
    assert 'accounts.default.rate_limit: "5" is not a rate' in err


NO_SECRET = "sinks: {ops: {type: webhook, url: 'https://hooks.example.com/hush'}}"


def test_what_is_likely_a_mistake_is_a_line_in_a_pipe_and_no_failure(command: Command) -> None:
    write(f"{GOOD}{NO_SECRET}\n")
    code, out, err = command("check")
    assert (code, out) == (0, ROWS)
    assert err.startswith("warning: watcher.yaml:6:9: sinks.ops: has no secret")
    write(GOOD.replace("api_key: k,", "api_key: k, rate_limit: 1/m,"))
    assert "warning: default: over max_interval 60s: raise rate_limit to" in command("check").err


def test_on_a_terminal_the_plan_what_is_likely_a_mistake_and_the_trials_are_for_people(on_terminal: OnTerminal) -> None:
    write(GOOD + NO_SECRET.replace("https://hooks.example.com", "http://127.0.0.1:1"))
    title, head, row, *_, first, line, mark, trial, hint, sink, _ = on_terminal(
        "check", "--online", columns=120
    ).splitlines()
    assert title == "✓ watcher.yaml  1 account, 1 watch, 2 sinks"
    assert head.split() == ["account", "needed", "budget", "expected", "delay", "longest", "interval"]
    assert row.split() == ["default", "0.033/s", "4.9/s", "3", "s", "60", "s"]
    assert first.startswith("warning: watcher.yaml:6:9: sinks.ops: has no secret")
    assert line == "    6 | sinks: {ops: {type: webhook, url: …}}"
    assert mark == "      |         ^^^ make one: watcher init --secret"
    assert trial.startswith("✕ accounts.default  http://127.0.0.1:1  cannot be reached (refused) (")
    assert hint.startswith("  hint: nothing listens there")
    assert sink.startswith("✕ sinks.ops  http://127.0.0.1:1  fails (refused) (")


UNREACHABLE = REMEDIES["refused"]


def test_a_key_that_cannot_be_tried_exits_4(command: Command) -> None:
    write(GOOD)
    code, out, err = command("check", "--online")
    assert (code, err) == (4, f"hint: accounts.default: {UNREACHABLE}\n")
    head, *rows = out.removeprefix(f"{ROWS}\n").splitlines()
    assert head == "target\tworks\tms\tanswer"
    ((target, works, ms, answer),) = (row.split("\t") for row in rows)
    assert (target, works, answer) == ("accounts.default", "no", "cannot be reached (refused)")
    assert ms.isdigit()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver in a thread of its own: the command has this one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    receiver = Receiver()
    asyncio.run_coroutine_threadsafe(receiver.__aenter__(), loop).result()
    yield receiver
    asyncio.run_coroutine_threadsafe(receiver.__aexit__(None, None, None), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


KINDS = {
    "plain": "",
    "chat": ", template: slack",
    "phone": f", template: pagerduty, routing_key: {KEY}",
    "alerts": ", template: alertmanager",
    "mine": ", template: ./mine.j2",
}


def messages(receiver: Receiver) -> str:
    """Write a file with a webhook of each kind; return the lines of its sinks."""
    url = f"{receiver.url}/hush"
    Path("mine.j2").write_text('{"mine": {{ headline | tojson }}}')
    blocks = (f"  {name}: {{type: webhook, url: '{url}'{more}}}" for name, more in KINDS.items())
    return "\n".join((GOOD, "sinks:", *blocks))


def test_a_test_is_sent_in_the_form_of_each_receiver(receiver: Receiver, on_terminal: OnTerminal) -> None:
    receiver.reply = says(answer(200, body=b"ok"))
    write(messages(receiver))
    text = on_terminal("check", "--send", columns=120)
    assert [line.split("  ")[0] for line in text.splitlines()[-5:]] == [f"✓ sinks.{name}" for name in KINDS]
    assert "hush" not in text
    assert KEY not in text
    sent = {request.headers["webhook-id"] for request in receiver.requests}
    assert len(sent) == 5


def test_piped_no_message_is_shown_and_what_a_sink_logs_stays_off_stdout(receiver: Receiver, command: Command) -> None:
    receiver.reply = says(answer(400, body=b"invalid_payload"))
    write(messages(receiver))
    code, out, err = command("check", "--send")
    assert code == 4
    head, *rows = out.removeprefix(f"{ROWS}\n").splitlines()
    assert [row.split("\t")[:2] for row in rows[1:]] == [[f"sinks.{name}", "no"] for name in KINDS]
    assert head == "target\tworks\tms\tanswer"
    assert err.count("a minimal message is tried next") == 1
    assert "hush" not in out + err
    assert KEY not in out + err


def test_a_pipeline_that_is_not_known_is_an_exit_code_of_its_own(receiver: Receiver, command: Command) -> None:
    receiver.reply = says(answer(404))
    pipeline = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"
    write(GOOD.replace("http://127.0.0.1:1", receiver.url).replace(WATCH, f"\nwatch: [{{pipeline: {pipeline}}}]\n"))
    code, out, err = command("check", "--online")
    hint = "correct its id in watch, or the path in base_url, or watch it with the key of its own account"
    assert (code, err) == (5, f"hint: watch[0]: {hint}\n")
    assert "\nwatch[0]\tno\t" in out
    assert f"\tdoes not know pipeline {pipeline} (404)\n" in out


async def test_it_can_be_interrupted_while_nobody_answers(receiver: Receiver) -> None:
    receiver.reply = hangs
    board = Board()
    write(GOOD.replace("http://127.0.0.1:1", receiver.url))
    life = await begin("check", "--online", folder=Path.cwd(), board=board)
    try:
        while not receiver.requests:
            await asyncio.sleep(0.01)
        assert await life.stop(signal.SIGINT) == 128 + signal.SIGINT
        assert life.stderr.lines.everything() == b""
    finally:
        await life.clear_away()


PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
OTHER = "77aa0000-0000-4000-8000-000000000000"
IDS = [f"9a1b0000-0000-4000-8000-{number:012}" for number in range(426)]


def polling(cadence: str, **intervals: str) -> PollingSettings:
    return PollingSettings.model_validate({"cadence": cadence} | intervals)


MAX = "over max_interval 60s: raise rate_limit to {}/s, or polling.max_interval to 90s"
MIN = "over min_interval 1s: raise rate_limit to {}/s, or polling.min_interval to {}"
BOTH = "over min_interval 1s: raise rate_limit to {}/s, or polling.min_interval and polling.max_interval to 90s"


@pytest.mark.parametrize(
    ("cadence", "watched", "needed_per_s", "delay_s", "longest_s", "advice"),
    [
        ("backoff", (1, 0), 1 / 60, 3, 60, None),  # after a minute a look every 6 s: half of that on average
        ("backoff", (294, 0), 4.9, 30, 60, None),  # 60 s at 4.9 a second, exactly
        ("backoff", (295, 0), 4.917, 30.102, 60.204, MAX.format(5.1)),
        ("backoff", (426, 0), 7.1, 43.469, 86.939, MAX.format(7.3)),
        ("fixed", (4, 0), 4, 0.5, 1, None),
        ("fixed", (49, 0), 49, 5, 10, MIN.format(50, "10s")),
        ("fixed", (426, 0), 426, 43.469, 86.939, BOTH.format(434.7)),
        ("backoff", (0, 1), 1, 0.5, 60, None),
        ("backoff", (0, 10), 10, 1.02, 60, None),  # ten lists at 4.9 a second take turns
        ("backoff", (0, 294), 294, 30, 60, None),  # each list within 60 s, though it would like one a second
        ("fixed", (0, 295), 295, 30.102, 60.204, MAX.format(5.1)),
        ("backoff", (12, 6), 6.2, 3, 60, None),
        ("backoff", (12, 30), 30.2, 5.172, 60, None),  # 2 a second go to what is named, 2.9 are left for 30 lists
        ("backoff", (200, 2), 5.333, 30, 60, None),  # lists take what is left of half: the named come to their limit
        ("backoff", (200, 95), 98.333, 30.151, 60.302, MAX.format(5.1)),
        # far more: lists go three times in a turn
        ("backoff", (600, 200), 210, 122.449, 244.898, MAX.format(13.7).replace("90s", "3m")),
        ("fixed", (4, 1), 5, 0.513, 60, MIN.format(5.2, "2s")),  # the list takes its one a second
        ("fixed", (4, 54), 58, 11.02, 60, MIN.format(8.2, "2s")),  # half each
        ("fixed", (4, 300), 304, 61.224, 184.490, BOTH.format(9.2)),
    ],
)
def test_more_executions_and_lists_want_more_and_what_cannot_be_held_has_a_remedy(
    cadence: str, watched: tuple[int, int], needed_per_s: float, delay_s: float, longest_s: float, advice: str | None
) -> None:
    account = plan_account("a", *watched, rate_limit=5, polling=polling(cadence))
    found = (account.needed_per_s, account.budget_per_s, account.delay_s, account.longest_s)
    assert found == pytest.approx((needed_per_s, 4.9, delay_s, longest_s), abs=0.001)
    assert account.advice == advice


@pytest.mark.parametrize(("cadence", "executions_count"), [("backoff", 295), ("backoff", 10_000), ("fixed", 77)])
def test_what_would_help_helps(cadence: str, executions_count: int) -> None:
    advice = plan_account("a", executions_count, rate_limit=5, polling=polling(cadence)).advice
    words = re.search(r"raise rate_limit to (\S+)/s, or (.+) to (\S+)", advice or "")
    assert words
    longer = polling(cadence, **{key.removeprefix("polling."): words[3] for key in words[2].split(" and ")})
    assert plan_account("a", executions_count, rate_limit=float(words[1]), polling=polling(cadence)).advice is None
    assert plan_account("a", executions_count, rate_limit=5, polling=longer).advice is None


def test_what_is_held_exactly_is_held_whatever_the_rounding() -> None:
    plans = [
        plan_account("a", named, whole, rate_limit=(named + whole) / 60 / 0.98, polling=PollingSettings())
        for named in range(1, 60)
        for whole in range(1, 60)
    ]
    assert {each.advice for each in plans} == {None}


def test_each_account_has_its_own_watches_and_rate() -> None:
    ids = [f"9a1b0000-0000-4000-8000-{number:012}" for number in range(5)]
    settings = Settings.model_validate(
        {
            "accounts": {"a": {"api_key": "k"}, "b": {"api_key": "l", "rate_limit": "100/m"}},
            "watch": [
                {"pipeline": PIPELINE, "account": "b", "executions": ids[:2]},
                {"pipeline": OTHER, "account": "b", "executions": ids[2:]},
                {"pipeline": ids[0], "account": "b"},
            ],
            "polling": {"cadence": "fixed"},
        }
    )
    assert [(each.account, each.needed_per_s) for each in plan(settings)] == [("a", 0), ("b", 6)]
    assert [each.budget_per_s for each in plan(settings)] == pytest.approx([4.9, 1.6333], abs=0.001)


def settings(**polling: str) -> Settings:
    document: dict[str, Any] = {
        "accounts": {"default": {"api_key": "k"}, "eu": {"api_key": "l"}, "idle": {"api_key": "m"}},
        "watch": [
            {"pipeline": "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "account": "default", "executions": IDS[:12]},
            {"pipeline": "77aa0000-0000-4000-8000-000000000000", "account": "eu", "executions": IDS},
        ],
        "sinks": {"stdout": {"type": "stdout"}},
        "polling": polling,
    }
    return Settings.model_validate(document)


def printed(settings: Settings, *, width: int) -> list[str]:
    out = io.StringIO()
    print_plan(plan(settings), settings, file="w.yaml", console=Console(file=out, width=width, markup=False))
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_people_get_a_table_with_what_would_help_and_programs_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(settings(), width=300) == [
        "✓ w.yaml  3 accounts, 2 watches, 1 sink",
        "account  needed  budget  expected delay  longest interval",
        "default  0.2/s   4.9/s   3 s             60 s",
        "eu       7.1/s   4.9/s   43 s            87 s",
        "idle     0/s     4.9/s   -               -",
        "! eu: over max_interval 60s: raise rate_limit to 7.3/s, or polling.max_interval to 90s",
        EXPLAINED,
    ]
    print_plan_rows(plan(settings()))
    assert capsys.readouterr().out.splitlines() == [
        "account\tneeded\tbudget\tdelay\tinterval",
        "default\t0.2\t4.9\t3\t60",
        "eu\t7.1\t4.9\t43.469\t86.939",
        "idle\t0\t4.9\t\t",
    ]


@pytest.mark.parametrize(
    ("figure", "shown", "exact"),
    [(0, "0", "0"), (0.0166, "0.017", "0.017"), (1 / 3, "0.33", "0.333"), (3.61, "3.6", "3.61"), (84.4, "84", "84.4")],
)
def test_a_figure_has_as_many_digits_as_people_read_or_three_decimals(figure: float, shown: str, exact: str) -> None:
    assert (roughly(figure), exactly(figure)) == (shown, exact)


WHO = f"""accounts: {{default: {{api_key: k, base_url: 'http://127.0.0.1:1'}}}}
watch:
  - pipeline: 3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31
    name: Sales
    labels: {{team: a}}
    rules: {{failing: {{consecutive: 3}}}}
    overdue_after: {{running: 15m}}
  - {{pipeline: 7be2f0c4-1d5a-4c39-9f60-2a8e4d1b7c05, name: Support}}
sinks:
  pager: {{type: webhook, template: pagerduty, routing_key: {"k" * 32}, after: 5m, match: {{labels: {{team: a}}}}}}
  chat: {{type: webhook, template: slack, url: "https://hooks.slack.com/services/T/B/x"}}
  mail: {{type: webhook, url: "https://h.example", events: ["pipeline.*"]}}
silences:
  - {{match: {{sinks: [mail]}}, from: 2026-01-01T00:00:00Z, until: 2099-12-01T12:30:00Z}}
"""
SILENT = "silenced until 2099-12-01 12:30 UTC"


def test_who_says_for_each_watch_which_sink_is_sent_what(command: Command) -> None:
    write(WHO)
    code, shown, _ = command("check", "--who")
    head, *rows = [line.split("\t") for line in shown.splitlines()]
    assert (code, head) == (0, ["account", "pipeline", "name", "event", "sink", "told"])
    assert {(name, event, sink): told for _, _, name, event, sink, told in rows if sink != "stdout"} == {
        (name, event, sink): told
        for name, event, *each in [
            ("Sales", "execution.failed", "not: events", "at once", "not: events"),
            ("Sales", "execution.overdue", "after 5 m", "after 10 s, grouped", "not: events"),
            ("Sales", "pipeline.failing", "after 5 m", "after 10 s, grouped", SILENT),
            ("Sales", "pipeline.recovered", "at once", "after 10 s, grouped", "not: the opening is silenced"),
            ("Sales", "account.degraded", "after 5 m", "after 10 s, grouped", "not: events"),
            ("Sales", "account.recovered", "at once", "after 10 s, grouped", "not: events"),
            ("Support", "execution.failed", "not: events", "at once", "not: events"),
            ("Support", "account.degraded", "after 5 m", "after 10 s, grouped", "not: events"),
            ("Support", "account.recovered", "at once", "after 10 s, grouped", "not: events"),
        ]
        for sink, told in zip(("pager", "chat", "mail"), each, strict=True)
    }
    assert {told for *_, sink, told in rows if sink == "stdout"} == {"at once"}


def test_who_takes_a_pipeline_by_name_or_id(command: Command) -> None:
    write(WHO)
    for words in (
        ("watcher.yaml", "--who", "sup"),
        ("--who=7be2f0c4",),
        ("--config", "watcher.yaml", "--who", "Support"),
    ):
        code, shown, _ = command("check", *words)
        assert code == 0
        assert {line.split("\t")[2] for line in shown.splitlines()[1:]} == {"Support"}
    assert command("check", "--who", "--without-secrets")[0] == 0
    code, shown, errors = command("check", "--who", "nope")
    assert (code, shown) == (5, "")
    assert errors.endswith('error: no pipeline "nope"; watcher check --who lists them\n')
