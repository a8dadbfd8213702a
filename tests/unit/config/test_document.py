from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from unit.config.conftest import Load, Mistakes

from watcher.config.document import Document, compose

Filled = Callable[[str], Document]

QUOTE = 'quote a text that holds ": ", or check indentation'
CLOSE_QUOTE = "a quote that is not closed in its line; close it"
BEHIND = "text behind a closing quote; write '' for a ' in single quotes, or quote all of the text"
NO_KEY = "no key with a value; write key: value, with a space behind the colon"
UNALIGNED = "does not line up with the keys above; indent keys of one block alike"
CLOSE = "a bracket is not closed, or a comma is missing; close it with ] or }"

DEEP = "nested deeper than anything in this file can be; check brackets and indentation"
ODD = "holds a character no text has; save the file as UTF-8 text"

BAD = [
    # what has no place names the file
    *((f"log:\n  level: {odd}fo\n", f" {ODD}") for odd in ("in\x00", "\x1b[31m")),
    ("log: &log\n  level: *log\n", f" {DEEP}"),
    ("log:\n\tlevel: info\n", "2:1: tab used for indentation; use spaces"),
    ("log:\n  level: info\n \tformat: json\n", "3:2: tab used for indentation; use spaces"),
    ("log: level: info\n", f"1:11: a colon where none can be; {QUOTE}"),
    ("accounts:\n  default:\n    api_key:abc\n    timeout: 10s\n", f"3:5: {NO_KEY}"),
    ("watch:\n  - pipeline: x\n    name:Sales\n    labels: {}\n", f"3:5: {NO_KEY}"),
    ("watch:\n  - pipeline: x\n    name:Sales", f"3:5: {NO_KEY}"),
    ("log:\n  level: info\n    format: json\n", f"3:5: {UNALIGNED}"),
    ("log:\n  level: info\n\n    format: json\n", f"4:5: {UNALIGNED}"),
    ("log:\n  level: info: json\n", f"2:14: a colon where none can be; {QUOTE}"),
    ("watch: - pipeline\n", "1:8: a list item where none can be; begin the list on a line of its own"),
    ("log: @info\n", "1:6: a character no plain text may begin with; quote the text"),
    ("log: [info\nstore: x\n", f"1:6: {CLOSE}"),
    ("log: {level: info\n", f"1:6: {CLOSE}"),
    ("log: [\n  'info'\n  'debug'\n]\n", f"3:3: {CLOSE}"),
    ("log: {level: ${LEVEL}}\n", '1:15: a variable without quotes inside { } or [ ]; write "${NAME}"'),
    ("log:\n  level: info\n format: json\n", f"3:2: {UNALIGNED}"),
    (
        "watch:\n  - a\n  b: c\n",
        "3:3: does not line up with the list above; indent keys of one item alike, and each - alike",
    ),
    ("log: *\n", '1:7: an alias (*name) without its anchor (&name) above; quote a glob: "*"'),
    ("log: 'info\nstore: x\n", f"1:6: {CLOSE_QUOTE}"),
    ('watch:\n  - name: "Sales\n    labels: {}\nlog: {level: "info"}\n', f"2:11: {CLOSE_QUOTE}"),
    ("log: {level: 'info}\nstore: {url: 'x'}\n", f"1:14: {CLOSE_QUOTE}"),
    ("log:\n  level: 'it's'\n", f"2:14: {BEHIND}"),
    ('log:\n  level: "info" or debug\n', f"2:17: {BEHIND}"),
    ('log: {level: "C:\\watcher"}\n', "1:17: a backslash in double quotes; write it in single quotes"),
    ("  log: {}\nstore: {}\n", "2:1: stands left of the keys above; begin each top-level key in the first column"),
    (
        "watch:\n  - pipeline: x\nrules:\n  silent: 6h\n  - pipeline: y\n",
        "3:1: stands between the items of a list; indent it like the keys of an item, or move it below",
    ),
    ("sinks:\n  ops:\n    type: webhook\n  - x\n", f"4:3: {UNALIGNED}"),
    ("%FOO\n---\nlog: x\n", "1:5: not YAML; check quotes, brackets and indentation here and above"),
    ("log: {}\n---\nlog: {}\n", "2:1: a second document begins here; keep one document in a file"),
    ("? [a]\n: b\n", "1:3: a key that is not text; write keys as plain words; quote a value that begins with {"),
    ("log: {level: info", f"1:6: {CLOSE}"),
    ("log: {level: '${X}'", f"1:6: {CLOSE}"),
    ("log: {<<: [info], level: debug}", "1:12: merges something that has no keys; write <<: *name"),
    ("log: {'<<': {level: debug}}", "1:7: log.…: unknown key, with characters that no key has; allowed: level, format"),
    ("- a\n", "1:1: no keys; begin with a key such as accounts:"),
    ("hello\n", "1:1: no keys; begin with a key such as accounts:"),
    (b"log:\n  level: \xff\n", "2:1: not UTF-8; save the file as UTF-8"),
    ("log: {}\n".encode("utf-16"), "1:1: not UTF-8; save the file as UTF-8"),
]


