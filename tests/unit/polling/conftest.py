import pytest
from list_model import Lists
from virtual import FakeClock

from watcher.store.sql_store import SqlStore


@pytest.fixture
def lists(store: SqlStore, clock: FakeClock) -> Lists:
    return Lists(store, clock)
