from collections.abc import Callable
from pathlib import Path

import pytest
from documents import PAGES


@pytest.mark.ci
@pytest.mark.parametrize(("path", "page"), PAGES.items(), ids=lambda value: getattr(value, "name", ""))
def test_a_page_that_is_made_from_the_code_is_not_older_than_it(path: Path, page: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == page(), "run `make docs`"
