"""What `watcher wait` asks with, and what it refuses before it asks."""

from pathlib import Path

import pytest
from unit.conftest import Command

from watcher.cli.commands.wait import find_account
from watcher.config.document import ConfigProblemsError
from watcher.config.models import Settings
from watcher.domain.errors import Exit, UsageError

IN_FILE = "in watcher.yaml"
TWO = "accounts:\n  default: {api_key: one}\n  eu: {api_key: two, base_url: 'https://eu.example.com'}\n"


def found(text: str | None, *, name: str | None = None, **environ: str) -> tuple[Settings, str]:
    if text is not None:
        Path("watcher.yaml").write_text(text)
    return find_account(None, name, environ=environ)


@pytest.mark.parametrize(
    ("text", "name", "keys", "place"),
    [
        (None, None, {"default": "env"}, "the environment variable CLERK_API_KEY"),
        ("polling: {lost_after: 7}\n", None, {"default": "env"}, "the environment variable CLERK_API_KEY"),
        ("accounts: {main: {api_key: one}}\n", None, {"main": "one"}, f"accounts.main.api_key {IN_FILE}"),
        ("accounts: {main: {api_key_file: key}}\n", None, {"main": "abc"}, f"accounts.main.api_key_file {IN_FILE}"),
        (TWO, "eu", {"eu": "two"}, "accounts.eu.api_key in watcher.yaml"),
    ],
)
def test_the_key_is_of_the_named_or_only_account_or_the_environment(
    text: str | None, name: str | None, keys: dict[str, str], place: str
) -> None:
    Path("key").write_text("abc\n")
    settings, key_place = found(text, name=name, CLERK_API_KEY="env")
    given = {name: account.api_key.get_secret_value() for name, account in settings.accounts.items()}
    assert (given, key_place) == (keys, place)
    assert settings.polling.lost_after == (7 if text and "lost_after" in text else 3)
    if text is None:
        assert settings.accounts["default"].base_url == "https://web-api.clerk.chat"


@pytest.mark.parametrize(
    ("text", "name", "environ", "emitted"),
    [
        (None, None, {}, "no API key; export CLERK_API_KEY, or name a file with --config"),
        (None, None, {"CLERK_API_KEY": ""}, "no API key"),
        (None, None, {"CLERK_API_KEY": "a b"}, "CLERK_API_KEY holds characters no key has"),
        (None, "eu", {"CLERK_API_KEY": "abc"}, '--account: no file defines "eu"; name the file with --config'),
        *((TWO, name, {}, "--account: name one of those in watcher.yaml: default, eu") for name in (None, "us")),
    ],
)
def test_a_choice_that_is_none_is_refused(
    text: str | None, name: str | None, environ: dict[str, str], emitted: str
) -> None:
    with pytest.raises(UsageError) as caught:
        found(text, name=name, **environ)
    assert str(caught.value).startswith(emitted)
    assert caught.value.exit_code is Exit.USAGE


def test_a_file_that_is_named_and_not_there_is_a_mistake_whatever_the_environment_has() -> None:
    with pytest.raises(ConfigProblemsError):
        find_account(Path("nowhere.yaml"), None, environ={"CLERK_API_KEY": "abc"})


IDS = ("0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f", "9a1b0000-0000-4000-8000-000000000001")


NEITHER_NOR_BOTH = "name either an EXECUTION, or --next for the one that starts next"
ONLY_NEXT = "--conversation and --since are only for --next"
NO_ID = '"sales" is not a UUID; copy the id from the {}\'s address in Clerk Chat'
NO_DURATION = '"soon" is not a duration; write 500ms, 10s, 15m, 48h or 3d'


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), NEITHER_NOR_BOTH),
        ((IDS[1], "--next"), NEITHER_NOR_BOTH),
        ((IDS[1], "--conversation", IDS[1]), ONLY_NEXT),
        ((IDS[1], "--since", "1m"), ONLY_NEXT),
        (("--next", "--conversation", "sales"), f"--conversation: {NO_ID.format('conversation')}"),
        (("sales",), f"EXECUTION: {NO_ID.format('execution')}"),
        (("--next", "--since", "soon"), f"--since: {NO_DURATION}"),
        ((IDS[1], "--timeout", "soon"), f"--timeout: {NO_DURATION}"),
        ((IDS[1], "--interval", "999ms"), '--interval: "999ms" is too short; write 1s or more'),
    ],
)
def test_what_cannot_be_meant_is_a_mistake_of_usage(words: tuple[str, ...], said: str, command: Command) -> None:
    assert command("wait", IDS[0], *words, CLERK_API_KEY="k") == (2, "", f"error: {said}\n")


@pytest.mark.parametrize(("words", "since"), [((), "30s"), (("--since", "2m"), "2m")])
def test_a_timeout_without_a_start_says_what_did_not_count(
    words: tuple[str, ...], since: str, command: Command
) -> None:
    Path("watcher.yaml").write_text("accounts: {default: {api_key: k, base_url: 'http://127.0.0.1:1'}}")
    code, out, err = command("wait", IDS[0], "--next", "--timeout", "300ms", *words)
    assert (code, out) == (3, "")
    assert err == (
        "error: no execution has started after 0.3 s (--timeout); the last poll failed: no connection\n"
        f"hint: starts more than {since} before the command do not count (--since)\n"
    )


def test_a_timeout_ends_it_though_nobody_answers(command: Command) -> None:
    Path("watcher.yaml").write_text("accounts: {default: {api_key: k, base_url: 'http://127.0.0.1:1'}}")
    code, out, err = command("wait", *IDS, "--timeout", "300ms")
    assert (code, out, err) == (3, "", "error: not seen after 0.3 s (--timeout); the last poll failed: no connection\n")
