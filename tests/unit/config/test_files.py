"""Files of the configuration, as real ones: read, refused, and seen to change."""

import os
from pathlib import Path

import pytest

from watcher.config.files import FileError, read_file, stamps_of


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(b"123456")
    return file


def test_a_file_may_be_as_large_as_the_limit_and_no_larger(file: Path) -> None:
    assert read_file(file, limit=6) == b"123456"
    with pytest.raises(FileError, match="larger than 0 KiB"):
        read_file(file, limit=5)


def test_a_file_that_says_it_is_empty_and_is_not_is_bounded_too() -> None:
    with pytest.raises(FileError, match="larger than 0 KiB"):
        read_file(Path("/proc/self/status"), limit=10)


@pytest.mark.parametrize("path", ["gone", "a\0b", "loop"])
def test_what_cannot_be_found_has_no_stamp(path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert stamps_of([tmp_path / path]) == {tmp_path / path: None}


def test_a_file_that_others_may_read_from_now_on_is_another(file: Path) -> None:
    before = stamps_of([file])
    file.chmod(0o400)
    assert stamps_of([file]) != before


def test_a_file_that_is_replaced_by_one_of_the_same_size_and_age_is_another(file: Path) -> None:
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
