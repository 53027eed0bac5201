import numpy as np

from helpers.library_world import MEMBERS, build, draw
from vlmsel_auto import events
from vlmsel_auto.library.assemble import with_tuned
from vlmsel_auto.tuning.runner import TrialRunner


def test_trials_fill_tuned_accuracies_and_are_not_run_twice(tmp_path, monkeypatch):
    root, tasks = tmp_path, [draw(tmp_path / "tasks" / "one", shapes=("circle", "square"), seed=1)]
    made = build(root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(0, 1))
    assert made.run_names == ("finetune 2-shot seed=0", "finetune 2-shot seed=1")
    assert np.isfinite(made.tuned_runs).all()

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr(TrialRunner, "run", never)
    again = build(root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(0, 1))
    np.testing.assert_array_equal(again.tuned_runs, made.tuned_runs)
    seen = []
    more = build(
        root, tasks=tasks[:1], members=MEMBERS[:1], out="tuned.safetensors", tuned_seeds=(2,), sink=seen.append
    )
    assert np.isnan(more.tuned_runs[:, :, 0]).all()
    assert any(isinstance(one, events.Notice) and "AssertionError" in one.text for one in seen)


def test_a_run_of_a_library_that_is_added_to_stays_and_is_not_tuned_again(tmp_path, monkeypatch):
    tasks = [
        draw(tmp_path / "tasks" / name, shapes=("circle", "square"), seed=seed)
        for seed, name in enumerate(("one", "two"))
    ]
    base = build(tmp_path, tasks=tasks[:1], members=MEMBERS[:1])
    base = with_tuned(base, run="finetune 2-shot seed=0", source="s", values={(MEMBERS[0], "one"): 0.625})
    tuned = []

    run = TrialRunner.run

    def counted(runner, trial):
        tuned.append(runner.task.name)
        return run(runner, trial)

    monkeypatch.setattr(TrialRunner, "run", counted)
    made = build(tmp_path, tasks=tasks[1:], members=MEMBERS[:1], base=base, tuned_seeds=(0,))
    assert tuned == ["two"]
    assert made.tuned[0, 0] == 0.625
    assert np.isfinite(made.tuned[0, 1])
    again = build(tmp_path, tasks=tasks, members=MEMBERS[:1], base=made, tuned_seeds=(0,))
    assert tuned == ["two"]
    np.testing.assert_array_equal(again.tuned, made.tuned)
