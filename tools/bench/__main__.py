"""`make bench`: the figures of the program, as ratios inside one run where there is something to compare with.

It measures and reports; no figure makes it fail: a machine that is busy with something else is not a broken program.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.console import measure_console
from bench.figures import Figure, table
from bench.measures import (
    Bench,
    measure_backlog,
    measure_deliveries,
    measure_many,
    measure_path,
    measure_polls,
    measure_typical,
)
from bench.pipelines import measure_pipelines
from bench.processes import Workspaces
from bench.replicas import measure_replicas

MEASURES: Mapping[str, Callable[[Bench], Iterator[Figure]]] = {
    "polls": measure_polls,
    "backlog": measure_backlog,
    "path": measure_path,
    "typical": measure_typical,
    "many": measure_many,
    "deliveries": measure_deliveries,
    "replicas": measure_replicas,
    "console": lambda bench: measure_console(3 if bench.quick else 9),
    "pipelines": lambda bench: measure_pipelines(range(1, 2 if bench.quick else 4)),
}


def main() -> None:
    """Run the measurements that are asked for, and print the table of each as it is known."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", choices=MEASURES, action="append", help="one measurement; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a first impression: fewer and shorter")
    options = parser.parse_args()
    began_at = time.monotonic()
    with TemporaryDirectory(prefix="bench-") as directory:
        bench = Bench(Workspaces(Path(directory)), quick=options.quick)
        for name in options.only or MEASURES:
            say(f"\n{name}\n{table(MEASURES[name](bench))}")
    say(f"\nmedians against bounds; took {time.monotonic() - began_at:.0f} s")


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)  # noqa: T201 (this is a command)


if __name__ == "__main__":
    main()
