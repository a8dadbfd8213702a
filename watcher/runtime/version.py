"""The version of the program, read from its metadata once."""

from importlib.metadata import version

VERSION = version("clerk-watcher")
