"""The leading candidates pooled and exported: heads, fine-tuned towers, or both, as far as held-out images say.

Near the pretraining a plain head is often better than a tuned tower, far from it the tower is; which it is shows on
images that neither has seen. So two weights are fitted, one for all heads and one for all towers, by log loss: each
tower beside the head of its own candidate, on the folds that the tower was scored on. Heads share theirs by their
tempered likelihood. So do towers, of which each is scored on other folds: what a tower says of them beyond its head is
projected to all labelled images, and shrunk where they are few. The form is our own choice (two numbers are what few
labels can fit); docs/results/tuning.md compares it with others.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np
import torch
from scipy.special import softmax

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice
from vlmsel_auto.models.card import Provenance
from vlmsel_auto.models.pooling import LEAST_LOG, fit_weights, log_probabilities, pool
from vlmsel_auto.models.selective import answer_levels
from vlmsel_auto.pipeline.export import confused, export_joined, write_pool
from vlmsel_auto.pipeline.joined import HeldOut, Joined, Trials, held_out_of
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.records import EnsembleModel, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.tuning.data import measure
from vlmsel_auto.tuning.final_score import final_score
from vlmsel_auto.tuning.methods import method_of

_START = (1.0, 0.1)  # weights of heads and towers before any image is seen: towers are surer than right
_LEAST_SHARE = 0.02  # a kind with less of the weight is left out
_SPECK = 0.001  # a member with less of the weight is left out: it moves no log-probability by more than .03 nats
_FEWEST, _ERRORS = 10, 2.0  # images, and standard errors, that it takes to say that a pool is worse than one of it
_TEMPER = 20.0  # nats of log likelihood on all labelled images by which a weight falls to 1 / e of another's
_DOUBT = 20.0  # images that count against those that a tower was scored on, when that is projected to all


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """A trial whose weights are there. n: images it was scored on without having seen them, K classes."""

    trial: TrialResult
    held_out: HeldOut

    @property
    def rows(self) -> IntArray:
        """(n,) sorted image indices."""
        return self.held_out.rows

    @property
    def logs(self) -> FloatArray:
        """(n, K) log-probabilities."""
        return self.held_out.logs

    @property
    def is_tower(self) -> bool:
        """Whether it was fine-tuned."""
        return method_of(self.trial.spec.method).trains is Trains.TOWER


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Members with the weight of each."""

    members: Sequence[Member]
    weights: Sequence[float]

    @cached_property
    def rows(self) -> IntArray:
        """Sorted images that were held out of all heads, and of at least one tower where there are any."""
        towers = [each.rows for each in self.members if each.is_tower]
        heads = [each.rows for each in self.members if not each.is_tower]
        return reduce(np.intersect1d, heads, np.unique(np.concatenate(towers or heads)))

    def held_out(self) -> FloatArray:
        """(len(rows), K): of the towers, which each saw other images, those that have not seen the image."""
        total = np.zeros((len(self.rows), self.members[0].logs.shape[1]))
        for tower in (False, True):
            mine = [(each, w) for each, w in zip(self.members, self.weights, strict=True) if each.is_tower is tower]
            part, known = np.zeros_like(total), np.zeros(len(self.rows))
            for each, weight in mine:
                there = np.isin(self.rows, each.rows)
                part[there] += weight * each.held_out.at(self.rows[there])
                known[there] += weight
            total += sum(weight for _, weight in mine) * part / np.maximum(known, 1e-12)[:, None]
        return pool([total], [1.0])


