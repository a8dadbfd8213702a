import uuid

import pytest

from watcher.store.account_store import counts_of
from watcher.store.ids import execution_id, execution_key
from watcher.store.states import counts_text


def test_an_id_comes_back_from_its_bytes() -> None:
    name = str(uuid.uuid4())
    assert execution_id(execution_key(name)) == name


def test_what_is_no_id_has_no_bytes() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        execution_key("not-an-id")


def test_counts_come_back_in_their_order() -> None:
    counts = (("running", 2), ("unrecognized:a,b=c", 1), ("new", 1))
    assert counts_of(counts_text(counts)) == counts


def test_no_counts_come_back_as_none() -> None:
    assert counts_of(counts_text(())) == ()
