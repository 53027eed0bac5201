"""QUESTION: Is the accuracy that is stated of the leader without labels true, also where nobody knows the images?

PAGE: docs/results/labelling.md
RESULT: benchmarks/results/belief.json

    python -m benchmarks.labels.belief TASKS --write benchmarks/results/belief.json

Cases are test images of a task (at most 400) with the candidates of the mini zoo, of three kinds. Near: all candidates,
some of which were trained on the domain. Far: those that were not (at least six), or all where none was. Misnamed: all
candidates, the classes under the names of another task (four others at most for each). Shuffled: all candidates, each
with the images in an order of its own, so that no two see the same.

"One strength" takes the votes for as strong as usual; "mixture" is the belief that ships, with the coefficients of
`ranking.label_belief` fitted anew for each task without its cases. The last lines print the coefficients of all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import torch
from scipy import optimize, special
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # it ships no types

from benchmarks.common import command_line, folders, print_head, print_row, write_json
from benchmarks.labels.labelling_heaps import Heap, heap
from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.cache import default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.label_belief import (
    STRENGTHS,
    Belief,
    believe,
    prior_weights,
    strength_chances_by,
    strength_signs,
)
from vlmsel_auto.records import UNLABELLED, FloatArray, IntArray

_LEAST_FAR: Final = 6  # candidates
_MISNAMED: Final = 4  # other tasks whose names a task gets
_LABELS: Final = (0, 5, 10, 20)
_TRUSTED: Final = 40  # labels as which all of a case count where strengths are fitted: nearby images err alike
_PENALTY: Final = 0.05
_SEED: Final = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One task as some candidates see it, under some names."""

    kind: str
    seen: Heap
    signs: FloatArray  # (5,)
    likelihood: FloatArray  # (S,) log-likelihood of the labels by each strength


def case(kind: str, seen: Heap) -> Case:
    """With what is fitted to."""
    pooled = np.tensordot(seen.prior.mean, seen.votes - seen.votes.mean(axis=2, keepdims=True), axes=1)
    at = np.arange(len(seen.labels)), seen.labels
    likelihood = [float(special.log_softmax(strength * pooled, axis=1)[at].sum()) for strength in STRENGTHS]
    weight = min(1.0, _TRUSTED / len(seen.labels))
    return Case(
        kind=kind,
        seen=seen,
        signs=strength_signs(seen.votes, seen.alike),
        likelihood=weight * (np.array(likelihood) - max(likelihood)),
    )


def cases(tasks: Sequence[Path], *, cache: Path) -> list[Case]:
    """All kinds of all tasks."""
    library, everyone, found = default_library(), mini_zoo(), []
    whole = {path: heap(path, library, everyone, cache=cache) for path in tasks}
    for path, seen in whole.items():
        far = far_candidates(path.name)
        found.append(case("near" if len(far) < len(everyone) else "far", seen))
        if _LEAST_FAR <= len(far) < len(everyone):
            found.append(case("far", heap(path, library, far, cache=cache)))
        found.append(case("shuffled", shuffled(seen)))
        others = (each for each in tasks if each != path and whole[each].votes.shape[2] >= seen.votes.shape[2])
        found += [
            case("misnamed", heap(path, library, everyone, cache=cache, misnamed=other))
            for other in islice(others, _MISNAMED)
        ]
    return found


def shuffled(seen: Heap) -> Heap:
    """Each candidate's votes are of other images."""
    rng = np.random.default_rng(_SEED)
    votes = np.stack([one[rng.permutation(len(one))] for one in seen.votes])
    alike = likeness(list(votes))
    even = np.full(len(votes), 1.0 / len(votes))
    return replace(seen, votes=votes, alike=alike, prior=prior_weights(even, alike))


Fitted = tuple[FloatArray, FloatArray, FloatArray, FloatArray]  # mean, sd and weight of the signs (5,), cuts (S - 1,)


