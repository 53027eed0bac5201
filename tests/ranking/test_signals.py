"""signals.py: the registry, against the functions that it names."""

from dataclasses import replace

import numpy as np
import pytest

from helpers.blobs import texts_and_images
from vlmsel_auto.ranking.evidence import linear, zeroshot
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
    return Embedded(features=features, texts=texts, baseline=baseline, labels=labels)


def test_names_are_there_once_and_are_all_that_a_search_computes(seen):
    names = [one.name for one in SIGNALS]
    assert len(set(names)) == len(names)
    assert set(label_free_signals(seen)) == set(IMAGE_SIGNALS) - {ALIGNMENT, CONSENSUS}
    assert set(evidence_scores(seen)) == set(LABEL_SIGNALS)
    assert {*label_free_signals(seen), *evidence_scores(seen)} == set(names)


def test_scores_are_those_of_their_functions(seen):
    free, labelled = label_free_signals(seen), evidence_scores(seen)
    cosine = zeroshot.cosines(seen.features, seen.texts)
    assert free[TOP2_MARGIN] == zeroshot.top2_margin(cosine)
    spread = np.std(cosine - cosine.mean(axis=0))
    assert free["top2_margin_spread"] == pytest.approx(zeroshot.top2_margin(cosine) / spread)
    assert free["margin_spread"] == pytest.approx(zeroshot.margin(cosine) / spread)
    assert free["total_cosine"] == zeroshot.margin_gain(cosine, zeroshot.cosines(seen.baseline[None], seen.texts)[0])
    assert labelled["true_class_zscore"] == zeroshot.true_class_zscore(cosine, seen.labels)
    likelihood = linear.ridge_log_likelihood(seen.features, seen.labels, text_features=seen.texts)
    assert labelled["ridge_text_likelihood"] == likelihood


def test_evidence_without_labels_is_refused(seen):
    with pytest.raises(ValueError, match="needs labels, but got None"):
        evidence_scores(replace(seen, labels=None))


def test_numbers_tell_images_and_their_order_apart():
    assert image_number(np.array([1, 2, 3])) == image_number(np.array([1, 2, 3]))
    assert image_number(np.array([1, 2, 3])) != image_number(np.array([1, 3, 2]))
