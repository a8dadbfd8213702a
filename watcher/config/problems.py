"""What is wrong with a configuration: one value per problem, and the error that holds them all. Never a secret."""

from collections.abc import Iterable
from dataclasses import dataclass

from watcher.domain.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where it is, what is wrong, and what would be right.

    `file` is the path as the user gave it, or `$NAME` for a value from the environment. `line` and `column` count
    from 1; `line` is 0 for what has no line. `path` is the key's, such as `watch[0].pipeline`; empty for the file.
    """

    file: str
    line: int
    column: int
    path: str
    problem: str
    remedy: str

    @property
    def place(self) -> str:
        """Return the place as editors and terminals take it."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.path, f"{self.problem}; {self.remedy}") if part)


class ConfigProblemsError(ConfigError):
    """The file cannot be used; `problems` are sorted by line, the message has one line for each and their number.

    `source` is the text of the file: it may hold secrets.
    """

    def __init__(self, problems: Iterable[Problem], *, file: str, source: str = "") -> None:
        """Sort the problems by place and write them out."""
        self.problems = tuple(sorted(problems, key=lambda each: (each.line, each.column, each.path)))
        self.source = source
        count = len(self.problems)
        self.total = f"{count} {'problem' if count == 1 else 'problems'} in {file}"
        super().__init__("\n".join((*map(str, self.problems), self.total)))
