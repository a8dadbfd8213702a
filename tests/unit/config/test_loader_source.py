"""A configuration that is read again, from real files."""

from pathlib import Path
from weakref import ref

import pytest

from watcher.config.document import ConfigProblemsError, Document
from watcher.config.files import stamps_of
from watcher.config.loader import ConfigSource
from watcher.domain.errors import ConfigError

TEXT = """
accounts: {default: {api_key_file: secrets/key}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [9a1b0000-0000-4000-8000-000000000001]}]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("one\n")
    file = tmp_path / "watcher.yaml"
    file.write_text(TEXT)
    return file


@pytest.fixture
def source(file: Path) -> ConfigSource:
    source = ConfigSource(file, environ={})
    source.load()
    return source


def test_nothing_is_kept_of_what_was_read_but_which_files_that_took(
    source: ConfigSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[ref[Document]] = []

    def noted(*, file: str) -> Document:
        document = Document(file=file)
        read.append(ref(document))
        return document

    monkeypatch.setattr("watcher.config.loader.Document", noted)
    source.load()
    assert [each() for each in read] == [None]


def test_a_change_of_the_file_is_seen_until_it_is_read(source: ConfigSource, file: Path) -> None:
    file.write_text(TEXT + "log: {level: debug}\n")
    assert stamps_of(source.files) != source.files
    assert source.load().log.level == "debug"
    assert stamps_of(source.files) == source.files


def test_a_secret_in_a_file_of_its_own_is_followed(source: ConfigSource, file: Path) -> None:
    (file.parent / "secrets" / "key").write_text("two\n")
    assert stamps_of(source.files) != source.files
    assert source.load().accounts["default"].api_key.get_secret_value() == "two"


def test_a_file_that_is_missing_is_waited_for(source: ConfigSource, file: Path) -> None:
    (file.parent / "secrets" / "key").unlink()
    with pytest.raises(ConfigProblemsError, match="no such file"):
        source.load()
    assert stamps_of(source.files) == source.files
    (file.parent / "secrets" / "key").write_text("back\n")
    assert stamps_of(source.files) != source.files


def test_a_bad_file_is_read_once(source: ConfigSource, file: Path) -> None:
    file.write_text("accounts: [\n")
    with pytest.raises(ConfigProblemsError):
        source.load()
    assert stamps_of(source.files) == source.files


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "more",
    [
        "",
        "sinks: {ops: {type: webhook, url: https://ops.example/in}}\naccounts: {default: {api_key: k, base_url: http://api.example}}",
    ],
)
def test_a_proxy_that_cannot_be_used_is_wrong_whoever_would_need_it(
    source: ConfigSource, file: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    file.write_text(TEXT.replace("accounts: {default: {api_key_file: secrets/key}}", more) if more else TEXT)
    with pytest.raises(ConfigError, match="HTTPS_PROXY: only http and https proxies are known"):
        source.load()
    monkeypatch.setenv("no_proxy", "web-api.clerk.chat,ops.example")
    source.load()
