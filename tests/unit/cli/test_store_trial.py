"""Trying a PostgreSQL store from outside: whether it can be used, and that nothing is written."""

import pytest
from postgres import EMPTY, PostgresServer, shape

from watcher.cli.connectivity import Trial, try_store
from watcher.config.models import StoreSettings
from watcher.domain.errors import Exit
from watcher.runtime.clock import Clock


async def tried(url: str, **settings: str) -> Trial:
    (trial,) = await try_store(StoreSettings.model_validate({"url": url, **settings}), clock=Clock())
    assert (trial.target, trial.place) == ("store.url", url.partition("?")[0])
    return trial


async def test_a_store_that_can_be_used_is_left_as_it_is(postgres: PostgresServer) -> None:
    with postgres.database() as full, postgres.database(EMPTY) as empty:
        assert [(await tried(url)).words for url in (full, empty)] == ["can be used", "can be used; it is empty"]
        assert shape(postgres, empty) == [[], [], [], []]


@pytest.mark.parametrize(
    ("url", "words", "hint"),
    [
        ("postgresql://127.0.0.1:1/x", "cannot be connected to: ", "see its URL, store.password_file and the server"),
        ("nowhere", 'database "nowhere" does not exist', "see its URL, store.password_file and the server"),
        ("theirs", "is a database, but not one of clerk-watcher", "name another"),
    ],
)
async def test_one_that_cannot_be_used_says_why_and_what_to_do(
    postgres: PostgresServer, url: str, words: str, hint: str
) -> None:
    with postgres.database(EMPTY) as theirs:
        postgres.run("CREATE TABLE theirs (id int)", theirs)
        urls = {"nowhere": postgres.url("nowhere"), "theirs": theirs}
        trial = await tried(urls.get(url, url), password="hunter2")
    assert (trial.code, trial.hint) == (Exit.UNREACHABLE, hint)
    assert words in trial.words
    assert "hunter2" not in trial.words


async def test_one_with_no_room_for_tables_is_not_taken_for_an_empty_one(postgres: PostgresServer) -> None:
    with postgres.database(EMPTY) as empty:
        lacking = await tried(f"{empty}&options=-csearch_path%3Dnowhere")
        postgres.run("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN", empty)
        refused = await tried(empty.replace("//postgres@", "//guest@"))
        postgres.run("DROP ROLE guest", empty)
    assert (lacking.code, lacking.words) == (Exit.UNREACHABLE, "has no schema of its search_path")
    assert lacking.hint == "create the schema, or correct its URL"
    assert (refused.code, refused.words) == (Exit.UNREACHABLE, "refuses this user")
    assert refused.hint == "grant it all rights in its schema"


async def test_a_file_is_not_tried() -> None:
    assert await try_store(StoreSettings(), clock=Clock()) == []
