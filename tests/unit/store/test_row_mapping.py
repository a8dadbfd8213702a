import uuid

import pytest

from watcher.store.states import execution_id, execution_key


def test_an_id_comes_back_from_its_bytes() -> None:
    name = str(uuid.uuid4())
    assert execution_id(execution_key(name)) == name


def test_what_is_no_id_has_no_bytes() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        execution_key("not-an-id")
