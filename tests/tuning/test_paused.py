import dataclasses
from pathlib import Path

import pytest
import torch

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.planning.method import Part
from vlmsel_auto.tuning.paused import Paused, Progress, drop_paused, has_paused, load_paused, save_paused

PROGRESS = Progress(
    curve=(0.5, 0.6), metric=0.6, soft=0.55, loss=0.9, start=0.4, steps=10, batch=8, part=Part.LOW_RANK, seconds=3.5
)


def test_round_trip_and_damage(tmp_path: Path) -> None:
    state = Paused(
        progress=PROGRESS,
        module={"visual.a": torch.ones(2, 3), "head.bias": torch.zeros(2)},
        moments={"0.step": torch.tensor(7.0), "0.exp_avg": torch.full((2, 3), 0.1)},
        generators={"shuffle": torch.Generator().manual_seed(3).get_state()},
    )
    path = save_paused(tmp_path, 4, state)
    found = load_paused(tmp_path, 4)
    assert found.progress == PROGRESS
    for group in ("module", "moments", "generators"):
        kept, read = getattr(state, group), getattr(found, group)
        assert kept.keys() == read.keys()
        assert all(torch.equal(kept[name], read[name]) for name in kept)
    assert dataclasses.replace(found.progress, seconds=0.0) != PROGRESS
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(TrialUnavailable, match=r"Trial 4 cannot be continued.*begun anew"):
        load_paused(tmp_path, 4)
    drop_paused(tmp_path, 4)
    assert not has_paused(tmp_path, 4)
    with pytest.raises(TrialUnavailable, match="Trial 4 cannot be continued"):
        load_paused(tmp_path, 4)
