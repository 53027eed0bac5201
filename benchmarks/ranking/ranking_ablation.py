"""QUESTION: Which parts of the fused ranking matter?

PAGE: docs/results/ranking.md
RESULT: benchmarks/results/ranking-ablation.json

What is compared: which label signals are fused, weights of source tasks by reliability, candidate effects, DCD's
temperature, single image signals. The last line of each table chooses among all variants anew for every target, by the
mean over the other targets: what is left of a gain when nothing is chosen on the target that it is reported on.

Two checks come after the tables: how far the choice of labelled images moves the scores, against the errors that the
intervals are made of; and the same rankings with the logit scale of every second candidate multiplied by .1 to 10.

    python -m benchmarks.ranking.ranking_ablation  # the shipped library, about ten minutes
    python -m benchmarks.ranking.ranking_ablation --truth tuned --shots 16 --library FILE --out ablation.json
    python -m benchmarks.ranking.ranking_ablation --quick                             # 6 tasks, one table
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.common import command_line
from benchmarks.ranking import research
from benchmarks.ranking.compared_rankings import rankings
from benchmarks.ranking.ranking_table import measures, print_table
from benchmarks.ranking.research import joined
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.run import run_bench
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.divergence import Weighting
from vlmsel_auto.ranking.fusion import Fusion, fit_fusion, fuse
from vlmsel_auto.ranking.signals import ALIGNMENT, CONSENSUS, LABEL_SIGNALS, TOP2_MARGIN
from vlmsel_auto.ranking.sources import DEFAULT_WEIGHTING, Sources, Truth, image_signal, image_signals
from vlmsel_auto.records import FloatArray

ACCURACIES = ("hscore", "knn", "knn1", "leep", "logme", "ridge", "ridge_text", "true_class_zscore", "zeroshot")
LIKELIHOODS = ("logme", "ridge_likelihood", "ridge_text_likelihood", "zeroshot_likelihood")
TEXT = ("text_accuracy", "-text_intraclass")  # classes whose names look alike are told apart less well
RIDGE = ("ridge_likelihood", "ridge_text_likelihood")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One form of the fused ranking."""

    name: str
    labels: tuple[str, ...] = LABEL_SIGNALS
    images: tuple[str, ...]
    reliability: bool = True
    effects: bool = True
    temperature: float = DEFAULT_WEIGHTING.effects  # of candidate effects
    penalty: float | None = None  # chosen on tasks left out
    oracle: bool = False  # also the zero-shot accuracy on the test split itself: no ranking, a bound


def variants(truth: Truth, *, shots: int) -> list[Variant]:
    """The default first."""
    ours = image_signals(truth)
    default = Variant(name="default", images=ours)
    other = tuple(n for n in ours if n != ALIGNMENT) if ALIGNMENT in ours else (*ours, ALIGNMENT)
    found = [
        default,
        replace(default, name="all source tasks count alike", reliability=False),
        replace(default, name="no candidate effects", effects=False),
        replace(default, name="DCD temperature .1", temperature=0.1),
        replace(default, name="DCD temperature 1", temperature=1.0),
        replace(default, name="ridge penalty .1", penalty=0.1),
        replace(default, name="ridge penalty .5", penalty=0.5),
        replace(default, name="ridge penalty 1.5", penalty=1.5),
        Variant(name=f"images: with{'out' * (ALIGNMENT in ours)} alignment", images=other),
        Variant(name="images: without consensus", images=tuple(n for n in ours if n != CONSENSUS)),
        Variant(name="images: consensus and top-2 margin", images=(CONSENSUS, TOP2_MARGIN)),
        Variant(name="images: top-2 margin and total", images=(TOP2_MARGIN, "total_cosine")),
        Variant(name="images: top-2 margin", images=(TOP2_MARGIN,)),
        Variant(name="images: with confidence (leans on the logit scale)", images=(*ours, "confidence")),
        Variant(name="with text scores", images=(*ours, *TEXT)),
        replace(default, name="with the true zero-shot accuracy (a bound, no ranking)", oracle=True),
    ]
    if shots:
        found += [
            replace(default, name="labels: nine, mostly accuracies (before)", labels=ACCURACIES),
            replace(default, name="the same, all source tasks alike (before)", labels=ACCURACIES, reliability=False),
            replace(default, name="labels: likelihoods only", labels=LIKELIHOODS),
            replace(default, name="labels: ridge likelihoods only", labels=RIDGE),
            replace(default, name="labels: with H-score, k-NN", labels=(*LABEL_SIGNALS, "hscore", "knn")),
            replace(default, name="labels: with logistic regression", labels=(*LABEL_SIGNALS, "logistic")),
            Variant(name="labels alone", images=()),
        ]
    return found


def _oriented(name: str, values: FloatArray) -> FloatArray:
    """Signals are fused with weights >= 0: a name that begins with a minus is turned round."""
    return -values if name.startswith("-") else values


