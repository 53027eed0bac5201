"""How well accuracies on some images order candidates on others, and how many labels a ranking without any is worth.

    python -m benchmarks.ranking.zero_shot_ceiling TASKS --write benchmarks/results/zero-shot-ceiling.json

The mini zoo's zero-shot classifiers on the tasks of its library, each task in its own templates.

- ceiling: NDCG@5 of accuracies on one half of the test images against those on the other half, by drawing halves.
  Beside it what three formulas say that know one half alone: draws around its accuracies against these accuracies, as
  if they were exact; two such draws against each other (the ``replicate_ceiling`` of ``vlmsel-auto bench``); and two
  bootstrap samples of its images, which keep what candidates have in common, with deviations from the mean shrunk by
  what is sampling noise. Then what the formulas say of the whole test split, and what accuracies on all training images
  (at most 1,000; some members have seen them in their pretraining) reach against it.
- labels: right answers of all candidates counted on n labelled test images, against the truth on the other ones, on
  tasks with at least twice as many; beside it the ranking without labels against the same truths. Differences with 95 %
  intervals over tasks.

Tasks on which nobody's pretraining held anything like it (`AT_CHANCE`) are in the means; the ceiling stands without
them, too. Embeddings are those that `without_labels.py` keeps in --cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import change
from benchmarks.labels.without_labels import Scene, command_line, ranked, right_answers, scene, task_paths
from benchmarks.ranking.ranking_table import measures
from vlmsel_auto.bench.rankings import drawn_pair
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.ranking.agreement import ndcg
from vlmsel_auto.records import FloatArray

AT_CHANCE = ("hiragana", "monkeys", "synth_sentiment", "white_blood_cells")
_LABELS = (10, 20, 50, 100, 200)
_DRAWS = 20
Right: TypeAlias = NDArray[np.bool_]  # (M, n): whether a candidate is right on an image
Pair: TypeAlias = tuple[FloatArray, FloatArray]  # accuracies (M,) and the truth (M,) that they predict
Formula: TypeAlias = Callable[[Right, np.random.Generator], Pair]


def one_draw(right: Right, rng: np.random.Generator) -> Pair:
    """The accuracies stand for the truth, noise included."""
    n, accuracy = right.shape[1], right.mean(axis=1)
    return rng.binomial(n, accuracy) / n, accuracy


def two_draws(right: Right, rng: np.random.Generator) -> Pair:
    """What ships."""
    return drawn_pair(right.mean(axis=1), right.shape[1], rng)


def two_samples(right: Right, rng: np.random.Generator) -> Pair:
    """Images drawn with replacement, the spread of candidates without its noise."""
    m, n = right.shape
    accuracy = right.mean(axis=1)
    deviations = right - right.mean(axis=0)
    noise = float(np.mean(deviations.var(axis=1, ddof=1))) / n * m / (m - 1)
    signal = max(0.0, 1.0 - noise / max(float(accuracy.var(ddof=1)), 1e-12))
    shift = (np.sqrt(signal) - 1.0) * (accuracy - accuracy.mean())
    one, other = (right[:, rng.integers(n, size=n)].mean(axis=1) + shift for _ in range(2))
    return one, other


FORMULAS: Mapping[str, Formula] = {
    "one draw against the accuracies": one_draw,
    "two draws (ships)": two_draws,
    "two samples of images, less noise": two_samples,
}


def expected(formula: Formula, right: Right, rng: np.random.Generator) -> float:
    """Mean NDCG@5 of pairs."""
    return float(np.mean([ndcg(*formula(right, rng)) for _ in range(_DRAWS)]))


def halves(right: Right, rng: np.random.Generator) -> dict[str, float]:
    """NDCG@5 of one half against the other, and what the formulas make of one half."""
    found: dict[str, list[float]] = {}
    for _ in range(_DRAWS // 2):
        one, other = np.array_split(rng.permutation(right.shape[1]), 2)
        for half, rest in ((one, other), (other, one)):
            found.setdefault("measured", []).append(ndcg(right[:, half].mean(axis=1), right[:, rest].mean(axis=1)))
            for name, formula in FORMULAS.items():
                found.setdefault(name, []).append(expected(formula, right[:, half], rng))
    return {name: float(np.mean(values)) for name, values in found.items()}


def ceilings(seen: Right, test: Right, rng: np.random.Generator) -> dict[str, float]:
    """The same of the whole test split; "measured" is by all training images."""
    whole = {name: expected(formula, test, rng) for name, formula in FORMULAS.items()}
    return {"measured": ndcg(seen.mean(axis=1), test.mean(axis=1))} | whole


def counted(test: Right, score: FloatArray, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """NDCG@5, tau-b, top-1 and top-5 loss of counting on n images and of ``score``, on the other images."""
    counting, ranking = [], []
    for _ in range(_DRAWS):
        order = rng.permutation(test.shape[1])
        truth = test[:, order[n:]].mean(axis=1)
        counting.append(measures([test[:, order[:n]].mean(axis=1)], [truth]))
        ranking.append(measures([score], [truth]))
    return np.mean(counting, axis=0), np.mean(ranking, axis=0)


def ceiling_rows(title: str, found: Mapping[str, Mapping[str, float]]) -> list[dict[str, object]]:
    """Print mean NDCG@5 by formula, on all tasks and without those at chance; ``found`` is by task."""
    kept = [task for task in found if task not in AT_CHANCE]
    print(f"\n{title}\n\n| NDCG@5 | {len(found)} tasks | {len(kept)} tasks | minus measured, {len(found)} tasks |")
    print("|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for name in next(iter(found.values())):
        every, some = (float(np.mean([found[task][name] for task in tasks])) for tasks in (found, kept))
        gap = change(np.array([each[name] - each["measured"] for each in found.values()]), digits=3)
        told = "" if name == "measured" else f"{gap[0]:+.3f} [{gap[1]:+.3f}, {gap[2]:+.3f}]"
        print(f"| {name} | {every:.3f} | {some:.3f} | {told} |")
        rows.append({"table": title, "formula": name, "ndcg5": round(every, 4), "without_chance": round(some, 4),
                     "minus_measured": gap})  # fmt: skip
    return rows


def label_rows(
    scenes: Sequence[Scene], test: Mapping[str, Right], scores: Mapping[str, FloatArray]
) -> list[dict[str, object]]:
    """Print counting on n images beside the ranking."""
    print(
        "\n| labelled images | tasks | counting: NDCG@5, tau-b, top-1 loss | ranking | ranking minus counting, 95 % |"
    )
    print("|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for n in _LABELS:
        names = [one.name for one in scenes if test[one.name].shape[1] >= 2 * n]
        both = [counted(test[name], scores[name], n, np.random.default_rng([n, k])) for k, name in enumerate(names)]
        counting, ranking = (np.array([pair[side] for pair in both])[:, :3] for side in (0, 1))
        gaps = [change((ranking - counting)[:, k], digits=digits) for k, digits in enumerate((3, 3, 2))]
        means = [[round(float(each), 3) for each in one.mean(axis=0)] for one in (counting, ranking)]
        cells = [", ".join(f"{each:.{d}f}" for each, d in zip(mean, (3, 3, 1), strict=True)) for mean in means]
        shown = ", ".join(f"{each[0]:+} [{each[1]:+}, {each[2]:+}]" for each in gaps)
        print(f"| {n} | {len(names)} | {cells[0]} | {cells[1]} | {shown} |", flush=True)
        rows.append({"labels": n, "tasks": len(names), "counting": means[0], "ranking": means[1], "difference": gaps})
    return rows


def main() -> None:
    """Command line."""
    args = command_line(__doc__, quick="six tasks").parse_args()
    torch.set_num_threads(1)
    candidates, library = mini_zoo(), default_library()
    paths = task_paths(args.tasks, library, quick=args.quick)
    scenes = [scene(each, candidates, cache=args.cache, templates=None) for each in paths]
    half: dict[str, dict[str, float]] = {}
    whole: dict[str, dict[str, float]] = {}
    test: dict[str, Right] = {}
    scores: dict[str, FloatArray] = {}
    for place, one in enumerate(scenes):
        rng, views = np.random.default_rng([7, place]), one.views()
        test[one.name] = right_answers(views.test, views.texts, one.test)
        half[one.name] = halves(test[one.name], rng)
        whole[one.name] = ceilings(right_answers(views.unlabelled, views.texts, one.unlabelled), test[one.name], rng)
        lines = {line.candidate: line.score for line in ranked(one, library, candidates)[0].ranked}
        scores[one.name] = np.array([lines[each.id] for each in candidates])
        print(one.name, {name: round(value, 3) for name, value in half[one.name].items()}, flush=True)
    content: dict[str, object] = {
        "halves": ceiling_rows("one half of the test images against the other", half),
        "whole": ceiling_rows("the whole test split; measured: by all training images", whole),
        "labels": label_rows(scenes, test, scores),
    }
    if args.write is not None:
        args.write.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps({"zero_shot_ceiling": content}))


if __name__ == "__main__":
    main()
