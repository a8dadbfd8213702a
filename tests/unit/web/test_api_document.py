"""The OpenAPI document: requests made from it meet what it says, whatever is in them."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from console_rig import Desk, a_desk

from watcher.web.routes import API, ROUTES

EXAMPLES_COUNT = 25
LINE_BYTES = 8000
BODY_BYTES = 64 * 1024
DOCUMENT = json.loads((Path(__file__).parents[3] / "watcher" / "web" / "openapi.json").read_text())
OPERATIONS = [(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread of its own: schemathesis waits for each answer."""
    ready, done, served = Event(), Event(), list[str]()

    async def serve() -> None:
        async with a_desk(tmp_path_factory.mktemp("api")) as desk:
            served.append(str(desk.session._base_url).rstrip("/"))
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    yield served[0]
    done.set()
    thread.join()


async def test_the_document_is_served_and_has_every_request(desk: Desk) -> None:
    async with desk.session.get("/openapi.json") as response:
        assert (await response.json(), response.content_type) == (DOCUMENT, "application/json")
    assert sorted(OPERATIONS) == sorted((f"{API}{route.path}", route.method.lower()) for route in ROUTES)


@pytest.mark.parametrize("name", ["after", "since", "for", "until", "match"])
def test_the_document_says_how_a_value_is_written(name: str) -> None:
    """So that who reads it, or makes a client of it, need not find out by refusals."""
    schemas = [
        (parameter["description"], parameter["schema"])
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
        if parameter["name"] == name
    ]
    schemas += [
        (schema["properties"][name]["description"], schema["properties"][name])
        for title, schema in DOCUMENT["components"]["schemas"].items()
        if title.endswith("Request") and name in schema.get("properties", ())
    ]
    assert schemas
    for description, schema in schemas:
        forms = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        assert description
        assert all({"pattern", "format", "minProperties"} & each.keys() for each in forms), schema


def test_the_document_names_what_every_event_has() -> None:
    event = DOCUMENT["components"]["schemas"]["EventView"]
    assert {"id", "source", "type", "time", "sequence", "data"} == set(event["required"])
    assert "subject" in event["properties"]


@pytest.mark.ci
def test_the_document_is_one_of_openapi() -> None:
    schema_of_document().validate()


def schema_of_document() -> Any:
    import schemathesis  # noqa: PLC0415 (a second, and 60 MB, for each process that collects these tests)

    return schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.ci
@pytest.mark.filterwarnings("ignore")  # those of schemathesis and what it brings
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_whatever_is_asked_the_answer_is_one_of_the_document(url: str, path: str, method: str) -> None:
    operation = schema_of_document()[path][method.upper()]
    from hypothesis import HealthCheck, Phase, assume, given, settings  # noqa: PLC0415
    from hypothesis.errors import Unsatisfiable  # noqa: PLC0415
    from schemathesis import GenerationMode, checks  # noqa: PLC0415
    from schemathesis.specs.openapi import checks as of_openapi  # noqa: PLC0415

    judges = [checks.not_a_server_error, of_openapi.status_code_conformance, of_openapi.content_type_conformance]
    judges += [of_openapi.response_schema_conformance, of_openapi.negative_data_rejection]
    how = settings(
        max_examples=EXAMPLES_COUNT, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @given(case=operation.as_strategy(generation_mode=mode))
        @how
        def ask(case: Any) -> None:
            assume(len(str(case.query).encode()) * 3 < LINE_BYTES)  # a longer line is no request
            assume(not any(isinstance(value, dict) for value in (case.query or {}).values()))  # it is sent as text
            assume(len(str(case.body)) * 12 < BODY_BYTES)  # a larger one is refused whatever it says
            case.call_and_validate(base_url=url, checks=judges)

        with suppress(Unsatisfiable):  # nothing about it could be wrong
            ask()
