"""QUESTION: How many labels does it take to find the best zero-shot candidate by asking for them?

PAGE: docs/results/labelling.md
RESULT: benchmarks/results/labelling.json, benchmarks/results/labelling-digits.json,
    benchmarks/results/labelling-coda.json

    python -m benchmarks.labels.labelling [TASKS] --coda benchmarks/results/labelling-coda.json \
        --write benchmarks/results/labelling.json

TASKS is a folder of task folders; without, scikit-learn's digits are the only task. At most 400 test images of each,
which no candidate was trained on, are the heap; the ranking without labels, by the library without the task, is what
is known before the first label. After every label a strategy names a candidate, until all images but one are labelled.
Its count is the number of labels from which on all that it names are within a point of the best on the heap; "up to
60" counts no further than 60 labels, for CODA's record ends there.

"CODA, its authors' code" is a record of the candidates that it names: {task: {"named": [after 0, 1, ... labels]}}.
Write its input with --predictions FOLDER (TASK.npz with p (M, n, K) and y (n,)), and run github.com/justinkay/coda
(commit f240a4c, CODA's defaults; prefilter_n=100 from eight classes on) on it.

Where the last candidates differ by few images, one heap says little of a strategy: what it needs moves by a hundred
labels from one draw of the images to another. The second table has four draws of three quarters of each heap, and how
far each strategy is from a third of counting's labels.

Then: whether the loss that is expected of the named candidate comes true, what asking until it is small takes and
costs beside as many labels counted, and how often P(best) comes true. The last table says what a head learns from the
labels that `--for tuning` asks for: accuracy of a logistic regression on the features of the candidate that ranks
first, half of the heap being asked for and half tested on.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.common import change, command_line, folders, print_head, print_row, write_json
from benchmarks.labels.labelling_heaps import (
    Heap,
    chances_table,
    expected_table,
    heap,
    order_table,
    part,
    stopping_table,
)
from vlmsel_auto.cache import default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.labelling import next_to_cover, next_to_tell
from vlmsel_auto.ranking.label_belief import Belief, believe, prior_weights, strength_chances
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray
from vlmsel_auto.tasks.digits import write_digits

_KNOWING_NOTHING = 4  # answers


def counted(one: Heap, *, seed: int) -> list[int]:
    """Candidates named by plain counts of right answers on images in random order; ties by chance."""
    rng = np.random.default_rng(seed)
    order = _in_turn(one, rng)
    counts = np.cumsum(one.right[:, order], axis=1, dtype=np.float64)
    counts = np.concatenate([np.zeros((len(counts), 1)), counts], axis=1) + 1e-3 * rng.random((len(counts), 1))
    return [int(each) for each in counts.argmax(axis=0)]


def counted_losses(one: Heap, *, seed: int) -> FloatArray:
    """Loss that is expected of what `counted` names: accuracies are normal, with the covariance of right answers.

    Some answers that know nothing, each candidate's by itself, are added to those that were counted.
    """
    right = one.right[:, _in_turn(one, np.random.default_rng(seed))].astype(np.float64)
    noise = np.random.default_rng(0).standard_normal((1_000, len(right)))
    lost = [np.inf]
    for count in range(1, right.shape[1] + 1):
        mean = right[:, :count].mean(axis=1)
        spread = right[:, :count] @ right[:, :count].T / count - np.outer(mean, mean)
        spread = (count * spread + _KNOWING_NOTHING * np.eye(len(mean)) / 4) / (count + _KNOWING_NOTHING)
        left = 1 - count / len(one.labels)
        drawn = mean + noise @ np.linalg.cholesky(left / (count + _KNOWING_NOTHING) * spread).T
        lost.append(float(drawn.max(axis=1).mean() - drawn.mean(axis=0).max()))
    return np.array(lost)


def _in_turn(one: Heap, rng: np.random.Generator) -> IntArray:
    """All images but one in the order in which they are labelled, which a fresh generator draws first."""
    return rng.permutation(len(one.labels))[:-1]


def counted_tries(heaps: Sequence[Heap], *, tries: int = 3) -> list[list[tuple[FloatArray, FloatArray]]]:
    """Expected and true losses of `counted`, of each task and repetition."""
    return [
        [(counted_losses(one, seed=seed), one.loss(counted(one, seed=seed))) for seed in range(tries)] for one in heaps
    ]


_A_CLASS: Final = (1, 2, 4)  # labels
_MOST_CLASSES: Final = 12  # of tasks whose heads are compared: others would need hundreds of labels
_Way = Literal["chance", "information", "cover"]
_WAYS: Final[tuple[_Way, ...]] = ("chance", "information", "cover")


def heads_table(heaps: Sequence[Heap]) -> list[dict[str, object]]:
    """Accuracy of a head that learns from 1, 2, 4 labels a class; tasks of at most 12 classes."""
    print()
    print_head("asked", *(f"{count} a class" for count in _A_CLASS))
    rows: list[dict[str, object]] = []
    few = [one for one in heaps if one.votes.shape[2] <= _MOST_CLASSES]
    found = {way: np.array([_heads(one, way) for one in few]) for way in _WAYS}
    for way, accuracies in found.items():
        row: dict[str, object] = {"asked": way}
        for c, count in enumerate(_A_CLASS):
            gain = change(100 * (accuracies[:, c] - found["chance"][:, c]), digits=1)
            row[f"{count} a class"] = [round(100 * float(accuracies[:, c].mean()), 1), *gain]
        rows.append(row)
        print_row(*row.values())
    return rows


def _heads(one: Heap, way: _Way) -> list[float]:
    rng = np.random.default_rng(2)
    order = rng.permutation(len(one.labels))
    pool, test = np.sort(order[::2]), np.sort(order[1::2])
    votes, truth, x = one.votes[:, pool], one.labels[pool], one.features[pool]
    most = min(_A_CLASS[-1] * votes.shape[2], len(pool) - 1)
    repeats = 5 if way == "chance" else 1
    scores = []
    for _ in range(repeats):
        labels, asked = np.full(len(pool), UNLABELLED), []
        shuffled = rng.permutation(len(pool))
        none, by_chance = np.zeros(len(pool), dtype=np.bool_), np.random.default_rng(3).random(len(pool))
        for done in range(most):
            if way == "chance":
                place = int(shuffled[done])
            else:
                now = believe(votes, prior=one.prior, labels=labels, chances=one.chances)
                covered = way == "cover"
                place = (
                    next_to_cover(x, classes=now.classes, labels=labels, asked=none)
                    if covered
                    else next_to_tell(
                        now.information, p_weak=now.p_weak, by_chance=by_chance, chosen=labels != UNLABELLED
                    )
                )
            labels[place] = truth[place]
            asked.append(place)
        scores.append(
            [_head(one, x[rows], truth[rows], test) for rows in (asked[: c * votes.shape[2]] for c in _A_CLASS)]
        )
    return [float(each) for each in np.mean(scores, axis=0)]


def _head(one: Heap, x: FloatArray, y: IntArray, test: IntArray) -> float:
    if len(np.unique(y)) == 1:
        return float(np.mean(one.labels[test] == y[0]))
    fitted = LogisticRegression(C=10, max_iter=1_000).fit(x, y)
    return float(fitted.score(one.features[test], one.labels[test]))


_NEAR = 0.01  # accuracy
_FEW = 20  # labels that anybody gives
_RECORDED = 60  # labels of CODA's record
_PARTS = 4  # drawn of each heap, without regard to the others
_SHARE = 0.75  # of a heap in a part
_SHOWN = (0, 5, 10, 20, 40, 60)
COUNTED, OURS, CODA = "right answers counted, random images", "belief, most information", "CODA, its authors' code"
Asked = Literal["information", "chance", "doubt"]


def ask(one: Heap, asked: Asked, *, seed: int = 0) -> Iterator[Belief]:
    """What is believed after 0, 1, ... labels, up to all but one."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(one.labels))
    by_chance = rng.random(len(order))
    labels = np.full(len(one.labels), UNLABELLED)
    for next_one in order:
        now = believe(one.votes, prior=one.prior, labels=labels, chances=one.chances)
        yield now
        if asked == "chance":
            place = next_one
        elif asked == "doubt":
            place = _most_doubtful(now, labels)
        else:
            place = next_to_tell(now.information, p_weak=now.p_weak, by_chance=by_chance, chosen=labels != UNLABELLED)
        labels[place] = one.labels[place]


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What one strategy named, and the beliefs that tables show: all would fill the memory."""

    named: list[int]  # candidates of the highest expected accuracy, which have the least expected loss
    expected: FloatArray  # loss after each label
    shown: Mapping[int, Belief]  # by number of labels


def answers(beliefs: Iterator[Belief]) -> Answers:
    """What is named after 0, 1, ... labels."""
    named, expected, shown = [], [], {}
    for count, now in enumerate(beliefs):
        named.append(int(now.accuracy.argmax()))
        expected.append(float(now.loss.min()))
        if count in _SHOWN:
            shown[count] = now
    return Answers(named=named, expected=np.array(expected), shown=shown)


def _most_doubtful(now: Belief, labels: IntArray) -> int:
    second, first = np.sort(now.classes, axis=1)[:, -2:].T
    return int(np.where(labels == UNLABELLED, first - second, np.inf).argmin())


def needed(lost: FloatArray) -> float:
    """Labels from which on all that was named is near the best."""
    far = np.flatnonzero(lost > _NEAR + 1e-9)
    return float(far[-1] + 1) if len(far) else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """One strategy: what was lost after each label, by task and repetition; none where a task was not played."""

    losses: Sequence[Sequence[FloatArray]]
    beliefs: Sequence[Mapping[int, Belief]] = ()  # by number of labels, by task
    expected: Sequence[FloatArray] = ()  # loss after each label, by task

    @property
    def counts(self) -> FloatArray:
        """Labels needed on each task; NaN where it was not played."""
        return np.array([np.mean([needed(each) for each in tries]) if tries else np.nan for tries in self.losses])

    @property
    def recorded(self) -> FloatArray:
        """The same, nobody being asked for more labels than CODA's record has."""
        first = [[needed(each[: _RECORDED + 1]) for each in tries] for tries in self.losses]
        return np.array([np.mean(np.minimum(each, _RECORDED)) if each else np.nan for each in first])

    def lost_after(self, count: int) -> float:
        """Accuracy lost after so many labels, or all that there are: mean over tasks."""
        each = [np.mean([lost[min(count, len(lost) - 1)] for lost in tries]) for tries in self.losses if tries]
        return float(np.mean(each))


