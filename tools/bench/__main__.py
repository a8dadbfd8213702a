"""`make bench`: the figures of the program, as ratios inside one run where there is something to compare with.

It measures and reports; no figure makes it fail: a machine that is busy with something else is not a broken program.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.figures import table
from bench.measures import MEASURES, Bench
from bench.workspaces import Workspaces


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
