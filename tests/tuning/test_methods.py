import importlib
import subprocess
import sys

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.method import Method
from vlmsel_auto.records import Candidate, ImageView
from vlmsel_auto.tuning.methods import FINETUNE, METHODS, PROBE, USUAL, label_of, method_of, methods_of
from vlmsel_auto.tuning.recipes import LARGE_TOWER


def candidate(family: str = "vit", params: int | None = 1_000_000) -> Candidate:
    return Candidate(
        id="a", source="local-dir", arch="a", tag="t", view=ImageView(size=32), params=params, family=family
    )


@pytest.mark.parametrize("method", METHODS, ids=lambda each: each.name)
@pytest.mark.parametrize("images", [2, 160, 20_000])
def test_every_point_is_a_sound_trial(method: Method, images: int) -> None:
    space = method.space(candidate(), train_images=images)
    assert tuple(space.ranges) == method.settings
    for unit in (0.0, 0.5, 1.0):
        spec = space.spec(dict.fromkeys(method.settings, unit), candidate="a", seed=3)
        assert (spec.epochs >= 1) == ("epochs" in method.settings)
        assert 0 < spec.settings.get("learning_rate", 0.5) < 1
        assert 0 <= spec.settings.get("augmentation", 0.0) <= 1
        back = space.point(spec)
        for name in set(method.settings) - {"epochs"}:  # whole numbers
            assert back[name] == pytest.approx(unit)


def test_small_towers_learn_fast_and_large_ones_slowly() -> None:
    small = FINETUNE.space(candidate(), train_images=100).ranges["learning_rate"]
    large = FINETUNE.space(candidate(params=LARGE_TOWER), train_images=100).ranges["learning_rate"]
    unknown = FINETUNE.space(candidate(params=None), train_images=100).ranges["learning_rate"]
    assert 2e-5 <= small.low < small.high <= 1e-2
    assert 5e-7 <= large.low < large.high <= 1e-4
    assert unknown == large


def test_few_images_are_shown_more_often() -> None:
    numbers = (50, 100, 700, 2_000, 20_000)
    epochs = [FINETUNE.space(candidate(), train_images=n).ranges["epochs"].at(0.5) for n in numbers]
    assert epochs == pytest.approx([25, 25, 18, 6, 3])
    short = FINETUNE.space(candidate(), train_images=100, images_per_trial=500).ranges["epochs"]
    assert short.at(0.5) == pytest.approx(5)


def test_a_probe_has_no_augmentation() -> None:
    assert "augmentation" not in PROBE.default(candidate(), train_images=10, seed=0).settings


def test_names_are_distinct_and_their_modules_run() -> None:
    assert len({each.name for each in METHODS}) == len(METHODS)
    for each in METHODS:
        assert callable(importlib.import_module(each.module).run)
        assert label_of(each.name) == each.label
    assert label_of("of a newer version") == "of a newer version"
    assert {each.name for each in METHODS} - {each.name for each in USUAL} == {"lora", "last_blocks", "projection"}
    assert [each.name for each in methods_of(["finetune", "zero_shot", "finetune"])] == ["zero_shot", "finetune"]


def test_the_table_needs_no_torch() -> None:
    code = "import sys; import vlmsel_auto.tuning.methods; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "False"


def test_refusals() -> None:
    with pytest.raises(ValueError, match="image counts must be positive"):
        PROBE.space(candidate(), train_images=0)
    names = ", ".join(each.name for each in METHODS)
    with pytest.raises(InputError, match=f"method must be one of {names}, but got 'prompts'"):
        method_of("prompts")
    with pytest.raises(InputError, match="at least one method is needed"):
        methods_of([])
