"""A search without labels ends with a model, too: the zero-shot classifier that ranks first, and the leaders pooled.

Nothing is tuned, since nothing could say whether it helped. Cosines of each member are divided by their own spread over
the images, so that a model's logit scale gives it no more say; the pool is weighted by the chances of being the best.
docs/results/without-labels.md compares it with adaptations to the unlabelled images.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from vlmsel_auto.errors import VlmselError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.measuring.measure import embed_target
from vlmsel_auto.models import zoo
from vlmsel_auto.models.card import Provenance
from vlmsel_auto.models.exporting import Classifier, export
from vlmsel_auto.pipeline.affordable import charges_of, measured_latencies, together
from vlmsel_auto.pipeline.each_candidate import attempt
from vlmsel_auto.pipeline.export import write_pool
from vlmsel_auto.pipeline.label_session import Votes, expected_accuracy
from vlmsel_auto.pipeline.rank import Ranked
from vlmsel_auto.pipeline.result import SearchResult
from vlmsel_auto.pipeline.search_report import SearchModels, report_search
from vlmsel_auto.pipeline.session import Run, Session
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.ranking.evidence.consensus import LEAST_VOTERS, likeness
from vlmsel_auto.ranking.evidence.zeroshot import CLARITY
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.records import (
    UNLABELLED,
    BestModel,
    Candidate,
    EnsembleModel,
    ExpectedAccuracy,
    RankedCandidate,
    Ranking,
    StoppedBy,
    Task,
)
from vlmsel_auto.reporting.report import UNCHECKED
from vlmsel_auto.reporting.sentences import warned_text
from vlmsel_auto.tuning.methods import ZERO_SHOT

_FLOOR_SHARE: Final = 0.02  # is added to P(best): the pool should not be one model; our own choice
_COPY: Final = 0.9  # likeness from which a candidate would add nothing to another; our own choice


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """One candidate's part of a pool."""

    candidate: str
    weight: float  # of its log-probabilities; those of a pool sum to 1


def shares_of_leaders(
    ranking: Ranking, measured: Sequence[Measurement], *, size: int, fits: Callable[[Sequence[str]], bool]
) -> tuple[Share, ...]:
    """At most ``size`` candidates that were screened, best first, no two of which are copies, with their weights.

    ``fits`` says whether candidates may be together (limits). A weight is P(best) plus .02, made to sum to 1.
    """
    seen = {one.candidate: shown.cosine for one in measured if (shown := one.embedded()) is not None}
    chosen: list[tuple[str, float]] = []
    for line in ranking.ranked:
        names = [name for name, _ in chosen]
        if len(chosen) == size or line.candidate not in seen or not fits([*names, line.candidate]):
            continue
        alike = likeness([seen[name] for name in (*names, line.candidate)])[-1, :-1]
        if not (alike > _COPY).any():
            chosen.append((line.candidate, line.p_best + _FLOOR_SHARE))
    total = sum(weight for _, weight in chosen)
    return tuple(Share(candidate=name, weight=weight / total) for name, weight in chosen)


def zero_shot_classifier(seen: Measurement, *, task: Task) -> Classifier:
    """Class texts as the head, at a sureness that does not depend on the model's logit scale.

    Raises:
        ValueError: the candidate was not embedded.
    """
    shown = seen.embedded()
    if shown is None:
        raise ValueError(f"a zero-shot classifier needs embeddings, but got none of {seen.candidate!r}")
    return Classifier(
        head=shown.texts.astype(np.float32),
        bias=np.zeros(len(shown.texts), dtype=np.float32),
        scale=CLARITY / shown.spread,
        classes=task.classes,
        prompts=task.prompts,
        templates=task.templates,
        about={"task": task.name, "method": ZERO_SHOT.name, "labels": "none", "digest": task.digest},
    )


