"""The reloader over a folder: what comes, goes or is swapped in it, and one bad file that keeps all of the old."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs
from unit.daemon.test_reload import following

from watcher.config.models import Settings


def customer(name: str, level: str = "") -> str:
    watch = f"{{pipeline: 1c5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f, account: {name}, rules: {{new_error: true}}}}"
    return f"accounts:\n  {name}: {{api_key: key-of-{name}}}\nwatch:\n  - {watch}\n" + (
        level and f"log: {{level: {level}}}\n"
    )


class Accounts:
    """Notes whose accounts were to be applied."""

    def __init__(self) -> None:
        self.applied: list[list[str]] = []

    async def __call__(self, settings: Settings) -> None:
        self.applied.append(list(settings.accounts))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "acme.yaml").write_text(customer("acme"))
    return tmp_path


async def test_a_file_that_comes_changes_or_goes_is_seen(folder: Path) -> None:
    accounts, beta = Accounts(), folder / "beta.yaml"
    async with following(folder, accounts) as (_, metrics):
        beta.write_text(customer("beta"))
        assert await metrics.next() == 1.0
        beta.rename(folder / "aaa.yaml")
        assert await metrics.next() == 1.0
        (folder / "aaa.yaml").write_text(customer("gamma"))
        assert await metrics.next() == 1.0
        (folder / "aaa.yaml").unlink()
        assert await metrics.next() == 1.0
    assert accounts.applied == [["acme", "beta"], ["beta", "acme"], ["gamma", "acme"], ["acme"]]


async def test_other_files_in_the_folder_change_nothing(folder: Path) -> None:
    accounts = Accounts()
    async with following(folder, accounts) as (_, metrics):
        for name in ("watcher.db", ".acme.yaml.swp", "acme.yaml~"):
            (folder / name).write_text("x")
        (folder / "beta.yaml").write_text(customer("beta"))
        assert await metrics.next() == 1.0
    assert accounts.applied == [["acme", "beta"]]


async def test_a_configmap_that_kubernetes_swaps_is_seen_with_its_new_files(tmp_path: Path) -> None:
    for day, names in (("monday", ["acme"]), ("tuesday", ["acme", "beta"])):
        (tmp_path / day).mkdir()
        for name in names:
            (tmp_path / day / f"{name}.yaml").write_text(customer(name))
    (tmp_path / "..data").symlink_to("monday")
    (tmp_path / "acme.yaml").symlink_to("..data/acme.yaml")
    accounts = Accounts()
    async with following(tmp_path, accounts) as (_, metrics):
        (tmp_path / "..data_tmp").symlink_to("tuesday")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        (tmp_path / "beta.yaml").symlink_to("..data/beta.yaml")
        while accounts.applied[-1:] != [["acme", "beta"]]:
            assert await metrics.next() == 1.0


async def test_a_mistake_in_one_file_keeps_all_of_the_old_and_is_named(folder: Path) -> None:
    accounts = Accounts()
    with capture_logs() as logs:
        async with following(folder, accounts) as (follower, metrics):
            (folder / "beta.yaml").write_text(customer("beta", level="loud"))
            assert await metrics.next() == 0.0
            assert list(follower.settings.accounts) == ["acme"]
            assert [each.startswith(f"{folder}/beta.yaml:5:14: log.level: ") for each in follower.problems] == [True]
            (folder / "beta.yaml").write_text(customer("acme"))  # the name of another customer
            assert await metrics.next() == 0.0
            assert any(
                f"beta.yaml:2:3: accounts.acme: given twice, first at {folder}/acme.yaml:2" in each
                for each in follower.problems
            )
            (folder / "beta.yaml").write_text("accounts: {beta: {api_k")  # half of it is written
            assert await metrics.next() == 0.0
            (folder / "beta.yaml").write_text(customer("beta"))
            assert await metrics.next() == 1.0
            assert follower.problems == []
    assert accounts.applied == [["acme", "beta"]]
    assert {entry["event"] for entry in logs if entry["log_level"] == "error"} == {"config.rejected"}
