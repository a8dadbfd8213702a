from pathlib import Path

import pytest
from unit.config.conftest import Load, Mistakes

from watcher.config.document import ConfigProblemsError
from watcher.config.loader import load_config
from watcher.daemon.from_settings import watches_of
from watcher.sinks.stdout import StdoutSettings

PIPELINE = "0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"
RUN = "9a1b0000-0000-4000-8000-000000000001"
WATCH = f"watch:\n  - pipeline: {PIPELINE}\n    executions: [{RUN}]\n"
ACCOUNT = "accounts:\n  default:\n    api_key: k\n"


def test_an_empty_file_is_all_defaults(load: Load) -> None:
    settings = load("")
    assert settings.watch == ()
    assert settings.polling.max_interval_s == 60
    assert settings.store.retention_s == 30 * 86400
    assert settings.sinks == {"stdout": StdoutSettings(type="stdout")}


@pytest.mark.parametrize(
    "text", ["# nothing yet\n", "---\n", "accounts:\nwatch:\nsinks:\npolling:\nstore:\n", "{}", "~"]
)
def test_keys_with_nothing_behind_them_are_defaults(text: str, load: Load) -> None:
    assert load(text) == load("")
    assert load(f"{ACCOUNT}    rate_limit:\n    link:\n").accounts["default"].rate_limit == 5


def test_values_mean_what_they_say(load: Load) -> None:
    settings = load(
        f"{ACCOUNT}    base_url: https://gateway.example/clerk/\n    rate_limit: 300/m\n    timeout: 500ms\n"
        f"{WATCH}    name: 5\n    labels: {{team: yes, since: 2026-01-01, null: ~no, n: 007}}\n"
        "    overdue_after: {running: 15m}\n"
        "http: {listen: ' [::1]:8080 '}\npolling: {lost_grace: 0s, lost_after: 5}\n"
    )
    account, watch = settings.accounts["default"], settings.watch[0]
    assert (account.base_url, account.rate_limit, account.timeout_s) == ("https://gateway.example/clerk", 5, 0.5)
    assert watch.name == "5"
    assert watch.labels == {"team": "yes", "since": "2026-01-01", "null": "~no", "n": "007"}
    assert watch.overdue_after_s == {"running": 900}
    assert settings.http.listen == "[::1]:8080"
    assert (settings.polling.lost_grace_s, settings.polling.lost_after) == (0, 5)


def test_with_one_account_watches_need_not_name_it_and_with_several_they_do(load: Load) -> None:
    assert load(ACCOUNT + WATCH).watch[0].account == "default"
    assert load(f"{ACCOUNT}  eu: {{api_key: e}}\n{WATCH}    account: eu").watch[0].account == "eu"


@pytest.mark.parametrize(
    ("taken", "added"), [([], "stdout"), (["stdout"], "stdout-2"), (["stdout", "stdout-2"], "stdout-3")]
)
def test_there_is_always_a_stdout_sink(taken: list[str], added: str, load: Load) -> None:
    sinks = "".join(f"  {name}: {{type: webhook, url: https://h.example}}\n" for name in taken)
    settings = load(f"sinks:\n{sinks}")
    assert list(settings.sinks) == [*taken, added]
    assert isinstance(settings.sinks[added], StdoutSettings)


def test_the_environment_changes_three_defaults(load: Load) -> None:
    environ = {"WATCHER_STORE_URL": "sqlite:////d/w.db", "WATCHER_HTTP_LISTEN": ":9090", "WATCHER_LOG_LEVEL": "debug"}
    settings = load("log: {format: json}", **environ)
    assert (settings.store.url, settings.http.listen) == ("sqlite:////d/w.db", ":9090")
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert load("log: {level: error}", **environ).log.level == "error"


def test_a_bad_variable_is_named(mistakes: Mistakes) -> None:
    lines = mistakes("", WATCHER_HTTP_LISTEN="8080", WATCHER_STORE_URL="postgresql://u:hunter2@h/db")
    assert lines == [
        '$WATCHER_HTTP_LISTEN: http.listen: "8080" is not host:port; write 127.0.0.1:8080, [::1]:8080 or :8080',
        ("$WATCHER_STORE_URL: store.url: holds a password; write it into a file, and name that in store.password_file"),
        "2 problems in watcher.yaml",
    ]


def test_a_variable_does_not_hide_that_its_block_is_wrong(mistakes: Mistakes) -> None:
    lines = mistakes("log: [level]", WATCHER_LOG_LEVEL="debug")
    assert lines[0].startswith("watcher.yaml:1:6: log: is a list, not a block of keys")


@pytest.mark.ci
def test_a_hundred_thousand_executions_are_loaded(load: Load) -> None:
    ids = "".join(f"      - 9a1b0000-0000-4000-8000-{number:012x}\n" for number in range(100_000))
    watch = load(f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n    executions:\n{ids}").watch[0]
    assert len(watch.executions) == 100_000
    assert str(watch.executions[-1]) == "9a1b0000-0000-4000-8000-00000001869f"


def test_of_a_part_of_the_file_the_rest_need_not_be_right(tmp_path: Path) -> None:
    path, part = tmp_path / "watcher.yaml", ("accounts", "polling")
    path.write_text(ACCOUNT + "sinks:\n  ops: {type: webhook, url: '${OPS_URL}'}\nwatch: soon\nwatsch: 1\n")
    settings = load_config(path, environ={"WATCHER_STORE_URL": "postgresql://db"}, only=part)
    assert (list(settings.accounts), settings.watch) == (["default"], ())
    path.write_text(ACCOUNT + "polling: {lost_aftr: 1}\n")
    with pytest.raises(ConfigProblemsError, match="lost_aftr"):
        load_config(path, environ={}, only=part)


def test_a_watch_that_names_no_executions_is_of_the_whole_pipeline(load: Load) -> None:
    settings = load(f"{ACCOUNT}watch:\n  - pipeline: {PIPELINE}\n  - pipeline: {RUN}\n    executions: [{RUN}]\n")
    assert [watch.whole for watch in watches_of(settings, "default")] == [True, False]
