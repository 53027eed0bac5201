"""QUESTION: Is one model as good as the pool that teaches it on unlabelled images?

PAGE: docs/results/tuning.md
RESULT: benchmarks/results/students.json

    python -m benchmarks.tuning.students TASKS --records RECORDS --only white_blood_cells,monkeys,... --far
    python -m benchmarks.tuning.students TASKS --records RECORDS --only aerial_scenes,... --write FILE.json
    python -m benchmarks.tuning.students TASKS --records RECORDS --quick

Targets are those of `student_cases`. With ``--far`` candidates are those that know little of the domain
(`fresh_targets`), else those that know it; eight of them, drawn by chance where there are more. The pool is the
product's (`pool_leaders`): heads of all candidates and towers of the four with the best heads, each fitted once without
a fold. A student is the tower with the largest weight in the pool, or that of the best head where it has none, trained
anew from its head: on the labelled images, and on others by the pool's probabilities to the power `SHARPNESS`, in three
times the steps of a member.

- head, tower: of the candidate with the best head; single: of heads or towers, whichever kind weighs more in the pool,
  the heaviest; own tower: the student's as it is in the pool.
- student: taught on the unlabelled images; student head: a regression on the same, of the single's candidate; views:
  taught on three augmented views of each labelled image, no unlabelled one; mixed: 60 % of the unlabelled images are of
  other tasks; tiny: 20 unlabelled images; true: their true classes instead of the pool.
- self-training, spreading: scikit-learn's SelfTrainingClassifier (of a regression) and LabelSpreading on embeddings of
  the candidate with the best head.

Seconds are of one thread on a busy machine: of the row alone, or of the pool with all that is read before it. What is
on record is not made again; where the product makes no pool there is no student. Tables and the JSON hold mean test
accuracies over targets, and in brackets the standard error of the paired difference to the single and to the pool.
"""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import LabelSpreading, SelfTrainingClassifier

from benchmarks.common import command_line, folders, print_head, print_row, standard_error, write_json
from benchmarks.tuning.student_cases import STRANGE, Case, opened, tuned_pool
from vlmsel_auto.models import zoo
from vlmsel_auto.models.pooling import log_probabilities, pool
from vlmsel_auto.pipeline.ensemble import Pool
from vlmsel_auto.planning.method import Part
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task, TrialResult
from vlmsel_auto.tuning.checkpoints import Checkpoint, load_trial
from vlmsel_auto.tuning.data import Batch, splits
from vlmsel_auto.tuning.finetune import batch_size
from vlmsel_auto.tuning.module import Head, Tuner
from vlmsel_auto.tuning.probe import INVERSE_PENALTY
from vlmsel_auto.tuning.trainable import choose
from vlmsel_auto.tuning.trainer import make_trainer, quiet_lightning

