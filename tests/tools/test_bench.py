"""What the bench is told and what it measures: the same facts in changing bodies, and a crowd in virtual time, small.

What `make bench` measures of a thousand holds of a hundred, within wider bounds.
"""

from functools import partial
from itertools import pairwise

import pytest
from bench.counters import execution_body, execution_ids, page_body, private_field
from bench.pipelines import Trial, watch_whole
from bench.population import LONGEST_S, Crowd, Population
from bench.virtual_api import Notes, WorldApi
from virtual import DATES

from watcher.clerk.api import PAGE_ROWS
from watcher.clerk.schemas import parse_execution, parse_page
from watcher.simulator.responses import encode, listing

IDS = execution_ids(3)
CROWD = Crowd(open_count=100, pipelines_count=2)


def answered(nth: int) -> bytes:
    return execution_body(IDS[0], "running", private=private_field(nth))


def listed(nth: int) -> bytes:
    return page_body(IDS, page=1, status_of=lambda _: "running", private=private_field(nth))


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


def test_a_crowd_is_as_large_as_asked_for_from_its_beginning_on() -> None:
    population = Population(Crowd(open_count=300), until_s=9_000)
    counts = [population.mean_open_count(from_s, from_s + 1) for from_s in range(0, 9_000, 3_000)]
    assert counts == pytest.approx([300] * 3, rel=0.25)


def test_nobody_lives_longer_than_the_longest_life() -> None:
    population = Population(CROWD, until_s=0)
    assert max(each.lifecycle.length_s() for each in population.world.executions()) <= LONGEST_S


@pytest.mark.parametrize("number", [1, 2, 11, 99])
async def test_a_page_is_what_the_simulator_would_send(number: int) -> None:
    population = Population(CROWD, until_s=100)
    api, pipeline = WorldApi(population.world, Notes()), population.pipelines[0].id
    for _ in range(2):
        document, _ = listing(
            pipeline, number=number, limit=PAGE_ROWS, world=population.world, base_url="https://example.com"
        )
        body = encode(document)
        sent, reply = parse_page(body, dates=DATES), await api.list(pipeline=pipeline, page=number)
        assert sent is not None
        assert (reply.rows, reply.total) == (sent.rows, sent.total)
        population.clock.advance(50)


@pytest.mark.ci
def test_whole_pipelines_report_an_end_in_less_than_a_third_of_the_time_of_gets_alone() -> None:
    measured = watch_whole(Trial(CROWD, rate_per_s=1, seconds=900, warm_up_s=150))
    assert measured.rate_per_s <= 1
    assert measured.delay_s < 0.3 * measured.turn_s / 2


@pytest.mark.ci
def test_nobody_waits_much_longer_than_a_fair_share_when_there_is_too_little_for_all() -> None:
    """A fifth of the requests: a whole turn takes far longer than `max_interval`."""
    measured = watch_whole(Trial(CROWD, rate_per_s=0.2, seconds=1800, warm_up_s=900))
    assert measured.delay_s < 0.3 * measured.turn_s / 2
    assert measured.longest_wait_s < 3.6 * measured.turn_s
