"""Several candidates pooled: what is in it, what it reaches, and that its folder predicts the same."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import f1_score

from helpers.study_world import candidates, digits_folder, run_study, task
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.pooling import fit_weights, log_probabilities, pool
from vlmsel_auto.models.prediction import predict
from vlmsel_auto.pipeline.ensemble import Pool, export_ensemble, pool_leaders
from vlmsel_auto.pipeline.joined import Trials, join
from vlmsel_auto.records import Candidate, EnsembleModel, Task, TrialOrigin, TrialResult
from vlmsel_auto.study.study import StudyOutcome
from vlmsel_auto.tuning.checkpoints import keep_held_out_alone, load_trial, save_weights
from vlmsel_auto.tuning.data import measure, splits

__all__ = ["candidates", "digits_folder", "task"]  # fixtures
Finished = tuple[StudyOutcome, Path]


@pytest.fixture(scope="module")
def finished(task: Task, candidates: tuple[Candidate, ...], tmp_path_factory: pytest.TempPathFactory) -> Finished:
    workdir = tmp_path_factory.mktemp("study")
    both = ("zero_shot", "probe")
    outcome = run_study(task=task, candidates=candidates, workdir=workdir, trials=4, load=zoo.load, methods=both)
    return outcome, workdir


def tower(outcome: StudyOutcome, place: int, *, fold: int, number: int) -> TrialResult:
    """A trial like that of a member, as if it were of a fine-tuned tower."""
    like = outcome.members[place]
    return replace(like, number=number, spec=replace(like.spec, method="finetune", fold=fold))


def save(workdir: Path, source: Path, logits: Mapping[int, np.ndarray], like: TrialResult) -> None:
    """Trials with these held-out logits, by number; all else as the trial ``like`` left it in ``source``."""
    for number, found in logits.items():
        save_weights(workdir, number, replace(load_trial(source, like), held_out_logits=found))


Ensemble = Callable[..., EnsembleModel | None]


Left = Callable[..., Trials]


@pytest.fixture
def left(task: Task, candidates: tuple[Candidate, ...], tmp_path: Path) -> Left:
    """What trials left in the test's folder."""

    def made(results: Sequence[TrialResult] = (), **changes: object) -> Trials:
        fields = {"task": task, "workdir": tmp_path, "sink": print, **changes}
        return Trials(candidates=candidates, store=Store(tmp_path), results=results, **fields)

    return made


@pytest.fixture
def ensemble(left: Left) -> Ensemble:
    """`pool_leaders` of some trials and `export_ensemble` of what it found, in the test's folder."""

    def made(members: Sequence[TrialResult], *, size: int | None = None, **changes: object) -> EnsembleModel | None:
        trials = left(members, **changes)
        found = pool_leaders(members, trials, size=len(members) if size is None else size)
        return export_ensemble(found, trials, joined=lambda trial: join(trial, trials, load=zoo.load))

    return made


def test_members_are_the_best_trials_of_different_candidates(finished: Finished) -> None:
    outcome, _ = finished
    assert outcome.members[0] == outcome.best
    assert len({each.spec.candidate for each in outcome.members}) == len(outcome.members) == 4
    assert all(each.origin is not TrialOrigin.ZERO_SHOT for each in outcome.members)


