"""The public surface: lazy, complete, free of torch until it is used."""

import subprocess
import sys

import pytest

import vlmsel_auto


def test_all_is_sorted_and_is_what_can_be_had():
    assert vlmsel_auto.__all__ == sorted({**vlmsel_auto._HOMES, **vlmsel_auto._MODULES})
    for name in vlmsel_auto.__all__:
        assert getattr(vlmsel_auto, name) is not None
    assert set(vlmsel_auto.__all__) <= set(dir(vlmsel_auto))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = vlmsel_auto.nothing


def test_candidates_are_listed_without_their_weights():
    code = "import sys, vlmsel_auto; print(len(vlmsel_auto.candidates.mini_zoo()) > 1, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_functions_are_not_hidden_by_modules_of_their_name():
    import vlmsel_auto.models.prediction

    assert callable(vlmsel_auto.predict)
    assert callable(vlmsel_auto.search)


@pytest.mark.parametrize("statement", ["import vlmsel_auto", "import vlmsel_auto.cli.app"])
def test_imports_stay_light(statement):
    code = f"import sys; {statement}; print([m for m in ('torch', 'open_clip', 'lightning', 'ot') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_for_search_holds_nothing_of_who_asks():
    code = """
import gc, weakref, vlmsel_auto
class Images: pass
def user(images):
    vlmsel_auto.search
    return weakref.ref(images)
found = user(Images())
gc.collect()
print(found() is None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
