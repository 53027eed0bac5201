"""lightning_report.py: real trainings report to an Optuna study and to a search, and end when they are told to."""

import logging
import math

import optuna
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from helpers.optuna_world import prior
from vlmsel_auto.integrations.candidate_search import CandidateSearch
from vlmsel_auto.integrations.lightning_report import ReportValidation

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning",
    "ignore:.*isinstance.treespec, LeafSpec.*:DeprecationWarning",
    "ignore:.*fewer than.*log_every_n_steps:UserWarning",
)


class Curve(LightningModule):
    """Logs a metric that is known beforehand."""

    def __init__(self, values, *, name="accuracy"):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.values = values
        self.name = name

    def training_step(self, batch, batch_idx):
        return ((self.weight - batch) ** 2).mean()

    def validation_step(self, batch, batch_idx):
        self.log(self.name, self.values[self.current_epoch])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(report: ReportValidation, values=(0.5, 0.6, 0.7), *, again=False, every=1.0, **changes) -> int:
    """Epochs that were trained; ``again`` validates the trained model once more, by itself."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    data = DataLoader(torch.ones(2, 1))
    trainer = Trainer(max_epochs=len(values), callbacks=[report], logger=False, enable_checkpointing=False,
                      enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
                      val_check_interval=every)  # fmt: skip
    model = Curve(values, **changes)
    trainer.fit(model, data, data)
    if again:
        model.values = [0.1] * (len(values) + 1)
        trainer.validate(model, data, verbose=False)
    return trainer.current_epoch


def test_every_epoch_is_reported_and_the_sanity_check_is_not():
    told = []
    report = ReportValidation(lambda epoch, value: bool(told.append((epoch, round(value, 4)))), monitor="accuracy")
    assert fit(report) == 3
    assert told == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert report.value == pytest.approx(0.7)
    assert not report.is_pruned


def test_a_validation_within_an_epoch_is_a_step_of_its_own():
    told = []
    report = ReportValidation(lambda step, value: bool(told.append((step, round(value, 4)))), monitor="accuracy")
    assert fit(report, (0.5, 0.4), every=0.5) == 2
    assert told == [(0, 0.5), (1, 0.5), (2, 0.4), (3, 0.4)]


def test_a_validation_after_the_training_does_not_prune_it():
    search = CandidateSearch(prior(sd=0.1))
    params = search.ask()
    search.should_prune(params, step=3, value=0.9)
    report = ReportValidation.to_search(search, params, monitor="accuracy")
    assert fit(report, again=True) == 3
    assert not report.is_pruned
    assert report.value == pytest.approx(0.7)


def test_a_training_whose_metric_is_no_number_ends():
    search = CandidateSearch(prior())
    report = ReportValidation.to_search(search, search.ask(), monitor="accuracy")
    assert fit(report, (0.5, math.nan, math.nan, math.nan)) == 2
    assert report.is_pruned
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.0))
    trial = study.ask()
    with pytest.raises(optuna.TrialPruned, match="accuracy nan at step 1"):
        fit(ReportValidation.to_optuna(trial, monitor="accuracy"), (0.5, math.nan, 0.6))


def test_a_search_ends_a_training_that_falls_behind():
    search = CandidateSearch(prior(sd=0.1))
    for params, values in (({"candidate": "model-c"}, (0.6, 0.7, 0.8)), ({"candidate": "model-f"}, (0.6, 0.3, 0.3))):
        search.begin(params)
        report = ReportValidation.to_search(search, params, monitor="accuracy")
        epochs = fit(report, values)
        search.tell(params, None if report.is_pruned else report.value)
    assert epochs == 2
    assert report.is_pruned
    assert search.due(["model-f"]) is None  # tried, without a value


def test_a_pruner_of_optuna_ends_a_training():
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.ThresholdPruner(lower=0.55))

    def objective(trial: optuna.Trial) -> float:
        report = ReportValidation.to_optuna(trial, monitor="accuracy")
        fit(report, (0.6, 0.7) if trial.number == 0 else (0.6, 0.5, 0.7))
        return report.value

    study.optimize(objective, n_trials=2)
    assert [each.state.name for each in study.trials] == ["COMPLETE", "PRUNED"]
    assert study.trials[1].intermediate_values == pytest.approx({0: 0.6, 1: 0.5})
    assert study.best_value == pytest.approx(0.7)


def test_a_metric_that_nobody_logs_is_an_error():
    with pytest.raises(KeyError, match="'accuracy' must be logged in validation, but got loss"):
        fit(ReportValidation(lambda *_: False, monitor="accuracy"), name="loss")
