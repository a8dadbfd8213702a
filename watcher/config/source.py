"""A configuration file that is read again whenever it, or a file it names, may have changed."""

from collections.abc import Mapping
from pathlib import Path

from watcher.config.document import Document
from watcher.config.files import stamp_of
from watcher.config.load import load_config
from watcher.config.models import Settings


class ConfigSource:
    """Reads the configuration at `path` and remembers which files that took, and what they looked like."""

    def __init__(self, path: Path, *, environ: Mapping[str, str]) -> None:
        """Read nothing yet."""
        self._path = path
        self._environ = environ
        self._document = Document(file=str(path))

    def load(self) -> Settings:
        """Read the file and the files it names. Raises `ConfigProblemsError` with everything that is wrong."""
        self._document = Document(file=str(self._path))
        return load_config(self._path, environ=self._environ, document=self._document)

    def changed(self) -> bool:
        """Tell whether any file that was tried last time is another by now, has come or has gone."""
        return any(stamp_of(path) != stamp for path, stamp in self._document.files.items())

    def directories(self) -> set[Path]:
        """Return where such a change would show: a file, or a link to it, is replaced in its directory."""
        files = [place for path in self._document.files for place in (path.absolute(), path.resolve())]
        return {file.parent for file in files if file.parent.is_dir()}