SHARPNESS = 1.5  # of what the pool says; fixed beforehand, as steps are
STEPS = 3.0  # of a student, in those of a member
TINY = 20
CPU = torch.device("cpu")
Shown = tuple[Task, IntArray, FloatArray]  # images of a task with probabilities (n, K)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """Images as one tower sees them, with a probability for each class."""

    pixels: torch.Tensor  # uint8 (n, S, S, 3)
    targets: torch.Tensor  # (n, K)
    size: int  # of batches
    generator: torch.Generator

    def __len__(self) -> int:
        """Batches an epoch."""
        return math.ceil(len(self.pixels) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """They, newly shuffled."""
        for rows in torch.randperm(len(self.pixels), generator=self.generator).split(self.size):  # type: ignore[no-untyped-call] # torch leaves it untyped
            yield self.pixels[rows], self.targets[rows]


def taught(case: Case, name: str, shown: Sequence[Shown]) -> Checkpoint:
    """A student: the candidate's tower and the head of the labelled images, trained on all that is shown.

    Args:
        case: the target.
        name: of the candidate.
        shown: images with probabilities, the labelled ones first.
    """
    runner, candidate = case.runner, case.runner.table[name]
    spec, labelled = runner.spec("finetune", name, DEFAULT), splits(case.task).labelled
    size = batch_size(len(labelled), CPU)
    pixels = [torch.from_numpy(np.array(task.pixels.read(candidate.view, rows))) for task, rows, _ in shown]
    targets = torch.from_numpy(np.concatenate([each for _, _, each in shown]).astype(np.float32))
    lesson = Lesson(
        pixels=torch.cat(pixels), targets=targets, size=size, generator=torch.Generator().manual_seed(spec.seed)
    )
    epochs = max(1, round(STEPS * spec.epochs * math.ceil(len(labelled) / size) / len(lesson)))
    begin = soft_head(case, candidate, shown[:1])
    model = zoo.load(candidate)
    head = Head(torch.from_numpy(begin.weight), torch.from_numpy(begin.bias), scale=begin.scale)
    few = model.normalise(pixels[0][:1])
    tower = choose(model.visual, Part.TOWER, run=lambda: model.embed(few))
    tuner = Tuner(
        model=model, trainable=tower, head=head, spec=spec, metric=case.task.metric, steps=epochs * len(lesson)
    )
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(spec.seed)
        trainer = make_trainer(
            epochs=epochs, callbacks=[], device=CPU, accumulate=1, bfloat16=False, folder=runner.workdir
        )
        trainer.fit(tuner.train(), train_dataloaders=lesson)
    tuner.eval()
    return Checkpoint(
        visual=model.visual.state_dict(), weight=head.weight.detach().numpy(), bias=head.bias.detach().numpy(),
        scale=head.scale,
    )  # fmt: skip


def soft_head(case: Case, candidate: Candidate, shown: Sequence[Shown]) -> Checkpoint:
    """Logistic regression on embeddings, each image counting for every class by its probability."""
    every = torch.cat([case.features(candidate, task, rows) for task, rows, _ in shown]).numpy()
    targets = np.concatenate([each for _, _, each in shown])
    image, label = np.nonzero(targets > 0.01)  # the others change nothing
    fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=500)
    fitted.fit(every[image], label, sample_weight=targets[image, label])
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Checkpoint(visual=None, weight=weight.astype(np.float32), bias=bias.astype(np.float32), scale=1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Teaching:
    """A case with its pool, and what the pool says of other images."""

    case: Case
    members: Sequence[TrialResult]  # best head first
    found: Pool | None  # None: the product makes none

    @cached_property
    def checkpoints(self) -> Mapping[int, Checkpoint]:
        """By trial."""
        return {each.number: load_trial(self.case.runner.workdir, each) for each in self.members}

    @cached_property
    def said(self) -> dict[str, FloatArray]:
        """Log-probabilities (n, K) of all images of a heap, as far as they were asked for."""
        return {}

    def ask(self, name: str) -> FloatArray:
        """The same by the pool."""
        if name not in self.said:
            task, pooled = self.case.heaps[name], self.pooled
            rows = np.arange(len(task.paths))
            table = self.case.runner.table
            logs = [
                self.case.logs(self.checkpoints[each.trial.number], table[each.trial.spec.candidate], task, rows)
                for each in pooled.members
            ]
            self.said[name] = pool(logs, pooled.weights)
        return self.said[name]

    @property
    def pooled(self) -> Pool:
        """The pool.

        Raises:
            ValueError: there is none.
        """
        if self.found is None:
            raise ValueError("a pool is needed, but got none")
        return self.found

    @cached_property
    def single(self) -> TrialResult:
        """The heaviest member of the heavier kind, or the best head."""
        if self.found is None:
            return self.members[0]
        pairs = list(zip(self.found.members, self.found.weights, strict=True))
        sums = {kind: sum(weight for each, weight in pairs if each.is_tower is kind) for kind in (False, True)}
        kind = sums[True] > sums[False]
        return max(((weight, each.trial) for each, weight in pairs if each.is_tower is kind), key=lambda one: one[0])[1]

    @cached_property
    def student(self) -> str:
        """Candidate of the heaviest tower, or of the best head."""
        towers = [
            (weight, each.trial.spec.candidate)
            for each, weight in zip(self.pooled.members, self.pooled.weights, strict=True)
            if each.is_tower
        ]
        return max(towers)[1] if towers else self.members[0].spec.candidate

    def labelled(self) -> Shown:
        """The labelled images."""
        rows = splits(self.case.task).labelled
        return self.case.task, rows, np.eye(self.case.task.n_classes)[self.case.task.labels[rows]]

    def shown(self, name: str, *, most: int | None = None, share: float = 1.0) -> Shown:
        """Images of a heap with what the pool says of them: a share, and at most so many, drawn by chance."""
        task = self.case.heaps[name]
        rows = np.random.default_rng(0).permutation(len(task.paths))[: round(share * len(task.paths))][:most]
        return task, rows, softmax(SHARPNESS * self.ask(name)[rows], axis=1)

    def true(self) -> Shown:
        """The unlabelled images with their labels."""
        task = self.case.heaps["heap"]
        return task, np.arange(len(task.paths)), np.eye(task.n_classes)[task.labels]

    def lesson(self, row: str) -> list[Shown]:
        """What the student of a row is shown beside the labelled images."""
        match row:
            case "views":
                return [self.shown("views")]
            case "mixed":
                return [self.shown("heap", share=1 - STRANGE), self.shown("others")]
            case "tiny":
                return [self.shown("heap", most=TINY)]
            case "true":
                return [self.true()]
            case _:
                return [self.shown("heap")]


def right(logs: FloatArray, truth: IntArray) -> float:
    """Accuracy."""
    return float((logs.argmax(axis=1) == truth).mean())


def of_scikit(teaching: Teaching, row: str) -> float:
    """A semi-supervised classifier of scikit-learn, on embeddings of the best head's candidate."""
    case = teaching.case
    candidate = case.runner.table[teaching.members[0].spec.candidate]
    rows, test = splits(case.task).labelled, np.sort(case.task.test)
    heap = case.heaps["heap"]
    known = case.features(candidate, case.task, rows).numpy()
    unknown = case.features(candidate, heap, np.arange(len(heap.paths))).numpy()
    regression = LogisticRegression(C=INVERSE_PENALTY, max_iter=500)
    model = SelfTrainingClassifier(regression) if row == "self-training" else LabelSpreading(kernel="knn")
    model.fit(np.concatenate([known, unknown]), np.concatenate([case.task.labels[rows], np.full(len(unknown), -1)]))
    return float(model.score(case.features(candidate, case.task, test).numpy(), case.task.labels[test]))


def accuracy(teaching: Teaching, row: str) -> float:
    """Test accuracy of one row."""
    case = teaching.case
    test = np.sort(case.task.test)
    truth = case.task.labels[test]
    if row in {"self-training", "spreading"}:
        return of_scikit(teaching, row)
    if row == "student head":
        candidate = case.runner.table[teaching.single.spec.candidate]
        kept = soft_head(case, candidate, [teaching.labelled(), teaching.shown("heap")])
        return right(case.logs(kept, candidate, case.task, test), truth)
    kept = taught(case, teaching.student, [teaching.labelled(), *teaching.lesson(row)])
    return right(case.logs(kept, case.runner.table[teaching.student], case.task, test), truth)


def of_pool(case: Case) -> tuple[Teaching, dict[str, float]]:
    """The pool, and rows that need no student."""
    members, found = tuned_pool(case)
    teaching = Teaching(case=case, members=members, found=found)
    truth = case.task.labels[np.sort(case.task.test)]

    def tested(trial: TrialResult) -> FloatArray:
        said = teaching.checkpoints[trial.number].test_logits
        assert said is not None  # noqa: S101 - targets have test images
        return log_probabilities(said)

    rows = {"head": right(tested(members[0]), truth), "tower": right(tested(members[1]), truth)}
    rows["single"] = rows["pool"] = right(tested(teaching.single), truth)
    if found is not None:
        rows["pool"] = right(pool([tested(each.trial) for each in found.members], found.weights), truth)
        named = [each for each in members if each.spec.candidate == teaching.student]
        rows["own tower"] = right(tested(named[1] if len(named) > 1 else named[0]), truth)
    return teaching, rows


def record(source: Path, records: Path, *, far: bool, shots: int, rows: Sequence[str]) -> None:
    """Make the rows of one target that are not on record."""
    name = f"{source.name}.{'far' if far else 'near'}.{shots}"
    file, scratch = records / f"{name}.json", records / name
    known: dict[str, float] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    wanted = [row for row in rows if row not in known]
    if "pool" in known and not wanted:
        return
    begun = time.monotonic()
    case = opened(source, scratch, far=far, shots=shots)
    kept = scratch / "pool.pickle"
    if kept.exists():
        members, found = pickle.loads(kept.read_bytes())  # noqa: S301 - our own file
        teaching = Teaching(case=case, members=members, found=found)
    else:
        teaching, of_it = of_pool(case)
        kept.write_bytes(pickle.dumps((teaching.members, teaching.found)))
        known = {**of_it, "pool seconds": time.monotonic() - begun}
    for row in wanted if teaching.found is not None else ():
        begun = time.monotonic()
        known[row] = accuracy(teaching, row)
        known[f"{row} seconds"] = time.monotonic() - begun
        file.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
        print(name, row, {each: round(known[each], 3) for each in ("single", "pool", row)}, flush=True)
    file.write_text(json.dumps(known, indent=1) + "\n", "utf-8")


def table(kind: str, known: Mapping[str, Mapping[str, float]], rows: Sequence[str]) -> None:
    """Print what rows are worth over the targets that have them."""
    print(f"\n{kind}: {', '.join(known)}")
    print_head("", "targets", "accuracy", "to the single", "to the pool", "seconds")
    for row in ("head", "tower", "single", "pool", "own tower", *rows):
        mine = [each for each in known.values() if row in each]
        if not mine:
            continue
        values = np.array([each[row] for each in mine])
        gaps = [100 * (values - np.array([each[base] for each in mine])) for base in ("single", "pool")]
        seconds = float(np.mean([each.get(f"{row} seconds", 0.0) for each in mine]))
        told = [f"{gap.mean():+.1f} ({standard_error(gap):.1f})" for gap in gaps]
        print_row(row, len(mine), f"{values.mean():.3f}", *told, f"{seconds:.0f}")


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="the first target")
    parser.add_argument("tasks", type=Path, help="folder of tasks, each with images.parquet and task.json")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of tasks; default: all")
    parser.add_argument("--far", action="store_true", help="candidates that know little of the domain")
    parser.add_argument("--shots", type=int, default=16, help="labelled images a class; default: %(default)s")
    parser.add_argument("--rows", default="student,student head,views,self-training,spreading", help="comma list")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    rows = args.rows.split(",")
    for source in folders(args.tasks, only=args.only, quick=args.quick):
        record(source, args.records, far=args.far, shots=args.shots, rows=rows)
    result = {}
    for kind in (f"far.{args.shots}", f"near.{args.shots}"):
        files = {each.name.split(".")[0]: each for each in sorted(args.records.glob(f"*.{kind}.json"))}
        found = {name: json.loads(each.read_text("utf-8")) for name, each in files.items()}
        table(kind, {name: each for name, each in found.items() if "student" in each}, rows)
        result[kind] = {
            name: {row: round(value, 4) for row, value in sorted(each.items())} for name, each in found.items()
        }
    write_json(args.write, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
