"""QUESTION: Are answers right as often as is assured, and what tells images of no class?

PAGE: docs/results/answers.md
RESULT: benchmarks/results/abstention.json

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --test 400 --seed 3
    python -m benchmarks.search.abstention TARGETS --records RECORDS --write benchmarks/results/abstention.json

Each target is searched for 20 seconds, near and far (`fresh_targets`), without its own task in the library. Targets
that no member was trained on are far only. Every case leaves a record and is not made again.

- assured: the threshold that held-out images give (`models.selective`); plain: a highest probability of the accuracy
  itself. Answered and right are counts of test images; kept: no exact test (one-sided, 5 %) contradicts the accuracy.
- strangers: 20 test images of each of ten other targets. A measure's figure is the area under the ROC curve between
  the target's test images and them, of the best model, where that is a head, with 16 images a class to compare with.
- unlike: what the exported models (`models.familiar`) say of test images (false) and of strangers (found).
- new class: the same area where the test images of one class are the strangers and its mean is left out, mean over
  the classes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.special import log_softmax, logsumexp
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from benchmarks.common import command_line, folders, print_head, print_row, write_json
from benchmarks.tuning.fresh_targets import KNOWN_BY, far_candidates
from vlmsel_auto import search
from vlmsel_auto.errors import InputError
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.exported import ExportedModel, load_exported
from vlmsel_auto.models.prediction import image_files, judge, read_batches, stack
from vlmsel_auto.models.selective import level_for
from vlmsel_auto.recordjson import decode, encode
from vlmsel_auto.records import AnswerLevel, FloatArray, IntArray

SECONDS = 20.0
WANTED = (0.8, 0.9, 0.95, 0.98)
STRANGERS = ("aerial_scenes", "fashion_mnist", "textures", "trash", "brain_mri", "emoji_groups", "hiragana",
             "house_rooms", "synth_shape", "flowers5", "monkeys")  # fmt: skip
EACH = 20  # images of a stranger


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Test images that get a class at a wanted accuracy; None: no threshold assures it."""

    accuracy: float
    assured: int | None
    right: int
    plain: int
    plain_right: int


@dataclass(frozen=True, kw_only=True)
class Model:
    """An exported model on the test images."""

    accuracy: float
    answers: tuple[Answered, ...]
    false: float | None  # share of test images that are unlike; None: it does not know
    found: float | None  # share of the strangers


@dataclass(frozen=True, kw_only=True)
class Case:
    """A target as some candidates see it."""

    target: str
    half: str
    classes: int
    held_out: int
    test: int
    model: Model
    ensemble: Model | None
    measures: Mapping[str, float]  # areas; none where the best model is a tower
    new_class: float | None


def pixels_of(model: ExportedModel, files: Sequence[Path]) -> list[list[torch.Tensor]]:
    """Batches in each view of the model."""
    batches = read_batches(iter(files), views=model.views, size=64)
    return [[torch.from_numpy(view) for view in stack(batch)] for batch in batches]


def judged(model: ExportedModel, files: Sequence[Path]) -> tuple[FloatArray, FloatArray]:
    """Probabilities (n, K) and how unlike (n,)."""
    parts = [judge(model, [each.numpy() for each in batch]) for batch in pixels_of(model, files)]
    return np.concatenate([shares for shares, _ in parts]), np.concatenate([unlike for _, unlike in parts])


@torch.inference_mode()
def embedded(model: ExportedModel, files: Sequence[Path]) -> FloatArray:
    """Unit-norm embeddings (n, D) of the first member."""
    one = model.members[0].model
    rows = torch.cat([one.embed(one.normalise(batch[0])) for batch in pixels_of(model, files)]).double()
    return np.asarray(torch.nn.functional.normalize(rows, dim=1).numpy())


