"""A document of any size and make is cut down to what is wanted of it, and what is not read does not matter."""

import json
import random
from typing import Any

import pytest

from watcher.clerk.tolerant_json import LEAF, TEXT_BYTES, BrokenJsonError, Fields, Leaf, Rows, Wanted, slim

ROW = Fields({b"id": LEAF, b"node": Fields({b"name": LEAF})})
WANTED = Fields({b"id": LEAF, b"n": LEAF, b"rows": Rows(ROW, 3), b"one": Fields({b"id": LEAF})})


def slimmed(text: str | bytes) -> Any:
    return json.loads(slim(text if isinstance(text, bytes) else text.encode(), WANTED))


def projected(value: object, wanted: Wanted) -> object:
    """Do the same to what the standard library has parsed."""
    if isinstance(wanted, Leaf):
        return None if isinstance(value, dict | list) else value
    if isinstance(wanted, Rows):
        if not isinstance(value, list):
            return None
        return [projected(item, wanted.each) for item in value[: wanted.most]] + [None] * (len(value) > wanted.most)
    if not isinstance(value, dict):
        return None
    return {
        key: projected(item, wanted.wanted[key.encode()])
        for key, item in value.items()
        if key.encode() in wanted.wanted
    }


def test_what_is_wanted_stays_and_all_else_goes() -> None:
    document = {
        "id": "a",
        "secret": [{"id": "b"}],
        "n": -1.5e3,
        "rows": [{"id": 1, "node": {"name": "x", "y": [2]}, "z": "}"}, 7, {}],
        "one": {"more": {"id": 2}, "id": True},
    }
    kept = {"id": "a", "n": -1500.0, "rows": [{"id": 1, "node": {"name": "x"}}, None, {}], "one": {"id": True}}
    assert slimmed(json.dumps(document)) == slimmed(json.dumps(document, indent=3)) == kept


def test_a_value_of_another_kind_is_null() -> None:
    assert slimmed('{"id": {"a": 1}, "n": [1], "rows": {"a": 1}, "one": [2]}') == dict.fromkeys(
        ("id", "n", "rows", "one")
    )
    assert slimmed('{"id": nul, "n": 007, "rows": "x", "one": 1}') == dict.fromkeys(("id", "n", "rows", "one"))
    assert slimmed("[1]") is None


def test_what_is_empty_stays_empty() -> None:
    assert slimmed('{"one": { }, "rows": [ ]}') == {"one": {}, "rows": []}
    assert slimmed("{}") == {}


def test_for_the_rows_beyond_the_most_one_null_stands() -> None:
    assert slimmed('{"rows": [{}, {}, {}]}') == {"rows": [{}, {}, {}]}
    assert slimmed('{"rows": [{}, {}, {}, {"id": 1}, [[]], "]"], "id": 2}') == {"rows": [{}, {}, {}, None], "id": 2}


@pytest.mark.parametrize(
    "private",
    [
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000 + "1" + "}" * 100_000,
        "9" * 1_000_000,
        "-1e999",
        '"\\ud800"',
        '"\\"\\\\"',
        '"' + "\\\\" * 100_000 + '"',
        '"' + "x" * 1_000_000 + '"',
        json.dumps([{"a": ["]", "}", '"', "\\"]}] * 5000),
        json.dumps(["x" * 300] * 5000),
        "NaN",
        '"\x00\n"',
        '{"id": "inner", "rows": []}',
    ],
    ids=range(13),
)
@pytest.mark.parametrize(
    "place", ['{"x": %s, "id": 1}', '{"id": 1, "x": %s}', '{"id": 1, "rows": %s}', '{"id": 1, "one": {"y": %s}}']
)
def test_nothing_in_what_is_not_wanted_matters(private: str, place: str) -> None:
    assert slimmed(place.replace("%s", private))["id"] == 1


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert slimmed(b'\xef\xbb\xbf {"x": "\xff", "id": "a\xffb"} \n') == {"id": "a\ufffdb"}


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (r"cut \ud83d", "cut "),
        (r"a\u0000b \\u0000", r"ab \u0000"),
        (r"\ude00\ud83d\ude00\\ud83d", "\U0001f600\\ud83d"),
        (r"\n\u0041\/", "\nA/"),
        ("a\x00\nb", "a  b"),
        (r"C:\new\path", "C:\new"),
        ("x" * TEXT_BYTES + r"\n", "x" * TEXT_BYTES),
        ("x" * (TEXT_BYTES - 3) + r"\u0041", "x" * (TEXT_BYTES - 3)),
        ("x" * (TEXT_BYTES - 6) + r"\ud83d\ude00", "x" * (TEXT_BYTES - 6)),
    ],
)
def test_a_text_is_made_readable_as_far_as_it_goes(raw: str, text: str) -> None:
    assert slimmed(f'{{"id": "{raw}"}}') == {"id": text}


