import pytest
import yaml
from unit.config.conftest import Load, Mistakes

from watcher.config.document import compose

QUOTE = 'quote a text that holds ": ", or check indentation'
CLOSE_QUOTE = "a quote that is not closed in its line; close it"
BEHIND = "text behind a closing quote; write '' for a ' in single quotes, or quote all of the text"
NO_KEY = "no key with a value; write key: value, with a space behind the colon"
UNALIGNED = "does not line up with the keys above; indent keys of one block alike"
CLOSE = "a bracket is not closed, or a comma is missing; close it with ] or }"

BAD = [
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


DEEP = "nested deeper than anything in this file can be; check brackets and indentation"
ODD = "holds a character no text has; save the file as UTF-8 text"


@pytest.mark.parametrize(
    ("text", "problem"),
    [("log:\n  level: in\x00fo\n", ODD), ("log:\n  level: \x1b[31minfo\n", ODD), ("log: &log\n  level: *log\n", DEEP)],
)
def test_what_has_no_place_names_the_file(text: str, problem: str, mistakes: Mistakes) -> None:
    assert mistakes(text) == [f"watcher.yaml: {problem}", "1 problem in watcher.yaml"]


def test_of_brackets_without_end_the_parser_itself_has_enough(mistakes: Mistakes) -> None:
    assert "not YAML" in mistakes("[" * 100_000)[0]


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


def test_nothing_in_words_is_text_when_it_says_so(load: Load) -> None:
    watch = "accounts: {a: {api_key: k}}\nwatch:\n  - pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f\n"
    more = "    executions: [9a1b0000-0000-4000-8000-000000000001]\n    labels: {a: 'null', b: !!str null, c: ''}\n"
    assert load(watch + more).watch[0].labels == {"a": "null", "b": "null", "c": ""}


def test_columns_count_characters(mistakes: Mistakes) -> None:
    assert mistakes('log: {format: json, "level": lönd}')[0].startswith("watcher.yaml:1:30: log.level: ")
    assert mistakes('"ключ": 1')[0].startswith("watcher.yaml:1:1: …: unknown key, with")


def test_the_parser_in_c_is_used() -> None:
    node = compose("a: b")
    assert type(node.start_mark) is not yaml.Mark
