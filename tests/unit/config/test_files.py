"""Files of the configuration, as real ones: read, refused, seen to change, and read again."""

import os
from pathlib import Path
from weakref import ref

import pytest

from watcher.config.document import ConfigProblemsError, Document
from watcher.config.files import FileError, find_config, read_file, stamps_of
from watcher.config.loader import ConfigSource
from watcher.domain.errors import ConfigError, Exit


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"123456")
    return file


def test_a_file_may_be_as_large_as_the_limit_whatever_size_it_says(file: Path) -> None:
    assert read_file(file, limit=6) == b"123456"
    with pytest.raises(FileError, match="larger than 0 KiB"):
        read_file(file, limit=5)
    with pytest.raises(FileError, match="larger than 0 KiB"):
        read_file(Path("/proc/self/status"), limit=10)


@pytest.mark.parametrize("path", ["gone", "a\0b", "loop"])
def test_what_cannot_be_found_has_no_stamp(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert stamps_of([tmp_path / path]) == {tmp_path / path: None}


def test_a_file_with_other_rights_or_replaced_by_one_alike_is_another(file: Path) -> None:
    before = stamps_of([file])
    file.chmod(0o400)
    assert stamps_of([file]) != before
    before, found = stamps_of([file]), file.stat()
    other = file.with_name("next")
    other.write_bytes(b"654321")
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.rename(file)
    assert stamps_of([file]) != before


def test_a_link_that_leads_elsewhere_is_another_file_as_kubernetes_does_it(tmp_path: Path) -> None:
    for day in ("monday", "tuesday"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "watcher.yaml").write_text("x")
    (tmp_path / "..data").symlink_to("monday")
    (tmp_path / "watcher.yaml").symlink_to("..data/watcher.yaml")
    before = stamps_of([tmp_path / "watcher.yaml"])
    (tmp_path / "..data_tmp").symlink_to("tuesday")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert stamps_of([tmp_path / "watcher.yaml"]) != before


TEXT = """
accounts: {default: {api_key_file: secrets/key}}
watch: [{pipeline: 0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, executions: [9a1b0000-0000-4000-8000-000000000001]}]
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("one\n")
    config_file = tmp_path / "watcher.yaml"
    config_file.write_text(TEXT)
    return config_file


@pytest.fixture
def source(config_file: Path) -> ConfigSource:
    source = ConfigSource(config_file, environ={})
    source.load()
    return source


def test_of_what_was_read_only_its_files_are_kept(source: ConfigSource, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[ref[Document]] = []

    def noted(*, file: str) -> Document:
        document = Document(file=file)
        read.append(ref(document))
        return document

    monkeypatch.setattr("watcher.config.loader.Document", noted)
    source.load()
    assert [each() for each in read] == [None]


def test_a_change_of_file_or_secret_is_seen_until_it_is_read(source: ConfigSource, config_file: Path) -> None:
    config_file.write_text(TEXT + "log: {level: debug}\n")
    assert stamps_of(source.files) != source.files
    assert source.load().log.level == "debug"
    assert stamps_of(source.files) == source.files
    (config_file.parent / "secrets" / "key").write_text("two\n")
    assert stamps_of(source.files) != source.files
    assert source.load().accounts["default"].api_key.get_secret_value() == "two"


def test_a_bad_file_is_read_once_and_a_missing_one_waited_for(source: ConfigSource, config_file: Path) -> None:
    (config_file.parent / "secrets" / "key").unlink()
    with pytest.raises(ConfigProblemsError, match="no such file"):
        source.load()
    assert stamps_of(source.files) == source.files
    (config_file.parent / "secrets" / "key").write_text("back\n")
    assert stamps_of(source.files) != source.files
    config_file.write_text("accounts: [\n")
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
    source: ConfigSource, config_file: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://proxy.example")
    config_file.write_text(TEXT.replace("accounts: {default: {api_key_file: secrets/key}}", more) if more else TEXT)
    with pytest.raises(ConfigError, match="HTTPS_PROXY: only http and https proxies are known"):
        source.load()
    monkeypatch.setenv("no_proxy", "web-api.clerk.chat,ops.example")
    source.load()


def test_the_file_is_of_the_command_line_variable_or_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_config(Path("a.yaml"), environ={"WATCHER_CONFIG": "b.yaml"}) == Path("a.yaml")
    monkeypatch.chdir(tmp_path)
    Path("watcher.yaml").touch()
    assert find_config(None, environ={"WATCHER_CONFIG": "b.yaml"}) == Path("b.yaml")
    assert find_config(None, environ={"WATCHER_CONFIG": ""}) == Path("watcher.yaml")
    monkeypatch.chdir(tmp_path)
    Path("watcher.yaml").unlink()
    Path("watcher.yaml").symlink_to("..data/watcher.yaml")
    assert find_config(None, environ={}) == Path("watcher.yaml")


def test_without_a_file_every_place_that_was_tried_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        find_config(None, environ={})
    assert str(caught.value) == (
        "no configuration: --config is not given, $WATCHER_CONFIG is not set, there is no ./watcher.yaml "
        "and no /etc/watcher/watcher.yaml; write watcher.yaml, or name a file with --config"
    )
    assert caught.value.exit_code is Exit.USAGE
