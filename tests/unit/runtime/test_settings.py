from typing import Any

import pytest
from pydantic import Field, SecretStr, ValidationError

from watcher.runtime.settings import (
    ApiKey,
    Block,
    Duration,
    Labels,
    Name,
    as_written,
    did_you_mean,
    file_twins,
    key_of,
    one_or_list,
    split_http_url,
)
from watcher.runtime.units import InvalidValueError


class Example(Block):
    api_key: ApiKey = SecretStr("k")
    api_key_file: str | None = None
    wait_s: Duration = Field(default=as_written("10s"), alias="wait")
    name: Name = "a"
    labels: Labels = Field(default_factory=dict)


def test_a_block_takes_no_unknown_key_and_no_change_and_shows_no_value() -> None:
    with pytest.raises(ValidationError):
        Example.model_validate({"wait_s": None})
    with pytest.raises(ValidationError):
        Example().name = "b"  # type: ignore[misc]  # what the test is about
    with pytest.raises(ValidationError) as caught:
        Example.model_validate({"api_key": "hunter2 hunter2", "name": "hunter2 hunter2", "wait": "hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["default", "a", "A-1_b.c", "x" * 64])
def test_a_name_is_a_short_plain_word(name: str) -> None:
    assert Example(name=name).name == name


NO_NAMES = [{"name": name} for name in ("", "x" * 65, "a b", "é", "a/b", "a\n")]
NO_KEYS = [{"api_key": SecretStr(key)} for key in ("", "a b", "a\n", "é", "\x7f")]


@pytest.mark.parametrize("values", [*NO_NAMES, *NO_KEYS])
def test_other_names_and_keys_that_cannot_stand_in_a_header_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Example(**values)


@pytest.mark.parametrize("url", ["http://h", "https://h:8443/a?b=c#d", "https://u:p@[::1]/", "https://h/%20"])
def test_a_url_has_a_scheme_and_a_host(url: str) -> None:
    assert split_http_url(url, example="https://h").hostname


NO_URLS = (
    *("", "h", "h/a", "ftp://h", "//h", "https:", "https://", "https://:80", "https:///a", "https://h:0"),
    *("https://a\u200bb.com", "https://" + 80 * "\u00fc" + ".com", "https://h:70000", "https://h:x", "https://[::1"),
    *("https://h/a b", "https://h\n", "https://h\\a", " https://h", "https://h/\x7f"),
)


@pytest.mark.parametrize("url", NO_URLS)
def test_other_urls_are_refused_unseen(url: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        split_http_url(url, example="https://example.com")
    assert caught.value.remedy == "write it like https://example.com"
    assert caught.value.quote is False


def test_a_block_reads_defaults_aliases_twins_empty_keys_and_many_labels() -> None:
    assert Example().wait_s == 10
    assert [key_of(Example, name=name) for name in ("wait_s", "name")] == ["wait", "name"]
    assert file_twins(Example) == ("api_key",)
    assert Example.model_validate({"wait": None, "name": None}) == Example()
    labels = {f"{number:03}{'k' * 253}": "v" * 256 for number in range(32)}
    assert Example(labels=labels).labels == labels
    assert one_or_list("a") == ("a",)
    assert one_or_list(["a", "b"]) == ["a", "b"]


SINKS = ("webhook", "stdout", "url", "log", "new")


@pytest.mark.parametrize(
    ("word", "near"),
    [
        *(
            ("webhok", "webhook"),
            ("Webhook", "webhook"),
            ("wbhoook", "webhook"),
            ("stduot", "stdout"),
            ("std", "stdout"),
        ),
        *(
            ("crn", "CRM"),
            ("CRN", "CRM"),
            ("Crm ", "CRM"),
            ("", None),
            ("ab", None),
            ("elephant", None),
            ("slack", None),
        ),
    ],
)
def test_a_word_with_a_slip_or_two_is_meant_whatever_its_case(word: str, near: str | None) -> None:
    meant = f'did you mean "{near}"? Allowed: x' if near else "allowed: x"
    assert did_you_mean(word, [*SINKS, "CRM"], rest="allowed: x") == meant
    assert did_you_mean("Crm", ["CRM"]) == 'did you mean "CRM"?'


@pytest.mark.parametrize("meant", [*SINKS, "max_interval", "execution.failed"])
def test_a_single_slip_anywhere_is_still_understood(meant: str) -> None:
    for index in range(len(meant)):
        head, sign, tail = meant[:index], meant[index], meant[index + 1 :]
        for slip in (head + tail, f"{head}x{tail}", f"{head}{sign}x{tail}", f"{head}{tail[:1]}{sign}{tail[1:]}"):
            assert f'"{meant}"' in did_you_mean(slip, [meant], rest="allowed: x")
