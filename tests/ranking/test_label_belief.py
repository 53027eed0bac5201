"""Beliefs of classes, accuracies and the winner: against other ways to compute them, and on drawn worlds."""

import numpy as np
import pytest
from scipy import optimize, special, stats
from sklearn.metrics import cohen_kappa_score

from vlmsel_auto.ranking import label_belief
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.label_belief import Weights, believe, prior_weights, strength_chances, strength_signs
from vlmsel_auto.records import UNLABELLED


def world(seed, *, skills=(3.0, 1.5, 1.0, 0.5, 0.5), n=200, k=4):
    """Votes (M, n, K) of candidates that see the class with more or less noise, and the classes."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, size=n)
    signal = np.eye(k)[truth]
    return np.stack([skill * signal + rng.normal(size=(n, k)) for skill in skills]), truth


def flat(votes):
    m = len(votes)
    return prior_weights(np.full(m, 1 / m), likeness(list(votes)))


def none(n):
    return np.full(n, UNLABELLED)


def some(truth, places):
    labels = none(len(truth))
    labels[places] = truth[places]
    return labels


def test_probabilities_are_probabilities():
    votes, truth = world(0)
    now = believe(votes, prior=flat(votes), labels=some(truth, np.arange(10)))
    np.testing.assert_allclose(now.classes.sum(axis=1), 1.0)
    np.testing.assert_array_equal(now.classes[:10], np.eye(4)[truth[:10]])
    assert now.p_best.sum() == pytest.approx(1.0)
    assert (now.information[:10] == 0).all()
    assert (now.information[10:] > 0).all()
    assert np.linalg.eigvalsh(now.covariance).min() > -1e-12


def test_expected_loss_is_that_of_the_larger_of_two_normals():
    """Clark, "The greatest of a finite set of random variables", Operations Research 9 (1961), equation 1."""
    votes, truth = world(0)
    two = votes[:2]
    now = believe(two, prior=flat(two), labels=some(truth, np.arange(10)))
    variance = now.covariance[0, 0] + now.covariance[1, 1] - 2 * now.covariance[0, 1]
    apart = np.sqrt(label_belief._UNSAID * variance)
    far = (now.accuracy[0] - now.accuracy[1]) / apart
    highest = now.accuracy @ stats.norm.cdf([far, -far]) + apart * stats.norm.pdf(far)
    np.testing.assert_allclose(now.loss, highest - now.accuracy, atol=0.03 * apart)
    assert (now.loss >= 0).all()


def test_nothing_is_lost_where_all_is_known():
    votes, truth = world(0)
    now = believe(votes, prior=flat(votes), labels=truth)
    np.testing.assert_allclose(now.loss, now.accuracy.max() - now.accuracy, atol=1e-4)


def test_weights_are_the_penalised_maximum_of_the_likelihood():
    votes, truth = world(1)
    prior, labels = flat(votes), some(truth, np.arange(0, 200, 5))
    centred = votes - votes.mean(axis=2, keepdims=True)
    known = labels != UNLABELLED
    found, covariance, _ = label_belief._fit_weights(
        centred, prior=prior, labels=labels, known=known, coming=np.zeros(200, dtype=bool)
    )

    def cost(w):
        logs = special.log_softmax(np.tensordot(w, votes[:, known], axes=1), axis=1)
        return -logs[np.arange(known.sum()), truth[known]].sum() + 0.5 * np.sum(((w - prior.mean) / prior.sd) ** 2)

    expected = optimize.minimize(cost, prior.mean, method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(found, expected.x, atol=1e-4)
    steps = 1e-3 * np.eye(5)
    curvature = [
        [(cost(found + a + b) - cost(found + a - b) - cost(found - a + b) + cost(found - a - b)) / 4e-6 for a in steps]
        for b in steps
    ]
    np.testing.assert_allclose(np.linalg.inv(covariance), curvature, rtol=1e-3, atol=1e-3)


def test_votes_that_are_far_apart_do_not_run_away():
    rng = np.random.default_rng(2)
    votes = 60 * rng.normal(size=(4, 100, 3))
    truth = rng.integers(0, 3, size=100)
    now = believe(votes, prior=flat(votes), labels=some(truth, np.arange(50)))
    assert np.isfinite(now.classes).all()
    # nobody knows anything: the weights go to nothing, not to where fifty labels happen to fit
    assert np.abs(now.accuracy - 1 / 3).max() < 0.25


def test_accuracies_move_with_the_weights_as_their_slope_says():
    """Covariance of accuracies against draws of weights and of classes."""
    votes, truth = world(3, n=80)
    prior = Weights(mean=np.full(5, 0.4), sd=np.full(5, 0.02))  # narrow, where a first order is enough
    labels = some(truth, np.arange(8))
    now = believe(votes, prior=prior, labels=labels)
    centred = votes - votes.mean(axis=2, keepdims=True)
    mean, doubt, _ = label_belief._fit_weights(
        centred, prior=prior, labels=labels, known=labels >= 0, coming=np.zeros(80, dtype=bool)
    )
    rng = np.random.default_rng(0)
    named, found = votes.argmax(axis=2), []
    for weights in rng.multivariate_normal(mean, doubt, size=4_000):
        chances = special.softmax(np.tensordot(weights, votes, axes=1), axis=1)
        drawn = (chances.cumsum(axis=1) < rng.random((80, 1))).sum(axis=1)
        drawn[:8] = truth[:8]
        found.append((named == drawn).mean(axis=1))
    np.testing.assert_allclose(now.accuracy, np.mean(found, axis=0), atol=0.005)
    np.testing.assert_allclose(now.covariance, np.cov(np.array(found).T), atol=2.5e-4)


def test_the_winners_chances_move_with_the_means_as_their_gradient_says():
    mean, spread = np.array([0.6, 0.58, 0.5]), np.array([[4, 1, 0], [1, 3, 0.5], [0, 0.5, 5]]) / 1e3
    _, _, pull = label_belief._winner(mean, spread)
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(3), spread, size=400_000)

    def chances(shift):
        return np.bincount((mean + shift + draws).argmax(axis=1), minlength=3) / len(draws)

    expected = np.stack([(chances(step) - chances(-step)) / 0.02 for step in 0.01 * np.eye(3)], axis=1)
    np.testing.assert_allclose(pull, expected, atol=0.6)
    assert np.abs(expected).max() > 3


def test_copies_of_one_model_have_one_say():
    votes, truth = world(4)
    labels = some(truth, np.arange(0, 200, 20))
    p_best = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    copied = np.concatenate([votes, votes[:1], votes[:1]])
    shared = np.array([0.5 / 3, 0.2, 0.1, 0.1, 0.1, 0.5 / 3, 0.5 / 3])
    one = believe(votes, prior=prior_weights(p_best, np.eye(5)), labels=labels)
    alike = np.eye(7)
    alike[np.ix_([0, 5, 6], [0, 5, 6])] = 1.0
    three = believe(copied, prior=prior_weights(shared, alike), labels=labels)
    np.testing.assert_allclose(three.classes, one.classes, atol=1e-6)
    np.testing.assert_allclose(three.accuracy[:5], one.accuracy, atol=1e-6)
    assert three.p_best[[0, 5, 6]].sum() == pytest.approx(one.p_best[0], abs=0.03)


def test_what_is_asked_for_is_no_longer_doubtful():
    votes, _ = world(6)
    before = believe(votes, prior=flat(votes), labels=none(200))
    asked = np.zeros(200, dtype=bool)
    asked[before.information.argsort()[-40:]] = True
    after = believe(votes, prior=flat(votes), labels=none(200), asked=asked)
    np.testing.assert_allclose(after.accuracy, before.accuracy)  # nobody knows the answers
    assert (np.diag(after.covariance) < np.diag(before.covariance)).all()
    assert (after.information[asked] == 0).all()


def test_labels_turn_a_ranking_that_is_wrong():
    """The ranking believes in the worst; asked images find the best with fewer labels than random ones."""
    wrong = np.array([0.01, 0.02, 0.02, 0.05, 0.9])
    needed = {"asked": [], "random": []}
    for seed in range(6):
        votes, truth = world(seed, skills=(2.0, 1.6, 1.2, 0.8, 0.4))
        right = (votes.argmax(axis=2) == truth).mean(axis=1)
        prior = prior_weights(wrong, likeness(list(votes)))
        order = np.random.default_rng(seed).permutation(200)
        for way, counts in needed.items():
            labels, lost = none(200), []
            for place in order[:40]:
                now = believe(votes, prior=prior, labels=labels)
                lost.append(right.max() - right[now.accuracy.argmax()])
                chosen = now.information.argmax() if way == "asked" else place
                labels[chosen] = truth[chosen]
            far = np.flatnonzero(np.array(lost) > 0.01)
            counts.append(far[-1] + 1 if len(far) else 0)
    assert np.mean(needed["asked"]) < 0.8 * np.mean(needed["random"])
    assert max(needed["asked"]) < 40


@pytest.mark.parametrize("labels", [np.full(3, UNLABELLED), np.full(200, 4), np.full(200, -2)])
def test_labels_that_cannot_be(labels):
    votes, _ = world(0)
    with pytest.raises(ValueError, match="labels must be 200 classes below 4"):
        believe(votes, prior=flat(votes), labels=labels)


def certain(strength):
    return np.array([float(each == strength) for each in label_belief.STRENGTHS])


def test_votes_as_strong_as_usual_are_one_component_of_the_mixture():
    votes, truth = world(8)
    labels = some(truth, np.arange(10))
    plain = believe(votes, prior=flat(votes), labels=labels)
    with np.errstate(divide="ignore"):
        mixed = believe(votes, prior=flat(votes), labels=labels, chances=certain(1.0))
    for name in ("classes", "accuracy", "covariance", "p_best", "loss", "information", "interval"):
        np.testing.assert_allclose(getattr(mixed, name), getattr(plain, name), atol=1e-12)


def test_the_evidence_of_a_strength_is_the_integral_over_the_weight():
    votes, truth = world(9, skills=(1.0,), n=40)
    labels, centred = some(truth, np.arange(0, 40, 2)), votes - votes.mean(axis=2, keepdims=True)
    known = labels != UNLABELLED

    def evidence(mean):
        prior = Weights(mean=np.array([mean]), sd=np.array([0.3]))
        nothing = np.zeros(40, dtype=bool)
        return label_belief._fit_weights(centred, prior=prior, labels=labels, known=known, coming=nothing)[2]

    def integral(mean):
        grid = np.linspace(-2, 6, 4_001)
        logs = special.log_softmax(grid[:, None, None] * centred[0][known], axis=2)
        said = logs[:, np.arange(known.sum()), truth[known]].sum(axis=1)
        return special.logsumexp(said + stats.norm.logpdf(grid, mean, 0.3)) + np.log(grid[1] - grid[0])

    assert evidence(2.0) - evidence(0.0) == pytest.approx(integral(2.0) - integral(0.0), abs=0.02)


def test_ten_labels_correct_candidates_that_are_wrong_together():
    """All see the same wrong class most clearly, so they agree; half a dozen labels show that."""
    votes, truth = world(10)
    wrong = np.roll(votes, 1, axis=2)
    labels = some(truth, np.arange(10))
    chances = np.full(len(label_belief.STRENGTHS), 1 / len(label_belief.STRENGTHS))
    plain = believe(wrong, prior=flat(wrong), labels=labels)
    mixed = believe(wrong, prior=flat(wrong), labels=labels, chances=chances)
    true = (wrong.argmax(axis=2) == truth).mean(axis=1)
    assert abs(mixed.accuracy - true).mean() < 0.7 * abs(plain.accuracy - true).mean()
    assert mixed.p_weak > 0.9


def test_intervals_are_quantiles_of_the_mixture():
    votes, _ = world(11)
    chances = np.array([0.3, 0.1, 0.2, 0.2, 0.2])
    now = believe(votes, prior=flat(votes), labels=none(200), chances=chances)
    rng, drawn = np.random.default_rng(0), []
    for strength, share in zip(label_belief.STRENGTHS, chances, strict=True):
        one = believe(votes, prior=Weights(mean=strength * flat(votes).mean, sd=flat(votes).sd), labels=none(200))
        sd = np.sqrt(label_belief._UNSAID * np.diag(one.covariance))
        drawn.append(rng.normal(one.accuracy, sd, size=(int(100_000 * share), 5)))
    expected = np.quantile(np.concatenate(drawn), [0.05, 0.95], axis=0)
    np.testing.assert_allclose(now.interval, np.clip(expected, 0, 1), atol=0.01)


def test_an_answer_is_expected_to_leave_the_chances_where_they_are():
    """A martingale: what nobody's answer moves in the mean is no information."""
    votes, _ = world(12)
    chances = np.full(len(label_belief.STRENGTHS), 1 / len(label_belief.STRENGTHS))
    before = believe(votes, prior=flat(votes), labels=none(200), chances=chances)
    after = np.zeros(5)
    for answer in range(4):
        labels = none(200)
        labels[0] = answer
        after += before.classes[0, answer] * believe(votes, prior=flat(votes), labels=labels, chances=chances).p_best
    np.testing.assert_allclose(after, before.p_best, atol=0.02)


def test_agreement_is_cohens_kappa_of_those_that_are_no_copies():
    votes, _ = world(13)
    named = votes.argmax(axis=2)
    pairs = [cohen_kappa_score(named[a], named[b]) for a in range(5) for b in range(a)]
    signs = strength_signs(votes, np.eye(5))
    assert signs[0] == pytest.approx(np.log(np.mean(pairs)))
    copied = strength_signs(np.concatenate([votes, votes]), np.kron(np.ones((2, 2)), np.eye(5)))
    assert copied[0] == pytest.approx(signs[0])


def test_votes_for_other_images_are_held_for_weaker():
    votes, _ = world(14, skills=(3.0, 3.0, 3.0, 3.0, 3.0))
    rng = np.random.default_rng(0)
    apart = np.stack([each[rng.permutation(200)] for each in votes])
    strong, weak = (strength_chances(each, np.eye(5)) for each in (votes, apart))
    assert strong.sum() == pytest.approx(1.0)
    assert strong @ np.array(label_belief.STRENGTHS) > weak @ np.array(label_belief.STRENGTHS)
