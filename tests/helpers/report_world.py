"""The record of a search that was never run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import softmax

from vlmsel_auto.records import (
    Agreement,
    BadFile,
    Basis,
    BestModel,
    Budget,
    Interval,
    RankedCandidate,
    Ranking,
    StoppedBy,
    TrialOrigin,
    TrialResult,
    TrialSpec,
    TrialState,
)
from vlmsel_auto.reporting.label_issues import LabelIssues, LabelledImage, NearDuplicates
from vlmsel_auto.reporting.mistakes import SHOWN, judge, thumbnail, with_thumbnails
from vlmsel_auto.reporting.report import Baseline, CandidateSummary, SearchReport, TaskSummary

NAMES = (
    "ViT-Mi-8-64.all-l",
    "ConvNeXt-Mi-64.all-m",
    "RN-Mi-64.all-m",
    "EffNet-Mi-64.all-m",
    "<b>odd</b> & $x$",
    "Last",
)


def make_trial(
    number,
    candidate,
    *,
    validation=None,
    test=None,
    state=TrialState.COMPLETE,
    origin=TrialOrigin.PLANNED,
    method="probe",
):
    spec = TrialSpec(
        candidate=candidate, method=method, settings={"learning_rate": 1e-3, "weight_decay": 1e-4}, epochs=4, seed=0
    )
    return TrialResult(
        number=number,
        spec=spec,
        state=TrialState(state),
        origin=TrialOrigin(origin),
        validation=validation,
        test=test,
        curve=() if validation is None else (validation - 0.2, validation - 0.1, validation),
        epochs_run=3,
        seconds=10.0 + number,
        reason="" if state == "complete" else f"why <{state}>",
    )


def make_ranking(names=NAMES):
    lines = tuple(
        RankedCandidate(
            candidate=name,
            score=1.5 - 0.5 * place,
            sd=0.4,
            prior=None if place == 5 else 1.0 - 0.3 * place,
            evidence=0.7 - 0.2 * place,
            p_best=0.5 / (place + 1),
            p_top5=max(0.0, 1.0 - 0.1 * place),
            rank_interval=Interval(low=max(1.0, place - 1.0), high=place + 3.0),
            basis=Basis.LIBRARY_AND_LABELS if place else Basis.LABELS,
            signals={"knn": 0.5},
        )
        for place, name in enumerate(names)
    )
    return Ranking(task="digits", ranked=lines, failures={"broken": "no weights"}, notes=("Based on 24 source tasks.",))


def make_report(**changes):
    trials = (
        make_trial(0, NAMES[0], validation=0.90, test=0.88),
        make_trial(1, NAMES[1], validation=0.95, test=0.91),
        make_trial(2, NAMES[2], validation=0.80, test=0.82),
        make_trial(3, NAMES[0], validation=0.93, test=0.90, method="finetune"),
        make_trial(4, NAMES[3], state="failed"),
        make_trial(5, NAMES[4], validation=0.85, test=0.80),
        make_trial(6, NAMES[2], validation=0.70, state=TrialState.PRUNED, method="finetune"),
    )
    report = SearchReport(
        created="2026-11-23T12:00:00+00:00",
        command="vlmsel-auto search digits --max-trials 7",
        task=TaskSummary(
            name="digits",
            root="digits",
            domain="glyphs",
            metric="accuracy",
            classes=("0", "1"),
            train=100,
            val=40,
            test=60,
            support=32,
            shots=16,
            digest="ab" * 32,
        ),
        candidates=tuple(
            CandidateSummary(id=name, params=940_000, flops=8.8e7, size=64, family="vit") for name in NAMES
        ),
        ranking=make_ranking(),
        trials=trials,
        best=BestModel(
            candidate=NAMES[1], method="probe", validation=0.95, test=0.91, trial=1, model_dir=Path("/out/my model")
        ),
        agreement=Agreement(
            n=4,
            tau_b=0.333,
            weighted_tau=0.4,
            ndcg5=0.87,
            top1_loss=0.02,
            top5_loss=0.0,
            ndcg5_interval=Interval(low=0.6, high=0.99),
            note="n < 6: no interval for tau",
        ),
        baselines=(
            Baseline(
                name="average rank",
                agreement=Agreement(n=2, tau_b=None, weighted_tau=None, ndcg5=None, top1_loss=None, top5_loss=None),
            ),
        ),
        budget=Budget(trials=7),
        seconds=130.0,
        stage_seconds={"images": 2.0, "trials": 95.5},
        stopped_by=StoppedBy.BUDGET,
        bad_files=(
            BadFile(path="a/<img src=x>.png", reason="truncated"),
            BadFile(path="b/cmyk.jpg", reason="CMYK, converted", used=True),
        ),
        notes=("one note",),
        settings={"candidates": "mini-zoo"},
        versions={"torch": "2.9"},
    )
    return replace(report, **changes)


def judged(*, count=200, classes=5, seed=0, split="test"):
    """A classifier that is right more often than not: probabilities, labels and what is said of them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes - 1, size=count)  # the last class has no image
    logits = rng.normal(0, 1, (count, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = softmax(logits, axis=1)
    names = [f"class {number}" for number in range(classes)]
    paths = [f"test/{number:04d}.png" for number in range(count)]
    return probabilities, labels, judge(probabilities, labels=labels, classes=names, paths=paths, split=split)


def pictured(found, *, side=200):
    """The same with thumbnails of noise, which no JPEG makes small."""
    pixels = np.random.default_rng(1).integers(0, 256, size=(SHOWN, side, side, 3), dtype=np.uint8)
    return replace(
        found,
        surest=with_thumbnails(found.surest, pixels[: len(found.surest)]),
        unsure=with_thumbnails(found.unsure, pixels[: len(found.unsure)]),
    )


def doubted(found, *, thumbnails=True):
    """Doubtful labels: the surest mistakes, and as many pairs of near-duplicates."""
    picture = thumbnail(np.zeros((32, 32, 3), dtype=np.uint8)) if thumbnails else ""
    pairs = [
        NearDuplicates(
            first=LabelledImage(path=f"a/{number}.png", label="a", thumbnail=picture),
            second=LabelledImage(path=f"b/{number}.png", label="b", thumbnail=picture),
            distance=0.001 * number,
        )
        for number in range(SHOWN)
    ]
    return LabelIssues(
        models=3, judged=200, suspects=found.surest, suspected=29, precision=0.8, power=0.7, compared=200,
        near_duplicates=tuple(pairs), near_duplicate_pairs=17,
    )  # fmt: skip
