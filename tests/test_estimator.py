"""The scikit-learn face: real searches over two small models, through scikit-learn's own tools."""

import gc
import json
import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from helpers.drawings import SHAPES, draw_shape
from vlmsel_auto import VlmClassifier
from vlmsel_auto.errors import CandidateError, InputError, WorkdirError
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.file import save as save_library
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.records import Budget
from vlmsel_auto.tasks.task import TaskOptions, load_task

QUICK = ("RN-Mi-64.glyph-s", "EffNet-Mi-64.all-m")


def shapes(each, *, seed):
    """Pixels (n, 48, 48, 3) and the names of what is drawn."""
    rng = np.random.default_rng(seed)
    names = [shape for _ in range(each) for shape in SHAPES]
    return np.stack([np.asarray(draw_shape(name, rng)) for name in names]), names


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """What keeps a fit short; measurements are shared."""
    folder = tmp_path_factory.mktemp("shared")
    save_library(assemble([]), folder / "none.safetensors")
    return {
        "candidates": QUICK, "method": "probe", "budget": Budget(trials=2), "cache_dir": folder / "cache",
        "library": folder / "none.safetensors",
    }  # fmt: skip


@pytest.fixture(scope="module")
def fitted(settings):
    X, y = shapes(14, seed=0)
    return VlmClassifier(**settings).fit(X, y)


def test_it_learns_and_says_how_sure_it_is(fitted):
    X, y = shapes(8, seed=1)
    assert fitted.classes_.tolist() == sorted(SHAPES)
    probabilities = fitted.predict_proba(X)
    assert probabilities.shape == (24, 3)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert (fitted.predict(X) == fitted.classes_[probabilities.argmax(axis=1)]).all()
    assert fitted.score(X, y) > 0.7
    assert fitted.result_.best.candidate in QUICK
    assert fitted.result_.best.test is None  # every label was learned from


def test_paths_pictures_and_pixels_are_the_same_images(fitted, tmp_path):
    X, _ = shapes(2, seed=2)
    files = [tmp_path / f"{number}.png" for number in range(len(X))]
    for file, pixels in zip(files, X, strict=True):
        Image.fromarray(pixels).save(file)
    expected = fitted.predict_proba(X)
    assert np.array_equal(fitted.predict_proba([Image.fromarray(pixels) for pixels in X]), expected)
    assert np.array_equal(fitted.predict_proba(np.array([str(file) for file in files])), expected)
    twice = fitted.predict_proba([files[1], files[0], files[1]])
    assert np.allclose(twice, expected[[1, 0, 1]], atol=1e-5)  # batches of another size sum in another order


def test_fit_on_paths_gives_what_fit_on_pixels_gives(fitted, settings, tmp_path):
    X, y = shapes(14, seed=0)
    files = [tmp_path / f"{number:03d}.png" for number in range(len(X))]
    for file, pixels in zip(files, X, strict=True):
        Image.fromarray(pixels).save(file)
    again = VlmClassifier(**settings).fit(files, y)
    assert np.array_equal(again.predict_proba(X[:3]), fitted.predict_proba(X[:3]))


def test_labels_that_are_not_assured_are_masked(fitted):
    X, _ = shapes(4, seed=3)
    levels = (fitted.result_.ensemble or fitted.result_.best).answers
    wanted = max(each.at_least for each in levels)
    found = fitted.predict(X, accuracy=wanted)
    level = next(each for each in reversed(levels) if each.at_least >= wanted)
    sure = fitted.predict_proba(X).max(axis=1) >= level.threshold
    assert (~sure <= found.mask).all()  # some of the sure ones may look unlike the others
    assert found.compressed().tolist() == fitted.predict(X)[~found.mask].tolist()
    with pytest.raises(InputError, match="at most"):
        fitted.predict(X, accuracy=0.999)