def pool_leaders(
    members: Sequence[TrialResult],
    trials: Trials,
    *,
    size: int,
    fits: Callable[[Sequence[str]], bool] = lambda _: True,
    charge: Callable[[Sequence[str]], float] | None = None,
) -> Pool | None:
    """Choose and weigh the leading candidates by what they say of held-out images; no tower is read.

    Args:
        members: best trials by heads and by towers of each leading candidate, the chosen model first.
        trials: of the search.
        size: at most so many heads and so many towers; fewer than two give no ensemble.
        fits: whether a model of each of these candidates is what the user can afford together; those that make it too
            much are left out, the best first in.
        charge: what the objective takes off the metric of such models together; None: nothing.

    Returns:
        The pool; None where no two members have a say, or where ten held-out images or more say that its log loss is
        larger than that of the first member alone, by more than two standard errors of the difference. With a charge
        the size whose metric on held-out images less its charge is largest, and None where that of the first member
        alone is as large.
    """
    task = trials.task
    try:
        read = [(each, held_out_of(each, trials)) for each in members]
    except VlmselError as error:
        trials.sink(Notice(text=f"no ensemble was exported: {error}", level="warning"))
        return None
    every = [Member(trial=trial, held_out=said) for trial, said in read if said is not None]
    every = _affordable(every, size=size, fits=fits)
    found = None if size < 2 else _pooled(every, size=size, task=task)  # noqa: PLR2004 - a pool of one is that one
    if found is not None and charge is not None:
        found = _worth_most(every, size=size, charge=charge, task=task)
    if found is None or len(found.members) < 2 or _shown_worse(found, every[0], task.labels):  # noqa: PLR2004 - likewise
        return None
    return found


def _affordable(every: Sequence[Member], *, size: int, fits: Callable[[Sequence[str]], bool]) -> list[Member]:
    """The leading heads and towers that the user can afford together."""
    kept: list[Member] = []
    for one in every:
        alike = sum(each.is_tower is one.is_tower for each in kept)
        names = [each.trial.spec.candidate for each in (*kept, one)]
        if alike < size and (not kept or fits(names)):
            kept.append(one)
    return kept


def _pooled(every: Sequence[Member], *, size: int, task: Task) -> Pool | None:
    """Members and weights; None without a member."""
    heads = [each for each in every if not each.is_tower][:size]
    towers = [each for each in every if each.is_tower][:size]
    of_head = _shares(heads, task.labels)
    beside = [_beside(tower, heads, of_head) for tower in towers] if heads else []
    of_tower = _tower_shares(towers, heads, beside, task.labels)
    if heads and towers:
        logs = [np.concatenate(beside), np.concatenate([tower.logs for tower in towers])]
        labels = task.labels[np.concatenate([tower.rows for tower in towers])]
        head, tower = fit_weights(logs, labels, start=_START).tolist()
        if min(head, tower) >= _LEAST_SHARE * (head + tower):
            weights = [*(head * share for share in of_head), *(tower * share for share in of_tower)]
            return _without_specks([*heads, *towers], weights)
        heads, towers = (heads, []) if tower < head else ([], towers)
    if not heads and not towers:
        return None
    shares = of_head if heads else of_tower
    alike = Pool(members=heads or towers, weights=shares)
    logs = [np.maximum(alike.held_out(), LEAST_LOG)]
    (weight,) = fit_weights(logs, task.labels[alike.rows], start=[1.0]).tolist()
    return _without_specks(alike.members, [weight * share for share in shares])


def _without_specks(members: Sequence[Member], weights: Sequence[float]) -> Pool:
    """The pool without members that change nothing, for each of them costs a pass over every image."""
    least = _SPECK * sum(weights)
    kept = [(each, weight) for each, weight in zip(members, weights, strict=True) if weight >= least]
    return Pool(members=[each for each, _ in kept], weights=[weight for _, weight in kept])


def _worth_most(
    every: Sequence[Member], *, size: int, charge: Callable[[Sequence[str]], float], task: Task
) -> Pool | None:
    """The pool whose metric less its charge exceeds most what the first member leaves on the same images."""

    def metric(logs: FloatArray, rows: IntArray) -> float:
        return measure(task.metric, logits=torch.from_numpy(logs), labels=torch.from_numpy(task.labels[rows])).metric

    single, best, found = every[0], 0.0, None
    for count in range(1, size + 1):  # one head and one tower are two
        pooled = _pooled(every, size=count, task=task)
        if pooled is None or len(rows := np.intersect1d(pooled.rows, single.rows)) == 0:
            continue
        said = pooled.held_out()[np.searchsorted(pooled.rows, rows)]
        names = [each.trial.spec.candidate for each in pooled.members]
        more = metric(said, rows) - metric(single.held_out.at(rows), rows)
        more -= charge(names) - charge([single.trial.spec.candidate])
        if more > best:
            best, found = more, pooled
    return found


