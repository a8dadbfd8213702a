"""What a test in another process is told and may change: the request log, the truth, the faults. Pure; knows no HTTP.

None of it is behind the API key: a simulator listens on loopback and holds nothing real.
"""

import json

from pydantic import TypeAdapter

from watcher.clerk.simulator.faults import Faults
from watcher.clerk.simulator.request_log import RequestLog
from watcher.clerk.simulator.responses import JsonObject
from watcher.clerk.simulator.world import SimExecution, World

_FAULTS = TypeAdapter(Faults)


def request_log_lines(request_log: RequestLog) -> bytes:
    """Return the request log as JSON lines, one per request, oldest first; fields as in `LoggedRequest`."""
    return b"".join(json.dumps(line).encode() + b"\n" for line in request_log.lines())


def truth(world: World) -> JsonObject:
    """Return every execution's statuses so far; `at` counts seconds from `epoch`, and so does `now`."""
    now_s = world.now_s()
    return {
        "epoch": world.epoch.isoformat(),
        "now": now_s,
        "executions": [_truth_of(execution, now_s=now_s) for execution in world.executions()],
    }


def parse_faults(body: bytes) -> Faults:
    """Read faults from JSON with the fields of `Faults`. Raises `ValueError`."""
    return _FAULTS.validate_json(body)


def _truth_of(execution: SimExecution, *, now_s: float) -> JsonObject:
    return {
        "pipeline": execution.pipeline.id,
        "execution": execution.id,
        "visible": execution.is_visible(now_s),
        "path": [{"status": moment.status, "at": moment.at_s} for moment in execution.path(now_s)],
    }
