from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from e2e.demonstration import Demonstration
from e2e.stage import Stage

UNHURRIED = frozenset({"test_e2e_beginning.py", "test_e2e_refusals.py", "test_e2e_wait.py", "test_e2e_judge.py"})
"""Tests that measure no time."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        yield Stage(tmp_path, stack)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the demonstrations, which take 30 s whatever the machine, be looked at when everything else is done.

    Those that measure time run one after the other, whatever else runs beside them.
    """
    items.sort(key=_looks_at_demonstrations)
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in UNHURRIED:
            item.add_marker(pytest.mark.xdist_group("e2e"))


@pytest.fixture(scope="session", autouse=True)
def demonstrations(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Demonstration]]:
    """Run the demonstration as people see it, and as JSON, beside the other tests, if any test looks at them."""
    if not any(map(_looks_at_demonstrations, request.session.items)):
        yield {}
        return
    folder = tmp_path_factory.mktemp("demonstrations")
    with (
        Demonstration(on_terminal=True, folder=folder) as shown,
        Demonstration("--json", on_terminal=False, folder=folder) as printed,
    ):
        yield {"on a terminal": shown, "as JSON": printed}


def _looks_at_demonstrations(item: pytest.Item) -> bool:
    return item.path.name == "test_e2e_demo.py"
