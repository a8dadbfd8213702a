"""Certificates and keys of sinks stand in files, which are watched like the configuration."""

from pathlib import Path as FilePath

from watcher.config.document import Document
from watcher.config.secret_files import read_file
from watcher.sinks.registry import SINK_KINDS
from watcher.sinks.settings import HttpSinkSettings, PemFile, TlsSettings

PEM_BYTES = 1024 * 1024
"""All CAs that a system trusts take 220 KiB."""


def read_tls_files(document: Document, *, directory: FilePath) -> None:
    """Put in where the files are. Relative paths start at `directory`, that of the configuration file."""
    for name in document.table(("sinks",)):
        kind = SINK_KINDS.get(document.text(("sinks", name, "type")) or "")
        if kind is None or not issubclass(kind, HttpSinkSettings):
            continue
        block = document.table(("sinks", name, "tls"))
        for key in TlsSettings.model_fields:
            path = ("sinks", name, "tls", key)
            given = document.text(path)
            content = None if given is None else read_file(document, path, directory=directory, limit=PEM_BYTES)
            if given is not None and content is not None:
                block[key] = PemFile.of(given, directory / given, content)
