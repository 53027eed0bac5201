"""QUESTION: What are heads, fine-tuning recipes and ways of pooling worth on few labels?

PAGE: docs/results/tuning.md
RESULT: benchmarks/results/recipes.json

Each target's labelled images are divided as a search divides them. All candidates get heads, scored out of fold; the
five whose regression has the lowest log loss are fine-tuned from it, by several recipes, on all labelled images or on
all but one fold (the n-th candidate leaves out the n-th fold); the first three by all recipes. What each says of
held-out and test images goes to ``--records``, from which the tables are made:

- singles: mean test accuracy of single models, the same candidates in all rows;
- pools: the five heads, the five towers, and both by weights that held-out images give (`pipeline.ensemble`), with
  other ways beside it.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.recipes TARGETS --records RECORDS --write benchmarks/results/recipes.json
    python -m benchmarks.tuning.recipes TARGETS --records RECORDS --quick

Use targets that no report of final accuracy uses: the constants of heads and ensembles were chosen on such.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from benchmarks.common import command_line, folders, print_head, print_row, standard_error, write_json
from benchmarks.tuning.plain_lines import Recipe, Tuned, begin, fine_tune
from vlmsel_auto.cache import Store
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed
from vlmsel_auto.models.pooling import fit_weights, log_probabilities, pool
from vlmsel_auto.records import FloatArray, IntArray, Task
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tuning.data import splits
from vlmsel_auto.tuning.probe import INVERSE_PENALTY, fit

PENALTIES = (1.0, INVERSE_PENALTY, 30.0)
PLAIN = f"{INVERSE_PENALTY:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Screening:
    """A target with the heads of all candidates, in the order of the mini zoo."""

    task: Task
    features: Sequence[FloatArray]  # (n + t, D) unit-norm: labelled images, then test images
    texts: Sequence[FloatArray]  # (K, D) unit-norm
    scales: Sequence[float]  # of zero-shot logits
    heads: Sequence[Mapping[str, tuple[FloatArray, FloatArray]]]  # logits (n, K) out of fold and (t, K), by name
    order: Sequence[int]  # places of candidates by the log loss of their regression, the lowest first


def look(target: Path, *, scratch: Path) -> Screening:
    """Embed a target by all candidates and fit their heads."""
    views = tuple(dict.fromkeys(each.view for each in mini_zoo()))
    task = load_task(target, views=views, workdir=scratch / target.name)
    parts = splits(task)
    rows, everything = parts.labelled, np.concatenate([parts.labelled, parts.test])
    features: list[FloatArray] = []
    texts: list[FloatArray] = []
    scales: list[float] = []
    every_head: list[dict[str, tuple[FloatArray, FloatArray]]] = []
    for candidate in mini_zoo():
        every = embed(
            candidate, task, everything, load=partial(zoo.load, candidate), store=Store(scratch / "embeddings")
        )
        images = every.images.astype(np.float64)
        features.append(images / np.linalg.norm(images, axis=1, keepdims=True))
        texts.append(every.text.astype(np.float64))
        scales.append(min(every.logit_scale, 100.0))
        text = features[-1] @ texts[-1].T * scales[-1]
        heads = {"text": (text[: len(rows)], text[len(rows) :])}
        heads |= {f"{penalty:g}": _head(task, features[-1], penalty=penalty) for penalty in PENALTIES}
        heads["with text"] = with_text(heads[PLAIN], heads["text"], task.labels[rows])
        every_head.append(heads)
    likelihoods = [likelihood(log_probabilities(each[PLAIN][0]), task.labels[rows]) for each in every_head]
    order = np.argsort(-np.array(likelihoods), kind="stable").tolist()
    return Screening(task=task, features=features, texts=texts, scales=scales, heads=every_head, order=order)


def with_text(
    regression: tuple[FloatArray, FloatArray], text: tuple[FloatArray, FloatArray], labels: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Both by weights that held-out images give, as `tuning.probe` has it."""
    logs = [log_probabilities(each) for each in (regression[0], text[0])]
    first, second = fit_weights(logs, labels, start=[1.0, 0.1]).tolist()
    return first * regression[0] + second * text[0], first * regression[1] + second * text[1]


def _head(task: Task, features: FloatArray, *, penalty: float) -> tuple[FloatArray, FloatArray]:
    """Logits (n, K) out of fold and (t, K) of the test images by a head on all labelled images."""
    rows = splits(task).labelled
    known, shown = features[: len(rows)], features[len(rows) :]
    held_out = np.zeros((len(rows), task.n_classes))
    for fold in task.folds:
        out = np.isin(rows, fold)
        held_out[out] = _scores(task, known[~out], task.labels[rows[~out]], known[out], penalty=penalty)
    return held_out, _scores(task, known, task.labels[rows], shown, penalty=penalty)


def _scores(task: Task, features: FloatArray, labels: IntArray, shown: FloatArray, *, penalty: float) -> FloatArray:
    head = fit(features, labels, classes=task.n_classes, metric=task.metric, inverse_penalty=penalty)
    return shown @ head.weight.T.astype(np.float64) + head.bias


