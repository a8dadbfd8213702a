"""What copying needs of a store at either end; each kind of database has a file of its own for all that differs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Column, Connection, Row, Table

from watcher.domain.errors import StoreError


class StoreEnd(Protocol):
    """A store that is copied, or copied into. Everything is done in the caller's thread."""

    where: str
    """Names it in messages. Never a secret."""

    errors: tuple[type[Exception], ...]
    """What its database raises; `explain` says what it means."""

    def identity(self) -> object:
        """Return what is equal for two ends that are one store."""
        ...

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a transaction in which all of it is read, while nobody else can write into it.

        Raises `StoreHeldError` while a daemon uses it, `StoreUnusableError` when it is not there.
        """
        ...

    def writing(self) -> AbstractContextManager[Connection]:
        """Give a transaction in which all of it is written, while nobody else can use it.

        What raises leaves it as it was. Raises `StoreHeldError` while a daemon uses it.
        """
        ...

    def write_rows(self, connection: Connection, table: Table, rows: Sequence[Row[Any]]) -> None:
        """Add rows that have a value for each column of the table."""
        ...

    def last_number(self, connection: Connection, column: Column[Any]) -> int:
        """Return the last number that was given to a row of this column, 0 if there was none."""
        ...

    def go_on_from(self, connection: Connection, column: Column[Any], last: int) -> None:
        """Give the next row of this column the number behind `last`."""
        ...

    def explain(self, error: Exception) -> StoreError:
        """Return what an error of its database means to the user."""
        ...