def answered(shares: FloatArray, labels: IntArray, levels: Sequence[AnswerLevel], accuracy: float) -> Answered:
    """Count what is answered and right."""
    highest, right = shares.max(axis=1), shares.argmax(axis=1) == labels
    plain = highest >= accuracy
    try:
        sure = highest >= level_for(levels, accuracy).threshold
    except InputError:
        sure = None
    return Answered(
        accuracy=accuracy,
        assured=None if sure is None else int(sure.sum()),
        right=0 if sure is None else int(right[sure].sum()),
        plain=int(plain.sum()),
        plain_right=int(right[plain].sum()),
    )


def area(known: FloatArray, strange: FloatArray) -> float:
    """Under the ROC curve; 1: every stranger scores higher."""
    return float(roc_auc_score([0] * len(known) + [1] * len(strange), np.concatenate([known, strange])))


def nearest_mean(train: FloatArray, labels: IntArray, rows: FloatArray) -> FloatArray:
    """Distance (n,) to the nearest mean of a class."""
    sums = np.stack([train[labels == label].sum(axis=0) for label in np.unique(labels)])
    means = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(1 - (rows @ means.T).max(axis=1))


def measures(model: ExportedModel, train: FloatArray, labels: IntArray, rows: FloatArray) -> dict[str, FloatArray]:
    """How strange rows (n, D) are by each measure."""
    head = model.members[0].classifier
    logits = head.scale * (rows @ head.head.T) + head.bias
    unit = head.head / np.linalg.norm(head.head, axis=1, keepdims=True)
    near = -np.sort(-(rows @ train.T), axis=1)
    return {
        "distance to the nearest class mean": nearest_mean(train, labels, rows),
        "distance to the nearest training image": 1 - near[:, 0],
        "mean distance to the five nearest": 1 - near[:, :5].mean(axis=1),
        "energy": -logsumexp(logits, axis=1),
        "highest cosine with the head": -(rows @ unit.T).max(axis=1),
        "highest probability": -log_softmax(logits, axis=1).max(axis=1),
    }


def measured(target: Path, half: str) -> Case:
    """One search, and what its models say of test images and strangers."""
    pool = far_candidates(target.name) if half == "far" else mini_zoo()
    with TemporaryDirectory() as scratch:
        found = search(
            target, candidates=[each.id for each in pool], library=default_library().leave_out(name=target.name),
            budget=SECONDS, workdir=Path(scratch) / "w", learn=False, thumbnails=False,
        )  # fmt: skip
        tested = list(image_files([target / "test"]))
        strange = strangers(target)

        def model(folder: Path, levels: Sequence[AnswerLevel]) -> Model:
            whole = load_exported(folder)
            labels = np.array([whole.classes.index(file.parent.name) for file in tested])
            (shares, near), (_, far) = judged(whole, tested), judged(whole, strange)
            knows = bool(far.any())
            return Model(
                accuracy=float((shares.argmax(axis=1) == labels).mean()),
                answers=tuple(answered(shares, labels, levels, each) for each in WANTED),
                false=float((near > 1).mean()) if knows else None,
                found=float((far > 1).mean()) if knows else None,
            )

        best = found.best
        assert best is not None and best.model_dir is not None  # noqa: S101, PT018 - a search with labels has one
        single = load_exported(best.model_dir)
        areas: dict[str, float] = {}
        new: float | None = None
        if best.method != "finetune":
            areas, new = compared(single, target, tested, strange)
        return Case(
            target=target.name, half=half, classes=len(single.classes), held_out=best.answers[-1].images,
            test=len(tested), model=model(best.model_dir, best.answers),
            ensemble=None if found.ensemble is None else model(found.ensemble.model_dir, found.ensemble.answers),
            measures=areas, new_class=new,
        )  # fmt: skip


def compared(
    model: ExportedModel, target: Path, tested: Sequence[Path], strange: Sequence[Path]
) -> tuple[dict[str, float], float | None]:
    """Area of each measure, and that of the nearest mean for a class that is left out."""
    known = list(image_files([target / "train"]))
    labels, of_test = (np.array([model.classes.index(each.parent.name) for each in part]) for part in (known, tested))
    train, test, other = (embedded(model, files) for files in (known, tested, strange))
    one, two = (measures(model, train, labels, rows) for rows in (test, other))
    new = []
    for label in range(len(model.classes)) if len(model.classes) > 2 else ():
        far = nearest_mean(train[labels != label], labels[labels != label], test)
        new.append(area(far[of_test != label], far[of_test == label]))
    return {name: area(one[name], two[name]) for name in one}, float(np.mean(new)) if new else None


