"""What silences and groups go by, read from the event of a delivery."""

import json
from functools import lru_cache
from uuid import UUID

from watcher.domain.delivery import Delivery
from watcher.domain.silences import DeliveryFields


def fields_of(delivery: Delivery) -> DeliveryFields:
    """Return what the event of a delivery says."""
    data = json.loads(delivery.body).get("data", {})
    labels = tuple(sorted(data.get("labels", {}).items()))
    problem = data.get("problem", {})
    closes = UUID(problem["id"]) if "closedAt" in problem else None
    pipeline = data.get("pipeline", {}).get("id")
    return _shared(delivery.sink, delivery.type, data.get("account"), pipeline, labels, closes)


@lru_cache(maxsize=4096)
def _shared(
    sink: str,
    type_: str,
    account: str | None,
    pipeline: str | None,
    labels: tuple[tuple[str, str], ...],
    closes: UUID | None,
) -> DeliveryFields:
    """Return one object for all that are alike: there are many deliveries, and few pipelines."""
    return DeliveryFields(sink, type_, account, pipeline, dict(labels), closes)
