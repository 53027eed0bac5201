"""QUESTION: What could conductance add to the fused ranking, one task of the library left out?

PAGE: docs/results/conductance.md
RESULT: benchmarks/results/conductance-worth.json

    python -m benchmarks.conductance.conductance_worth TASKS --records FOLDER \
        --write benchmarks/results/conductance-worth.json

Each row adds signals to the fused ranking, or puts something in the place of DCD's profiles or of candidate effects.
The trend is fitted, and whatever has a setting is chosen, on the other tasks only. New signals are fused as they are
and turned round, since nobody knows beforehand which way is the better. Rows with labels are means over two draws of
the labelled images; the images with conductance are of the first draw in both, which if anything favours these rows.
Measured cells (`conductance_worth_cells`) are kept in --records, so a run that was stopped goes on. Differences are
paired over tasks, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.conductance.conductance_worth_cells import PASSES, RIVALS, Activity, Cells, Grid, Signals
from benchmarks.ranking.dcd_authors import AUTHORS, authors_weights
from benchmarks.ranking.ranking_table import chosen_elsewhere, measures
from benchmarks.ranking.research import joined
from benchmarks.ranking.research import load as load_research
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import RANKINGS, average_rank, weighted_rank
from vlmsel_auto.cache import Store, digest
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.agreement import mean_interval, ndcg
from vlmsel_auto.ranking.divergence import divergences
from vlmsel_auto.ranking.fusion import Fusion, fit_fusion, fuse
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.signals import LABEL_SIGNALS
from vlmsel_auto.ranking.sources import Sources, Truth, image_signal, image_signals
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import FloatArray

SETTINGS: tuple[tuple[Truth, int], ...] = (("zero_shot", 0), ("tuned", 0), ("tuned", 4), ("tuned", 16))
COUNTS = (1, 2, 5, 10, 16)  # source images a task
_STRENGTHS, _LENGTHS = (0.03, 0.1, 0.3, 1.0), (0.3, 1.0)  # of the Gaussian process


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One form of the fused ranking."""

    family: str
    name: str
    signals: Grid = field(default_factory=dict)  # beside today's
    activity: Activity | None = None  # in the place of the library's
    factors: FloatArray | None = None  # (M, M): a Gaussian process over tasks in the place of DCD's weighted means
    local: float = 0.0  # how much a source's weight in the trend goes by DCD, mean over candidates


class Bench:
    """All tasks of a library as targets, for one truth and number of labels."""

    def __init__(self, library: Library, *, truth: Truth, shots: int) -> None:
        self.truth, self.shots, m = truth, shots, range(len(library.candidates))
        found = {name: image_signal(library, name, m) for name in image_signals(truth)}
        self.images = {name: values for name, values in found.items() if values is not None}
        # `gather` need not compare the candidates again for every target
        nobody = np.full_like(library.predicted_on, np.nan)
        self.library = replace(library, predicted_on=nobody, neighbours_on=nobody)
        k = library.shots.index(shots) if shots else 0
        names = LABEL_SIGNALS if shots else ()
        self.said = {n: library.evidence_draws[:, :, :, k, library.evidence_names.index(n)] for n in names}
        self.gathered: dict[int, list[tuple[Case, Sources]]] = {}

    def near(self, activity: Activity | None) -> list[tuple[Case, Sources]]:
        """Every target with its sources, kept by profiles."""
        if id(activity) not in self.gathered:
            library = self.library if activity is None else replace(self.library, activity=activity)
            cases = [Case(library=library, column=s, truth=self.truth, shots=0) for s in range(len(library.tasks))]
            self.gathered[id(activity)] = [(case, case.gathered(shots=0)) for case in cases]
        return self.gathered[id(activity)]

    def measured(self, row: Row, store: Store) -> FloatArray:
        """The same as `measure`, kept by what the row is made of."""
        parts = [*row.signals.values(), *(row.activity or ()), np.zeros(0) if row.factors is None else row.factors]
        made_of = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()
        key = digest("worth row", 2, self.truth, self.shots, made_of, row.local)
        if (kept := store.get(key)) is None:
            store.put(key, {"measures": self.measure(row)}, {})
            return self.measured(row, store)
        return kept[0]["measures"].astype(np.float64)

    def measure(self, row: Row) -> FloatArray:
        """NDCG@5, tau-b, top-1 and top-5 loss (S, 4)."""
        turned = {f"-{name}": -values for name, values in row.signals.items()}
        signals = self.images | dict(row.signals) | turned
        return np.array([self._target(row, s, *near, signals) for s, near in enumerate(self.near(row.activity))])

    def _target(self, row: Row, s: int, case: Case, near: Sources, signals: Grid) -> FloatArray:
        everything = {**signals, **self.said}
        known = {name: np.delete(values, s, axis=1) for name, values in everything.items()}
        weighted, alike = row.factors is None, near.to_target.mean(axis=0) * near.to_target.shape[1]
        trusted = near.reliability * (1.0 - row.local + row.local * alike)
        fusion = fit_fusion(known, near.truth, similarity=near.similarity if weighted else None, reliability=trusted)
        beyond = 0.0 if row.factors is None else kriged(fusion, near, case.library.activity, s, row.factors)
        scores = []
        for w in range(max((values.shape[2] for values in self.said.values()), default=1)):
            seen = {n: values[:, s] for n, values in signals.items()} | {n: v[:, s, w] for n, v in self.said.items()}
            similarity = near.to_target if weighted else None
            scores.append(fuse(fusion, seen, n=len(case.rows), similarity=similarity) + beyond)
        return measures(scores, case.truths)