def test_an_objective_lets_in_who_is_worth_its_cost(finished: Finished, task: Task, left: Left) -> None:
    outcome, workdir = finished
    trials = left(workdir=workdir)

    def pooled(price: float) -> Pool | None:
        return pool_leaders(outcome.members, trials, size=4, charge=lambda names: price * len(names))

    free = pooled(0.0)
    sizes = [0 if (found := pooled(price)) is None else len(found.members) for price in (0.0, 0.003, 0.01, 0.1)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0  # nothing here gains ten points by pooling
    every = pool_leaders(outcome.members, trials, size=4)
    assert len(every.members) == 4  # without a charge as before
    if free is not None:
        labels = torch.from_numpy(task.labels[free.rows])
        alone = next(one for one in free.members if one.trial == outcome.members[0])
        reached, single = (
            measure(task.metric, logits=torch.from_numpy(logs), labels=labels).metric
            for logs in (free.held_out(), alone.held_out.at(free.rows))
        )
        assert reached > single


@pytest.mark.parametrize("size", [2, 4])
def test_heads_are_pooled_by_their_likelihood_and_the_folder_predicts_the_same(
    finished: Finished, task: Task, ensemble: Ensemble, size: int
) -> None:
    outcome, workdir = finished
    labelled, test = splits(task).labelled, np.sort(task.test)
    chosen = [load_trial(workdir, each) for each in outcome.members[:size]]
    held_out = [log_probabilities(each.held_out_logits) for each in chosen]
    labels = task.labels[labelled]
    likelihoods = np.array([each[np.arange(len(labels)), labels].sum() for each in held_out])
    shares = softmax(likelihoods / 20)
    together = pool(held_out, shares)
    (sureness,) = fit_weights([together], labels, start=[1.0], shrinkage=2.0)

    made = ensemble(outcome.members, size=size, workdir=workdir)
    assert made.members == tuple(each.spec.candidate for each in outcome.members[:size])
    assert made.weights == pytest.approx(list(sureness * shares))
    assert made.validation == (together.argmax(axis=1) == labels).mean()
    assert made.validation_images == len(labelled)
    of_test = pool([log_probabilities(each.test_logits) for each in chosen], made.weights)
    assert made.test == (of_test.argmax(axis=1) == task.labels[test]).mean()
    said = predict(made.model_dir, [task.root / task.paths[row] for row in test])
    assert np.allclose(said.probabilities, np.exp(of_test), atol=1e-4)
    assert (said.best == task.labels[test]).mean() == made.test

    text = (made.model_dir / "README.md").read_text()
    assert f"`{task.digest}`" in text
    assert f"accuracy on {len(test):,} test images: {100 * made.test:.1f} % (95 % interval " in text
    assert all(f"| member-{place} | `{name}` |" in text for place, name in enumerate(made.members, start=1))
    assert ("most confused in test: `" in text) == (made.test < 1)


def test_trials_and_ensemble_go_by_the_metric_of_the_task(
    task: Task, candidates: tuple[Candidate, ...], ensemble: Ensemble, left: Left, tmp_path: Path
) -> None:
    task = replace(task, metric="macro_f1", labels=np.where(np.arange(80) % 9, task.labels, 0))  # some of them wrong
    both = ("zero_shot", "probe")
    outcome = run_study(task=task, candidates=candidates, workdir=tmp_path, trials=2, load=zoo.load, methods=both)
    labels = task.labels[splits(task).labelled]
    for each in outcome.members:
        said = load_trial(tmp_path, each).held_out_logits.argmax(axis=1)
        assert each.validation == f1_score(labels, said, average="macro")
        assert each.validation != (said == labels).mean()
    found = pool_leaders(outcome.members, left(task=task), size=2)
    made = ensemble(outcome.members, task=task)
    assert made.validation == f1_score(labels, found.held_out().argmax(axis=1), average="macro")


def test_fewer_than_two_members_are_no_ensemble(finished: Finished, ensemble: Ensemble) -> None:
    outcome, workdir = finished
    for size in (0, 1):
        assert ensemble(outcome.members, size=size, workdir=workdir) is None
    assert ensemble(outcome.members[:1], size=5, workdir=workdir) is None


def test_a_head_without_a_say_is_no_member(finished: Finished, task: Task, ensemble: Ensemble, tmp_path: Path) -> None:
    outcome, workdir = finished
    heads, rows = outcome.members[:3], splits(task).labelled
    true = np.eye(task.n_classes, dtype=np.float32)[task.labels[rows]]
    save(tmp_path, workdir, {each.number: true * 3 for each in heads[:2]} | {heads[2].number: -true * 3}, heads[0])
    made = ensemble(heads)
    assert made.trials == tuple(each.number for each in heads[:2])
    assert made.weights[0] == made.weights[1]
    assert ensemble([heads[0], heads[2]]) is None  # the first alone says it all
    assert not (tmp_path / "ensemble").exists()


@pytest.mark.parametrize("better", ["heads", "towers", "neither"])
def test_held_out_images_say_whether_heads_or_towers_count(
    finished: Finished, task: Task, ensemble: Ensemble, tmp_path: Path, better: str
) -> None:
    outcome, workdir = finished
    heads = outcome.members[:2]
    towers = [tower(outcome, place, fold=place, number=90 + place) for place in (0, 1)]
    rng = np.random.default_rng(0)
    true = np.eye(task.n_classes, dtype=np.float32)[task.labels] * 3
    noise = [rng.normal(0, 1, true.shape).astype(np.float32) for _ in range(4)]
    right, wrong = [true + each for each in noise], [each - true for each in noise]
    of_heads = right if better != "towers" else wrong
    of_towers = right if better != "heads" else wrong
    rows = splits(task).labelled
    save(tmp_path, workdir, {each.number: of_heads[place][rows] for place, each in enumerate(heads)}, heads[0])
    folds = {each.number: of_towers[2 + place][splits(task, fold=place).val] for place, each in enumerate(towers)}
    save(tmp_path, workdir, folds, heads[0])
    made = ensemble([*heads, *towers], size=2)
    by_number = {each.number: each.spec.method for each in (*heads, *towers)}
    expected = {"heads": ["probe"] * 2, "towers": ["finetune"] * 2, "neither": ["probe"] * 2 + ["finetune"] * 2}
    assert [by_number[number] for number in made.trials] == expected[better]
    covered = sum(len(splits(task, fold=place).val) for place in (0, 1))
    assert made.validation_images == (len(rows) if better == "heads" else covered)
    assert made.validation > 0.9
    if better == "neither":  # two equally good ones together are surer than either
        assert sum(made.weights[:2]) > 0.2
        assert sum(made.weights[2:]) > 0.2


def test_what_settings_say_of_further_folds_weighs_their_tower(
    finished: Finished, task: Task, left: Left, tmp_path: Path
) -> None:
    outcome, workdir = finished
    head, first = outcome.members[0], tower(outcome, 0, fold=0, number=90)
    further = [tower(outcome, 0, fold=fold, number=90 + fold) for fold in (1, 2)]
    said = np.eye(task.n_classes, dtype=np.float32)[task.labels] * 3
    parts = {each.number: splits(task, fold=each.spec.fold).val for each in (first, *further)}
    save(tmp_path, workdir, {head.number: said[splits(task).labelled]}, head)
    save(tmp_path, workdir, {90: said[parts[90]]} | {number: -said[parts[number]] for number in (91, 92)}, head)
    keep_held_out_alone(tmp_path, further[0])

    def share_of_the_tower(results: Sequence[TrialResult]) -> float:
        found = pool_leaders([head, first], left(results), size=2)
        if found is None:  # the head is left alone
            return 0.0
        return sum(weight for each, weight in zip(found.members, found.weights, strict=True) if each.is_tower)

    assert share_of_the_tower([head, first]) > 0.1
    assert share_of_the_tower([head, first, *further]) == 0.0  # on two of three parts it is wrong


def test_towers_share_their_weight_by_what_they_gain_on_their_heads(
    finished: Finished, task: Task, left: Left, tmp_path: Path
) -> None:
    outcome, workdir = finished
    heads, labelled = outcome.members[:2], splits(task).labelled
    towers = [tower(outcome, place, fold=place, number=90 + place) for place in (0, 1)]
    true = np.eye(task.n_classes, dtype=np.float32)[task.labels]
    rows = {each.number: splits(task, fold=each.spec.fold).val for each in towers}
    save(tmp_path, workdir, {each.number: 2 * true[labelled] for each in heads}, heads[0])
    save(tmp_path, workdir, {90: 3 * true[rows[90]], 91: 2 * true[rows[91]]}, heads[0])
    found = pool_leaders([*heads, *towers], left(), size=2)
    by_number = {each.trial.number: weight for each, weight in zip(found.members, found.weights, strict=True)}
    assert by_number[heads[0].number] == by_number[heads[1].number]
    sure = [logit - np.log(np.exp(logit) + task.n_classes - 1) for logit in (3, 2)]  # log-probability of the true class
    gain = (sure[0] - sure[1]) * len(rows[90])  # of the first tower; the second says what its head says
    of_all = gain * len(labelled) / (len(rows[90]) + 20)
    assert by_number[90] / by_number[91] == pytest.approx(np.exp(of_all / 20), rel=1e-6)


def test_an_ensemble_that_is_shown_worse_is_not_exported_and_an_earlier_one_goes(
    finished: Finished, task: Task, ensemble: Ensemble, tmp_path: Path
) -> None:
    outcome, workdir = finished
    good, bad = (tower(outcome, place, fold=0, number=90 + place) for place in (0, 1))
    task = replace(task, folds=(np.concatenate(task.folds[:2]), *task.folds[2:]))  # enough images to tell
    rows = splits(task, fold=0).val
    right = np.eye(task.n_classes, dtype=np.float32)[task.labels[rows]] * 9
    save(tmp_path, workdir, {good.number: right, bad.number: -right}, outcome.members[0])
    assert ensemble([bad, good], task=task) is not None
    assert (tmp_path / "ensemble").exists()
    assert ensemble([good, bad], task=task) is None
    assert not (tmp_path / "ensemble").exists()


def test_weights_that_are_gone_are_told_and_cost_no_search(finished: Finished, ensemble: Ensemble) -> None:
    told = []
    outcome, _ = finished
    assert ensemble(outcome.members, sink=told.append) is None
    assert "no ensemble was exported" in told[0].text


def test_towers_without_test_images_have_no_figure_on_them(
    finished: Finished, task: Task, ensemble: Ensemble, tmp_path: Path
) -> None:
    outcome, workdir = finished
    for each in outcome.members[:2]:
        save_weights(tmp_path, each.number, replace(load_trial(workdir, each), test_logits=None))
    task = replace(task, test=task.test[:0])
    made = ensemble(outcome.members[:2], task=task)
    assert (made.test, made.on_test) == (None, None)