@pytest.mark.parametrize(("text", "line"), BAD, ids=[line for _, line in BAD])
def test_what_is_not_yaml_is_one_line(text: str | bytes, line: str, mistakes: Mistakes) -> None:
    assert mistakes(text) == [f"watcher.yaml:{line}", "1 problem in watcher.yaml"]


def test_an_alias_stands_for_what_was_written_before(load: Load) -> None:
    settings = load(
        "sinks:\n"
        "  a: &hook {type: webhook, url: &url https://h.example, match: {labels: {a: '${X}$${X}'}}}\n"
        "  b: {<<: *hook, events: ['account.*'], url: *url}\n"
        "  c: {<<: [*hook, {timeout: 1s}]}\n",
        X="$$",
    )
    assert settings.sinks["b"].match == settings.sinks["a"].match
    assert settings.sinks["a"].match.labels == {"a": "$$${X}"}
    assert settings.sinks["b"].events == ("account.*",)
    assert settings.sinks["c"].model_dump()["timeout_s"] == 1


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("\ufefflog:\r\n  level: debug\r\n", "debug"),
        ("log:\n  level: !!str debug\n", "debug"),
        ("%YAML 1.1\n---\nlog: {level: debug}\n", "debug"),
        ("log: {level: !!null ''}", "info"),
    ],
)
def test_what_is_yaml_is_read(text: str, level: str, load: Load) -> None:
    assert load(text).log.level == level


def test_columns_count_characters_and_null_is_text_when_it_says_so(mistakes: Mistakes, load: Load) -> None:
    assert mistakes('log: {format: json, "level": lönd}')[0].startswith("watcher.yaml:1:30: log.level: ")
    assert mistakes('"ключ": 1')[0].startswith("watcher.yaml:1:1: …: unknown key, with")
    watch = "accounts: {a: {api_key: k}}\nwatch:\n  - pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f\n"
    more = "    executions: [9a1b0000-0000-4000-8000-000000000001]\n    labels: {a: 'null', b: !!str null, c: ''}\n"
    assert load(watch + more).watch[0].labels == {"a": "null", "b": "null", "c": ""}


def test_the_parser_in_c_is_used_and_has_enough_of_brackets_without_end(mistakes: Mistakes) -> None:
    node = compose("a: b", file="watcher.yaml")
    assert type(node.start_mark) is not yaml.Mark
    assert "not YAML" in mistakes("[" * 100_000)[0]


ENVIRON = {"A": "a", "EMPTY": "", "ODD": "${A} $$ {"}

FILLED = [
    ("plain", "plain"),
    ("${A}", "a"),
    ("<${A}${A}>", "<aa>"),
    ("${A:-b}", "a"),
    ("${NONE:-b}", "b"),
    ("${NONE:-}", ""),
    ("${NONE:-a b:c}", "a b:c"),
    ("${EMPTY}", ""),
    ("${EMPTY:-b}", "b"),
    ("$$", "$"),
    ("$${A}", "${A}"),
    ("$$${A}", "$a"),
    ("a$", "a$"),
    ("5$ $. a$B $a", "5$ $. a$B $a"),
    ("${ODD}", "${A} $$ {"),
]


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """Read a text that is the value of `x`."""

    def filled(text: str) -> Document:
        file = tmp_path / "watcher.yaml"
        file.write_text(f"x: '{text}'")
        document = Document(file=str(file))
        assert document.open(file, environ=ENVIRON)
        return document

    return filled


@pytest.mark.parametrize(("text", "value"), FILLED)
def test_variables_are_filled_in(text: str, value: str, filled: Filled) -> None:
    document = filled(text)
    assert (document.get(("x",)), document.problems) == (value, [])


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1}", "${A-b}", "${A:?b}", "${A.b}", "${A:-${EMPTY}}"])
def test_what_only_looks_like_a_variable_is_refused_and_a_dollar_is_a_dollar(text: str, filled: Filled) -> None:
    assert [each.problem for each in filled(text).problems] == ["holds a ${ that begins no variable"]
    for written in ("$$CLERK_API_KEY", "pa$WORD", "$lower", "$5"):
        assert filled(written).problems == []


def test_a_variable_that_is_not_set_is_named_once_and_hides_its_value(filled: Filled) -> None:
    problems = [each.problem for each in filled("${X}${Y}${X}").problems]
    assert problems == ["${X} is not set", "${Y} is not set"]
    assert filled("${A}").is_hidden(("x",))
    assert not filled("$$5").is_hidden(("x",))


