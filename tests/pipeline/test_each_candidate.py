"""A job for each candidate: what jobs give, why they give nothing, and the end of them all."""

from contextlib import closing

import pytest

from helpers.tuning_world import digits
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Notice, StageProgress
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.pipeline.each_candidate import for_each
from vlmsel_auto.pipeline.session import Session

SOME = tuple(mini_zoo()[:3])


@pytest.fixture
def heard():
    return []


@pytest.fixture
def spelt(tmp_path, heard):
    session = Session(
        candidates=SOME, task=digits(), library=assemble([]), device="cpu", store=Store(tmp_path), sink=heard.append
    )
    return lambda candidates: for_each(session, candidates, lambda: spell, stage="profiles", lacking="says nothing")


def spell(job, channel):
    """Say the name of a candidate, or fail."""
    channel.tell(Notice(text=job.candidate.id))
    if job.candidate == SOME[1]:
        raise RuntimeError("no voice")
    return len(job.candidate.id)


def test_each_gives_its_result_or_says_why_not(spelt, heard):
    found = {one.id: outcome for _, one, outcome in spelt(SOME)}
    assert found == {SOME[0].id: len(SOME[0].id), SOME[1].id: "RuntimeError: no voice", SOME[2].id: len(SOME[2].id)}
    failed = f"{SOME[1].id} says nothing: RuntimeError: no voice"
    assert [each.text for each in heard if isinstance(each, Notice)] == [
        *(one.id for one in SOME[:2]),
        failed,
        SOME[2].id,
    ]
    assert [each.done for each in heard if isinstance(each, StageProgress)] == [1, 2, 3]


def test_who_stops_before_the_end_starts_no_more_jobs(spelt, heard):
    with closing(spelt(SOME)) as found:
        next(found)
    assert [each.text for each in heard if isinstance(each, Notice)] == [SOME[0].id]


def test_nobody_is_no_error(spelt):
    assert list(spelt(())) == []
