"""A job for each candidate: what jobs give, why they give nothing, and the end of them all."""

from contextlib import closing
from dataclasses import dataclass

from vlmsel_auto.engines.in_process import InProcess
from vlmsel_auto.events import Notice, discard
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.pipeline.each_candidate import for_each

SOME = tuple(mini_zoo()[:3])


@dataclass(frozen=True)
class Spell:
    """Say the name of a candidate, or fail."""

    name: str

    def run(self, channel):
        channel.tell(Notice(text=self.name))
        if self.name == SOME[1].id:
            raise RuntimeError("no voice")
        return len(self.name)


def spell(candidate):
    return Spell(candidate.id)


def test_each_gives_its_result_or_says_why_not():
    heard = []
    found = {
        one.id: outcome for one, outcome in for_each(SOME, spell, engine=InProcess(), device="cpu", sink=heard.append)
    }
    assert found == {SOME[0].id: len(SOME[0].id), SOME[1].id: "RuntimeError: no voice", SOME[2].id: len(SOME[2].id)}
    assert [event.text for event in heard] == [one.id for one in SOME]


def test_who_stops_before_the_end_starts_no_more_jobs():
    heard = []
    with closing(for_each(SOME, spell, engine=InProcess(), device="cpu", sink=heard.append)) as found:
        next(found)
    assert len(heard) == 1


def test_nobody_is_no_error():
    assert list(for_each((), spell, engine=InProcess(), device="cpu", sink=discard)) == []
