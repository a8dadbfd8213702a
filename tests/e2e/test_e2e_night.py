"""A night of trouble in 46 pipelines: the outage rings, the chat and the mailbox do not drown, nothing is lost."""

import pytest
from e2e.stage import Stage
from night import SHORT, WHOLE, broken, spend, table


@pytest.mark.ci
async def test_a_short_night_of_trouble_rings_for_the_outage_and_does_not_drown_the_chat(stage: Stage) -> None:
    outcome = await spend(stage, SHORT)
    assert broken(outcome) == [], table(outcome)


@pytest.mark.soak
async def test_a_whole_night_of_trouble_rings_for_the_outage_and_does_not_drown_the_chat(stage: Stage) -> None:
    outcome = await spend(stage, WHOLE)
    assert broken(outcome) == [], table(outcome)
