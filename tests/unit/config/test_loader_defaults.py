"""`defaults`: what every watch has unless it says otherwise."""

from unit.config.conftest import Load, Mistakes, Warned

from watcher.config.models import WatchSettings
from watcher.daemon.from_settings import watches_of
from watcher.domain.event import EventType
from watcher.domain.problems import PROBLEM_KINDS

ACCOUNT = "accounts: {default: {api_key: k}}\n"
DEFAULTS = (
    "defaults:\n"
    "  overdue_after: {new: 2m, running: 15m}\n"
    "  rules:\n    failing: {consecutive: 3, recover_after: 4}\n    silent: 6h\n    new_error: true\n"
    "  labels: {team: ops, tier: gold}\n"
    "  runbook: https://wiki.example.com/agents\n"
)
PIPELINE = "3f6c1a52-94d0-4b7e-8a11-5c0d9e7f2b31"


def watch(load: Load, own: str = "", *, defaults: str = DEFAULTS) -> WatchSettings:
    return load(f"{ACCOUNT}{defaults}watch:\n  - pipeline: {PIPELINE}\n{own}").watch[0]


def test_a_watch_without_keys_of_its_own_has_all_of_them(load: Load) -> None:
    found = watch(load)
    assert found.overdue_after_s == {"new": 120, "running": 900}
    assert found.labels == {"team": "ops", "tier": "gold"}
    assert found.runbook == "https://wiki.example.com/agents"
    assert found.rules is not None
    assert (found.rules.silent_s, found.rules.new_error, found.rules.tokens) == (6 * 3600, True, None)
    settings = load(f"{ACCOUNT}{DEFAULTS}watch: [{{pipeline: {PIPELINE}}}]")
    assert {rule.opens for rule in watches_of(settings)[0].rules} & PROBLEM_KINDS == {
        EventType.PIPELINE_FAILING,
        EventType.PIPELINE_SILENT,
    }


def test_its_own_keys_win_rule_by_rule_and_label_by_label(load: Load) -> None:
    found = watch(
        load,
        "    overdue_after: {paused: 1h}\n    labels: {tier: silver, customer: acme}\n"
        "    runbook: https://wiki.example.com/acme\n"
        "    rules: {failing: {rate: 20%}, tokens: {execution: 5}}\n",
    )
    assert found.overdue_after_s == {"paused": 3600}
    assert found.labels == {"team": "ops", "tier": "silver", "customer": "acme"}
    assert found.runbook == "https://wiki.example.com/acme"
    assert found.rules is not None
    assert found.rules.failing is not None
    assert (found.rules.failing.rate, found.rules.failing.consecutive) == (0.2, None)
    assert found.rules.tokens is not None
    assert (found.rules.silent_s, found.rules.new_error) == (6 * 3600, True)


def test_a_rule_without_a_value_turns_a_default_off_and_an_empty_block_counts_as_absent(
    load: Load, warned: Warned
) -> None:
    found = watch(load, "    rules: {silent: null, new_error: false}\n    overdue_after: {}\n")
    assert found.overdue_after_s == {}
    assert found.rules is not None
    assert (found.rules.silent_s, found.rules.new_error) == (None, False)
    assert found.rules.failing is not None
    assert watch(load, "    rules:\n    labels:\n") == watch(load)
    text = f"{ACCOUNT}{DEFAULTS}watch:\n  - pipeline: {PIPELINE}\n    rules: {{silent: null, slow: null}}\n"
    assert warned(text) == [
        "11:5: watch: of this watch no sink but stdout is sent pipeline.failing; add one under sinks",
        (
            "12:33: watch[0].rules.slow: has no value, so this rule is off; "
            "write slow: {times: 3, at_least: 1m}, or remove the key"
        ),
    ]


def test_silent_does_not_count_for_a_watch_of_named_executions(load: Load) -> None:
    found = watch(load, "    executions: [9a1b0000-0000-4000-8000-000000000001]\n")
    assert found.rules is not None
    assert (found.rules.silent_s, found.rules.new_error) == (None, True)


def test_a_watch_stays_without_rules_if_no_default_counts(load: Load) -> None:
    assert watch(load, defaults="defaults: {labels: {team: ops}}\n").rules is None
    assert watch(load, defaults="").rules is None


def test_mistakes_are_said_once_and_where_they_are(mistakes: Mistakes, warned: Warned) -> None:
    two = f"watch: [{{pipeline: {PIPELINE}}}, {{pipeline: 77aa0000-1234-4000-8000-000000000000}}]\n"
    bad = "defaults: {rules: {failing: {consecutive: 0}}, name: x}\n"
    assert [line.partition("; ")[0] for line in mistakes(ACCOUNT + bad + two)] == [
        'watcher.yaml:2:43: defaults.rules.failing.consecutive: "0" cannot be used',
        'watcher.yaml:2:48: defaults.name: unknown key "name"',
        "2 problems in watcher.yaml",
    ]
    once = "defaults: {rules: {failing: {consecutive: 1}, tokens: {execution: 9, per_day: 3}}}\n"
    assert [line.partition("; ")[0] for line in warned(ACCOUNT + once + two)] == [
        "2:43: defaults.rules.failing.consecutive: opens a problem at each failure",
        "2:67: defaults.rules.tokens.execution: is more than per_day 3: one such execution uses more than a day may",
        "3:9: watch: of this watch no sink but stdout is sent pipeline.failing",
    ]


def test_a_watch_has_at_most_so_many_labels_with_those_of_the_defaults(mistakes: Mistakes) -> None:
    labels = ", ".join(f"l{number}: x" for number in range(31))
    lines = mistakes(
        f"{ACCOUNT}defaults: {{labels: {{{labels}}}}}\n"
        f"watch:\n  - pipeline: {PIPELINE}\n    labels: {{l0: y, a: b}}\n"
        "  - {pipeline: 77aa0000-1234-4000-8000-000000000000, labels: {a: b, c: d}}\n"
    )
    assert lines == [
        "watcher.yaml:6:62: watch[1].labels: has 33 labels with those of defaults; keep at most 32",
        "1 problem in watcher.yaml",
    ]
