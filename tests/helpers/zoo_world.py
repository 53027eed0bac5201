"""A drawn world for ranking and bench: candidates of known quality, tasks, embeddings, profiles and a library."""

import functools

import numpy as np

from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.records import Build, Cell, SourceCandidate, SourceTask
from vlmsel_auto.ranking.evidence.alignment import nearest
from vlmsel_auto.ranking.evidence.knn import KNN, knn
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.signals import Embedded, evidence_scores, image_number, label_free_signals

CLASSES, WIDTH, BLOCKS = 4, 10, (6, 8)
SHOTS = (1, 4)


@functools.cache  # one of a kind, whose cells are made once
class World:
    """Two kinds of tasks; every candidate is good at one kind or the other, which its profile shows."""

    def __init__(self, *, candidates=9, tasks=10, seed=0, specialists=1.0):
        rng = np.random.default_rng(seed)
        self.ids = [f"m{m:02d}" for m in range(candidates)]
        self.names = [f"t{t:02d}" for t in range(tasks)]
        self.kind = np.arange(tasks) % 2
        skill = rng.normal(scale=0.5, size=(candidates, 1))
        bias = specialists * rng.normal(size=(candidates, 1)) * np.where(self.kind == 0, 1.0, -1.0)
        self.quality = skill + bias + 0.1 * rng.normal(size=(candidates, tasks))
        self.accuracy = 1.0 / (1.0 + np.exp(-self.quality))
        self.seed = seed

    def embed(self, m, t, *, per_class, draw=0):
        """Features (n, D), labels (n,) and class texts (K, D): the better the candidate, the tighter its classes."""
        rng = np.random.default_rng([self.seed, m, t, draw])
        shared = np.random.default_rng([self.seed, 7, t])
        texts = shared.normal(size=(CLASSES, WIDTH))
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        labels = np.repeat(np.arange(CLASSES), per_class)
        noise = 0.6 * np.exp(-0.7 * self.quality[m, t])
        return texts[labels] + noise * rng.normal(size=(len(labels), WIDTH)), labels, texts

    def profile(self, m, t):
        """Activity (B,) and signatures of a candidate on a task: its signature shows the kind, its activity success."""
        rng = np.random.default_rng([self.seed, m, t, 99])
        axis = np.random.default_rng([self.seed, m, 5])
        signature = []
        for width in BLOCKS:
            poles = axis.normal(size=(2, width))
            signature.append(poles[self.kind[t]] + 0.3 * rng.normal(size=width))
        activity = np.array([10.0, 4.0]) * np.exp(0.4 * self.quality[m, t] + 0.1 * rng.normal(size=2))
        return activity, tuple(signature)

    def labelled(self, m, t):
        """The images of scores of labels: two draws at every number of shots."""
        found = {}
        for draw in range(2):
            for shots in SHOTS:
                few, labels, texts = self.embed(m, t, per_class=shots, draw=100 * draw + shots)
                found[draw, shots] = Embedded(features=few, labels=labels, texts=texts, baseline=np.zeros(WIDTH))
        return found

    def evidence(self, m, t):
        """Finite scores of labels of every draw."""
        return {
            (*drawn, name): value
            for drawn, seen in self.labelled(m, t).items()
            for name, value in (evidence_scores(seen) | {KNN: knn(seen.features, seen.classes)}).items()
            if np.isfinite(value)
        }

    def unlabelled(self, m, t):
        """The images of label-free signals."""
        features, _, texts = self.embed(m, t, per_class=12, draw=50)
        return Embedded(features=features, texts=texts, baseline=np.zeros(WIDTH))

    def task(self, t):
        """One source task."""
        return SourceTask(name=self.names[t], domain="drawn", classes=tuple("abcd"), digest=self.names[t], n_test=100)

    @functools.cache  # noqa: B019 - a world lives as long as the tests
    def cell(self, m, t):
        """One library cell."""
        candidate = SourceCandidate(
            id=self.ids[m], arch="drawn", tag=str(m), params=1000 + m, flops=2000.0 - m, blocks=("a", "b")
        )
        rng = np.random.default_rng([self.seed, m, t, 3])
        hit = self.accuracy[m, t]
        seen = self.unlabelled(m, t)
        return Cell(
            candidate=candidate,
            task=self.task(t),
            build=Build(source="test", code_version="0"),
            finished=1.0,
            zero_shot=float(np.clip(hit + 0.02 * rng.normal(), 0, 1)),
            total=float(np.mean(seen.features @ seen.texts.T)),
            tuned={f"run{r}": float(np.clip(hit + 0.01 * rng.normal(), 0, 1)) for r in range(2)},
            signals=label_free_signals(seen),
            evidence=self.evidence(m, t),
            activity=self.profile(m, t)[0],
            predicted=(seen.features @ seen.texts.T).argmax(axis=1).astype(float),
            predicted_on=image_number(np.arange(len(seen.features))),
            neighbours=nearest(self.embed(m, t, per_class=20, draw=60)[0]).astype(np.int16),
            neighbours_on=80.0,
        )

    def library(self, *, candidates=None, tasks=None):
        """A library of some candidates and tasks (all by default)."""
        rows = range(len(self.ids)) if candidates is None else candidates
        columns = range(len(self.names)) if tasks is None else tasks
        return assemble([self.cell(m, t) for m in rows for t in columns])

    def targets(self, t, *, per_class=4, candidates=None):
        """Target records and labels of a task."""
        records, labels = [], None
        for m in range(len(self.ids)) if candidates is None else candidates:
            features, labels, texts = self.embed(m, t, per_class=per_class)
            activity, _ = self.profile(m, t)
            records.append(
                Measurement(
                    candidate=self.ids[m],
                    features=features,
                    text_features=texts,
                    baseline=np.zeros(WIDTH),
                    total=0.0,
                    activity=activity,
                )
            )
        return records, labels
