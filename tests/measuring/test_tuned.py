import numpy as np

from helpers.library_world import MEMBERS, build, draw
from vlmsel_auto import events
from vlmsel_auto.measuring import tuned as library_trials


def test_trials_fill_tuned_accuracies_and_are_not_run_twice(tmp_path, monkeypatch):
    root, tasks = tmp_path, [draw(tmp_path / "tasks" / "one", shapes=("circle", "square"), seed=1)]
    made = build(root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(0, 1))
    assert made.run_names == ("finetune 2-shot seed=0", "finetune 2-shot seed=1")
    assert np.isfinite(made.tuned_runs).all()

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(library_trials, "run_trial", never)
    again = build(root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(0, 1))
    np.testing.assert_array_equal(again.tuned_runs, made.tuned_runs)
    seen = []
    more = build(
        root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(2,), sink=seen.append
    )
    assert np.isnan(more.tuned_runs[:, :, 0]).all()
    assert any(isinstance(one, events.Notice) and "AssertionError" in one.text for one in seen)
