"""One target of the bench: a task of a library, left out of its sources, and what every ranking may ask of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.dcd import dcd
from vlmsel_auto.ranking.divergence import Divergence, Weighting
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.scores import Scores, score_candidates
from vlmsel_auto.ranking.signals import LABEL_SIGNALS
from vlmsel_auto.ranking.sources import Sources, Truth, gather, image_signal, image_signals, nearest_shots, truth_of
from vlmsel_auto.ranks import RankChances, error_correlation, simulate_ranks
from vlmsel_auto.records import FloatArray, IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One target: a column of the library, judged on the candidates whose truth is known."""

    library: Library
    column: int
    truth: Truth
    shots: int  # labels a class that rankings may look at
    divergence: Divergence = dcd
    weighting: Weighting = field(default_factory=Weighting)
    seed: int = 0

    @cached_property
    def accuracy(self) -> FloatArray:
        """What rankings predict, of all candidates of the library, NaN where unknown."""
        return truth_of(self.library, truth=self.truth)[:, self.column]

    @cached_property
    def rows(self) -> IntArray:
        """The M candidates with a known truth, as rows of the library."""
        return np.flatnonzero(np.isfinite(self.accuracy))

    @cached_property
    def truths(self) -> tuple[FloatArray, ...]:
        """The accuracies (M,) to judge by: every complete tuning run on its own, else the one figure that there is."""
        runs = self.library.tuned_runs[self.rows, self.column].T
        whole = tuple(run for run in runs if np.isfinite(run).all())
        return whole if self.truth == "tuned" and whole else (self.accuracy[self.rows],)

    @cached_property
    def sources(self) -> Library:
        """The library of these candidates without the target."""
        kept = self.library.select([self.library.candidate_ids[m] for m in self.rows])
        return kept.leave_out(name=self.library.task_names[self.column])

    @cached_property
    def source_truth(self) -> FloatArray:
        """Accuracies (M, S) on the sources."""
        return truth_of(self.sources, truth=self.truth)

    def gathered(self, *, shots: int) -> Sources:
        """The sources as the ranking wants them."""
        return gather(
            self.sources,
            [
                Measurement(candidate=self.library.candidate_ids[m], activity=self.library.activity[m][self.column])
                for m in self.rows
            ],
            truth=self.truth,
            shots=shots,
            divergence=self.divergence,
            weighting=self.weighting,
        )

    def signal(self, name: str) -> FloatArray | None:
        """A label-free signal (M,) on the target, None if the library lacks it."""
        task = self.library.select_tasks([self.library.task_names[self.column]])
        values = image_signal(task, name, self.rows.tolist())
        return None if values is None or not np.isfinite(values).any() else values[:, 0]

    def evidence(self, name: str) -> list[FloatArray]:
        """A score of the labels on the target, one (M,) a draw of the labelled images."""
        k = nearest_shots(self.library, self.shots)
        if k is None or name not in self.library.evidence_names:
            return []
        values = self.library.evidence_draws[self.rows, self.column, :, k, self.library.evidence_names.index(name)]
        return [draw for draw in values.T if np.isfinite(draw).any()]

    @cached_property
    def fused(self) -> list[Scores]:
        """The fused ranking, one result a draw of the labelled images; empty without any data."""
        return self._fuse({name: self.evidence(name) for name in LABEL_SIGNALS})

    @cached_property
    def fused_unlabelled(self) -> list[Scores]:
        """The same without labels: one result, or none without any data."""
        return self._fuse({})

    def chances(self, scores: Scores) -> RankChances:
        """Probabilities of the ranks of the M candidates under these scores."""
        correlation = error_correlation(self.sources.candidates)
        return simulate_ranks(scores.score, np.outer(scores.sd, scores.sd) * correlation, seed=self.seed)

    def _fuse(self, labels: dict[str, list[FloatArray]]) -> list[Scores]:
        found = {name: self.signal(name) for name in image_signals(self.truth)}
        images = {name: values for name, values in found.items() if values is not None}
        draws = max((len(values) for values in labels.values()), default=0)
        sources = self.gathered(shots=self.shots if draws else 0)
        if not draws and not images and not sources.profiled:
            return []
        return [
            score_candidates(
                measured=images | {name: values[w] for name, values in labels.items() if w < len(values)},
                sources=sources,
                n=len(self.rows),
            )
            for w in range(max(draws, 1))
        ]
