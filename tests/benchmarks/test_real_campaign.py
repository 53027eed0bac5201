import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from helpers.loopback_hub import loopback_hub
from helpers.real_architectures import serve_weights
from vlmsel_auto.models.sources.open_clip_tags import places
from vlmsel_auto.tuning.methods import METHODS

ROOT = Path(__file__).parents[2]


def digits(folder: Path, classes: tuple[int, ...]) -> Path:
    """Handwritten digits as a task folder: eight a class to learn from, three to be tested on."""
    data = load_digits()
    for label in classes:
        for number, place in enumerate(np.flatnonzero(data.target == label)[:11]):
            path = folder / ("train" if number < 8 else "test") / str(label) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((data.images[place] * 15.9).astype(np.uint8)).resize((64, 64)).save(path)
    return folder


@pytest.mark.slow
def test_a_campaign_of_two_models_on_two_sets_goes_on_and_shows_its_tables(tmp_path: Path) -> None:
    names = ("ViT-B-32/laion2b_s34b_b79k", "RN50/openai")
    sets = [digits(tmp_path / "even", (0, 2)), digits(tmp_path / "odd", (1, 3))]
    with loopback_hub(tmp_path) as server:
        for name in names:
            arch, tag = name.split("/")
            _, place = places(arch, tag)
            serve_weights(server, arch, tag, tmp_path / f"{arch}.safetensors", place.rstrip("/"))
        command = [
            sys.executable, "-m", "benchmarks.tuning.real_campaign", "--out", str(tmp_path / "out"), "--hub",
            server.url, "--device", "cpu", "--epochs", "1", "--labels", "8", "--models", ",".join(names), "--sets",
            ",".join(map(str, sets)),
        ]  # fmt: skip
        here = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "VLMSEL_CACHE": str(tmp_path / "cache")}
        here["HF_HUB_OFFLINE"] = "0"
        for hours, told in (("0", "the time is over: the same command goes on"), ("1", "page.html")):
            asked = [*command, "--hours", hours]
            ran = subprocess.run(asked, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            assert told in ran.stdout
    records = [json.loads(file.read_text()) for file in (tmp_path / "out" / "records").glob("*.json")]
    fits = [one for one in records if "method" in one]
    assert len(fits) == len(names) * len(sets) * len(METHODS)
    assert [one["problem"] for one in fits if one["problem"]] == []
    assert all(0 <= one["test"] <= 1 and one["gigabytes"] > 0 for one in fits)
    table = (tmp_path / "out" / "README.md").read_text()
    assert "## 8 labels a class: accuracy, mean of data sets" in table
    assert "| even-8 |" in table
    page = (tmp_path / "out" / "page.html").read_text()
    assert page.count("<table>") == 6
    assert "<svg" in (tmp_path / "out" / "methods.svg").read_text()