def _shares(heads: Sequence[Member], labels: IntArray) -> list[float]:
    """Shares of the heads by their likelihood on images that all of them have held out."""
    if not heads:
        return []
    likelihoods = [_likelihood(each.logs, each.rows, labels) for each in heads]
    shares: list[float] = softmax(np.array(likelihoods) / _TEMPER).tolist()
    return shares


def _tower_shares(
    towers: Sequence[Member], heads: Sequence[Member], beside: Sequence[FloatArray], labels: IntArray
) -> list[float]:
    """Shares of the towers by the likelihood of their heads and what they gain on it; alike where there is no head."""
    if not beside:
        return [1 / len(towers)] * len(towers) if towers else []
    own = {each.trial.spec.candidate: _likelihood(each.logs, each.rows, labels) for each in heads}
    images, found = len(heads[0].rows), []
    for tower, head in zip(towers, beside, strict=True):
        gain = _likelihood(tower.logs, tower.rows, labels) - _likelihood(head, tower.rows, labels)
        known = own.get(tower.trial.spec.candidate, float(np.mean(list(own.values()))))
        found.append(known + gain * images / (len(tower.rows) + _DOUBT))
    shares: list[float] = softmax(np.array(found) / _TEMPER).tolist()
    return shares


def _likelihood(logs: FloatArray, rows: IntArray, labels: IntArray) -> float:
    return float(logs[np.arange(len(rows)), labels[rows]].sum())


def _beside(tower: Member, heads: Sequence[Member], shares: Sequence[float]) -> FloatArray:
    """What the head of the tower's candidate says of the tower's images; all heads together where it has none."""
    own = next((each for each in heads if each.trial.spec.candidate == tower.trial.spec.candidate), None)
    if own is not None:
        return own.held_out.at(tower.rows)
    return np.maximum(pool([each.held_out.at(tower.rows) for each in heads], shares), LEAST_LOG)


def _shown_worse(found: Pool, single: Member, labels: IntArray) -> bool:
    """Whether the held-out images say, by more than their error, that the single model has the smaller log loss."""
    rows = np.intersect1d(found.rows, single.rows)
    if len(rows) < _FEWEST:
        return False
    true = np.arange(len(rows)), labels[rows]
    more = single.held_out.at(rows)[true] - found.held_out()[np.searchsorted(found.rows, rows)][true]
    error = float(more.std(ddof=1)) / math.sqrt(len(rows))
    return float(more.mean()) > _ERRORS * error


def export_ensemble(
    found: Pool | None, trials: Trials, *, joined: Callable[[TrialResult], Joined]
) -> EnsembleModel | None:
    """Write a pool to ``workdir/ensemble``; one of an earlier call goes also where there is none.

    A pool that cannot be written costs a notice. ``joined`` gives the classifier of a member, no temperature being
    fitted.
    """
    folder, task = trials.workdir / "ensemble", trials.task
    shutil.rmtree(folder, ignore_errors=True)
    if found is None:
        return None
    tests: list[FloatArray] = []
    try:
        for place, one in enumerate(found.members, start=1):
            made = joined(one.trial)
            if made.checkpoint.test_logits is not None:
                tests.append(log_probabilities(made.checkpoint.test_logits))
            export_joined(made, trials, directory=folder / f"member-{place}")
    except VlmselError as error:  # the single model and the report are worth having all the same
        trials.sink(Notice(text=f"no ensemble was exported: {error}", level="warning"))
        return None
    held_out, labels = found.held_out(), task.labels[found.rows]
    reached = measure(task.metric, logits=torch.from_numpy(held_out), labels=torch.from_numpy(labels))
    tested = pool(tests, found.weights) if len(tests) == len(found.members) else None
    known = Provenance(
        task=task.name,
        digest=task.digest,
        metric=task.metric,
        validation=reached.metric,
        validation_images=reached.images,
        on_test=None if tested is None else final_score(task, tested),
        confusions=confused(tested, rows=np.sort(task.test), task=task),
        answers=answer_levels(held_out, labels),
    )
    members = [one.trial for one in found.members]
    return write_pool(
        folder, [trials.candidate_of(each) for each in members], found.weights, classes=task.classes, known=known,
        trials=[each.number for each in members],
    )  # fmt: skip
