"""Research figures of the drawn world of candidates and tasks."""

import numpy as np

from benchmarks.ranking import compared_scores, research
from helpers.zoo_world import BLOCKS, CLASSES, WIDTH
from tools import measure_research

SLOW = ("nleep", "logistic")


def research_of(world):
    """What a library of this world does not keep of its cells."""

    def cell(m, t):
        activity, signature = world.profile(m, t)
        images, labels, texts = world.embed(m, t, per_class=20, draw=70)
        seen = world.unlabelled(m, t)
        return measure_research.ResearchCell(
            candidate=research.ResearchCandidate(
                id=world.ids[m], sha256="", widths=BLOCKS, elements=(12, 40), embed_dim=WIDTH
            ),
            task=world.task(t),
            signals={name: score(seen, 10.0) for name, score in compared_scores.UNLABELLED.items()}
            | compared_scores.text_scores(texts[:, None]),
            evidence={
                (*drawn, name): score(few)
                for drawn, few in world.labelled(m, t).items()
                for name, score in compared_scores.LABELLED.items()
                if name not in SLOW
            },
            norm_activity=activity,
            signature=signature,
            absolute=tuple(np.abs(one) for one in signature),
            class_accuracy=np.full(CLASSES, world.accuracy[m, t]),
            class_text=texts,
            class_image=np.stack([images[labels == c].mean(axis=0) for c in range(CLASSES)]),
            image_sd=images.std(axis=0),
        )

    return measure_research.assemble(cell(m, t) for m in range(len(world.ids)) for t in range(len(world.names)))
