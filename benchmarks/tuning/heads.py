"""Heads on cached features beside each other: test accuracy over targets and candidates, and what a fit takes.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only ...
    python -m benchmarks.tuning.heads TARGETS --scratch FOLDER --write benchmarks/results/heads.json

Rows: zero-shot; SS-Text (github.com/jusiro/SS-Text: w_c = t_c + n_c s / N times the sum of the class's features);
logistic regression with C = 1, 5, 30, and the C with the lowest log loss out of fold; the same anchored at the text
weights (zero-shot logits as offset, C = 5); regression and zero-shot by two fitted weights (`tuning.probe`, what a
search fits); and, for each candidate, whichever of these has the lowest log loss out of fold.

"all": mean over all candidates; "chosen": the candidate with the lowest log loss out of fold by that head. Differences
are to the product's head, with the standard error over targets.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from benchmarks.common import standard_error
from benchmarks.tuning.target_heads import Look, look, with_text
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.tuning.data import splits

OURS = "with text"
NAMES = {
    "text": "zero-shot",
    "ss-text": "SS-Text",
    "1": "regression, C = 1",
    "5": "regression, C = 5",
    "30": "regression, C = 30",
    "path": "regression, C out of fold",
    "anchored": "regression anchored at the text",
    OURS: "regression and zero-shot, fitted weights",
    "path with text": "the same, C out of fold",
    "any": "any of these, out of fold",
}
Head = tuple[FloatArray, FloatArray]  # logits (n, K) of labelled images out of fold, (t, K) of test images


def ss_text(features: FloatArray, labels: IntArray, text: FloatArray, *, shown: FloatArray, scale: float) -> FloatArray:
    """Logits of ``shown``; all features and text weights have unit norm."""
    counts = np.bincount(labels, minlength=len(text))
    sums = np.zeros_like(text)
    np.add.at(sums, labels, features)
    weights = text + (counts * scale / len(labels))[:, None] * sums
    return np.asarray(scale * shown @ weights.T)


def anchored(features: FloatArray, labels: IntArray, offset: FloatArray, *, inverse_penalty: float) -> FloatArray:
    """(K, D) added to the text weights: cross entropy with zero-shot logits as offset, L2 on what is added."""
    n, classes, width = len(labels), offset.shape[1], features.shape[1]
    hot = np.eye(classes)[labels]

    def loss(flat: FloatArray) -> tuple[float, FloatArray]:
        weights = flat.reshape(classes, width)
        logits = offset + features @ weights.T
        value = -float((hot * log_softmax(logits, axis=1)).sum()) * inverse_penalty + 0.5 * float((flat**2).sum())
        gradient = inverse_penalty * (softmax(logits, axis=1) - hot).T @ features + weights
        return value / n, gradient.ravel() / n

    return np.asarray(minimize(loss, np.zeros(classes * width), jac=True, method="L-BFGS-B").x).reshape(classes, width)


def out_of_fold(seen: Look, place: int, fit: Callable[[IntArray, IntArray], FloatArray]) -> Head:
    """Logits by ``fit(train, shown)``, both places of all images: held out part by part, and of the test images."""
    task, rows = seen.task, splits(seen.task).labelled
    every = np.arange(len(rows))
    held_out = np.zeros((len(rows), task.n_classes))
    for part in task.folds:
        out = np.isin(rows, part)
        held_out[out] = fit(every[~out], every[out])
    return held_out, fit(every, np.arange(len(rows), len(seen.features[place])))


def heads_of(seen: Look, place: int, *, clock: dict[str, list[float]]) -> dict[str, Head]:
    """Every head of one candidate."""
    features, labels = seen.features[place], seen.task.labels[splits(seen.task).labelled]
    found = dict(seen.heads[place])
    text, scale, zero_shot = seen.texts[place], seen.scales[place], np.concatenate(found["text"])

    def by_sums(train: IntArray, shown: IntArray) -> FloatArray:
        return ss_text(features[train], labels[train], text, shown=features[shown], scale=scale)

    def by_anchor(train: IntArray, shown: IntArray) -> FloatArray:
        added = anchored(features[train], labels[train], zero_shot[train], inverse_penalty=5.0)
        return np.asarray(zero_shot[shown] + features[shown] @ added.T)

    for name, fit in (("ss-text", by_sums), ("anchored", by_anchor)):
        begun = time.perf_counter()
        found[name] = out_of_fold(seen, place, fit)
        clock.setdefault(name, []).append((time.perf_counter() - begun) / (len(seen.task.folds) + 1))
    losses = {name: loss(head[0], labels) for name, head in found.items()}
    found["path"] = found[min(("1", "5", "30"), key=losses.__getitem__)]
    found["path with text"] = with_text(found["path"], found["text"], labels)
    losses["path with text"] = loss(found["path with text"][0], labels)
    found["any"] = found[min(losses, key=losses.__getitem__)]
    return found


def loss(logits: FloatArray, labels: IntArray) -> float:
    """Log loss of an image."""
    return -float(log_probabilities(logits)[np.arange(len(labels)), labels].mean())


def measure(target: Path, *, scratch: Path, clock: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Test accuracy of every head on one target, "all" and "chosen"."""
    seen = look(target, scratch=scratch)
    parts = splits(seen.task)
    known, truth = seen.task.labels[parts.labelled], seen.task.labels[parts.test]
    every = [heads_of(seen, place, clock=clock) for place in range(len(seen.features))]
    found: dict[str, dict[str, float]] = {}
    for name in NAMES:
        right = [float((heads[name][1].argmax(axis=1) == truth).mean()) for heads in every]
        chosen = min(range(len(every)), key=lambda place: loss(every[place][name][0], known))
        found[name] = {"all": float(np.mean(right)), "chosen": right[chosen]}
    return found


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]], clock: Mapping[str, list[float]]) -> list[object]:
    """Print means over targets and differences to the product's head."""
    rows: list[object] = []
    print("| head | all | difference | chosen | difference | ms |\n|---|---|---|---|---|---|")
    for name, title in NAMES.items():
        row: dict[str, object] = {"head": title}
        cells = [title]
        for column in ("all", "chosen"):
            mine = np.array([each[name][column] for each in found.values()])
            gaps = 100 * (mine - np.array([each[OURS][column] for each in found.values()]))
            error = standard_error(gaps)
            row |= {column: round(float(mine.mean()), 4), f"{column}, points": round(float(gaps.mean()), 2)}
            row[f"{column}, se"] = round(error, 2)
            cells += [f"{mine.mean():.3f}", f"{gaps.mean():+.1f} ({error:.1f})"]
        seconds = clock.get(name)
        cells.append("" if seconds is None else f"{1000 * float(np.median(seconds)):.0f}")
        print("| " + " | ".join(cells) + " |")
        rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--scratch", type=Path, required=True, help="folder that keeps images and embeddings")
    parser.add_argument("--only", default="", help="comma list of targets; default: all")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="one target")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    targets = sorted(each for each in args.targets.iterdir() if each.is_dir() and (not only or each.name in only))
    clock: dict[str, list[float]] = {}
    found = {}
    for target in targets[:1] if args.quick else targets:
        found[target.name] = measure(target, scratch=args.scratch, clock=clock)
        print(
            target.name, {NAMES[name]: round(each["all"], 3) for name, each in found[target.name].items()}, flush=True
        )
    rows = table(found, clock)
    if args.write:
        args.write.write_text(json.dumps({"targets": list(found), "rows": rows}, indent=1) + "\n", "utf-8")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
