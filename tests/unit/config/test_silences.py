from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest

from watcher.config.models import Settings

Load = Callable[..., Settings]
Mistakes = Callable[..., list[str]]

HEAD = (
    "accounts: {default: {api_key: k}}\nsinks:\n  out: {type: stdout}\n  ops: {type: webhook, url: https://h.example}\n"
)
FROM, UNTIL = "from: 2026-12-24T00:00:00Z", "until: 2026-12-27T00:00:00Z"
MATCH = "match: {accounts: [default]}"
WRITE = "write date, time and zone, such as 2026-12-24T00:00:00Z or 2026-12-24T00:00:00+01:00"


def silence(*keys: str) -> str:
    return f"{HEAD}silences:\n  - {{{', '.join(keys)}}}\n"


def test_a_silence_means_what_it_says(load: Load) -> None:
    match = (
        "match: {labels: {team: sales}, events: ['execution.*'], sinks: [ops], accounts: [default], "
        "pipelines: [0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f]}"
    )
    until = "until: '2026-12-27t01:30:00.5+01:00'"
    (one,) = load(silence(match, FROM, until, "comment: shop closed")).silences
    assert (one.from_at, one.until_at) == (
        datetime(2026, 12, 24, tzinfo=UTC),
        datetime(2026, 12, 27, 0, 30, 0, 500_000, tzinfo=UTC),
    )
    assert (dict(one.match.labels), one.match.events) == ({"team": "sales"}, ("execution.*",))
    assert one.match.sinks == ("ops",)
    assert one.match.pipelines == (UUID("0b5c8f1e-2c3a-4f1e-9d8a-7e6b5a4c3d2f"),)
    assert (one.match.accounts, one.comment) == (("default",), "shop closed")


def test_without_the_key_there_are_none(load: Load) -> None:
    assert load(HEAD).silences == load(f"{HEAD}silences:\n").silences == load(f"{HEAD}silences: []").silences == ()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            ("match: {}", FROM, UNTIL),
            '6:13: silences[0].match: is empty; name what is meant; for everything write events: ["*"]',
        ),
        (
            ("match: {sinks: []}", FROM, UNTIL),
            '6:13: silences[0].match: is empty; name what is meant; for everything write events: ["*"]',
        ),
        ((FROM, UNTIL), "6:5: silences[0]: needs match; write match: {labels: {team: sales}}"),
        ((MATCH, UNTIL), "6:5: silences[0]: needs from; write from: 2026-12-24T00:00:00Z"),
        ((MATCH, FROM), "6:5: silences[0]: needs until; write until: 2026-12-27T00:00:00Z"),
        (
            (MATCH, FROM, "until: 2026-12-24T01:00:00+01:00"),
            '6:71: silences[0].until: "2026-12-24T01:00:00+01:00" is not after from; write a later moment',
        ),
        (
            (MATCH, "from: 2026-12-24T00:00:00", UNTIL),
            f'6:42: silences[0].from: "2026-12-24T00:00:00" has no zone; {WRITE}',
        ),
        (
            (MATCH, "from: 2026-12-24", UNTIL),
            f'6:42: silences[0].from: "2026-12-24" has no zone; {WRITE}',
        ),
        (
            (MATCH, "from: 2026-13-24T00:00:00Z", UNTIL),
            f'6:42: silences[0].from: "2026-13-24T00:00:00Z" is not a date with a time; {WRITE}',
        ),
        (
            (MATCH, "from: 0001-01-01T00:00:00+23:00", UNTIL),
            f'6:42: silences[0].from: "0001-01-01T00:00:00+23:00" is not a date with a time; {WRITE}',
        ),
        ((MATCH, "from: [a]", UNTIL), "6:42: silences[0].from: is not a single value; write one value"),
        (
            ("match: {sinks: [opps]}", FROM, UNTIL),
            '6:22: silences[0].match.sinks[0]: "opps" is no sink that can be silenced; these are: ops',
        ),
        (
            ("match: {sinks: [out]}", FROM, UNTIL),
            ('6:22: silences[0].match.sinks[0]: "out" is no sink that can be silenced; these are: ops'),
        ),
        (
            ("match: {accounts: [x]}", FROM, UNTIL),
            '6:25: silences[0].match.accounts[0]: "x" is no account that can be silenced; these are: default',
        ),
        (
            ("match: {events: [execution.faild]}", FROM, UNTIL),
            (
                '6:23: silences[0].match.events[0]: "execution.faild" matches no event type; '
                'did you mean "execution.failed"? Globs such as "execution.*" work'
            ),
        ),
        (
            ("match: {pipelines: [p]}", FROM, UNTIL),
            (
                '6:26: silences[0].match.pipelines[0]: "p" is not a UUID; '
                "copy the id from the pipeline's address in Clerk Chat"
            ),
        ),
        (
            ("match: {lables: {a: b}}", FROM, UNTIL),
            (
                '6:14: silences[0].match.lables: unknown key "lables"; did you mean "labels"? '
                "Allowed: labels, pipelines, events, accounts, sinks"
            ),
        ),
        (
            (MATCH, FROM, UNTIL, "for: 2h"),
            (
                '6:93: silences[0].for: unknown key "for"; '
                "write until: with the moment it ends, such as 2026-12-24T00:00:00Z"
            ),
        ),
        (
            (MATCH, FROM, UNTIL, "till: x"),
            '6:93: silences[0].till: unknown key "till"; did you mean "until"? Allowed: match, from, until, comment',
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_remedy(keys: tuple[str, ...], message: str, mistakes: Mistakes) -> None:
    assert mistakes(silence(*keys)) == [f"watcher.yaml:{message}", "1 problem in watcher.yaml"]


def test_a_sink_to_be_silenced_must_be_there(mistakes: Mistakes) -> None:
    text = f"accounts: {{default: {{api_key: k}}}}\nsilences: [{{match: {{sinks: [ops]}}, {FROM}, {UNTIL}}}]"
    assert mistakes(text)[0].endswith('"ops" is no sink that can be silenced; these are: none')
