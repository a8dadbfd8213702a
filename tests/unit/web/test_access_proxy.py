"""A proxy names who acts: its header counts from its own address alone, and fills `by`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from console_rig import OVERDUE, Desk, a_desk
from multidict import CIMultiDict
from structlog.testing import capture_logs

from watcher.config.models import Settings
from watcher.domain.errors import ConfigError
from watcher.web.access import _user_of

FROM_HERE = {"from": ["127.0.0.0/8"], "user_header": "X-Forwarded-User"}
FROM_ELSEWHERE = {"from": ["10.0.0.0/8"], "user_header": "X-Forwarded-User"}


async def acknowledge(desk: Desk, headers: Mapping[str, str], **body: Any) -> Any:
    status, answer = await desk.ask(f"/problems/{OVERDUE}/ack", "POST", json=body, headers=headers)
    assert status == 200, answer
    return answer["acknowledged"].get("by")


async def test_the_user_of_the_proxy_acknowledges_and_silences_whatever_by_says(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"proxy": FROM_HERE}) as desk:
        user = {"X-Forwarded-User": "ann@example.com"}
        assert await acknowledge(desk, user) == "ann@example.com"
        assert await acknowledge(desk, user, by="mallory") == "ann@example.com"
        silence = {"match": {"accounts": ["default"]}, "for": "2h", "by": "mallory"}
        assert (await desk.ask("/silences", "POST", json=silence, headers=user))[1]["by"] == "ann@example.com"
        assert await acknowledge(desk, {}, by="bob") == "bob"  # without the header as before


async def test_the_page_shows_the_user_as_text(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"proxy": FROM_HERE}) as desk:
        async with desk.session.get("/", headers={"X-Forwarded-User": 'ann"<b>'}) as response:
            page = await response.text()
        assert "ann&#34;&lt;b&gt;" in page
        assert 'ann"<b>' not in page
        async with desk.session.get("/") as response:
            assert "data-user" not in await response.text()


async def test_the_header_from_elsewhere_is_ignored_and_said_once(tmp_path: Path) -> None:
    async with a_desk(tmp_path, http={"proxy": FROM_ELSEWHERE}) as desk:
        with capture_logs() as logs:
            for _ in range(3):
                assert await acknowledge(desk, {"X-Forwarded-User": "mallory"}, by="bob") == "bob"
        assert [each["event"] for each in logs] == ["http.user_ignored"]
        assert "mallory" not in json.dumps(logs)


async def test_without_a_proxy_the_header_means_nothing(tmp_path: Path) -> None:
    async with a_desk(tmp_path) as desk:
        with capture_logs() as logs:
            assert await acknowledge(desk, {"X-Forwarded-User": "mallory"}, by="bob") == "bob"
        assert logs == []


class Asked:
    """A request as `_user_of` reads it."""

    def __init__(self, remote: str | None, *users: str) -> None:
        self.remote = remote
        self.headers = CIMultiDict([("X-Forwarded-User", user) for user in users])


@pytest.mark.parametrize(
    ("remote", "users", "user"),
    [
        ("10.1.2.3", ["ann"], "ann"),
        ("::ffff:10.1.2.3", ["ann"], "ann"),
        ("10.1.2.3", ["forged", "ann"], "ann"),
        ("10.1.2.3", [" \x1b[31mann" + "x" * 99], "\\x1b[31mann" + "x" * 53),
        ("10.1.2.3", [], ""),
        ("11.1.2.3", ["ann"], None),
        ("fe80::1%eth0", ["ann"], None),
        (None, ["ann"], None),
    ],
)
def test_only_the_networks_of_the_proxy_name_a_user(remote: str | None, users: list[str], user: str | None) -> None:
    proxy = Settings.model_validate({"http": {"proxy": FROM_ELSEWHERE}}).http.proxy
    assert _user_of(Asked(remote, *users), proxy) == user  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "proxy",
    [
        {"from": [], "user_header": "X-User"},
        {"from": ["everywhere"], "user_header": "X-User"},
        {"from": ["10.0.0.1/8"], "user_header": "X-User"},
        {"from": ["10.0.0.0/8"], "user_header": "X User"},
        {"from": ["10.0.0.0/8"], "user_header": "Authorization"},  # it would be shown as who acts
        {"from": ["10.0.0.0/8"], "user_header": "cookie"},
        {"from": ["10.0.0.0/8"]},
    ],
)
def test_a_proxy_that_cannot_be_meant_is_an_error(proxy: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ConfigError)):
        Settings.model_validate({"http": {"proxy": proxy}})
