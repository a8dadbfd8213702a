import pytest
from unit.config.conftest import Load, Mistakes

from watcher.config.document import Document

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


def filled(text: str) -> Document:
    document = Document(file="watcher.yaml")
    document.load(f"x: '{text}'", environ=ENVIRON)
    return document


@pytest.mark.parametrize(("text", "value"), FILLED)
def test_variables_are_filled_in(text: str, value: str) -> None:
    document = filled(text)
    assert (document.get(("x",)), document.problems) == (value, [])


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1}", "${A-b}", "${A:?b}", "${A.b}", "${A:-${EMPTY}}"])
def test_what_only_looks_like_a_variable_is_refused(text: str) -> None:
    assert [each.problem for each in filled(text).problems] == ["holds a ${ that begins no variable"]


def test_a_variable_that_is_not_set_is_named_once() -> None:
    problems = [each.problem for each in filled("${X}${Y}${X}").problems]
    assert problems == ["${X} is not set", "${Y} is not set"]


def test_only_a_variable_hides_its_value() -> None:
    assert filled("${A}").is_hidden(("x",))
    assert not filled("$$5").is_hidden(("x",))


def test_a_variable_may_stand_in_any_value(load: Load) -> None:
    settings = load(
        "accounts:\n  default: {api_key: '${KEY}', rate_limit: '${N}/s'}\n"
        "polling: {concurrency: '${N}'}\nlog:\n  level: ${LEVEL:-debug}\n",
        KEY="k",
        N="7",
    )
    assert settings.accounts["default"].rate_limit == 7
    assert settings.polling.concurrency == 7
    assert settings.log.level == "debug"


@pytest.mark.parametrize("value", ["a: b", "- a", "x\n  y: z", "'", '"', "# no", "null", "*a", "{a: b}", "!x"])
def test_what_a_variable_holds_is_never_read_as_yaml(value: str, load: Load) -> None:
    settings = load("sinks:\n  ops:\n    type: stdout\n    match: {labels: {a: '${X}'}}\n", X=value)
    assert settings.sinks["ops"].match.labels == {"a": value}


def test_a_key_is_never_filled_in(load: Load) -> None:
    settings = load("sinks: {ops: {type: stdout, match: {labels: {'${X}': v}}}}", X="x")
    assert settings.sinks["ops"].match.labels == {"${X}": "v"}


def test_an_unset_variable_is_reported_with_what_fits_the_key(mistakes: Mistakes) -> None:
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


def test_an_unset_variable_is_the_only_thing_reported_of_its_value(mistakes: Mistakes) -> None:
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


def test_a_filled_in_value_is_not_shown(mistakes: Mistakes) -> None:
    text = "accounts: {a: {api_key: k, timeout: '${T}', rate_limit: '${R}'}}\nlog: {level: '${L}'}"
    assert mistakes(text, T="99999d", R="5", L="inof") == [
        "watcher.yaml:1:37: accounts.a.timeout: the filled-in value is longer than a century; write at most 36500d",
        "watcher.yaml:1:57: accounts.a.rate_limit: the filled-in value is not a rate; write 5/s or 300/m",
        "watcher.yaml:2:14: log.level: the filled-in value is not known; allowed: debug, info, warning, error",
        "3 problems in watcher.yaml",
    ]


def test_a_brace_without_a_name_is_reported_without_the_value(mistakes: Mistakes) -> None:
    assert mistakes("accounts:\n  a:\n    api_key: hunter2${x y}")[0] == (
        "watcher.yaml:3:14: accounts.a.api_key: holds a ${ that begins no variable; "
        "write ${NAME} or ${NAME:-default}; $$ is a dollar"
    )


def test_a_dollar_alone_hides_nothing(mistakes: Mistakes) -> None:
    assert '"in$fo" is not known' in mistakes("log: {level: in$$fo}")[0]


@pytest.mark.parametrize("written", ["$CLERK_API_KEY", "Bearer $TOKEN2", "$KEYS/clerk", "$S3CR3T"])
def test_a_variable_without_braces_is_reported_unseen(written: str, mistakes: Mistakes) -> None:
    assert mistakes(f"accounts:\n  a:\n    api_key: {written}")[0] == (
        "watcher.yaml:3:14: accounts.a.api_key: a $NAME is not filled in without braces; write ${NAME}, or $$NAME"
    )


@pytest.mark.parametrize("written", ["$$CLERK_API_KEY", "pa$WORD", "$lower", "$5"])
def test_a_dollar_in_a_password_is_a_dollar(written: str) -> None:
    assert filled(written).problems == []