def kriged(fusion: Fusion, near: Sources, activity: Activity, target: int, factors: FloatArray) -> FloatArray:
    """What a Gaussian process over tasks says of the candidates (M,) beyond the trend.

    Covariance of candidate and task: ``factors`` times a mean and a kernel of the distance of log activities, a
    candidate's own where ``factors`` is diagonal, else the mean over candidates. NDCG@5 on sources left out chooses
    strength and length.
    """
    log = [np.log(one) for one in activity]
    away = np.stack([((one[:, None] - one[None]) ** 2).mean(axis=2) for one in log])
    away = away / np.median(away, axis=(1, 2), keepdims=True)
    values, vectors = np.linalg.eigh(factors)
    if np.count_nonzero(factors) > len(factors):
        away = np.broadcast_to(away.mean(axis=0), away.shape)
    tasks = np.flatnonzero(np.arange(away.shape[1]) != target)
    residual, truth = vectors.T @ fusion.residual, standardise(near.truth)
    best, found = -np.inf, np.zeros(len(log))
    for strength in _STRENGTHS:
        for length in _LENGTHS:
            kernel = strength * values[:, None, None] * (0.5 + 0.5 * np.exp(-away / length))
            inverse = np.linalg.inv(kernel[:, tasks][:, :, tasks] + np.eye(len(tasks)))
            pull = np.einsum("mst,mt->ms", inverse, residual)
            left_out = vectors @ (residual - pull / np.einsum("mss->ms", inverse)) + truth - fusion.residual
            gains = [ndcg(left_out[:, s], truth[:, s]) for s in range(len(tasks))]
            if (gain := float(np.average(gains, weights=near.reliability))) > best:
                best, found = gain, vectors @ np.einsum("ms,ms->m", kernel[:, target, tasks], pull)
    return found


def rows_of(made: Signals, *, shots: int, passes: Sequence[str]) -> list[Row]:
    """What is compared; the first is today's."""
    library = made.library
    m = len(library.candidates)
    unknown = tuple(np.full_like(one, np.nan) for one in library.activity)
    rows = [
        Row(family="", name="today"),
        Row(family="0", name="without conductance", activity=unknown),
        Row(family="5 tasks", name="Gaussian process, own kernels", factors=np.eye(m)),
        Row(
            family="5 tasks", name="Gaussian process, related candidates", factors=error_correlation(library.candidates)
        ),
        *(Row(family="5 tasks", name=f"trend of similar tasks, {k:g}", local=k) for k in (0.3, 0.6, 0.9)),
    ]
    kept = made.kept
    rows += [Row(family="5 kept", name=name, signals=signals) for name, signals in kept.items()]
    rows.append(Row(family="5 kept", name="the three of these", signals=dict(ChainMap(*kept.values()))))
    if "votes" in passes:
        believed = {"belief": np.stack([one.accuracy for one in made.believed], axis=1)}
        taught = made.taught
        rows += [
            Row(family="5 belief", name="belief", signals=believed),
            Row(family="5 belief", name="belief, without conductance", signals=believed, activity=unknown),
            Row(family="5 belief", name="evidence by the belief's classes", signals=taught),
            Row(family="5 belief", name="the same and the belief", signals=believed | taught),
        ]
    if "margin" in passes:
        whose = "real classes" if shots else "consensus classes"
        rows += [
            Row(family=family, name=f"agreement of {part}, {whose}", signals=made.agreement(part, shots=shots))
            for family, part in (("2", "signature"), ("2", "absolute"), ("2 control", "features"))
        ]
        rows += [Row(family="4", name=f"{n} images", activity=made.activity("margin", "activity", n)) for n in COUNTS]
        rows += [
            Row(family="1 F", name=f"F = margin, {RIVALS} images", activity=made.activity("margin", "activity", RIVALS))
        ]
    if "rival" in passes:
        rows += [
            Row(
                family="1 F",
                name="F = rival of the predicted class",
                activity=made.activity("rival", "activity", RIVALS),
            ),
            Row(family="1", name="cancellation, rival of the predicted class", signals=made.purity("rival")),
        ]
        if shots:
            rows += [
                Row(
                    family="1 F",
                    name="F = rival of the true class",
                    activity=made.activity("rival", "true_activity", RIVALS),
                ),
                Row(family="1", name="cancellation, rival of the true class", signals=made.purity("rival", "true_")),
            ]
    if "moved" in passes:
        steady = made.stability
        rows += [
            Row(family="3", name=f"steadiness of {part}", signals={n: v for n, v in steady.items() if part in n})
            for part in ("activity", "signature")
        ]
        control = {n: v for n, v in steady.items() if n in {"steady F", "steady class"}}
        rows += [Row(family="3 control", name="steadiness of F and class", signals=control)]
    return rows