def play(heaps: Sequence[Heap]) -> dict[str, Played]:
    """All strategies of our own."""
    informed = [answers(ask(one, "information")) for one in heaps]
    unlabelled = [one.loss([int(one.ranked.argmax())] * len(one.labels)) for one in heaps]
    return {
        "no label: the ranking": Played(losses=[[each] for each in unlabelled]),
        COUNTED: Played(losses=[[one.loss(counted(one, seed=seed)) for seed in range(10)] for one in heaps]),
        "belief, random images": Played(
            losses=[[one.loss(answers(ask(one, "chance", seed=seed)).named) for seed in range(2)] for one in heaps]
        ),
        "belief, most doubtful image": Played(losses=[[one.loss(answers(ask(one, "doubt")).named)] for one in heaps]),
        OURS: Played(
            losses=[[one.loss(each.named)] for one, each in zip(heaps, informed, strict=True)],
            beliefs=[each.shown for each in informed],
            expected=[each.expected for each in informed],
        ),
    }


def play_coda(heaps: Sequence[Heap], named: Mapping[str, Mapping[str, list[int]]]) -> Played:
    """What CODA named, on the tasks that its record has."""
    return Played(losses=[[one.loss(named[one.name]["named"])] if one.name in named else [] for one in heaps])


def asking_table(played: Mapping[str, Played]) -> list[dict[str, object]]:
    """Labels needed and losses of every strategy, paired with random images and with CODA over tasks."""
    against = [name for name in (COUNTED, CODA) if name in played]
    heads = ["strategy", "tasks", "labels needed", "median", f"tasks within {_FEW}"]
    heads += [f"up to {_RECORDED}", *(f"minus {name}" for name in against)]
    print()
    print_head(*heads, *(f"loss at {count}" for count in _SHOWN))
    rows: list[dict[str, object]] = []
    for name, one in played.items():
        there = np.isfinite(one.counts)
        row: dict[str, object] = {
            "strategy": name,
            "tasks": int(there.sum()),
            "labels": round(float(one.counts[there].mean()), 1),
            "median": round(float(np.median(one.counts[there])), 1),
            f"within {_FEW}": int((one.recorded[there] <= _FEW).sum()),
            f"up to {_RECORDED}": round(float(one.recorded[there].mean()), 1),
        }
        for other in against:
            gain = one.recorded - played[other].recorded if other == CODA else one.counts - played[other].counts
            row[f"minus {other}"] = change(gain[np.isfinite(gain)], digits=1)
        row |= {f"loss at {count}": round(100 * one.lost_after(count), 2) for count in _SHOWN}
        rows.append(row)
        print_row(*row.values())
    return rows


