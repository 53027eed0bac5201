"""QUESTION: What is each form of DCD worth, source accuracies being weighted by it alone?

PAGE: docs/results/conductance.md
RESULT: benchmarks/results/dcd-forms.json

Every form varies one or two things of the default: how a source fails to cover the target (delta), how the target's
blocks are weighed (importance), how sharply sources are (t), whether candidates share their divergences (pooled). The
last line of each table chooses among all forms anew for every target, by the mean over the other targets: what is left
of a gain when nothing is chosen on the target that it is reported on.

Symbols as in `vlmsel_auto.ranking.dcd`, and of one block C channels:
    u   channel signature, mean signed conductance a channel          w   importance of the target's blocks
    delta   how badly a source covers a block of the target, >= 0, 0 for the target itself
    DCD(T || S) = sum_b w_b(T) delta_b(T, S)

    python -m benchmarks.ranking.dcd_forms                       # the shipped library, both truths, about two minutes
    python -m benchmarks.ranking.dcd_forms --quick               # 6 tasks
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from benchmarks.common import command_line, write_json
from benchmarks.ranking import research
from benchmarks.ranking.compared_rankings import dcd_authors_ranking
from benchmarks.ranking.ranking_table import measures, print_table
from benchmarks.ranking.research import Research
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import average_rank
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.dcd import depth_corrected, log_activity
from vlmsel_auto.ranking.divergence import source_weights, with_mean_of_others
from vlmsel_auto.ranking.fusion import candidate_effect
from vlmsel_auto.ranking.scaling import known_mean, standardise, unit_rows
from vlmsel_auto.ranking.sources import DEFAULT_WEIGHTING, Truth
from vlmsel_auto.records import FloatArray

Delta = Literal["uncovered", "signature", "channels", "share"]
DELTAS: Final[tuple[Delta, ...]] = ("uncovered", "signature", "channels", "share")
TEMPERATURES: Final = (0.1, 0.3, 1.0)
_TINY: Final = 1e-12
_ROUNDING: Final = 1e-14  # differences of unit vectors below this are rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Profiles:
    """Conductance of one candidate on n tasks, means over each task's images."""

    activity: FloatArray  # (n, B) sum of |conductance| of every block
    signature: Sequence[FloatArray] = ()  # B arrays (n, C): signed conductance of every channel
    absolute: Sequence[FloatArray] = ()  # B arrays (n, C): |conductance| of every channel

    def take(self, rows: NDArray[np.bool_]) -> Profiles:
        """The profiles of some tasks."""
        return Profiles(
            activity=self.activity[rows],
            signature=[block[rows] for block in self.signature],
            absolute=[block[rows] for block in self.absolute],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One form of DCD and of the weights that follow from it.

    Deltas: "uncovered" is max(0, z(T) - z(S)), "signature" 1 - cosine of the signed signatures, "channels" the KL
    divergence of the channels' shares in |conductance|, "share" the KL terms of the blocks' shares in the activity.
    """

    delta: Delta = "uncovered"
    importance: Literal["softmax", "uniform"] = "softmax"
    importance_temperature: float = 1.0  # tau of w = softmax(z / tau)
    temperature: float = DEFAULT_WEIGHTING.alone  # t of `source_weights`
    pooled: float = 0.0  # 0: every candidate has its own weights; 1: all share the mean of their divergences
    norm: bool = False  # profiles of F = norm of the embedding

    def __call__(self, targets: FloatArray, sources: FloatArray, used: NDArray[np.bool_]) -> FloatArray:
        """Divergences (T, S) of activities, where they tell the delta: a `Divergence`."""
        return self.of(Profiles(activity=targets), Profiles(activity=sources), used)

    def of(self, targets: Profiles, sources: Profiles, used: NDArray[np.bool_]) -> FloatArray:
        """Divergences (T, S) >= 0, 0 for a source with the target's profile, not symmetric."""
        deltas = _deltas(targets, sources, self.delta)
        if self.importance == "uniform":
            return np.asarray(deltas.mean(axis=2), dtype=np.float64)
        z = depth_corrected(targets.activity, sources.activity, used)
        weights = special.softmax(z / self.importance_temperature, axis=1)
        return np.asarray(np.einsum("tsb,tb->ts", deltas, weights), dtype=np.float64)

    def weights(self, profiles: Sequence[Profiles], target: int) -> FloatArray:
        """Weights (M, S - 1) of the sources of a target, by the profiles of M candidates on S tasks."""
        own = np.arange(len(profiles[0].activity)) == target
        used = np.ones((1, len(own) - 1), dtype=np.bool_)
        away = with_mean_of_others(np.stack([self.of(one.take(own), one.take(~own), used)[0] for one in profiles]))
        mixed = (1.0 - self.pooled) * away + self.pooled * known_mean(away, axis=0)
        return source_weights(mixed, temperature=self.temperature)


def _deltas(targets: Profiles, sources: Profiles, delta: Delta) -> FloatArray:
    """(T, S, B) how badly each source covers each block of each target."""
    match delta:
        case "uncovered":
            return np.maximum(0.0, log_activity(targets.activity)[:, None, :] - log_activity(sources.activity))
        case "signature":
            pairs = zip(targets.signature, sources.signature, strict=True)
            return np.stack([_cosine_distance(t, s) for t, s in pairs], axis=2)
        case "channels":
            return np.stack([_kl(t, s) for t, s in zip(targets.absolute, sources.absolute, strict=True)], axis=2)
        case "share":
            # terms of a Kullback-Leibler divergence between block shares, each made >= 0: p log(p / q) - p + q
            p, q = _share(targets.activity)[:, None, :], _share(sources.activity)[None, :, :]
            return np.asarray(np.maximum(0.0, special.kl_div(p, q)), dtype=np.float64)


def _cosine_distance(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """1 - cosine (T, S) of one block's signatures (T, C) and (S, C), in [0, 2]."""
    distance = 1.0 - unit_rows(targets) @ unit_rows(sources).T
    return np.asarray(np.where(distance > _ROUNDING, distance, 0.0), dtype=np.float64)


def _kl(targets: FloatArray, sources: FloatArray) -> FloatArray:
    """KL (T, S) of the targets' channel shares from the sources'."""
    p, q = _share(targets), _share(sources)
    value = -special.entr(p).sum(axis=1)[:, None] - p @ np.log(q).T
    return np.asarray(np.where(value > _ROUNDING, value, 0.0), dtype=np.float64)


def _share(rows: FloatArray) -> FloatArray:
    size = np.abs(rows) + _TINY
    return np.asarray(size / size.sum(axis=-1, keepdims=True), dtype=np.float64)


def forms() -> dict[str, Form]:
    """By name, the default first."""
    default = Form()
    found = {"default: uncovered, t 0.1": default}
    for delta in DELTAS:
        for t in TEMPERATURES:
            form = Form(delta=delta, temperature=t)
            if form != default:
                found[f"{delta}, t {t:g}"] = form
    return found | {
        "uncovered, blocks alike": Form(importance="uniform"),
        "uncovered, importance tau .3": Form(importance_temperature=0.3),
        "uncovered, divergences half pooled": Form(pooled=0.5),
        "uncovered, divergences pooled": Form(pooled=1.0),
        "signature, divergences pooled": Form(delta="signature", pooled=1.0),
        "F = norm of the embedding, uncovered": Form(norm=True),
    }


def table(library: Library, found_of: Research, *, truth: Truth) -> list[dict[str, object]]:
    """Print and return the rows of one truth."""
    margin, norm = (
        [
            Profiles(activity=activity, signature=found_of.signature[m], absolute=found_of.absolute[m])
            for m, activity in enumerate(activities)
        ]
        for activities in (library.activity, found_of.norm_means())
    )
    authors = dcd_authors_ranking(found_of)
    found: dict[str, list[FloatArray]] = {}
    for s in range(len(library.tasks)):
        case = Case(library=library, column=s, truth=truth, shots=0)
        found.setdefault("average rank", []).append(measures([average_rank(case.source_truth)], case.truths))
        found.setdefault("the authors' form", []).append(measures(authors(case), case.truths))
        z = np.where(np.isfinite(case.source_truth), standardise(case.source_truth), np.nan)
        for name, form in forms().items():
            profiles = [(norm if form.norm else margin)[m] for m in case.rows]
            score = candidate_effect(z, form.weights(profiles, s), shrink=0.0)
            found.setdefault(name, []).append(measures([score], case.truths))
    every = {name: np.array(values) for name, values in found.items()}
    title = f"{truth} truth, {len(library.tasks)} targets"
    return print_table(every, title=title, against="average rank", bounds=["average rank"])


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="six tasks")
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--research", type=Path, default=research.PATH, help="norms and channels")
    args = parser.parse_args()
    library = load(args.library)
    if args.quick:
        library = library.select_tasks(library.task_names[:6])
    found_of = research.load(args.research).aligned(library)
    truths: tuple[Truth, ...] = ("zero_shot", "tuned")
    rows = [row for truth in truths for row in table(library, found_of, truth=truth)]
    write_json(args.write, {"rows": rows})
    print(
        json.dumps({"rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]})
    )


if __name__ == "__main__":
    main()