def alone(made: Signals, truth: Truth, passes: Sequence[str]) -> dict[str, FloatArray]:
    """DCD alone, ours and the authors', by the number of images a task: measures (S, 4)."""
    library, research = made.library, made.cells.research
    cases = [Case(library=library, column=s, truth=truth, shots=0) for s in range(len(library.tasks))]

    def ours(activity: Activity) -> FloatArray:
        found = [replace(case, library=replace(library, activity=activity)) for case in cases]
        return np.array([measures(RANKINGS["dcd"](case), case.truths) for case in found])

    def authors(activity: Activity) -> FloatArray:
        found = []
        for case in cases:
            rest = np.arange(len(library.tasks)) != case.column
            means = [a / np.array(one.elements) for a, one in zip(activity, research.candidates, strict=True)]
            away = np.stack([divergences(AUTHORS, one[~rest], one[rest])[0] for one in means])
            found.append(measures([weighted_rank(case.source_truth, authors_weights(away))], case.truths))
        return np.array(found)

    rows = {"average rank": np.array([measures([average_rank(case.source_truth)], case.truths) for case in cases])}
    if "margin" in passes:
        rows |= {f"ours, {n} images": ours(made.activity("margin", "activity", n)) for n in COUNTS}
    rows["ours, the library's 32 images"] = ours(library.activity)
    if "norm" in passes:
        rows |= {f"authors' form, {n} images": authors(made.activity("norm", "activity", n)) for n in COUNTS}
    return rows


def told(
    found: Mapping[str, FloatArray], families: Mapping[str, str], *, title: str, against: str
) -> list[dict[str, object]]:
    """Print the rows of a markdown table and return them; families of several rows get one that is chosen elsewhere."""
    print(f"\n{title}\n\n| form | NDCG@5 | tau-b | top-1 loss | NDCG@5 minus {against} | top-1 loss minus {against} |")
    print("|---|---|---|---|---|---|")
    every = dict(found)
    for family in dict.fromkeys(families.values()):
        own = {name: found[name] for name, one in families.items() if one == family}
        if len(own) > 1:
            every[f"direction {family}: chosen on the other tasks"] = chosen_elsewhere({against: found[against], **own})
    lines: list[dict[str, object]] = []
    for name, one in every.items():
        gaps = one[:, [0, 2]] - found[against][:, [0, 2]]
        gain, loss = (mean_interval(gap, seed=0) for gap in gaps.T)
        mean, middle = one.mean(axis=0), gaps.mean(axis=0)
        texts = [
            f"{middle[0]:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]",
            f"{middle[1]:+.2f} [{loss.low:+.2f}, {loss.high:+.2f}]",
        ]
        print(f"| {name} | {mean[0]:.3f} | {mean[1]:.3f} | {mean[2]:.2f} | {' | '.join(texts)} |", flush=True)
        lines.append({"table": title, "form": name, "ndcg5": mean[0], "tau_b": mean[1], "top1_loss": mean[2],
                      "top5_loss": mean[3], "gain": middle[0], "low": gain.low, "high": gain.high,
                      "loss_gain": middle[1], "loss_low": loss.low, "loss_high": loss.high})  # fmt: skip
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--passes", nargs="*", choices=PASSES, default=PASSES)
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    args = parser.parse_args()
    library, research = joined(load(default_library_path()), load_research())
    cells = Cells(library=library, research=research, folder=args.tasks, records=args.records)
    cells.measure(args.passes)
    made, lines = Signals(cells), list[dict[str, object]]()
    for truth, shots in SETTINGS:
        bench, rows = Bench(library, truth=truth, shots=shots), rows_of(made, shots=shots, passes=args.passes)
        found = {row.name: bench.measured(row, Store(args.records)) for row in rows}
        title = f"{truth} truth, {shots or 'no'} labels a class"
        lines += told(found, {row.name: row.family for row in rows if row.family}, title=title, against="today")
    for truth in ("zero_shot", "tuned"):
        found = alone(made, truth, args.passes)
        lines += told(found, {}, title=f"DCD alone, {truth} truth", against="average rank")
    if args.write is not None:
        args.write.write_text(json.dumps(lines, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