class Target:
    """One task of the library as a target."""

    def __init__(self, library: Library, column: int, *, truth: Truth, shots: int) -> None:
        self.case = Case(library=library, column=column, truth=truth, shots=shots)
        self.gathered: dict[float, Sources] = {}

    def sources(self, temperature: float) -> Sources:
        """The other tasks, kept by DCD's temperature."""
        if temperature not in self.gathered:
            case = replace(self.case, weighting=Weighting(effects=temperature))
            self.gathered[temperature] = case.gathered(shots=case.shots)
        return self.gathered[temperature]

    def scores(self, variant: Variant) -> tuple[list[FloatArray], Fusion]:
        """Scores of every draw of the labelled images, and the fit behind them."""
        library, near = self.case.sources, self.sources(variant.temperature)
        rows = range(len(library.candidates))
        on_sources = {n: image_signal(library, n.removeprefix("-"), rows) for n in variant.images}
        signals = {n: _oriented(n, values) for n, values in on_sources.items() if values is not None}
        if variant.oracle:
            signals["oracle"] = library.zero_shot
        labels = [n for n in variant.labels if self.case.evidence(n)]
        if labels:
            k = library.shots.index(near.shots)
            signals |= {n: library.evidence_draws[:, :, :, k, library.evidence_names.index(n)] for n in labels}
        fusion = fit_fusion(
            signals,
            near.truth,
            similarity=near.similarity if variant.effects else None,
            reliability=near.reliability if variant.reliability else None,
            penalty=variant.penalty,
        )
        images = {n: self.case.signal(n.removeprefix("-")) for n in variant.images}
        shown = {n: _oriented(n, values) for n, values in images.items() if values is not None}
        if variant.oracle:
            shown["oracle"] = self.case.library.zero_shot[self.case.rows, self.case.column]
        found = []
        for w in range(library.evidence_draws.shape[2] if labels else 1):
            seen = shown | {n: self.case.evidence(n)[w] for n in labels}
            similarity = near.to_target if variant.effects else None
            found.append(fuse(fusion, seen, n=len(self.case.rows), similarity=similarity))
        return found, fusion

    def measure(self, variant: Variant) -> FloatArray:
        """NDCG@5, tau-b, top-1 and top-5 loss in points: mean over draws and truths."""
        scores, _ = self.scores(variant)
        return measures(scores, self.case.truths)


def table(targets: Sequence[Target], *, title: str, shots: int) -> list[dict[str, object]]:
    """Print and return the rows of one table."""
    tried = variants(targets[0].case.truth, shots=shots)
    found = {v.name: np.array([target.measure(v) for target in targets]) for v in tried}
    return print_table(found, title=title, against="default", bounds=[v.name for v in tried if v.oracle])


def draws_against_errors(targets: Sequence[Target], *, shots: int) -> dict[str, float]:
    """Standard deviation of the scores over draws of the labelled images, and of the errors of the intervals."""
    squares, errors = [], []
    for target in targets:
        scores, fusion = target.scores(variants(target.case.truth, shots=shots)[0])
        squares += [float(np.mean((a - b) ** 2)) / 2 for a, b in itertools.pairwise(scores)]
        errors.append(fusion.sd**2)
    return {"shots": shots, "sd_images": float(np.sqrt(np.mean(squares))), "sd_errors": float(np.sqrt(np.mean(errors)))}


def rescaled(library: Library, factors: FloatArray) -> Library:
    """The library as if the logit scale of each candidate were multiplied by its factor."""
    return replace(
        library,
        total=library.total * factors[:, None],
        activity=tuple(one * factor for one, factor in zip(library.activity, factors, strict=True)),
    )


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, write=False, quick="six tasks, one table")
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--research", type=Path, default=research.PATH, help="scores that no ranking fuses")
    parser.add_argument("--truth", choices=("tuned", "zeroshot"), default=None, help="default: both")
    parser.add_argument("--shots", type=int, default=None, help="labels a class; default: 0, 1, 4, 16")
    parser.add_argument("--out", type=Path, help="JSON of all rows")
    args = parser.parse_args()
    library = load(args.library)
    library, found = joined(library, research.load(args.research))
    if args.quick:
        library = library.select_tasks(library.task_names[:6])
    wanted: list[tuple[Truth, int]] = [("zero_shot", 0), ("tuned", 0), ("tuned", 1), ("tuned", 4), ("tuned", 16)]
    if args.truth is not None:
        wanted = [one for one in wanted if one[0] == args.truth.replace("zeroshot", "zero_shot")]
    if args.shots is not None or args.quick:
        wanted = [one for one in wanted if one[1] == (args.shots or 0)][:1] if args.quick else [
            one for one in wanted if one[1] == args.shots
        ]  # fmt: skip
    rows: list[dict[str, object]] = []
    for truth, shots in wanted:
        targets = [Target(library, s, truth=truth, shots=shots) for s in range(len(library.tasks))]
        rows += table(targets, title=f"{truth} truth, {shots or 'no'} labels a class", shots=shots)
        if shots:
            print("\nscores and labelled images:", json.dumps(draws_against_errors(targets, shots=shots)))
    factors = np.geomspace(0.1, 10.0, len(library.candidates))
    factors[::2] = 1.0
    every = rankings(found)
    names = ["dcd", "conductance_total", "conductance_total_calibrated", "fused_unlabelled", "fused"]
    for kind, one in (
        ("as it is", library),
        ("logit scales of every second candidate times .1 to 10", rescaled(library, factors)),
    ):
        for truth in ("zero_shot", "tuned"):
            made = run_bench(one, truth=truth, shots=16, rankings={name: every[name] for name in names})
            figures = {row.ranking: round(row.ndcg5, 4) for row in made.rows if row.ranking in names}
            print(f"{kind}, {truth} truth:", json.dumps(figures))
            rows.append({"table": "rescaled", "variant": kind, "truth": truth, **figures})
    if args.out is not None:
        args.out.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        print(f"wrote {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
