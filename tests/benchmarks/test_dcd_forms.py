"""ranking/dcd_forms.py: formulas of SciPy, axioms of the divergences, the default against the package's."""

import itertools

import numpy as np
import pytest
from scipy import stats

from benchmarks.ranking import dcd_forms
from helpers.research_world import research_of
from helpers.zoo_world import World
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import average_rank
from vlmsel_auto.ranking.agreement import tau_b
from vlmsel_auto.ranking.divergence import divergences
from vlmsel_auto.ranking.fusion import candidate_effect
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.sources import DEFAULT_WEIGHTING

FORMS = [
    {"delta": delta, "importance": importance}
    for delta, importance in itertools.product(("signature", "channels", "uncovered", "share"), ("softmax", "uniform"))
]


def profiles(*, seed=0, tasks=6, widths=(5, 7, 4)):
    rng = np.random.default_rng(seed)
    activity = np.exp(rng.normal(size=(tasks, len(widths)))) * np.array([10.0, 3.0, 1.0])[: len(widths)]
    signature = [rng.normal(size=(tasks, c)) for c in widths]
    return dcd_forms.Profiles(activity=activity, signature=signature, absolute=[np.abs(one) for one in signature])


def against_all(form, tasks):
    n = len(tasks.activity)
    return dcd_forms.Form(**form).of(tasks, tasks, np.ones((n, n), dtype=bool))


@pytest.mark.parametrize("form", FORMS)
def test_the_target_itself_is_at_zero_and_nothing_is_below(form):
    found = against_all(form, profiles())
    np.testing.assert_allclose(np.diag(found), 0.0, atol=1e-9)
    assert (found >= 0.0).all()
    assert found.max() > 0.0


@pytest.mark.parametrize("form", FORMS[:4:2] + FORMS[4:])
def test_it_is_not_symmetric(form):
    found = against_all(form, profiles(seed=3))
    assert np.abs(found - found.T).max() > 1e-6 or form["importance"] == "uniform"


def test_the_default_is_the_packages():
    library = World().library()
    case = Case(library=library, column=3, truth="tuned", shots=0)
    weights = dcd_forms.Form().weights([dcd_forms.Profiles(activity=one) for one in library.activity], 3)
    np.testing.assert_allclose(weights, case.gathered(shots=0).alone, rtol=1e-12)
    assert dcd_forms.Form().temperature == DEFAULT_WEIGHTING.alone


def test_deltas_are_scipys_divergences():
    tasks = profiles(widths=(6,))
    found = against_all({"delta": "channels", "importance": "uniform"}, tasks)
    shares = tasks.absolute[0] / tasks.absolute[0].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0], [stats.entropy(shares[0], q) for q in shares], atol=1e-9)
    share = dcd_forms.Form(delta="share", importance="uniform")
    activity = profiles().activity
    p = activity / activity.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(3 * divergences(share, activity, activity)[0], [stats.entropy(p[0], q) for q in p])


def test_channels_find_the_kind_of_task_where_the_average_cannot():
    world = World()
    library, research = world.library(), research_of(world)
    form = dcd_forms.Form(delta="signature")
    every = [
        dcd_forms.Profiles(activity=activity, signature=signature)
        for activity, signature in zip(library.activity, research.signature, strict=True)
    ]
    by_channels, average = [], []
    for t in range(4):
        case = Case(library=library, column=t, truth="tuned", shots=0)
        score = candidate_effect(standardise(case.source_truth), form.weights(every, t), shrink=0.0)
        by_channels.append(tau_b(score, world.accuracy[:, t]))
        average.append(tau_b(average_rank(case.source_truth), world.accuracy[:, t]))
    assert np.mean(by_channels) > np.mean(average) + 0.2