@pytest.mark.parametrize("value", ["a: b", "- a", "x\n  y: z", "'", '"', "# no", "null", "*a", "{a: b}", "!x"])
def test_what_a_variable_holds_is_never_read_as_yaml(value: str, load: Load) -> None:
    settings = load("sinks:\n  ops:\n    type: stdout\n    match: {labels: {a: '${X}'}}\n", X=value)
    assert settings.sinks["ops"].match.labels == {"a": value}


def test_a_variable_stands_in_any_value_but_in_no_key(load: Load) -> None:
    settings = load(
        "accounts:\n  default: {api_key: '${KEY}', rate_limit: '${N}/s'}\n"
        "polling: {concurrency: '${N}'}\nlog:\n  level: ${LEVEL:-debug}\n",
        KEY="k",
        N="7",
    )
    assert settings.accounts["default"].rate_limit == 7
    assert settings.polling.concurrency == 7
    assert settings.log.level == "debug"
    settings = load("sinks: {ops: {type: stdout, match: {labels: {'${X}': v}}}}", X="x")
    assert settings.sinks["ops"].match.labels == {"${X}": "v"}


def test_an_unset_variable_is_all_that_is_reported_with_what_fits_the_key(mistakes: Mistakes) -> None:
    lines = mistakes(
        "log:\n  level: ${LEVEL}\nsinks:\n  ops:\n    type: webhook\n    url: ${OPS_URL}\n"
        "    headers:\n      A: ${A} and ${B}\n    secret:\n      - ${S}\nstore:\n  url: ${STORE_URL}\n"
    )
    assert lines == [
        "watcher.yaml:2:10: log.level: ${LEVEL} is not set; export it, or write ${LEVEL:-default}",
        "watcher.yaml:6:10: sinks.ops.url: ${OPS_URL} is not set; export it, or use url_file: /run/secrets/ops_url",
        "watcher.yaml:8:10: sinks.ops.headers.A: ${A} is not set; export it, or write ${A:-default}",
        "watcher.yaml:8:10: sinks.ops.headers.A: ${B} is not set; export it, or write ${B:-default}",
        "watcher.yaml:10:9: sinks.ops.secret[0]: ${S} is not set; export it, or write ${S:-default}",
        "watcher.yaml:12:8: store.url: ${STORE_URL} is not set; export it, or write ${STORE_URL:-default}",
        "6 problems in watcher.yaml",
    ]
    text = "accounts: {a: {api_key: k}, b: {api_key: l}}\n"
    text += "watch:\n  - {account: '${A}', pipeline: '${P}', executions: ['${E}']}"
    text += "\npolling: {min_interval: '${M}'}\nsinks: {x: {type: '${T}'}}"
    assert [line.split(": ")[1] for line in mistakes(text)[:-1]] == [
        "watch[0].account",
        "watch[0].pipeline",
        "watch[0].executions[0]",
        "polling.min_interval",
        "sinks.x.type",
    ]


def test_a_filled_in_value_and_what_is_around_a_lone_brace_are_not_shown(mistakes: Mistakes) -> None:
    text = "accounts: {a: {api_key: k, timeout: '${T}', rate_limit: '${R}'}}\nlog: {level: '${L}'}"
    assert mistakes(text, T="99999d", R="5", L="inof") == [
        "watcher.yaml:1:37: accounts.a.timeout: the filled-in value is longer than a century; write at most 36500d",
        "watcher.yaml:1:57: accounts.a.rate_limit: the filled-in value is not a rate; write 5/s or 300/m",
        "watcher.yaml:2:14: log.level: the filled-in value is not known; allowed: debug, info, warning, error",
        "3 problems in watcher.yaml",
    ]
    assert mistakes("accounts:\n  a:\n    api_key: hunter2${x y}")[0] == (
        "watcher.yaml:3:14: accounts.a.api_key: holds a ${ that begins no variable; "
        "write ${NAME} or ${NAME:-default}; $$ is a dollar"
    )
    assert '"in$fo" is not known' in mistakes("log: {level: in$$fo}")[0]


@pytest.mark.parametrize("written", ["$CLERK_API_KEY", "Bearer $TOKEN2", "$KEYS/clerk", "$S3CR3T"])
def test_a_variable_without_braces_is_reported_unseen(written: str, mistakes: Mistakes) -> None:
    assert mistakes(f"accounts:\n  a:\n    api_key: {written}")[0] == (
        "watcher.yaml:3:14: accounts.a.api_key: a $NAME is not filled in without braces; write ${NAME}, or $$NAME"
    )