def fit(known: Sequence[Case]) -> Fitted:
    """Ordered logistic regression of the strengths on the signs; near cases and all others weigh alike."""
    signs, likelihood = np.stack([each.signs for each in known]), np.stack([each.likelihood for each in known])
    near = np.array([each.kind == "near" for each in known])
    weight = np.where(near, 0.5 / near.sum(), 0.5 / (~near).sum()) * len(known)
    mean, sd = signs.mean(axis=0), signs.std(axis=0)
    z = (signs - mean) / sd

    def opened(free: FloatArray) -> tuple[FloatArray, FloatArray]:
        return free[:5], np.cumsum(np.concatenate([free[5:6], np.exp(free[6:])]))

    def cost(free: FloatArray) -> float:
        slope, cuts = opened(free)
        chances = np.stack([strength_chances_by(one, cuts) for one in z @ slope])
        return float(_PENALTY * slope @ slope - weight @ special.logsumexp(np.log(chances) + likelihood, axis=1))

    start = np.concatenate([np.zeros(5), [-1.5], np.full(len(STRENGTHS) - 2, -0.5)])
    slope, cuts = opened(optimize.minimize(cost, start, method="L-BFGS-B").x)
    return mean, sd, slope, cuts


def chances(one: Case, fitted: Fitted) -> FloatArray:
    """Of the strengths (S,)."""
    mean, sd, slope, cuts = fitted
    return strength_chances_by(float((one.signs - mean) / sd @ slope), cuts)


def told(one: Case, labels: int, of: Callable[[IntArray], Belief]) -> list[float]:
    """Of the leader: gap, bias, whether its interval holds the truth, its width, points lost, P(best), is best."""
    rows = np.random.default_rng(_SEED).permutation(len(one.seen.labels))[:labels]
    known = np.full(len(one.seen.labels), UNLABELLED)
    known[rows] = one.seen.labels[rows]
    now, true = of(known), one.seen.right.mean(axis=1)
    leader = int(now.loss.argmin())
    low, high = now.interval[:, leader]
    bias = float(now.accuracy[leader] - true[leader])
    inside = float(low - 5e-4 <= true[leader] <= high + 5e-4)  # the grid's step
    best = float(true[leader] == true.max())
    return [abs(bias), bias, inside, high - low, float(true.max() - true[leader]), float(now.p_best[leader]), best]


_COLUMNS: Final = ("gap", "bias", "held", "width", "lost", "P(best)", "best")


def tables(found: Sequence[Case]) -> list[dict[str, object]]:
    """Means over the cases of a kind, in points and per cent."""
    tasks = sorted({each.seen.name for each in found})
    left_out = {name: fit([each for each in found if each.seen.name != name]) for name in tasks}
    rows: list[dict[str, object]] = []
    print_head("kind", "cases", "labels", "belief", *_COLUMNS)
    for kind in ("near", "far", "misnamed", "shuffled"):
        those = [each for each in found if each.kind == kind]
        for labels in _LABELS:
            for name in ("one strength", "mixture"):
                figures = []
                for one in those:
                    given = chances(one, left_out[one.seen.name]) if name == "mixture" else None

                    def of(known: IntArray, one: Case = one, given: FloatArray | None = given) -> Belief:
                        return believe(one.seen.votes, prior=one.seen.prior, labels=known, chances=given)

                    figures.append(told(one, labels, of))
                means = [round(100 * float(each), 1) for each in np.mean(figures, axis=0)]
                row = {"kind": kind, "cases": len(those), "labels": labels, "belief": name}
                rows.append({**row, **dict(zip(_COLUMNS, means, strict=True))})
                print_row(kind, len(those), labels, name, *means)
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "labelling")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        found = cases(folders(args.tasks), cache=args.cache)
        rows = tables(found)
        names = ("_SIGNS_MEAN", "_SIGNS_SD", "_SIGNS_WEIGHT", "_CUTS")
        fitted = {name: np.round(each, 3).tolist() for name, each in zip(names, fit(found), strict=True)}
    for name, values in fitted.items():
        print(f"{name}: {values}")
    write_json(args.write, {"belief": rows, "coefficients": fitted})


if __name__ == "__main__":
    main()
