"""ranking/dcd_forms.py: formulas of SciPy and POT, axioms of the divergences, the default against the package's."""

import itertools

import numpy as np
import ot
import pytest
from scipy import special, stats

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
] + [{"delta": "signature", "importance": "transport"}]


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("ranking.dcd_forms")


def profiles(script, *, seed=0, tasks=6, widths=(5, 7, 4)):
    rng = np.random.default_rng(seed)
    activity = np.exp(rng.normal(size=(tasks, len(widths)))) * np.array([10.0, 3.0, 1.0])[: len(widths)]
    signature = [rng.normal(size=(tasks, c)) for c in widths]
    return script.Profiles(activity=activity, signature=signature, absolute=[np.abs(one) for one in signature])


def against_all(script, form, tasks):
    n = len(tasks.activity)
    return script.Form(**form).of(tasks, tasks, np.ones((n, n), dtype=bool))


@pytest.mark.parametrize("form", FORMS)
def test_the_target_itself_is_at_zero_and_nothing_is_below(script, form):
    found = against_all(script, form, profiles(script))
    np.testing.assert_allclose(np.diag(found), 0.0, atol=1e-9 if form["importance"] != "transport" else 1e-3)
    assert (found >= 0.0).all()
    assert found.max() > 0.0


@pytest.mark.parametrize("form", FORMS[:4:2] + FORMS[4:])
def test_it_is_not_symmetric(script, form):
    found = against_all(script, form, profiles(script, seed=3))
    assert np.abs(found - found.T).max() > 1e-6 or form["importance"] == "uniform"


def test_the_default_is_the_packages(script):
    library = World().library()
    case = Case(library=library, column=3, truth="tuned", shots=0)
    weights = script.Form().weights([script.Profiles(activity=one) for one in library.activity], 3)
    np.testing.assert_allclose(weights, case.gathered(shots=0).alone, rtol=1e-12)
    assert script.Form().temperature == DEFAULT_WEIGHTING.alone


def test_deltas_are_scipys_divergences(script):
    tasks = profiles(script, widths=(6,))
    found = against_all(script, {"delta": "channels", "importance": "uniform"}, tasks)
    shares = tasks.absolute[0] / tasks.absolute[0].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found[0], [stats.entropy(shares[0], q) for q in shares], atol=1e-9)
    share = script.Form(delta="share", importance="uniform")
    activity = profiles(script).activity
    p = activity / activity.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(3 * divergences(share, activity, activity)[0], [stats.entropy(p[0], q) for q in p])


def test_transport_plan_is_pots_and_covers_every_target_block(script):
    rng = np.random.default_rng(0)
    z, cost = rng.normal(size=4), rng.random((4, 4))
    plan = script.transport_importance(z, cost, temperature=1.0, regularisation=0.5)
    np.testing.assert_allclose(plan.sum(axis=1), special.softmax(z), rtol=1e-12)
    expected = ot.sinkhorn(special.softmax(z), np.full(4, 0.25), cost / np.median(cost), 0.5, stopThr=1e-12)
    np.testing.assert_allclose(plan, expected, atol=1e-6)


def test_channels_find_the_kind_of_task_where_the_average_cannot(script, load_script):
    world = World()
    library, research = world.library(), research_of(world, load_script)
    form = script.Form(delta="signature")
    every = [
        script.Profiles(activity=activity, signature=signature)
        for activity, signature in zip(library.activity, research.signature, strict=True)
    ]
    by_channels, average = [], []
    for t in range(4):
        case = Case(library=library, column=t, truth="tuned", shots=0)
        score = candidate_effect(standardise(case.source_truth), form.weights(every, t), shrink=0.0)
        by_channels.append(tau_b(score, world.accuracy[:, t]))
        average.append(tau_b(average_rank(case.source_truth), world.accuracy[:, t]))
    assert np.mean(by_channels) > np.mean(average) + 0.2
