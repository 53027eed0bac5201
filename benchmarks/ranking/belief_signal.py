"""Whether a belief over classes and accuracies is worth a place among the fused signals: with and without it.

    python -m benchmarks.ranking.belief_signal TASKS --write benchmarks/results/belief-signal.json

Every task of the shipped library is a target once, the others are the sources. The belief (`ranking.label_belief`) of a
task is each candidate's expected share of right answers on the images whose predictions the library keeps, at most 160:
candidates vote with two log-odds for the class that they name, weighted by their chance of being the best zero-shot
as a ranking without labels has it, which for a source is one learned from the other sources. At 1, 4 or 16 labels a
class those of the images that the first draw of the library's evidence labels are known (TASKS has their classes).

Rows: the fused ranking as it ships; with the belief as one more signal, whose weight is learned like any other; with
the belief in place of the consensus; and half as much of the belief, standardised, on top of the fused score. Beside
each stands the paired difference to the first, with 95 % intervals over targets. The last line is one JSON object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.common import change
from benchmarks.ranking.kept_predictions import Known, hard_votes, named_classes, read_command_line
from vlmsel_auto.bench.case import Case
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.agreement import ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.fusion import Fusion, candidate_effect, fit_fusion, fuse, trend
from vlmsel_auto.ranking.label_belief import believe, prior_weights
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.signals import CONSENSUS, LABEL_SIGNALS
from vlmsel_auto.ranking.sources import Sources, Truth, image_signals
from vlmsel_auto.ranks import error_correlation, simulate_ranks
from vlmsel_auto.records import FloatArray

BELIEF = "belief"
MEASURES = ("ndcg5", "tau", "top1_loss")
SETTINGS: tuple[tuple[Truth, int], ...] = (("zero_shot", 0), ("tuned", 0), ("tuned", 1), ("tuned", 4), ("tuned", 16))


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """One target, with beliefs of itself and of its sources."""

    case: Case
    known: Known
    shots: int

    @property
    def others(self) -> list[int]:
        """Columns of the sources."""
        return [s for s in range(len(self.case.library.tasks)) if s != self.case.column]

    @cached_property
    def seen(self) -> dict[str, FloatArray]:
        """Signals (M,) of the target; of those of labels, the first draw."""
        images = {name: self.case.signal(name) for name in image_signals(self.case.truth)}
        found = {name: values for name, values in images.items() if values is not None}
        return found | {name: self.case.evidence(name)[0] for name in LABEL_SIGNALS if self.case.evidence(name)}

    @cached_property
    def sources(self) -> Sources:
        """The other tasks."""
        return self.case.gathered(shots=self.shots)

    @cached_property
    def signals(self) -> dict[str, FloatArray]:
        """Signals (M, S) of the sources, or (M, S, 1)."""
        found = {name: values for name, values in self.sources.signals.items() if name in self.seen}
        return {name: values[:, :, :1] if values.ndim > len("MS") else values for name, values in found.items()}

    @cached_property
    def beliefs(self) -> tuple[FloatArray, FloatArray]:
        """Of the target (M,) and of its sources (M, S)."""
        first = Case(library=self.case.library, column=self.case.column, truth="zero_shot", shots=0)
        sources = first.gathered(shots=0)
        images = {name: values for name, values in sources.signals.items() if name in self.seen}
        fusion = _fitted(images, sources)
        m, correlation = len(first.rows), error_correlation(first.sources.candidates)

        def believed(column: int, score: FloatArray) -> FloatArray:
            chances = simulate_ranks(score, fusion.sd**2 * correlation, seed=0).p_best
            return self._accuracy(column, chances)

        target = believed(first.column, fuse(fusion, self.seen, n=m, similarity=sources.to_target))
        of_sources = []
        for s, column in enumerate(self.others):
            effect = candidate_effect(fusion.residual, sources.similarity[:, s], shrink=fusion.shrink)
            own = {name: values[:, s] for name, values in images.items()}
            of_sources.append(believed(column, trend(fusion, own, n=m) + effect))
        return target, np.stack(of_sources, axis=1)

    def _accuracy(self, column: int, p_best: FloatArray) -> FloatArray:
        task = self.case.library.tasks[column]
        votes = hard_votes(named_classes(self.case, column), n_classes=task.n_classes)
        prior = prior_weights(p_best, np.eye(len(p_best)))
        return believe(votes, prior=prior, labels=self.known.at(task.name, self.shots)).accuracy

    def measures(self) -> dict[str, tuple[FloatArray, float]]:
        """`MEASURES` of every row, mean over truths, and the weight of the belief."""
        seen, signals, n = self.seen, self.signals, len(self.case.rows)
        target, of_sources = self.beliefs
        without = {name: values for name, values in seen.items() if name != CONSENSUS}
        fits = {
            "as it ships": (_fitted(signals, self.sources), seen),
            "with the belief": (_fitted(signals | {BELIEF: of_sources}, self.sources), seen | {BELIEF: target}),
            "belief for consensus": (
                _fitted({name: signals[name] for name in without} | {BELIEF: of_sources}, self.sources),
                without | {BELIEF: target},
            ),
        }
        scores = {
            row: (fuse(fit, shown, n=n, similarity=self.sources.to_target), fit.weights.get(BELIEF, 0.0))
            for row, (fit, shown) in fits.items()
        }
        ships = scores["as it ships"][0]
        scores["half of it on top"] = (standardise(ships) + 0.5 * standardise(target), 0.5)
        scores["belief alone"] = (target, 1.0)
        return {row: (self._agreement(score), weight) for row, (score, weight) in scores.items()}

    def _agreement(self, score: FloatArray) -> FloatArray:
        found = [(ndcg(score, t), tau_b(score, t), 100 * top_k_loss(score, t, k=1)) for t in self.case.truths]
        return np.asarray(np.mean(found, axis=0))


def _fitted(signals: Mapping[str, FloatArray], sources: Sources) -> Fusion:
    return fit_fusion(signals, sources.truth, similarity=sources.similarity, reliability=sources.reliability)


def table(library: Library, known: Known, *, truth: Truth, shots: int) -> list[dict[str, object]]:
    """Print and return the rows of one setting."""
    found = [
        Target(case=Case(library=library, column=s, truth=truth, shots=shots), known=known, shots=shots).measures()
        for s in range(len(library.tasks))
    ]
    print(f"\n{truth} truth, {shots or 'no'} labels a class, {len(found)} targets\n", flush=True)
    print("| ranking | weight | NDCG@5 | tau-b | top-1 loss |\n|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    for row in found[0]:
        values = np.array([each[row][0] for each in found])
        gaps = values - np.array([each["as it ships"][0] for each in found])
        record: dict[str, object] = {"row": row, "weight": round(float(np.mean([each[row][1] for each in found])), 3)}
        for place, measure in enumerate(MEASURES):
            record[measure] = round(float(values[:, place].mean()), 4)
            record[f"{measure}, change"] = change(gaps[:, place], digits=4)
        rows.append(record)
        cells = [f"{record[name]} {record[f'{name}, change']}" for name in MEASURES]
        print(f"| {row} | {record['weight']} | {' | '.join(cells)} |", flush=True)
    return rows


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick="nine tasks, no labels")
    told.finish(
        {
            f"{truth} truth, {shots or 'no'} labels a class": table(told.library, told.known, truth=truth, shots=shots)
            for truth, shots in (SETTINGS[:1] if told.quick else SETTINGS)
        }
    )


if __name__ == "__main__":
    main()
