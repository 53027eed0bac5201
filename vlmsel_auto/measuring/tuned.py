"""Tuned accuracies of a library's cells by the project's own trials: each kept as soon as it is finished."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch

from vlmsel_auto.cache import Json, digest, write_atomically
from vlmsel_auto.engines.engine import Channel
from vlmsel_auto.errors import TrialFailed
from vlmsel_auto.events import Sink
from vlmsel_auto.library.assemble import with_tuned
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.cells import SOURCE
from vlmsel_auto.measuring.kept_jobs import Workplace, results_of
from vlmsel_auto.models import zoo
from vlmsel_auto.models.sources.table import fingerprint
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import Candidate, Task, TrialSpec
from vlmsel_auto.tuning.methods import FINETUNE
from vlmsel_auto.tuning.runner import Trial, TrialRunner


def tune_cells(
    library: Library,
    *,
    tasks: Sequence[Task],
    candidates: Sequence[Candidate],
    seeds: Sequence[int],
    shots: int,
    place: Workplace,
    sink: Sink,
) -> Library:
    """The library with one run of full fine-tuning for each seed, at each candidate's default setting.

    The runs are called "finetune SHOTS-shot seed=SEED", shots being training images a class. Tasks are loaded with the
    views of all candidates. What the library has of a run stays and is not tuned again. A failed trial is NaN, and
    ``sink`` is told.
    """
    runs = {seed: f"finetune {shots}-shot seed={seed}" for seed in seeds}
    held = {seed: _held(library, run) for seed, run in runs.items()}
    trials = [
        _TuningJob(
            candidate=one, task=task, seed=seed, shots=shots, place=place, held=held[seed].get((one.id, task.name))
        )
        for seed in seeds
        for one in candidates
        for task in tasks
    ]
    found, _ = results_of(trials, unit="trials", workers=place.jobs, sink=sink)
    for seed, run in runs.items():
        values = held[seed] | {
            (job.candidate.id, job.task.name): found[at]
            for at, job in enumerate(trials)
            if job.seed == seed and at in found
        }
        library = with_tuned(library, run=run, source=SOURCE, values=values)
    return library


def _held(library: Library, run: str) -> dict[tuple[str, str], float]:
    """What the library has of a run, by (candidate id, task name)."""
    if run not in library.run_names:
        return {}
    figures = library.tuned_runs[:, :, library.run_names.index(run)]
    known = np.argwhere(np.isfinite(figures)).tolist()
    return {(library.candidate_ids[m], library.task_names[s]): float(figures[m, s]) for m, s in known}


@dataclass(frozen=True, kw_only=True)
class _TuningJob:
    candidate: Candidate
    task: Task
    seed: int
    shots: int
    place: Workplace
    held: float | None  # of the library that is added to

    @property
    def label(self) -> str:
        return f"tuning {self.candidate.id} on {self.task.name}"

    @property
    def spec(self) -> TrialSpec:
        return FINETUNE.default(self.candidate, train_images=self.shots * self.task.n_classes, seed=self.seed)

    @property
    def path(self) -> Path:
        spec = self.spec
        key = digest(
            "library trial",
            fingerprint(self.candidate),
            self.task.digest,
            self.shots,
            [spec.method, dict(spec.settings), spec.epochs, spec.seed],
        )
        return self.place.cache / "trials" / key[:2] / f"{key}.json"

    def kept(self) -> float | None:
        """The finished trial's metric on the test split; None when there is none, or its file is damaged."""
        try:
            record = cast("dict[str, Json]", parse_json(self.path.read_bytes()))
            value = float(cast("float", record["accuracy"]))
        except (OSError, ValueError, KeyError, TypeError):
            return self.held
        return value if 0 <= value <= 1 else None

    def run(self, channel: Channel) -> None:  # noqa: ARG002 - the signature of a job
        with tempfile.TemporaryDirectory() as scratch:  # the weights are not wanted
            runner = TrialRunner(
                task=self.task,
                candidates=[self.candidate],
                load=partial(zoo.load, device=self.place.device),
                store=self.place.store,
                workdir=Path(scratch),
                device=torch.device(self.place.device),
                train_shots=self.shots,
            )
            result = runner.run(Trial(number=0, spec=self.spec))
        if result.test is None:
            raise TrialFailed("the trial measured no test accuracy")
        record = {"candidate": self.candidate.id, "task": self.task.name, "accuracy": result.test}
        write_atomically(self.path, json.dumps(record, sort_keys=True).encode())
