import pytest
from pydantic_core import ErrorDetails

from watcher.config.document import Document
from watcher.config.error_messages import translate

ERRORS: list[ErrorDetails] = [
    {
        "type": "value_error",
        "loc": ("log", "level"),
        "msg": "hunter2",
        "input": "x",
        "ctx": {"error": ValueError("hunter2")},
    },
    {"type": "some_new_type", "loc": ("log", "level"), "msg": "hunter2", "input": "hunter2"},
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error["type"])
def test_an_unknown_error_is_still_reported_in_our_words(error: ErrorDetails) -> None:
    document = Document(file="watcher.yaml")
    document.load("log: {level: x}", environ={})
    translate([error], document=document)
    assert [str(problem) for problem in document.problems] == [
        "watcher.yaml:1:14: log.level: cannot be used; compare it with config/watcher.example.yaml"
    ]
