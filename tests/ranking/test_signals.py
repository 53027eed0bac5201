"""signals.py: the registry, against the functions that it names."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence import knn, leep, linear, zeroshot
from vlmsel_auto.ranking.signals import (
    ALIGNMENT,
    CONSENSUS,
    IMAGE_SIGNALS,
    LABEL_SIGNALS,
    SIGNALS,
    TOP2_MARGIN,
    Embedded,
    evidence_scores,
    image_number,
    label_free_signals,
)


@pytest.fixture
def seen():
    features, labels, texts = texts_and_images(spread=0.6)
    baseline = np.random.default_rng(1).normal(size=texts.shape[1])
    return Embedded(features=features, texts=texts, baseline=baseline, logit_scale=7.0, labels=labels)


def test_names_are_there_once_and_the_ranked_ones_are_all_that_a_search_computes(seen):
    names = [one.name for one in SIGNALS]
    assert len(set(names)) == len(names)
    assert set(label_free_signals(seen)) == set(IMAGE_SIGNALS) - {ALIGNMENT, CONSENSUS}
    assert set(evidence_scores(seen)) == set(LABEL_SIGNALS)
    others = {*label_free_signals(seen, ranked=False), *evidence_scores(seen, ranked=False)}
    assert {*label_free_signals(seen), *evidence_scores(seen), *others} == set(names)


def test_no_ranked_signal_depends_on_the_logit_scale(seen):
    other = replace(seen, logit_scale=70.0)
    assert label_free_signals(other) == label_free_signals(seen)
    assert evidence_scores(other) == evidence_scores(seen)
    assert label_free_signals(other, ranked=False)["entropy"] != label_free_signals(seen, ranked=False)["entropy"]


def test_scores_are_those_of_their_functions(seen):
    free = label_free_signals(seen) | label_free_signals(seen, ranked=False)
    labelled = evidence_scores(seen, ranked=False)
    cosine = zeroshot.cosines(seen.features, seen.texts)
    assert free[TOP2_MARGIN] == zeroshot.top2_margin(cosine)
    assert free["margin_spread"] == pytest.approx(zeroshot.margin(cosine) / np.std(cosine - cosine.mean(axis=0)))
    assert free["total_cosine"] == zeroshot.margin_gain(cosine, zeroshot.cosines(seen.baseline[None], seen.texts)[0])
    assert free["iimm"] == zeroshot.iimm(seen.features, seen.texts)
    assert labelled["zeroshot"] == np.mean(seen.predicted == seen.labels)
    assert labelled["knn1"] == knn.knn(seen.features, seen.labels, k=1)
    assert labelled["nleep"] == leep.nleep(seen.features, seen.labels, seed=0)
    assert labelled["ridge_text"] == linear.ridge(seen.features, seen.labels, text_features=seen.texts)


def test_evidence_without_labels_is_refused(seen):
    with pytest.raises(ValueError, match="needs labels, but got None"):
        evidence_scores(replace(seen, labels=None))


def test_numbers_tell_images_and_their_order_apart():
    assert image_number(np.array([1, 2, 3])) == image_number(np.array([1, 2, 3]))
    assert image_number(np.array([1, 2, 3])) != image_number(np.array([1, 3, 2]))
