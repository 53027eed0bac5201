"""scores.py: candidates and signals of which the library, or the target, knows nothing."""

import dataclasses

import numpy as np
import pytest

from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates


def test_who_was_not_screened_stands_where_sources_alone_put_it(world, library):
    targets, labels = world.targets(4, per_class=8)
    blind = {one.candidate: Measurement(candidate=one.candidate, activity=one.activity) for one in targets}
    alone = rank_candidates(task="t04", targets=[*blind.values()], library=library)
    level = {line.candidate: line for line in alone.ranked}
    hidden = {line.candidate for line in alone.ranked[4:]}
    some = [blind[one.candidate] if one.candidate in hidden else one for one in targets]
    ranking = rank_candidates(task="t04", targets=some, labels=labels, library=library)
    lines = {line.candidate: line for line in ranking.ranked}
    for one in hidden:
        assert lines[one].score == pytest.approx(level[one].score)
        assert lines[one].sd == level[one].sd
    screened = [one for one in world.ids if one not in hidden]
    assert np.mean([lines[one].score for one in screened]) == pytest.approx(
        np.mean([level[one].score for one in screened])
    )
    assert np.std([lines[one].score for one in screened]) > 0.1
    assert all(lines[one].sd < level[one].sd for one in screened)


def without_signals(library):
    return assemble(
        [dataclasses.replace(one, signals={}, evidence={}, predicted=np.empty(0)) for one in library.cells()]
    )


def test_accuracies_of_a_library_without_signals_still_count_beside_images(world, library):
    targets, _ = world.targets(2, per_class=4)
    bare = without_signals(library)
    blind = [Measurement(candidate=one) for one in world.ids]
    alone = rank_candidates(task="t02", targets=blind, library=bare)
    images = rank_candidates(task="t02", targets=targets, library=bare)
    fixed = rank_candidates(task="t02", targets=targets)
    effect = {line.candidate: line.score for line in alone.ranked}
    trend = {line.candidate: line.score for line in fixed.ranked}
    assert np.std([*effect.values()]) > 0.1
    profiled = [dataclasses.replace(one, activity=np.empty(0)) for one in targets]
    both = rank_candidates(task="t02", targets=profiled, library=bare)
    for line in both.ranked:
        assert line.score == pytest.approx(effect[line.candidate] + trend[line.candidate])
    assert images.ranked[0].basis == "library"


def test_labels_count_where_a_library_knows_none(world, library):
    targets, labels = world.targets(2, per_class=8)
    unlabelled = assemble([dataclasses.replace(one, evidence={}) for one in library.cells()])
    said = rank_candidates(task="t02", targets=targets, labels=labels, library=unlabelled)
    unsaid = rank_candidates(task="t02", targets=targets, library=unlabelled)
    assert said.order != unsaid.order or [one.score for one in said.ranked] != [one.score for one in unsaid.ranked]
    fixed = {line.candidate: line.evidence for line in said.ranked}
    gain = {line.candidate: line.score for line in said.ranked}
    before = {line.candidate: line.score for line in unsaid.ranked}
    for one in world.ids:
        assert gain[one] - before[one] == pytest.approx(fixed[one])
