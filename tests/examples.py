"""An event that tests show, send and sign."""

from typing import Any

EVENT: dict[str, Any] = {
    "id": "0b0d5d1c-0000-5000-8000-000000000001",
    "type": "execution.failed",
    "time": "2026-11-24T10:00:00.600Z",
    "sequence": "0000000003",
    "subject": "9a1b0000-0000-4000-8000-000000000001",
    "data": {
        "account": "default",
        "pipeline": {"id": "0b5c", "name": "Sales agent"},
        "execution": {
            "id": "9a1b0000-0000-4000-8000-000000000001",
            "status": "failed",
            "durationSeconds": 5.1,
            "failedNodes": [{"name": "Greeting", "error": "[red]upstream timeout"}],
        },
        "observed": {"at": "2026-11-24T10:00:01.000Z", "delaySeconds": 0.4},
    },
}
