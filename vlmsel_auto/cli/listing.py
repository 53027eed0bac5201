"""Candidates before any is loaded: in the order of loading, as a table for people and JSON for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.cache import Json
from vlmsel_auto.cli.answers import print_table
from vlmsel_auto.library import published
from vlmsel_auto.library.published import expected_figures
from vlmsel_auto.models.facts import Facts, facts_of
from vlmsel_auto.models.limits import Excluded, Limits, unknowns, within
from vlmsel_auto.models.machine import Machine, embedding_seconds
from vlmsel_auto.planning.next_screening import next_screening
from vlmsel_auto.planning.screening_prior import learn_prior, nothing_published
from vlmsel_auto.recordjson import encode
from vlmsel_auto.records import Candidate, FloatArray
from vlmsel_auto.reporting.formatting import duration, plural
from vlmsel_auto.reporting.table import Column
from vlmsel_auto.units import byte_count, milliseconds, percent, thousands

_SCREENING_IMAGES: Final = 160  # that a screening embeds
_LEAST_SECONDS: Final = 1e-3  # of a screening


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One candidate within the limits."""

    candidate: Candidate
    facts: Facts
    latency: float | None  # predicted seconds of one image
    seconds: float | None  # predicted seconds of a download and of embedding 160 images
    notes: tuple[str, ...]  # limits that could not be applied


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """Candidates in the order in which they would be loaded, and those that a limit excludes."""

    lines: tuple[Line, ...]
    excluded: tuple[Excluded, ...]
    machine: Machine
    why: str  # why the first is the first; empty without candidates


def list_candidates(candidates: Sequence[Candidate], *, limits: Limits, machine: Machine, bandwidth: float) -> Listing:
    """Put candidates into the order in which they would be loaded if no screening told anything new.

    Raises:
        CandidateError: the limits exclude every one.
    """
    table = published.zero_shot([each.id for each in candidates])
    column = published.datasets().index(published.IMAGENET)
    facts = [_with_figures(each, row, row[column]) for each, row in zip(candidates, table, strict=True)]
    kept, excluded = within(facts, limits=limits, machine=machine)
    named = {each.id: each for each in candidates}
    lines = [
        Line(
            candidate=named[each.candidate],
            facts=each,
            latency=embedding_seconds(each, images=1, machine=machine),
            seconds=_screening_seconds(each, machine=machine, bandwidth=bandwidth),
            notes=unknowns(each, limits=limits, machine=machine),
        )
        for each in kept
    ]
    order, has_figures = _order(lines)
    return Listing(
        lines=tuple(lines[place] for place in order),
        excluded=excluded,
        machine=machine,
        why=_why(lines[order[0]], has_figures=has_figures) if order else "",
    )


def _with_figures(candidate: Candidate, row: FloatArray, imagenet: float) -> Facts:
    if not np.isfinite(row).all():  # the mean of some data sets is no one else's mean
        return facts_of(candidate)
    return facts_of(candidate, mean_accuracy=float(row.mean()), imagenet=float(imagenet))


def _screening_seconds(facts: Facts, *, machine: Machine, bandwidth: float) -> float | None:
    seconds = embedding_seconds(facts, images=_SCREENING_IMAGES, machine=machine)
    if seconds is None or facts.download_bytes is None:
        return None
    return seconds + facts.download_bytes / bandwidth


def _order(lines: Sequence[Line]) -> tuple[list[int], bool]:
    """Places in the order of loading, and whether published figures had a say."""
    if not lines:
        return [], False
    table = expected_figures([each.candidate for each in lines])
    has_figures = bool((np.isfinite(table).sum(axis=0) > 1).sum() > 1)
    prior = learn_prior(table) if has_figures else nothing_published(len(lines))
    known = [each.seconds for each in lines if each.seconds is not None]
    usual = float(np.median(known)) if known else 1.0
    costs = np.array([max(usual if each.seconds is None else each.seconds, _LEAST_SECONDS) for each in lines])
    least = np.full(len(lines), -np.inf)
    order: list[int] = []
    while (place := next_screening(prior, [], costs=costs, least=least)) is not None:
        order.append(place)
        least[place] = np.inf
    return order, has_figures


def _why(first: Line, *, has_figures: bool) -> str:
    facts = first.facts
    reason = "it promises most for its time" if has_figures else "nothing is published of these and it takes least time"
    figure = "" if facts.mean_accuracy is None else f"published accuracy {percent(facts.mean_accuracy)}, "
    there = "on this disk" if facts.download_bytes == 0 else f"{byte_count(facts.download_bytes)} to download"
    return f"first: {facts.candidate}, since {reason} ({figure}{there}, a screening takes {duration(first.seconds)})"


def listing_json(listing: Listing) -> Json:
    """``{"candidates": [...], "excluded": [...], "machine": {...}, "why": text}``; times in seconds, sizes in bytes."""
    return encode(
        {
            "candidates": [
                {
                    "id": line.candidate.id,
                    "source": line.candidate.source,
                    "family": line.candidate.family,
                    **{name: each for name, each in dataclasses.asdict(line.facts).items() if name != "candidate"},
                    "latency": line.latency,
                    "screening_seconds": line.seconds,
                    "notes": line.notes,
                }
                for line in listing.lines
            ],
            "excluded": listing.excluded,
            "machine": listing.machine,
            "why": listing.why,
        }
    )


def print_listing(listing: Listing) -> None:
    """Print candidates, those that a limit excludes and why the first is first, on standard output."""
    facts = [line.facts for line in listing.lines]
    columns = [
        Column("", [str(place) for place in range(1, len(facts) + 1)], right=True),
        Column("candidate", [each.candidate for each in facts], folds=True),
        Column("params", [thousands(each.params) for each in facts], right=True),
        Column("FLOPs", [thousands(each.flops) for each in facts], right=True, least=120),
        Column("download", [byte_count(each.download_bytes) for each in facts], right=True),
        Column("memory", [byte_count(each.memory_bytes) for each in facts], right=True, least=120),
        Column("latency", [milliseconds(line.latency) for line in listing.lines], right=True),
        Column("image", [str(each.image_size) for each in facts], right=True, least=120),
        Column("licence", [each.licence for each in facts], least=120),
        Column("trained on", [each.training_data for each in facts], least=150),
        Column("mean", [percent(each.mean_accuracy) for each in facts], right=True),
        Column("ImageNet", [percent(each.imagenet) for each in facts], right=True),
    ]
    excluded = [
        Column("not within the limits", [each.candidate for each in listing.excluded], folds=True),
        Column("why", [each.reason for each in listing.excluded], folds=True),
    ]
    notes = [f"{line.candidate.id}: {note}" for line in listing.lines for note in line.notes]
    last = ["", *_legend(listing)] if facts else ["no candidate matches"]
    print_table(columns, notes=[*notes, *([""] if listing.excluded else last)])
    if listing.excluded:
        print_table(excluded, notes=last)


def _legend(listing: Listing) -> list[str]:
    machine = listing.machine
    where = f"{machine.device}, {plural(machine.cores, 'core')}, {byte_count(machine.memory_bytes)} of memory free"
    return [
        f"latency: of one image among many on this machine ({where}), predicted; download and memory: estimates",
        "mean, ImageNet: published zero-shot accuracy on 35 data sets and on ImageNet",
        listing.why,
    ]