@pytest.mark.parametrize("number", ["9" * 41, "1." + "1" * 41, "1e99999", "+1", "1.", ".5", "0x10", "Infinity"])
def test_a_number_that_no_parser_takes_is_null(number: str) -> None:
    assert slimmed(f'{{"n": {number}}}') == {"n": None}


def test_of_a_key_that_comes_twice_the_last_counts() -> None:
    assert slimmed('{"id": 1, "id": [], "\\u0069d": 2, "%s": 3}' % ("i" * 10_000)) == {"id": 2}


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "{]",
        "}",
        "[}",
        "nope",
        '"text"',
        '{"x": 1',
        '{"x": "1}',
        '{"x": "1\\}',
        '{"x": "1\\"}',
        '{"x": [1}',
        '{"x": [}]}',
        '{"x": {"y": [}]}}',
        '{"x": {"y": 1}',
        '{"x" 1}',
        '{"x": }',
        "{x: 1}",
        '{"x": 1,}',
        '{"x": 1 "id": 2}',
        '{"x": 1]}',
        '{"rows": [{}}',
        '{"rows": [{}, }',
        '{"rows": [1, 2, 3, 4}}',
        '{"rows": [1 2]}',
        "{} {}",
        '{"x": ["' + "x" * 1_000_000 + "}",
        '{"x": ' + "[" * 100_000 + "]" * 99_999 + "}",
    ],
)
def test_what_is_cut_or_broken_where_it_is_read_is_refused(broken: str) -> None:
    with pytest.raises(BrokenJsonError):
        slim(broken.encode(), WANTED)


def any_value(draw: random.Random, *, depth: int = 0) -> object:
    kind = draw.randrange(8 if depth < 5 else 5)
    if kind > 5:
        return [any_value(draw, depth=depth + 1) for _ in range(draw.randrange(6))]
    if kind > 4:
        keys = draw.choices(["id", "n", "rows", "one", "node", "name", "x", 'a"\\b', "\u00e9"], k=draw.randrange(6))
        return {key: any_value(draw, depth=depth + 1) for key in keys}
    scalars: list[object] = [None, draw.random() < 0.5, draw.randrange(-99, 10**9), draw.random()]
    return scalars[kind] if kind < 4 else "".join(draw.choices('ab"\\]}[{,:\n\u00e9\U0001f600', k=draw.randrange(400)))


def test_it_agrees_with_the_standard_library() -> None:
    for seed in range(300):
        assert_agreement_with_the_standard_library(seed)


def assert_agreement_with_the_standard_library(seed: int) -> None:
    draw = random.Random(seed)
    document = {key: any_value(draw) for key in ("id", "n", "rows", "one", "x", "y")}
    text = json.dumps(document, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1]))
    assert slimmed(text) == projected(document, WANTED)


def test_whatever_is_done_to_a_document_what_comes_out_is_json_or_refused() -> None:
    for seed in range(300):
        assert_json_or_refusal(seed)


def assert_json_or_refusal(seed: int) -> None:
    draw = random.Random(seed)
    text = bytearray(json.dumps({key: any_value(draw) for key in ("id", "rows", "one", "x")}).encode())
    for _ in range(draw.randrange(1, 6)):
        at = draw.randrange(len(text))
        text[at : at + draw.randrange(3)] = draw.choice([b"", b'"', b"\\", b"[", b"}", b",", b"\xff", b"\x00", b"\\u"])
    try:
        found = slim(bytes(text), WANTED)
    except BrokenJsonError:
        return
    json.loads(found)
