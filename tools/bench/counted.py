"""`python -m bench.counted FILE run --config …`: the program, with each call of its functions counted in all threads.

On SIGUSR1 it writes to FILE how often each was called since the last time.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import watcher
from watcher.__main__ import main

OURS = f"{Path(watcher.__file__).parent}{os.sep}"


def count_calls(file: Path) -> None:
    """Count from here on."""
    calls = Counter[CodeType]()

    def see(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call":
            calls[frame.f_code] += 1

    def write(_number: int, _frame: FrameType | None) -> None:
        counted = dict(calls)
        calls.clear()
        named = Counter[str]()
        for code, count in counted.items():
            if code.co_filename.startswith(OURS):
                named[f"{code.co_filename.removeprefix(OURS)}:{code.co_firstlineno} {code.co_qualname}"] += count
        unfinished = file.with_suffix(".new")
        unfinished.write_text(json.dumps(named))
        unfinished.rename(file)

    signal.signal(signal.SIGUSR1, write)
    threading.setprofile(see)
    sys.setprofile(see)


if __name__ == "__main__":
    count_calls(Path(sys.argv.pop(1)))
    main()
