"""A drawn world for ranking and bench: candidates of known quality, tasks, embeddings, profiles and a library."""

import numpy as np

from vlmsel_auto.bench.measure_research import ResearchCell
from vlmsel_auto.bench.measure_research import assemble as assemble_research
from vlmsel_auto.bench.research import ResearchCandidate
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.records import Build, Cell, SourceCandidate, SourceTask
from vlmsel_auto.ranking.evidence.alignment import nearest
from vlmsel_auto.ranking.evidence.text import text_scores
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.signals import SIGNALS, Embedded, image_number, label_free_signals

CLASSES, WIDTH, BLOCKS = 4, 10, (6, 8)
SHOTS = (1, 4)


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

    def evidence(self, m, t, *, ranked):
        """Scores of labels, of two draws at every number of shots: those that rankings fuse, or the others."""
        evidence = {}
        for draw in range(2):
            for shots in SHOTS:
                few, labels, texts = self.embed(m, t, per_class=shots, draw=100 * draw + shots)
                seen = Embedded(features=few, labels=labels, texts=texts, baseline=np.zeros(WIDTH))
                evidence |= {
                    (draw, shots, one.name): one.score(seen)
                    for one in SIGNALS
                    if one.labelled and one.ranked == ranked and one.name not in {"nleep", "logistic"}  # slow
                }
        return evidence

    def unlabelled(self, m, t):
        """The images of label-free signals."""
        features, _, texts = self.embed(m, t, per_class=12, draw=50)
        return Embedded(features=features, texts=texts, baseline=np.zeros(WIDTH), logit_scale=10.0)

    def task(self, t):
        """One source task."""
        return SourceTask(name=self.names[t], domain="drawn", classes=tuple("abcd"), digest=self.names[t], n_test=100)

    def cell(self, m, t):
        """One library cell."""
        candidate = SourceCandidate(
            id=self.ids[m],
            arch="drawn",
            tag=str(m),
            params=1000 + m,
            flops=2000.0 - m,
            blocks=("a", "b"),
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
            evidence={key: value for key, value in self.evidence(m, t, ranked=True).items() if np.isfinite(value)},
            activity=self.profile(m, t)[0],
            predicted=(seen.features @ seen.texts.T).argmax(axis=1).astype(float),
            predicted_on=image_number(np.arange(len(seen.features))),
            neighbours=nearest(self.embed(m, t, per_class=20, draw=60)[0]).astype(np.int16),
            neighbours_on=80.0,
        )

    def research_cell(self, m, t):
        """What only the bench reads of the same cell."""
        activity, signature = self.profile(m, t)
        images, labels, texts = self.embed(m, t, per_class=20, draw=70)
        signals = label_free_signals(self.unlabelled(m, t), ranked=False)
        ranked = {one.name for one in SIGNALS if one.ranked}
        return ResearchCell(
            candidate=ResearchCandidate(id=self.ids[m], sha256="", widths=BLOCKS, elements=(12, 40), embed_dim=WIDTH),
            task=self.task(t),
            signals={name: value for name, value in signals.items() if name not in ranked}
            | text_scores(texts[:, None]),
            evidence=self.evidence(m, t, ranked=False),
            norm_activity=activity,
            signature=signature,
            absolute=tuple(np.abs(one) for one in signature),
            class_accuracy=np.full(CLASSES, self.accuracy[m, t]),
            class_text=texts,
            class_image=np.stack([images[labels == c].mean(axis=0) for c in range(CLASSES)]),
            image_sd=images.std(axis=0),
        )

    def research(self):
        """Research figures of all candidates and tasks."""
        return assemble_research(self.research_cell(m, t) for m in range(len(self.ids)) for t in range(len(self.names)))

    def library(self, *, candidates=None, tasks=None):
        """A library of some candidates and tasks (all by default)."""
        rows = range(len(self.ids)) if candidates is None else candidates
        columns = range(len(self.names)) if tasks is None else tasks
        return assemble([self.cell(m, t) for m in rows for t in columns])

    def targets(self, t, *, per_class=4, candidates=None, logit_scale=10.0):
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
                    logit_scale=logit_scale,
                    total=0.0,
                    activity=activity,
                )
            )
        return records, labels
