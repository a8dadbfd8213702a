from sample_events import sample

from watcher.domain.delivery import Part
from watcher.domain.event import EventType


def test_a_body_is_read_once_also_for_what_differs_in_other_fields() -> None:
    delivery = sample(EventType.EXECUTION_FAILED)
    marked = delivery.but(part=Part.CLOSING)
    assert (marked.part, delivery.part) == (Part.CLOSING, Part.WHOLE)
    assert marked.content is delivery.content
    assert delivery.data["execution"]["status"] == "failed"