def with_fitted_head(task: Task, features: FloatArray, place: int, *, train: IntArray) -> Tuned:
    """The candidate at this place of the mini zoo with a regression on the images ``train``."""
    of_train = features[np.searchsorted(splits(task).labelled, train)]
    head = fit(of_train, task.labels[train], classes=task.n_classes, metric=task.metric, inverse_penalty=10.0)
    return begin(mini_zoo()[place], weight=head.weight.astype(np.float64), bias=head.bias.astype(np.float64))


def likelihood(logs: FloatArray, labels: IntArray) -> float:
    """Log likelihood of log-probabilities (n, K), summed."""
    return float(logs[np.arange(len(labels)), labels].sum())


_LEADERS = 5
_BY_ALL = 3  # leaders that are tuned by all recipes
RECIPES: Mapping[str, Recipe] = {
    "plain": Recipe(),
    "50 epochs": Recipe(epochs=50),
    "a third of the rate": Recipe(rate=1e-4),
    "three times the rate": Recipe(rate=1e-3),
    "crops and colours": Recipe(strength=0.4),
}
Arrays = dict[str, NDArray[np.float64] | NDArray[np.float32] | NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Leader:
    """One candidate on one target; n labelled and t test images, K classes."""

    heads: Mapping[str, FloatArray]  # log-probabilities (n, K) out of fold, by inverse penalty; "with text", "text"
    head_tests: Mapping[str, FloatArray]  # (t, K)
    rows: IntArray  # places of the fold that its towers left out
    towers: Mapping[str, FloatArray]  # by recipe: log-probabilities (rows, K)
    tower_tests: Mapping[str, FloatArray]  # (t, K); "all": the plain recipe on all labelled images


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One target."""

    labels: IntArray  # (n,)
    test: IntArray  # (t,)
    leaders: tuple[Leader, ...]  # by log loss


def record(target: Path, *, recipes: Mapping[str, Recipe], scratch: Path) -> Arrays:
    """Heads of all candidates and towers of the leaders, as flat arrays."""
    seen = look(target, scratch=scratch)
    task, features = seen.task, seen.features
    parts = splits(task)
    rows, order = parts.labelled, seen.order[:_LEADERS]
    found: Arrays = {"labels": task.labels[rows], "test": task.labels[parts.test], "order": np.array(order)}
    for place, heads in enumerate(seen.heads):
        for name, (held_out, of_test) in heads.items():
            found[f"{place}/head/{name}"], found[f"{place}/head-test/{name}"] = held_out, of_test
    for number, place in enumerate(order):
        out = np.sort(task.folds[number % len(task.folds)])
        found[f"{place}/rows"] = np.searchsorted(rows, out)
        for name, recipe in recipes.items() if number < _BY_ALL else [("plain", RECIPES["plain"])]:
            of_fold, tested = _tower(task, features[place], place, out=out, recipe=recipe, seed=number)
            found[f"{place}/tower/{name}"], found[f"{place}/tower-test/{name}"] = of_fold, tested
        _, tested = _tower(task, features[place], place, out=rows[:0], recipe=RECIPES["plain"], seed=number)
        found[f"{place}/tower-test/all"] = tested
        print(f"{target.name}: {number + 1} of {_LEADERS} candidates tuned", flush=True)
    return found


def _tower(
    task: Task, features: FloatArray, place: int, *, out: IntArray, recipe: Recipe, seed: int
) -> list[NDArray[np.float32]]:
    """Logits of the images that were left out and of the test images."""
    parts = splits(task)
    train = np.setdiff1d(parts.labelled, out)
    tuned = with_fitted_head(task, features, place, train=train)
    fine_tune(task, tuned, train=train, recipe=recipe, seed=seed)
    of_fold = tuned.logits(task, out) if len(out) else np.zeros((0, task.n_classes), dtype=np.float32)
    return [of_fold, tuned.logits(task, parts.test)]


def read(path: Path) -> Record:
    """What `record` found."""
    arrays = load_file(path)

    def of(place: int, kind: str) -> dict[str, FloatArray]:
        start = f"{place}/{kind}/"
        return {name.removeprefix(start): log_probabilities(arrays[name]) for name in arrays if name.startswith(start)}

    leaders = tuple(
        Leader(
            heads=of(place, "head"),
            head_tests=of(place, "head-test"),
            rows=arrays[f"{place}/rows"],
            towers=of(place, "tower"),
            tower_tests=of(place, "tower-test"),
        )
        for place in arrays["order"].tolist()
    )
    return Record(labels=arrays["labels"], test=arrays["test"], leaders=leaders)


def singles(found: Record) -> dict[str, float]:
    """Mean test accuracy of the candidates that were tuned by all recipes."""
    few = found.leaders[:_BY_ALL]
    table = {
        "regression": [each.head_tests[PLAIN] for each in few],
        "regression, its penalty chosen": [each.head_tests[_best_penalty(each, found.labels)] for each in few],
        "zero-shot": [each.head_tests["text"] for each in few],
        "**regression with zero-shot**": [each.head_tests["with text"] for each in few],
        "fine-tuned on all labels, plain": [each.tower_tests["all"] for each in few],
    }
    for name in few[0].towers:
        table[f"without one part, {name}"] = [each.tower_tests[name] for each in few]
    return {name: float(np.mean([_right(each, found) for each in logs])) for name, logs in table.items()}


def pools(found: Record) -> dict[str, float]:
    """Test accuracy of the first head alone and of pools of the leaders."""
    plain = [each.head_tests[PLAIN] for each in found.leaders]
    heads = [each.head_tests["with text"] for each in found.leaders]
    held_out = [each.heads["with text"] for each in found.leaders]
    shares = softmax(np.array([likelihood(each, found.labels) for each in held_out]) / 20)
    towers = [each.tower_tests["plain"] for each in found.leaders]
    whole = [each.tower_tests["all"] for each in found.leaders]
    beside = np.concatenate([each.heads["with text"][each.rows] for each in found.leaders])
    tuned = np.concatenate([each.towers["plain"] for each in found.leaders])
    labels = np.concatenate([found.labels[each.rows] for each in found.leaders])
    head, tower = fit_weights([beside, tuned], labels, start=[1.0, 0.1]).tolist()
    alike = [1 / len(heads)] * len(heads)
    fitted = fit_weights(held_out, found.labels, start=alike, shrinkage=3.0).tolist()
    as_fitted = [*(head * shares).tolist(), *(tower * share for share in alike)]
    table = {
        "first head": pool(heads[:1], [1.0]),
        "five regressions alike": pool(plain, alike),
        "five heads alike": pool(heads, alike),
        "five heads, greedy selection": _greedy(held_out, heads, found.labels),
        "five heads, a weight fitted for each": pool(heads, fitted),
        "five heads by likelihood": pool(heads, shares.tolist()),
        "five towers": pool(towers, alike),
        "five towers on all labels": pool(whole, alike),
        "heads and towers alike": pool([*heads, *towers], [*alike, *alike]),
        "heads and towers as fitted": pool([*heads, *towers], as_fitted),
        "**heads and towers as fitted, towers on all labels**": pool([*heads, *whole], as_fitted),
    }
    return {name: _right(each, found) for name, each in table.items()}


def _greedy(held_out: Sequence[FloatArray], tests: Sequence[FloatArray], labels: IntArray) -> FloatArray:
    """Ten picks with replacement, each the one that lowers the log loss most (Caruana et al., ICML 2004)."""
    total, of_test = np.zeros_like(held_out[0]), np.zeros_like(tests[0])
    for _ in range(10):
        tries = [likelihood(np.log(total + np.exp(each)), labels) for each in held_out]
        best = int(np.argmax(tries))
        total, of_test = total + np.exp(held_out[best]), of_test + np.exp(tests[best])
    return np.asarray(np.log(of_test), dtype=np.float64)


def _best_penalty(leader: Leader, labels: IntArray) -> str:
    return max((f"{each:g}" for each in PENALTIES), key=lambda name: likelihood(leader.heads[name], labels))


def _right(logs: FloatArray, found: Record) -> float:
    return float((logs.argmax(axis=1) == found.test).mean())


def show(title: str, rows: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Print a table, a line a form and a column a target, and return its means with their paired errors."""
    targets = list(rows)
    names = list(rows[targets[0]])
    first = np.array([rows[target][names[0]] for target in targets])
    print()
    print_head(title, "mean", "to the first line", *targets)
    means = {}
    for name in names:
        values = np.array([rows[target][name] for target in targets])
        gap = values - first
        error = standard_error(gap)
        cells = [f"{value:.3f}" for value in values]
        print_row(name, f"{values.mean():.3f}", f"{100 * gap.mean():+.1f} ({100 * error:.1f})", *cells)
        means[name] = {"mean": float(values.mean()), "gap": float(gap.mean()), "gap_se": error}
    return means


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="the first target, the plain recipe")
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder; what is there is not made again")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.records.mkdir(parents=True, exist_ok=True)
    recipes = {"plain": RECIPES["plain"]} if args.quick else RECIPES
    found: dict[str, Record] = {}
    for target in folders(args.targets, only=args.only, quick=args.quick):
        file = args.records / f"{target.name}.safetensors"
        if not file.is_file():
            made = record(target, recipes=recipes, scratch=args.records / "tasks")
            save_file({name: np.ascontiguousarray(each) for name, each in made.items()}, file)
        found[target.name] = read(file)
    tables = {
        "singles": show("single models", {name: singles(each) for name, each in found.items()}),
        "pools": show("pools", {name: pools(each) for name, each in found.items()}),
    }
    write_json(args.write, {"targets": list(found), **tables})


if __name__ == "__main__":
    main()
