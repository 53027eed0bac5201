"""A folder that is being labelled: what is known of it, and which image to ask for next (docs/guide/labelling.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vlmsel_auto.errors import CandidateError, TaskError
from vlmsel_auto.planning.labelling import next_to_cover, next_to_tell
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.evidence.zeroshot import CLARITY
from vlmsel_auto.ranking.label_belief import Belief, Weights, believe, prior_weights, strength_chances
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.records import UNLABELLED, ExpectedAccuracy, FloatArray, IntArray, Interval, Ranking, Task
from vlmsel_auto.tasks.label_writing import LabelFile

Purpose = Literal["ranking", "tuning"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ToLabel:
    """One image to label."""

    path: str  # relative to the task folder, with "/"
    suggested: str  # its most probable class
    probability: float  # of that class
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelScores:
    """Who is best zero-shot, by the labels that are known; candidates that were screened, the least loss first."""

    known: int  # labels that were used
    p_best: Mapping[str, float]
    accuracy: Mapping[str, ExpectedAccuracy]  # on the images that were screened
    loss: Mapping[str, float]  # accuracy that taking it now is expected to cost; of the first: what labels can gain


def votes_of(measured: Sequence[Measurement]) -> FloatArray:
    """Log-probabilities (M, n, K), up to a number, of candidates that were embedded; free of their logit scales.

    Raises:
        ValueError: one was not embedded.
    """
    shown = [seen for one in measured if (seen := one.embedded()) is not None]
    if len(shown) < len(measured):
        raise ValueError(f"votes need embeddings of all, but got those of {len(shown)} of {len(measured)} candidates")
    return np.stack([CLARITY * one.cosine / one.spread for one in shown])


@dataclass(frozen=True, kw_only=True, eq=False)
class Votes:
    """What candidates say of the images, and how much that counts before any label."""

    said: FloatArray  # (M, n, K) log-probabilities
    prior: Weights
    strengths: FloatArray  # (S,) chances of the votes' strengths

    @staticmethod
    def of(ranking: Ranking, measured: Sequence[Measurement]) -> Votes:
        """Of candidates that were embedded and ranked.

        Raises:
            ValueError: one was not embedded.
        """
        said = votes_of(measured)
        alike = likeness(list(said))
        chances = {line.candidate: line.p_best for line in ranking.ranked}
        p_best = np.array([chances.get(one.candidate, 0.0) for one in measured])
        return Votes(said=said, prior=prior_weights(p_best, alike), strengths=strength_chances(said, alike))

    def believe(self, labels: IntArray, *, asked: NDArray[np.bool_] | None = None) -> Belief:
        """As `label_belief.believe`."""
        return believe(self.said, prior=self.prior, labels=labels, asked=asked, chances=self.strengths)


def expected_accuracy(belief: Belief, place: int) -> ExpectedAccuracy:
    """Of one candidate."""
    low, high = belief.interval[:, place]
    return ExpectedAccuracy(
        value=float(belief.accuracy[place]),
        interval=Interval(low=float(low), high=float(high), level=0.9),
        chance=1.0 / belief.classes.shape[1],
    )


class LabelSession:
    """A folder that is being labelled: what is known, and what to ask for next.

    Every change is written to the folder's labels.csv before the call returns.
    """

    def __init__(
        self,
        task: Task,
        *,
        ranking: Ranking,
        measured: Sequence[Measurement],
        labels: Mapping[str, str],
        purpose: Purpose = "ranking",
    ) -> None:
        """Begin with the ``labels`` (path -> class) that the folder has.

        Raises:
            CandidateError: no candidate could be screened.
        """
        seen = [one for one in measured if one.embedded() is not None and one.candidate not in ranking.failures]
        if not seen:
            raise CandidateError(f"at least one candidate must be screened, but got {dict(ranking.failures)}")
        self.task = task
        self.purpose: Purpose = purpose
        self.names = tuple(one.candidate for one in seen)
        self._file = LabelFile(task.root, labels)
        self._given: list[tuple[str, str | None]] = []  # path and what it was before, for undo
        self._skipped: set[str] = set()
        self._place = {path: place for place, path in enumerate(task.paths)}
        self._votes = Votes.of(ranking, seen)
        self._chance = np.random.default_rng(0).random(len(task.paths))  # an order of all images
        first = min(range(len(seen)), key=lambda m: ranking.order.index(self.names[m]))
        self._features = unit_rows(seen[first].features)

    @property
    def labels(self) -> Mapping[str, str]:
        """All labels of the folder, also of images outside the sample."""
        return dict(self._file.labels)

    @property
    def labels_path(self) -> Path:
        """Where labels are kept."""
        return self._file.path

    @property
    def closed(self) -> frozenset[str]:
        """Images that are not asked for: labelled or skipped."""
        return frozenset(self._file.labels) | self._skipped

    @property
    def answered(self) -> int:
        """Labels given in this session."""
        return len(self._given)

    def tell(self, path: str, label: str) -> None:
        """Keep the class of an image of the sample.

        Raises:
            TaskError: no such image or class, labels.csv cannot be written, or somebody else labelled the image.
        """
        if path not in self._place or label not in self.task.classes:
            raise TaskError(f"a label needs an image and a class of the task, but got {path!r} and {label!r}")
        before = self._file.labels.get(path)
        self._file.change(path, label)
        self._given.append((path, before))
        self._skipped.discard(path)

    def skip(self, path: str) -> None:
        """Do not ask for an image again in this session."""
        self._skipped.add(path)

    def undo(self) -> str | None:
        """Take the last label of this session back: its image, or None where there is none.

        Raises:
            TaskError: labels.csv cannot be written, or somebody else changed the label; then it stays.
        """
        if not self._given:
            return None
        path, before = self._given[-1]
        given = self._file.labels.get(path)
        try:
            self._file.change(path, before)
        except TaskError:
            if self._file.labels.get(path) != given:  # somebody else's label stays
                self._given.pop()
            raise
        self._given.pop()
        return path

    def suggest(self, count: int) -> tuple[ToLabel, ...]:
        """At most ``count`` images to label, each chosen as if those before it were labelled."""
        labels = self._numbers()
        asked = np.array([path in self._skipped for path in self.task.paths], dtype=np.bool_)
        skipped = asked.copy()
        found: list[ToLabel] = []
        while len(found) < count and not (asked | (labels != UNLABELLED)).all():
            now = self._votes.believe(labels, asked=asked & ~skipped)
            if self.purpose == "tuning":
                place = next_to_cover(self._features, classes=now.classes, labels=labels, asked=asked)
            else:
                chosen = asked | (labels != UNLABELLED)
                place = next_to_tell(now.information, p_weak=now.p_weak, by_chance=self._chance, chosen=chosen)
            asked[place] = True
            likely = int(now.classes[place].argmax())
            found.append(
                ToLabel(
                    path=self.task.paths[place],
                    suggested=self.task.classes[likely],
                    probability=float(now.classes[place, likely]),
                    why=self._why(place, likely),
                )
            )
        return tuple(found)

    def scores(self) -> LabelScores:
        """Who is best by the labels so far."""
        labels = self._numbers()
        now = self._votes.believe(labels)
        order = sorted(range(len(self.names)), key=lambda m: (now.loss[m], -now.p_best[m], self.names[m]))
        return LabelScores(
            known=int((labels != UNLABELLED).sum()),
            p_best={self.names[m]: float(now.p_best[m]) for m in order},
            accuracy={self.names[m]: expected_accuracy(now, m) for m in order},
            loss={self.names[m]: float(now.loss[m]) for m in order},
        )

    def _numbers(self) -> IntArray:
        number, labels = {label: k for k, label in enumerate(self.task.classes)}, self._file.labels
        return np.array([number.get(labels.get(path, ""), UNLABELLED) for path in self.task.paths], dtype=np.int64)

    def _why(self, place: int, likely: int) -> str:
        if self.purpose == "tuning":
            return f"typical of the images that seem to be {self.task.classes[likely]}"
        said = Counter(self._votes.said[:, place].argmax(axis=1).tolist()).most_common(3)
        text = "candidates say " + ", ".join(f"{self.task.classes[k]} ({count})" for k, count in said)
        return text if said[0][0] == likely else f"{text}; weighted by trust: {self.task.classes[likely]}"