def test_save_and_load_need_no_pickle(fitted, tmp_path):
    X, _ = shapes(2, seed=3)
    folder = fitted.save(tmp_path / "saved")
    loaded = VlmClassifier.load(folder)
    assert np.array_equal(loaded.predict_proba(X), fitted.predict_proba(X))
    assert loaded.classes_.dtype == fitted.classes_.dtype
    assert (loaded.method, loaded.candidates) == ("probe", list(QUICK))
    assert loaded.budget is None  # no plain value: only another fit needs it
    assert {each.suffix for each in folder.rglob("*") if each.is_file()} <= {".json", ".safetensors", ".md", ".gz"}
    with pytest.raises(WorkdirError, match="the folder must be new"):
        fitted.save(folder)


@pytest.mark.parametrize("change", [{"version": 2}, {"format": "other"}, {"settings": {"no_such": 1}}])
def test_what_was_not_saved_here_is_refused(fitted, tmp_path, change):
    folder = fitted.save(tmp_path / "saved")
    file = folder / "estimator.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(InputError, match="not a classifier that was saved"):
        VlmClassifier.load(folder)
    with pytest.raises(InputError, match="not a classifier that was saved"):
        VlmClassifier.load(tmp_path)


def test_labels_keep_their_kind_and_a_model_in_a_temporary_folder_goes_with_its_estimator(settings, tmp_path):
    X, _ = shapes(14, seed=0)
    labels = [("a", 1), ("b", 2), ("c", 3)]
    model = VlmClassifier(**{**settings, "candidates": QUICK[1]}).fit(X, labels * 14)
    assert model.classes_.tolist() == labels
    assert model.predict(X[:3]).tolist()[0] in labels
    with pytest.raises(InputError, match="only labels that are texts or numbers can be saved"):
        model.save(tmp_path / "x")
    folder = model.model_dir_
    assert folder.is_dir()
    with pytest.raises(TypeError, match="use save"):
        pickle.dumps(model)
    pickle.loads(pickle.dumps(clone(model)))  # noqa: S301 - our own
    del model
    gc.collect()
    assert not folder.exists()


def test_a_work_directory_resumes_also_after_a_failure_and_is_not_taken_from_others(settings, tmp_path):
    X, y = shapes(14, seed=0)
    texts = {name: str(settings[name]) for name in ("library", "cache_dir")}  # as in a notebook
    with pytest.raises(CandidateError, match="nope"):
        VlmClassifier(**{**settings, **texts, "candidates": ["nope"]}, workdir=tmp_path / "w").fit(X, y)
    first = VlmClassifier(**{**settings, **texts}, workdir=str(tmp_path / "w")).fit(X, y)
    assert first.score(X, y) > 0.7
    second = VlmClassifier(**settings, workdir=tmp_path / "w").fit(X, y)
    assert second.result_.trials == first.result_.trials
    assert pickle.loads(pickle.dumps(first)).predict(X[:1]) == first.predict(X[:1])  # noqa: S301 - our own
    (tmp_path / "other" / "task").mkdir(parents=True)
    (tmp_path / "file").touch()
    for taken in ("other", "file"):
        with pytest.raises(WorkdirError, match="workdir must be new, empty or of an earlier fit"):
            VlmClassifier(**settings, workdir=tmp_path / taken).fit(X, y)
    assert (tmp_path / "other" / "task").exists()


def test_groups_are_kept_together_and_one_an_image(settings, tmp_path):
    X, y = shapes(14, seed=0)
    groups = np.arange(42) // 6
    VlmClassifier(**settings, workdir=tmp_path / "w").fit(X, y, groups=groups)
    task = load_task(tmp_path / "w" / "task", TaskOptions(draw_test=False), workdir=tmp_path / "again")
    held = [set(groups[fold]) for fold in task.folds]
    assert sum(map(len, held)) == len(set.union(*held)) == 7
    with pytest.raises(InputError, match="groups must be one for each of 42 images, but got 3"):
        VlmClassifier(**settings).fit(X, y, groups=[1, 2, 3])


