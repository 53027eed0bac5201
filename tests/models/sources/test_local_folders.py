"""A folder's fingerprint: the same for the same content, another for every other."""

import json
import shutil
from pathlib import Path

from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.sources.table import fingerprint


def test_a_fingerprint_follows_the_content(minizoo: Path, tmp_path: Path) -> None:
    names = ("mine", "copy")
    for name in names:
        shutil.copytree(minizoo / "RN-Mi-64.all-m", tmp_path / name)
    first, second = (resolve(f"local-dir:{tmp_path / name}")[0] for name in names)
    assert fingerprint(first) == fingerprint(second)
    weights = tmp_path / "copy" / "open_clip_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert fingerprint(first) != fingerprint(second)
    prints = [fingerprint(each) for each in mini_zoo()]
    assert len(set(prints)) == len(prints)


def test_a_fingerprint_follows_the_files_of_a_tokenizer_of_transformers(minizoo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(minizoo / "RN-Mi-64.all-m", folder)
    candidate, config = resolve(f"local-dir:{folder}")[0], folder / "open_clip_config.json"
    without = fingerprint(candidate)
    (folder / "tokenizer.json").write_text("{}")
    assert fingerprint(candidate) == without  # nobody reads it
    text = json.loads(config.read_text())
    text["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "someone/tokenizer"
    config.write_text(json.dumps(text))
    seen = {fingerprint(candidate)}
    for name in ("tokenizer.json", "tokenizer_config.json", "merges.txt"):
        (folder / name).write_text('{"changed": true}')
        seen.add(fingerprint(candidate))
    assert len(seen) == 4
