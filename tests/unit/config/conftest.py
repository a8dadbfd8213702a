from collections.abc import Callable
from pathlib import Path

import pytest

from watcher.config.checks import find_warnings
from watcher.config.document import ConfigProblemsError, Document
from watcher.config.loader import load_config
from watcher.config.models import Settings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]
Warned = Callable[..., list[str]]


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


@pytest.fixture
def warned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warned:
    """Load a text as `watcher.yaml` in the working directory and return its warnings; keywords are the environment."""
    monkeypatch.chdir(tmp_path)

    def warned(text: str, **environ: str) -> list[str]:
        path = Path("watcher.yaml")
        path.write_text(text)
        document = Document(file=str(path))
        settings = load_config(path, environ=environ, document=document)
        return [str(each).removeprefix("watcher.yaml:") for each in find_warnings(document, settings)]

    return warned