@pytest.mark.slow  # seven searches
def test_cross_validation_grid_search_and_pipelines(settings):
    X, y = shapes(10, seed=4)
    settings = {**settings, "candidates": QUICK[0]}  # seven fits
    scores = cross_val_score(VlmClassifier(**settings), X, y, cv=2)
    assert scores.shape == (2,)
    assert scores.min() > 0.5
    steps = Pipeline([("same", FunctionTransformer()), ("model", VlmClassifier(**settings))])
    found = GridSearchCV(steps, {"model__method": ["zero_shot", "probe"]}, cv=2).fit(list(X), y)
    assert found.best_params_ == {"model__method": "probe"}


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((3, 8, 8, 3), dtype=np.uint8), ["a", "b"], "as long as each other, but got 3 and 2"),
        (["no.png", "no.png"], ["a", "b"], "image 0 is not there"),
        (np.zeros((2, 8, 8, 3), dtype=np.uint8), None, "requires y to be passed"),
        (np.zeros((2, 8, 8, 3), dtype=np.uint8), [1, "1"], "labels must differ as text"),
    ],
)
def test_what_cannot_be_fitted_is_refused(X, y, message, tmp_path):
    with pytest.raises(InputError, match=message):
        VlmClassifier(workdir=tmp_path / "w").fit(X, y)


def test_an_image_that_cannot_be_read_is_named(fitted, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    X, _ = shapes(1, seed=5)
    with pytest.raises(InputError, match="every image to predict must be readable, but got image 1: "):
        fitted.predict([Image.fromarray(X[0]), broken])
    with pytest.raises(InputError, match="every image to predict must be readable, but got image 0: "):
        fitted.predict([broken])
    with pytest.raises(InputError, match="At least one image is needed"):
        fitted.predict([])


def test_scalars_of_numpy_are_labels(settings, tmp_path):
    X, names = shapes(14, seed=0)
    y = list(np.unique(names, return_inverse=True)[1])
    model = VlmClassifier(**{**settings, "candidates": QUICK[1]}).fit(X, y)
    assert model.classes_.dtype.kind == "i"
    assert model.score(X, y) > 0.5
    assert VlmClassifier.load(model.save(tmp_path / "saved")).predict(X[:3]).tolist() == model.predict(X[:3]).tolist()


def test_a_refit_that_fails_leaves_what_was_fitted(settings, tmp_path, monkeypatch):
    X, y = shapes(14, seed=0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = VlmClassifier(**{**settings, "method": "zero_shot"}).fit(X, y)
    expected, kept = model.predict_proba(X[:3]), model.model_dir_
    folders = set(tmp_path.iterdir())
    model.set_params(candidates=["no such"])
    for failure in (InputError, KeyboardInterrupt):
        with monkeypatch.context() as patch:
            if failure is KeyboardInterrupt:
                patch.setattr("vlmsel_auto.search", _interrupted)
            with pytest.raises(failure):
                model.fit(X, y)
        assert model.model_dir_ == kept
        assert np.array_equal(model.predict_proba(X[:3]), expected)
        assert set(tmp_path.iterdir()) == folders  # nothing is left of the failure
    model.set_params(candidates=QUICK).fit(X, y)
    assert not kept.exists()


def _interrupted(*_, **__):
    raise KeyboardInterrupt


def test_it_must_be_fitted_before_it_predicts():
    with pytest.raises(NotFittedError):
        VlmClassifier().predict(["a.png"])


def test_settings_are_kept_as_given():
    limits = Limits(max_params=10)
    model = VlmClassifier(budget=5, limits=limits, prompts={1: "one"})
    assert (model.get_params()["limits"], model.get_params()["prompts"]) == (limits, {1: "one"})
    assert clone(model).set_params(budget=7).budget == 7
    assert repr(VlmClassifier(budget=5)) == "VlmClassifier(budget=5)"


CHECKS = (
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_valid_tag_types",
)


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learn_s_own_check(name):
    if not hasattr(estimator_checks, name):
        pytest.skip("this scikit-learn does not have the check yet")
    getattr(estimator_checks, name)("VlmClassifier", VlmClassifier())


@pytest.mark.skipif(not hasattr(estimator_checks, "estimator_checks_generator"), reason="scikit-learn 1.6 has tags")
def test_scikit_learn_passes_over_the_checks_on_tables_of_numbers():
    with pytest.warns(estimator_checks.SkipTestWarning, match="requires input"):
        done = estimator_checks.check_estimator(VlmClassifier(), on_fail=None)
    assert [(each["check_name"], each["status"]) for each in done] == [("check_estimator_cloneable", "passed")]