def strangers(target: Path) -> list[Path]:
    """Test images of other targets."""
    found: list[Path] = []
    for name in STRANGERS:
        files = sorted((target.parent / name / "test").rglob("*.png"))
        if name != target.name and files:
            found += [files[row] for row in sorted(np.random.default_rng(0).permutation(len(files))[:EACH])]
    return found


def summary(cases: Sequence[Case]) -> list[dict[str, object]]:
    """A row for each half, accuracy and rule, of what a user gets: the ensemble where there is one."""
    rows: list[dict[str, object]] = []
    print_head("half", "accuracy", "rule", "given", "coverage", "accuracy of these", "reached", "kept")
    for half in ("near", "far"):
        those = [(each.ensemble or each.model, each.test) for each in cases if each.half == half]
        for place, wanted in enumerate(WANTED):
            for rule in ("assured", "plain"):
                pairs = []
                for model, test in those:
                    one = model.answers[place]
                    count, right = (one.assured, one.right) if rule == "assured" else (one.plain, one.plain_right)
                    if count:
                        pairs.append((count, right, test))
                shares = [right / count for count, right, _ in pairs]
                kept = [binomtest(right, count, wanted, alternative="less").pvalue >= 0.05 for count, right, _ in pairs]
                row: dict[str, object] = {
                    "half": half, "accuracy": wanted, "rule": rule, "cases": len(those), "given": len(pairs),
                    "coverage": round(sum(count / test for count, _, test in pairs) / len(those), 3),
                    "of_these": round(float(np.mean(shares)), 3) if shares else None,
                    "reached": sum(each >= wanted for each in shares), "kept": sum(map(bool, kept)),
                }  # fmt: skip
                rows.append(row)
                print_row(half, wanted, rule, f"{len(pairs)} of {len(those)}", *list(row.values())[5:])
    return rows


def unlike(cases: Sequence[Case]) -> list[dict[str, object]]:
    """Mean areas, false alarms and finds of each half."""
    rows: list[dict[str, object]] = []
    for half in ("near", "far"):
        those = [each for each in cases if each.half == half]
        heads = [each for each in those if each.measures]
        known = [each.ensemble or each.model for each in those if (each.ensemble or each.model).found is not None]
        areas = {name: [each.measures[name] for each in heads] for name in heads[0].measures}
        row: dict[str, object] = {
            "half": half, "cases": len(heads), "knowing": len(known),
            "areas": {name: [round(float(np.mean(each)), 3), round(min(each), 3)] for name, each in areas.items()},
            "new_class": round(float(np.mean([each.new_class for each in heads if each.new_class is not None])), 3),
            "false": [round(float(f([each.false for each in known])), 3) for f in (np.mean, np.max)],
            "found": [round(float(f([each.found for each in known])), 3) for f in (np.mean, np.min)],
        }  # fmt: skip
        rows.append(row)
        print(json.dumps(row, indent=1))
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder that keeps every case")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    known = {name for each in KNOWN_BY.values() for name in each}
    cases = []
    for target in folders(args.targets, only=args.only):
        for half in ("near", "far") if target.name in known else ("far",):
            file = args.records / f"{target.name}.{half}.json"
            if not file.exists():
                file.write_text(json.dumps(encode(measured(target, half)), indent=1) + "\n", "utf-8")
            cases.append(decode(Case, json.loads(file.read_text("utf-8"))))
            print(cases[-1].target, half, cases[-1].model.accuracy, flush=True)
    write_json(args.write, {"answers": summary(cases), "unlike": unlike(cases)})


if __name__ == "__main__":
    main()
