import csv

import numpy as np
import pytest

from vlmsel_auto.library import published
from vlmsel_auto.library.published import expected_figures, features_of, regress
from vlmsel_auto.models.candidates import mini_zoo, resolve


def test_shipped_figures_are_those_of_the_table():
    with published.SHIPPED.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    ids = [f"{row['name']}/{row['pretrained']}" for row in rows]
    figures = published.zero_shot(ids)
    assert figures.shape == (121, 35)
    assert np.isfinite(figures).all()
    for k, name in enumerate(published.datasets()):
        assert figures[:, k].tolist() == [float(row[name]) for row in rows]


def test_known_and_unknown_candidates():
    figures = published.zero_shot(["ViT-B-32/openai", "ViT-Mi-8-64.all-l"])
    imagenet = published.datasets().index(published.IMAGENET)
    assert figures[0, imagenet] == 0.6332  # docs/openclip_results.csv
    assert np.isnan(figures[1]).all()
    assert published.zero_shot([]).shape == (0, 35)


def test_retrieval_columns_are_no_classification_figures():
    assert not {"Flickr", "MSCOCO", "WinoGAViL"} & set(published.datasets())


def named(*names):
    return [resolve(name)[0] for name in names]


def test_published_models_have_their_own_figures():
    pair = named("ViT-L-14/openai", "RN50/openai")
    np.testing.assert_array_equal(expected_figures(pair), published.zero_shot([one.id for one in pair]))
    assert expected_figures([]).shape == (0, len(published.datasets()))


def test_models_of_later_years_are_expected_above_the_average_one():
    later = named("ViT-SO400M-14-SigLIP2-378/webli", "PE-Core-L-14-336/meta", "MobileCLIP2-L-14/dfndr2b")
    assert not np.isfinite(published.zero_shot([one.id for one in later])).any()
    everyone = published.zero_shot(published.models()).mean(axis=1)
    found = expected_figures(later).mean(axis=1)
    assert (found > np.quantile(everyone, 0.75)).all()
    assert (found <= everyone.max() + 0.05).all()
    small = expected_figures(named("MobileCLIP2-S0/dfndr2b", "PE-Core-T-16-384/meta")).mean(axis=1)
    assert (small < found.min()).all()


def test_nothing_is_expected_of_whom_too_little_is_known():
    unknown = [*named("nllb-clip-base-siglip/mrl"), mini_zoo()[0]]
    assert np.isnan(expected_figures(unknown)).all()


def test_a_hidden_line_is_guessed_better_than_by_the_average():
    names = list(published.models())
    models = [resolve(name)[0] for name in names]
    features, figures = np.array([features_of(one) for one in models]), published.zero_shot(names)
    for tag, least in (("webli", 1.5), ("dfn", 3.0), ("metaclip", 1.3)):
        hidden = np.array([tag in name.partition("/")[2] for name in names])
        found = regress(features[~hidden], figures[~hidden], wanted=features[hidden]).mean(axis=1)
        truth = figures[hidden].mean(axis=1)
        error = np.sqrt(np.mean((found - truth) ** 2))
        average = np.sqrt(np.mean((figures[~hidden].mean() - truth) ** 2))
        assert average > least * error, tag


def test_a_regression_needs_enough_models_and_whole_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 2))
    figures = 0.5 + np.outer(features[:, 0], [0.1, -0.1])
    wanted = np.array([[0.5, 0.0], [np.nan, 0.0], [9.0, 0.0]])
    found = regress(features, figures, wanted=wanted)
    assert found[0] == pytest.approx([0.55, 0.45], abs=0.01)
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [figures[:, 0].max(), figures[:, 1].min()]  # no further than anybody went
    assert np.isnan(regress(features[:7], figures[:7], wanted=wanted)).all()
