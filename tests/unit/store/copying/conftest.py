"""Databases of both kinds, as many as a test asks for."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from copies import KINDS, Databases
from postgres import PostgresServer


@pytest.fixture
def databases(tmp_path: Path, postgres: PostgresServer) -> Iterator[Databases]:
    with ExitStack() as stack:
        yield Databases(tmp_path, stack, postgres)


@pytest.fixture(params=[(one, other) for one in KINDS for other in KINDS], ids="-to-".join)
def pair(request: pytest.FixtureRequest) -> Sequence[str]:
    """Give each kind of source with each kind of target."""
    return tuple(request.param)
