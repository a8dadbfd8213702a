"""A look into a store from outside, which neither waits for its daemon nor leaves a trace. Writes nothing."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

TIMEOUT_S = 1.0

_DISABLED = "SELECT name, fingerprint FROM source WHERE kind = 'sink' AND state = 'disabled'"


def disabled_sinks(database: Path) -> Mapping[str, str]:
    """Return the sinks that are recorded as disabled, each with the fingerprint of the block it had then.

    Of a file that is not there, not to be read or not a store, none.
    """
    try:
        # Without companions nobody has it open. To open it in the usual way would make them, owned by whoever asks.
        how = "mode=ro" if Path(f"{database}-wal").exists() else "mode=ro&immutable=1"
        with closing(sqlite3.connect(f"file:{quote(str(database))}?{how}", uri=True, timeout=TIMEOUT_S)) as store:
            return dict(store.execute(_DISABLED).fetchall())
    except (sqlite3.Error, OSError, ValueError):  # the last for a path that can be none
        return {}
