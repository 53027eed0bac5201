"""What is exported of a study: nothing of one that chose nothing, and no model twice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.report_world import make_ranking
from helpers.tuning_world import candidate, digits, run, spec, store
from vlmsel_auto.cache import Store
from vlmsel_auto.events import Notice
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.pipeline.export import export_best
from vlmsel_auto.pipeline.joined import Joined, Trials, held_out_of
from vlmsel_auto.pipeline.search import SearchRequest
from vlmsel_auto.pipeline.session import Run, Session
from vlmsel_auto.pipeline.with_labels import deliver
from vlmsel_auto.records import Candidate, StoppedBy
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import load_trial

__all__ = ["candidate", "store"]  # fixtures


def test_of_a_study_that_chose_nothing_nothing_is_exported(tmp_path: Path, store: Store) -> None:
    outcome = StudyOutcome(
        results=(), best=None, members=(), plan=None, ranking=make_ranking(), seconds=1.0, stopped_by=StoppedBy.BUDGET,
        failures={}, runner=None,
    )  # fmt: skip
    events = []
    session = Session(task=digits(), candidates=(), library=assemble([]), device="cpu", store=store, sink=events.append)
    request = SearchRequest(data="digits", ensemble=5, workdir=tmp_path)
    search = Run(request=request, session=session, command="", settings={}, began=0.0, started_after=0.0)
    trials = Trials(task=digits(), candidates=(), workdir=tmp_path, store=store, sink=events.append)
    found = deliver(search, outcome, trials, latencies={}, exported=None, joins=True)
    assert (found.best, found.chosen, found.ensemble) == (None, None, None)
    assert events == []
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def trials(tmp_path: Path, candidate: Candidate, store: Store) -> Trials:
    return Trials(task=digits(), candidates=[candidate], workdir=tmp_path, store=store, sink=print)


@pytest.fixture
def probed(tmp_path: Path, candidate: Candidate, store: Store, trials: Trials) -> Joined:
    trial = run(tmp_path, candidate, store, spec(method="probe", settings={}, epochs=0))
    held_out = held_out_of(trial, trials)
    return Joined(trial=trial, fits=1, held_out=held_out, checkpoint=load_trial(tmp_path, trial))


def test_a_model_that_is_there_is_written_again_where_it_is_another(probed: Joined, trials: Trials) -> None:
    def written(joined: Joined, **changes: object) -> int:
        best = export_best(joined, trials, **changes)
        assert (best.trial, best.fits, best.test) == (joined.trial.number, joined.fits, joined.trial.test)
        return best.model_dir.stat().st_mtime_ns

    first = written(probed)
    assert written(probed, exported=probed.trial) == first
    joined = written(replace(probed, fits=2), exported=probed.trial)
    others = replace(probed, trial=replace(probed.trial, validation=0.1))
    assert first < joined < written(others, exported=probed.trial)


def test_a_model_that_cannot_be_written_costs_a_notice(tmp_path: Path, probed: Joined, trials: Trials) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("precious")
    heard = []
    best = export_best(probed, replace(trials, sink=heard.append))
    assert (best.model_dir, best.test) == (None, probed.trial.test)
    assert [each.level for each in heard if isinstance(each, Notice)] == ["error"]


def test_without_test_images_the_card_counts_held_out_ones(probed: Joined, trials: Trials) -> None:
    task = digits()
    wrong = replace(probed.held_out, logs=np.roll(probed.held_out.logs, 1, axis=1))
    joined = replace(probed, held_out=wrong, checkpoint=replace(probed.checkpoint, test_logits=None))
    best = export_best(joined, replace(trials, task=replace(task, test=task.test[:0])))
    assert best.on_test is None
    card = (best.model_dir / "README.md").read_text()
    assert "most confused in validation: `" in card
    assert "test images" not in card
