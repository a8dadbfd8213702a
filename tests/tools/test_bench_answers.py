"""What the bench is told: the same facts, in bodies of which half differ from the one before."""

from functools import partial
from itertools import pairwise

from bench.answers import answer, execution_ids, page_answer, private_field
from virtual import DATES

from watcher.clerk.schemas import parse_execution, parse_page

IDS = execution_ids(3)


def answered(nth: int) -> bytes:
    made = answer("running", private=private_field(nth))
    return (made.before + IDS[0].encode() + made.after).partition(b"\r\n\r\n")[2]


def listed(nth: int) -> bytes:
    made = page_answer(IDS, page=1, status_of=lambda _: "running", private=private_field(nth))
    return made.partition(b"\r\n\r\n")[2]


def test_half_of_the_answers_differ_from_the_one_before_in_what_nobody_may_tell() -> None:
    for make, parse in (
        (answered, partial(parse_execution, asked=IDS[0], dates=DATES)),
        (listed, partial(parse_page, dates=DATES)),
    ):
        bodies = [make(nth) for nth in range(101)]
        assert sum(before != after for before, after in pairwise(bodies)) == 50
        facts = [parse(each) for each in bodies]
        assert facts[0] is not None
        assert all(each == facts[0] for each in facts)
