"""An address the daemon cannot have: whether a person must correct something, or another try may help."""

import asyncio
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from watcher.config.models import Settings
from watcher.daemon.app import run
from watcher.domain.errors import Exit, ListenError
from watcher.runtime.clock import Clock
from watcher.store.open import open_store

NOBODY = 65534


async def refusal(listen: str, *, folder: Path) -> ListenError:
    settings = Settings.model_validate({"http": {"listen": listen}, "store": {"url": f"sqlite:///{folder}/w.db"}})
    with pytest.raises(ListenError) as caught:
        await run(settings, stop=asyncio.Event())
    return caught.value


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


async def become_nobody(folder: Path) -> None:
    """Become a user whom permissions bind, with a store of their own: root may listen wherever it likes."""
    store = await open_store(f"sqlite:///{folder}/w.db", clock=Clock())
    await store.close()  # so that all of it is imported: the other user may not read where it lies
    for name in ("w.db", "w.db.lock"):
        os.chown(folder / name, NOBODY, NOBODY)
    os.seteuid(NOBODY)


async def test_a_port_this_user_may_not_have_is_for_a_person_to_correct(shared_folder: Path) -> None:
    user = os.geteuid()
    if user == 0:
        await become_nobody(shared_folder)
    try:
        error = await refusal("127.0.0.1:1", folder=shared_folder)
    finally:
        os.seteuid(user)
    assert error.exit_code is Exit.USAGE


async def test_a_port_that_is_taken_may_be_free_the_next_time(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        error = await refusal(listen, folder=tmp_path)
    assert error.exit_code is Exit.FAILED
    assert str(error).startswith(f"http.listen: cannot listen on {listen} (Address already in use); ")


@pytest.mark.parametrize(
    ("listen", "reason", "code"),
    [
        ("no-such-host.invalid:8080", "", Exit.FAILED),
        (f"{'x' * 70}:8080", "", Exit.USAGE),
        ("192.0.2.1:8080", "Cannot assign requested address", Exit.FAILED),
    ],
)
async def test_an_address_one_cannot_have_is_said_and_what_may_become_one_may_be_tried_again(
    listen: str, reason: str, code: Exit, tmp_path: Path
) -> None:
    error = await refusal(listen, folder=tmp_path)
    assert error.exit_code is code
    assert str(error).startswith(f"http.listen: cannot listen on {listen} ({reason}")