def export_zero_shot(
    shares: Sequence[Share],
    measured: Sequence[Measurement],
    *,
    task: Task,
    candidates: Sequence[Candidate],
    workdir: Path,
    sink: Sink,
    expected: ExpectedAccuracy | None = None,
) -> tuple[BestModel | None, EnsembleModel | None]:
    """Write the first of the shares to ``workdir/model``, and all of them, where they are several, to ``/ensemble``.

    A model that cannot be written costs a notice: the best is returned all the same, without a folder. None: no share.
    """
    if not shares:
        return None, None
    by_id, seen = {one.id: one for one in candidates}, {one.candidate: one for one in measured}
    warning = UNCHECKED if expected is None else f"{UNCHECKED}. Of the first model: {warned_text(expected)}"
    known = Provenance(task=task.name, digest=task.digest, method=ZERO_SHOT.label, warning=warning)

    def write(share: Share, folder: Path) -> Path:
        head = zero_shot_classifier(seen[share.candidate], task=task)
        return export(zoo.load(by_id[share.candidate]), head, directory=folder, known=known)

    first, folder = by_id[shares[0].candidate], workdir / "ensemble"
    directory: Path | None = None
    mean: EnsembleModel | None = None
    shutil.rmtree(folder, ignore_errors=True)  # an earlier call's would look like this one's
    try:
        directory = write(shares[0], workdir / "model")
        if len(shares) > 1:
            for place, share in enumerate(shares, start=1):
                write(share, folder / f"member-{place}")
            chosen, weights = [by_id[one.candidate] for one in shares], [one.weight for one in shares]
            mean = write_pool(folder, chosen, weights, classes=task.classes, known=known)
    except VlmselError as error:
        sink(Notice(text=f"not every model was exported: {error}", level="error"))
    best = BestModel(
        candidate=first.id,
        method=ZERO_SHOT.name,
        validation=None,
        test=None,
        trial=None,
        model_dir=directory,
        params=first.params,
        expected=expected,
    )
    return best, mean


def by_worth(ranking: Ranking, charges: Mapping[str, float]) -> Ranking:
    """The ranking by what the objective leaves of the scores."""

    def worth(line: RankedCandidate) -> float:
        return line.score - charges.get(line.candidate, 0.0) / POLICY.typical_spread

    return replace(ranking, ranked=tuple(sorted(ranking.ranked, key=worth, reverse=True))) if charges else ranking


def _first_that_loads(session: Session, ranked: Ranked) -> list[Measurement]:
    """The best ranked candidate that can be embedded: without time for any screening there is a model all the same."""
    by_id = {one.id: one for one in ranked.usable}

    def embed(name: str) -> Measurement:
        model = zoo.load(by_id[name], device=session.device, sink=session.sink)
        return embed_target(model, ranked.task, store=session.store)

    for name in ranked.ranking.order:
        found = attempt(partial(embed, name))
        if isinstance(found, Measurement):
            return [found]
        session.sink(Notice(text=f"{name} cannot be used: {found}", level="warning"))
    return []


def _expected(shares: Sequence[Share], ranking: Ranking, measured: Sequence[Measurement]) -> ExpectedAccuracy | None:
    """What candidates' votes say of the first of the shares; None where there are too few of them to disagree."""
    # in one order, whatever the order of screening: sums, and so the last digits, are the same when a search goes on
    seen = sorted((one for one in measured if one.embedded() is not None), key=lambda one: one.candidate)
    names = [one.candidate for one in seen]
    if not shares or len(seen) < LEAST_VOTERS:
        return None
    votes = Votes.of(ranking, seen)
    return expected_accuracy(votes.believe(np.full(votes.said.shape[1], UNLABELLED)), names.index(shares[0].candidate))


def finish_without_labels(run: Run, ranked: Ranked) -> SearchResult:
    """Export the models, and write the report, of a search that has a ranking and no labels.

    With costs in the objective the first model is the one whose predicted score, at a typical task's spread of
    accuracies, leaves most; no ensemble is made, since nothing says that it would be worth its cost.
    """
    session, ranking, task, usable = run.session, ranked.ranking, ranked.task, ranked.usable
    ranked_after, latencies = run.seconds, measured_latencies(usable, task, session.store)
    stopped = StoppedBy.INTERRUPTED if ranked.interrupted else StoppedBy.NO_LABELS
    session.sink(Notice(text=UNCHECKED, level="warning"))
    seen = ranked.measurements or _first_that_loads(session, ranked)
    shares = shares_of_leaders(
        by_worth(ranking, charges_of(session.objective, usable, machine=None, measured=latencies)),
        seen,
        size=1 if session.objective else max(1, run.request.ensemble),
        fits=together(session.limits, usable, latencies),
    )
    expected = _expected(shares, ranking, seen)
    if expected is not None:
        session.sink(Notice(text=f"{shares[0].candidate}: {warned_text(expected)}", level="warning"))
    best, mean = export_zero_shot(
        shares, seen, task=task, candidates=usable, workdir=run.workdir, sink=session.sink, expected=expected
    )
    models = SearchModels(best=best, ensemble=mean, notes=[UNCHECKED], latencies=latencies)
    return report_search(run, ranked, models, stopped=stopped, ranked_after=ranked_after)