def parts_table(heaps: Sequence[Heap]) -> list[dict[str, object]]:
    """Labels needed on random parts of every heap: means over parts, then over tasks."""
    parts = [[part(one, share=_SHARE, seed=seed) for seed in range(_PARTS)] for one in heaps]
    counts = {
        COUNTED: [[needed(one.loss(counted(one, seed=seed))) for seed in range(5) for one in each] for each in parts],
        "belief, most doubtful image": [
            [needed(one.loss(answers(ask(one, "doubt")).named)) for one in each] for each in parts
        ],
        OURS: [[needed(one.loss(answers(ask(one, "information")).named)) for one in each] for each in parts],
    }
    means = {name: np.array([np.mean(each) for each in of_tasks]) for name, of_tasks in counts.items()}
    rows: list[dict[str, object]] = []
    print()
    print_head("strategy, four parts of each heap", "labels needed", "minus counting", "minus a third of counting")
    for name, each in means.items():
        row: dict[str, object] = {"strategy": name, "labels": round(float(each.mean()), 1)}
        row["minus counting"] = change(each - means[COUNTED], digits=1)
        row["minus a third of counting"] = change(each - means[COUNTED] / 3, digits=1)
        rows.append(row)
        print_row(*row.values())
    return rows


def seconds_table() -> list[dict[str, object]]:
    """Seconds from one answer to the next question: 20 candidates, 1,000 drawn images, 50 of them labelled."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    print()
    print_head("classes", "seconds a question")
    for classes in (10, 50):
        votes = rng.normal(size=(20, 1_000, classes))
        prior = prior_weights(np.full(20, 0.05), np.eye(20))
        labels = np.full(1_000, UNLABELLED)
        labels[:50] = rng.integers(0, classes, size=50)
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            believe(votes, prior=prior, labels=labels, chances=strength_chances(votes, np.eye(20)))
            taken.append(time.perf_counter() - began)
        rows.append({"classes": classes, "seconds": round(min(taken), 3)})
        print_row(classes, f"{min(taken):.3f}")
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("tasks", type=Path, nargs="?", help="folder of task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "labelling")
    parser.add_argument("--coda", type=Path, help="JSON of what CODA named")
    parser.add_argument("--predictions", type=Path, help="write what CODA needs to this folder")
    args = parser.parse_args()
    torch.set_num_threads(1)
    candidates, library = mini_zoo(), default_library()
    with tempfile.TemporaryDirectory() as scratch:
        paths = [write_digits(Path(scratch)).task] if args.tasks is None else folders(args.tasks)
        heaps = [heap(each, library, candidates, cache=args.cache) for each in paths]
    if args.predictions is not None:
        args.predictions.mkdir(parents=True, exist_ok=True)
        for one in heaps:
            p = np.exp(one.votes - one.votes.max(axis=2, keepdims=True))
            p = (p / p.sum(axis=2, keepdims=True)).astype(np.float32)
            np.savez(args.predictions / f"{one.name}.npz", p=p, y=one.labels)
    with threadpool_limits(1):
        played = play(heaps)
        if args.coda is not None:
            played[CODA] = play_coda(heaps, json.loads(args.coda.read_text("utf-8")))
        ours = played[OURS]
        tries = [(expected, lost) for expected, (lost,) in zip(ours.expected, ours.losses, strict=True)]
        content = {
            "tasks": [one.name for one in heaps],
            "asking": asking_table(played),
            "parts": parts_table(heaps),
            "expected": expected_table(tries),
            "stops": stopping_table(tries, counted_tries(heaps), near=_NEAR),
            "chances": chances_table(heaps, ours.beliefs),
            "orders": order_table(heaps, ours.beliefs),
            "speed": seconds_table(),
            "heads": heads_table(heaps),
        }
    write_json(args.write, content)


if __name__ == "__main__":
    main()
