"""Mistakes on a terminal: the line and a mark at the place, and never a secret that stands in the same line."""

import io
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest
from rich.console import Console
from unit.config.test_loader import SENTINEL, WRITTEN

from watcher.cli.config_loading import print_problems
from watcher.config.document import ConfigProblemsError
from watcher.config.loader import load_config


def printed(path: Path, *, width: int) -> list[str]:
    """Return what is said on a terminal that wide of a file with mistakes."""
    with pytest.raises(ConfigProblemsError) as caught:
        load_config(path, environ={})
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, markup=False)
    print_problems(caught.value.problems, sources=caught.value.sources, console=console)
    return [line.rstrip() for line in out.getvalue().splitlines()]


def emitted(text: str, *, width: int = 100) -> list[str]:
    path = Path("watcher.yaml")
    path.write_text(text)
    return printed(path, width=width)


def test_what_is_wrong_is_marked_in_its_line_with_the_remedy() -> None:
    text = "polling:\n  cadence: fixed\n  min_intervall: 5s   # my own words\n"
    assert emitted(text) == [
        'error: watcher.yaml:3:3: polling.min_intervall: unknown key "min_intervall"',
        "    3 |   min_intervall: 5s",
        "      |   ^^^^^^^^^^^^^",
        '      = did you mean "min_interval"? Allowed: cadence, min_interval, max_interval, concurrency,',
        "first_sight, lookback, details, lost_after, lost_grace, degraded_after",
    ]
    assert emitted("log: {level: 'very loud', format: json}")[:3] == [
        'error: watcher.yaml:1:14: log.level: "very loud" is not known',
        "    1 | log: {level: 'very loud', format: …}",
        "      |              ^^^^^^^^^^^ allowed: debug, info, warning, error",
    ]
    first, second, *_ = printed(Path("gone.yaml"), width=200)
    assert first.startswith("error: gone.yaml: cannot read this file (no such file or directory")
    assert second == "hint: correct the path or its permissions"


@pytest.mark.parametrize(
    ("line", "shown", "mark"),
    [
        ("accounts: {a: {api_key: hunter2, timeout: 10}}", "accounts: {a: {api_key: …, timeout: 10}}", "^^"),
        ("accounts: {a: {api_key: hunter2 words, rate_limit: x}}", "accounts: {a: {api_key: … …, rate_limit: …}}", "^"),
        ("accounts: {a: {api_key: 'k', timeout: [hunter2]}}", "accounts: {a: {api_key: …, timeout: […]}}", "^"),
        ("sinks: {ops: {type: webhook, url: 'ftp://hunter2'}}", "sinks: {ops: {type: webhook, url: …}}", "^"),
        ("accounts: {a: {api_key: 12345, timeout: 10}}", "accounts: {a: {api_key: …, timeout: 10}}", "^^"),
        (f"accounts: {{a: {{api_key: {UUID(int=1)}, timeout: 10}}}}", "accounts: {a: {api_key: …, timeout: 10}}", "^^"),
        ("accounts: {a: {timeout: 10, api_key: 12345}}", "accounts: {a: {timeout: 10, api_key: …}}", "^^"),
        (
            "sinks: {o: {type: slow, headers: {a: 1, url: 4}}}",
            "sinks: {o: {type: slow, headers: {… …, url: …}}}",
            "^^^^",
        ),
        ("accounts: {a: {api_key: '${CLERK_KEY}'}}", "accounts: {a: {api_key: '${CLERK_KEY}'}}", "^" * 14),
        ("accounts: {a: {api_key: '${K:-hunter2}', timeout: 10}}", "accounts: {a: {api_key: …, timeout: 10}}", "^^"),
        ("sinks: {ops: {}}", "sinks: {ops: {}}", "^^^"),
        ("polling: {cadence:\tnever}", "polling: {cadence: never}", "^^^^^"),
    ],
)
def test_of_a_line_only_what_is_harmless_is_shown(line: str, shown: str, mark: str) -> None:
    lines = emitted(line)
    marks = next(line for line in lines if "^" in line)
    assert lines[lines.index(marks) - 1] == f"    1 | {shown}"
    assert marks.split()[1] == mark
    assert not any("hunter2" in line for line in lines)


def test_on_a_narrow_terminal_the_mark_stays_in_sight() -> None:
    text = "accounts: {default: {api_key: k, base_url: 'https://example.com/a/long/path', rate_limit: 5}}"
    lines = emitted(text, width=40)
    assert all(len(line) <= 40 for line in lines)
    source, marks = next((above, line) for above, line in pairwise(lines) if "^" in line)
    assert source[marks.index("^")] == "5"


@pytest.mark.parametrize("width", [20, 100])
@pytest.mark.parametrize("text", WRITTEN)
def test_a_secret_in_the_file_is_never_shown(text: str, width: int) -> None:
    assert SENTINEL not in "".join(emitted(text, width=width)).replace(" ", "")
