"""Cards of the mini zoo: what the script measures is what ships."""

import json
import runpy
from pathlib import Path

import pytest

from vlmsel_auto.models import candidates, zoo

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "model_cards.py"))


def test_a_card_made_now_is_the_one_that_ships(minizoo):
    folder = minizoo / "RN-Mi-64.all-m"
    assert SCRIPT["card"](folder) == json.loads((folder / "card.json").read_text())


def test_counted_operations_match_a_count_by_hand():
    (candidate,) = candidates.resolve("ViT-Mi-16-64.all-m")
    width, layers, tokens, embed = 128, 6, 17, 96  # patch 16 on 64 pixels: 16 patches and the class token
    per_layer = 4 * width * width * tokens + 2 * tokens * tokens * width + 8 * width * width * tokens  # multiply-adds
    macs = 16 * 16 * 3 * width * 16 + layers * per_layer + width * embed
    assert candidate.flops == pytest.approx(2 * macs, rel=1e-6)
    assert SCRIPT["visual_flops"](zoo.load(candidate)) == candidate.flops
