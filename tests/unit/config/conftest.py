from collections.abc import Callable
from pathlib import Path

import pytest

from watcher.config.loader import load_config
from watcher.config.models import Settings
from watcher.config.problems import ConfigProblemsError

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load a text as `watcher.yaml` in the working directory; keywords are the environment."""
    monkeypatch.chdir(tmp_path)

    def load(text: str | bytes, **environ: str) -> Settings:
        path = Path("watcher.yaml")
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_config(path, environ=environ)

    return load


@pytest.fixture
def mistakes(load: Load) -> Mistakes:
    """Load a text that must be refused; return the lines of the message."""

    def mistakes(text: str | bytes, **environ: str) -> list[str]:
        with pytest.raises(ConfigProblemsError) as caught:
            load(text, **environ)
        return str(caught.value).split("\n")

    return mistakes
