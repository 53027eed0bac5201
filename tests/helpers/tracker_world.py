"""The events of a small search that was never run: a zero-shot baseline, a trial with a curve, one that fails."""

from dataclasses import replace

from helpers.report_world import NAMES, make_ranking, make_trial
from vlmsel_auto.events import RankingReady, ReportWritten, TrialEpoch, TrialFinished, TrialStarted
from vlmsel_auto.records import Agreement, BestModel

TEST = 0.625


def trials():
    baseline = make_trial(0, NAMES[0], validation=0.5, method="zero_shot", origin="floor")
    tuned = replace(make_trial(1, NAMES[1], validation=0.75, test=TEST), curve=(0.5, 0.75), cost=12.0)
    failed = make_trial(2, NAMES[2], state="failed")
    return replace(baseline, curve=()), tuned, failed


def story(report):
    """Events in their order; the report lies in the folder ``report``."""
    baseline, tuned, failed = trials()
    best = BestModel(candidate=NAMES[1], method="probe", validation=0.75, test=TEST, trial=1, model_dir=None)
    agreement = Agreement(n=2, tau_b=0.5, weighted_tau=0.5, ndcg5=0.9, top1_loss=0.1, top5_loss=0.0)
    yield RankingReady(ranking=make_ranking())
    for trial, leader in ((baseline, baseline), (tuned, tuned), (failed, tuned)):
        yield TrialStarted(number=trial.number, spec=trial.spec, why="predicted rank 1")
        for epoch, value in enumerate(trial.curve, start=1):
            yield TrialEpoch(number=trial.number, epoch=epoch, epochs=2, validation=value, loss=float("nan"))
        yield TrialFinished(result=trial, leader=leader)
    yield RankingReady(ranking=make_ranking(), updated=True)
    yield ReportWritten(directory=report, best=best, ensemble=None, agreement=agreement)
