"""text.py: LOVM's text scores, against loops."""

import numpy as np
import pytest

from vlmsel_auto.ranking.evidence.text import TEXT_SCORES, text_scores


def captions(classes=4, templates=3, width=16, spread=0.3, seed=0):
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(classes, 1, width)) + spread * rng.normal(size=(classes, templates, width))
    return made / np.linalg.norm(made, axis=2, keepdims=True)


def test_closeness_in_loops():
    texts = captions()
    found = text_scores(texts)
    assert tuple(found) == TEXT_SCORES
    weights = [one.mean(axis=0) / np.linalg.norm(one.mean(axis=0)) for one in texts]
    own, other, between = [], [], []
    for c, weight in enumerate(weights):
        rest = [w for i, w in enumerate(weights) if i != c]
        between.append(max(weight @ w for w in rest))
        for caption in texts[c]:
            own.append(caption @ weight)
            other.append(max(caption @ w for w in rest))
    assert found["text_inter_close"] == pytest.approx(np.mean(own))
    assert found["text_intra_close"] == pytest.approx(np.mean(other))
    assert found["text_intraclass"] == pytest.approx(np.mean(between))


def test_classes_far_apart_are_told_apart_and_equal_ones_are_not():
    apart = np.eye(32)[:4][:, None, :].repeat(3, axis=1)
    assert text_scores(apart)["text_accuracy"] > 0.95
    same = apart[:1].repeat(4, axis=0)
    assert text_scores(same)["text_accuracy"] == pytest.approx(0.25)  # the first of equals is always chosen
    assert text_scores(same)["text_f1"] == pytest.approx(0.1)  # F1 of .4 on one class of four
    assert text_scores(apart, seed=1) == text_scores(apart, seed=1)


def test_scores_do_not_hang_on_the_order_of_templates():
    texts = captions()
    one, two = text_scores(texts), text_scores(texts[:, ::-1])
    for name in ("text_inter_close", "text_intra_close", "text_intraclass"):
        assert one[name] == pytest.approx(two[name])
