import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmsel_auto.ranking.forecast import Forecast, in_standard_units, screening_accuracy
from vlmsel_auto.ranking.signals import Embedded


def forecast(mean, sd=None, screened=None) -> Forecast:
    m = len(mean)
    return Forecast(
        mean=np.array(mean, dtype=float),
        sd=np.zeros(m) if sd is None else np.array(sd, dtype=float),
        screened=np.zeros(m, dtype=bool) if screened is None else np.array(screened),
        published=np.ones(m, dtype=bool),
    )


def drawn(*, per_class: int, spread: float) -> Embedded:
    rng = np.random.default_rng(3)
    texts = np.eye(3)
    labels = np.repeat(np.arange(3), per_class)
    features = texts[labels] + spread * rng.normal(size=(len(labels), 3))
    return Embedded(features=features, texts=texts, baseline=np.zeros(3), labels=labels)


def test_a_screening_is_exact_on_what_is_easy_and_chance_on_noise():
    assert screening_accuracy(drawn(per_class=8, spread=0.01))[0] == 1.0
    accuracy, sd = screening_accuracy(drawn(per_class=50, spread=50.0))
    assert accuracy == pytest.approx(1 / 3, abs=0.1)
    assert sd == pytest.approx(np.sqrt(0.6 * accuracy * (1 - accuracy) / 150), rel=0.05)
    assert screening_accuracy(drawn(per_class=8, spread=0.01))[1] > 0.0  # a perfect score on 24 images is no certainty


def test_with_one_image_a_class_the_zero_shot_accuracy_is_the_look():
    assert screening_accuracy(drawn(per_class=1, spread=0.01))[0] == 1.0


@given(st.floats(0.1, 0.4), st.floats(0.5, 2.0))
def test_level_and_scale_cancel(level, scale):
    first = in_standard_units(forecast([0.2, 0.5, 0.3], [0.1, 0.1, 0.1]), None)
    other = in_standard_units(
        forecast(level + scale * np.array([0.2, 0.5, 0.3]), scale * np.array([0.1, 0.1, 0.1])), None
    )
    assert first[0] == pytest.approx(other[0])
    assert first[1] == pytest.approx(other[1])


def test_candidates_that_hardly_differ_are_not_blown_up():
    score, _ = in_standard_units(forecast([0.5, 0.5001]), None)
    assert np.abs(score).max() < 0.01


def test_evidence_orders_those_screened_and_moves_nobody_else():
    known = forecast([0.7, 0.69, 0.3, 0.2], [0.01, 0.01, 0.1, 0.1], [True, True, False, False])
    alone, _ = in_standard_units(known, None)
    both, _ = in_standard_units(known, np.array([0.0, 3.0, 99.0, -99.0]))
    assert both[2:].tolist() == alone[2:].tolist()
    assert both[:2].mean() == pytest.approx(alone[:2].mean())
    agreeing, _ = in_standard_units(known, np.array([3.0, 0.0, 0.0, 0.0]))
    assert agreeing == pytest.approx(alone)
    assert both[1] == pytest.approx(both[0])  # equal shares: two that disagree wholly come out alike


def test_some_of_a_forecast():
    part = forecast([0.1, 0.2, 0.3], screened=[True, False, True]).of([2, 0])
    assert part.mean.tolist() == [0.3, 0.1]
    assert part.screened.tolist() == [True, True]


def test_evidence_that_is_news_spreads_the_scores_and_narrows_the_rest():
    flat = forecast([0.5, 0.5, 0.5, 0.5], [0.1, 0.1, 0.1, 0.1], [True, True, True, False])
    score, sd = in_standard_units(flat, np.array([2.0, 1.0, 0.0, 9.0]), news=True)
    assert score[0] > score[1] > score[2]
    assert score[:3].std() == pytest.approx(np.sqrt(0.5))
    assert score[3] == 0.0
    assert sd == pytest.approx([np.sqrt(0.5)] * 3 + [1.0])
    known, _ = in_standard_units(flat, np.array([2.0, 1.0, 0.0, 9.0]))
    assert known == pytest.approx(np.zeros(4))
