"""Fingerprints of candidates: the same for the same content, another for every other."""

import shutil
from pathlib import Path

from vlmsel_auto.models.candidates import mini_zoo, resolve
from vlmsel_auto.models.fingerprint import fingerprint


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
    assert len(set(prints)) == 20
