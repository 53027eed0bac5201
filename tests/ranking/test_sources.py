"""What a library says of candidates on its tasks: signals of images and labels."""

import dataclasses

import numpy as np
import pytest

from helpers.zoo_world import CLASSES, World
from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.ranking.evidence.alignment import alignment
from vlmsel_auto.ranking.evidence.consensus import consensus
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.signals import ALIGNMENT, CONSENSUS, IMAGE_SIGNALS, LABEL_SIGNALS, TOP2_MARGIN
from vlmsel_auto.ranking.sources import gather, image_signal, images_behind, nearest_shots, reliability, source_truth


@pytest.fixture(scope="module")
def library():
    return World(tasks=3).library()


def by_definition(library, task, rows):
    margins = library.signals[rows, task, library.signal_names.index(TOP2_MARGIN)]
    return consensus(library.predicted[rows, task].astype(int), margins, n_classes=CLASSES)


def test_a_stored_signal_comes_back_in_the_order_of_the_candidates(library):
    found = image_signal(library, TOP2_MARGIN, [4, None, 0])
    stored = library.signals[:, :, library.signal_names.index(TOP2_MARGIN)]
    np.testing.assert_array_equal(found[[0, 2]], stored[[4, 0]])
    assert np.isnan(found[1]).all()
    assert image_signal(library, "no such signal", [0, 1]) is None


def test_consensus_is_made_among_the_listed_candidates_only(library):
    rows = [5, 1, 7, 2]
    found = image_signal(library, CONSENSUS, rows)
    for s in range(3):
        np.testing.assert_array_equal(found[:, s], by_definition(library, s, rows))


def test_candidates_that_saw_other_images_are_not_compared(library):
    cells = [
        dataclasses.replace(one, predicted_on=1.0) if one.candidate.id in {"m00", "m01", "m02"} else one
        for one in library.cells()
    ]
    found = image_signal(assemble(cells), CONSENSUS, list(range(9)))
    apart = np.vstack(
        [by_definition(library, 0, [0, 1, 2])[:, None], by_definition(library, 0, [*range(3, 9)])[:, None]]
    )
    np.testing.assert_array_equal(found[:, :1], apart)


def test_a_library_without_predictions_has_no_consensus(library):
    bare = assemble([dataclasses.replace(one, predicted=np.empty(0), predicted_on=np.nan) for one in library.cells()])
    assert image_signal(bare, CONSENSUS, [0, 1, 2]) is None


def test_alignment_is_made_among_the_listed_candidates_only(library):
    rows = [5, 1, 7, 2]
    found = image_signal(library, ALIGNMENT, rows)
    margins = library.signals[rows, :, library.signal_names.index(TOP2_MARGIN)]
    for s in range(3):
        neighbours = [library.neighbours[row, s].astype(int) for row in rows]
        np.testing.assert_allclose(found[:, s], alignment(neighbours, margins[:, s]))
    assert np.isnan(image_signal(library, ALIGNMENT, [5, None, 7])).all()


def test_neighbours_among_other_images_are_not_compared(library):
    cells = [
        dataclasses.replace(one, neighbours_on=1.0) if one.candidate.id in {"m00", "m01"} else one
        for one in library.cells()
    ]
    found = image_signal(assemble(cells), ALIGNMENT, list(range(9)))
    assert np.isnan(found[:2]).all()
    np.testing.assert_allclose(found[2:], image_signal(library, ALIGNMENT, list(range(2, 9))))


def test_only_tuned_truth_is_predicted_by_alignment(library):
    targets, _ = World(tasks=3).targets(0)
    tuned, zero_shot = (gather(library, targets, truth=truth, shots=0).signals for truth in ("tuned", "zero_shot"))
    assert set(tuned) == {*zero_shot, ALIGNMENT} == {*IMAGE_SIGNALS}


def test_labels_a_class_are_those_of_the_listed_candidates():
    world = World(candidates=6, tasks=5)
    few = [
        dataclasses.replace(cell, evidence={key: value for key, value in cell.evidence.items() if key[1] == 1})
        for cell in world.library(candidates=[4, 5]).cells()
    ]
    library = assemble([*world.library(candidates=[0, 1, 2, 3]).cells(), *few])
    assert library.shots[nearest_shots(library, 4)] == 4
    assert library.shots[nearest_shots(library, 4, rows=[4, 5])] == 1
    assert nearest_shots(dataclasses.replace(library, shots=(1, 16)), 6) == 1  # a third of 16, and six times 1
    targets, _ = world.targets(0, candidates=[4, 5])
    sources = gather(library, targets, truth="tuned", shots=4)
    assert sources.shots == 1
    assert all(np.isfinite(sources.signals[name]).any() for name in sources.signals if name in LABEL_SIGNALS)


def test_reliability_is_what_binomial_noise_leaves():
    rng = np.random.default_rng(0)
    n = np.array([100, 400, 100, 0, 100])
    skill = np.stack([np.full(400, 0.5), np.full(400, 0.5), rng.uniform(0.2, 0.8, 400), np.full(400, 0.5)])
    truth = np.stack([rng.binomial(100, p) / 100 for p in skill] + [np.full(400, 0.3)], axis=1)
    truth[:5, 0] = np.nan
    found = reliability(truth, n)
    assert found[0] < 0.25  # all at chance: what differs is noise
    assert found[2] == pytest.approx(0.03 / (0.03 + 0.0022), abs=0.05)
    assert found[3] == 1.0  # number of images unknown
    assert found[4] == 0.05  # all the same
    assert reliability(np.array([[0.1], [0.9]]), np.array([50]))[0] == pytest.approx(1 - 0.005 / 0.16)


def test_zero_shot_accuracies_of_a_search_count_by_the_images_behind_them(library):
    few = dataclasses.replace(
        library, tasks=(*library.tasks[:2], dataclasses.replace(library.tasks[2], zero_shot_images=9))
    )
    tests = [one.n_test for one in library.tasks]
    trained = np.isfinite(library.tuned).all(axis=0)
    assert images_behind(library, truth="zero_shot").tolist() == tests
    assert images_behind(few, truth="zero_shot").tolist() == [*tests[:2], 9]
    assert images_behind(few, truth="tuned").tolist() == [*tests[:2], tests[2] if trained[2] else 9]
    targets, _ = World(tasks=3).targets(0)
    sure, doubtful = (gather(each, targets, truth="zero_shot", shots=0).reliability for each in (library, few))
    assert doubtful[:2].tolist() == sure[:2].tolist()
    assert doubtful[2] < sure[2]


@pytest.mark.parametrize("kept", [3, 2])
def test_zero_shot_accuracies_are_no_truth_beside_enough_tuned_ones(kept):
    library = World(tasks=4).library()
    runs, probed = np.full_like(library.tuned_runs, np.nan), np.full_like(library.probed, np.nan)
    runs[:, 0] = library.tuned_runs[:, 0]
    runs[:4, 1] = library.tuned_runs[:4, 1]  # of nine: too few to say anything of an order
    probed[:5, 1] = 0.5
    probed[:, 2] = library.zero_shot[:, 2] / 2 if kept == 3 else np.nan
    bare = dataclasses.replace(library, tuned_runs=runs, probed=probed)
    found = source_truth(bare, [*bare.candidate_ids[::-1], "unknown"], truth="tuned")[-2::-1]
    np.testing.assert_array_equal(found[:, 0], bare.tuned[:, 0])
    np.testing.assert_array_equal(found[:, 1], probed[:, 1])
    np.testing.assert_array_equal(found[:, 3], np.full(9, np.nan) if kept == 3 else library.zero_shot[:, 3])
    np.testing.assert_array_equal(source_truth(bare, bare.candidate_ids, truth="zero_shot"), library.zero_shot)


def test_candidates_that_were_only_screened_keep_what_is_known_of_them():
    """The tuned accuracies of others do not take it away."""
    library = World(candidates=8, tasks=4).library()
    runs = library.tuned_runs.copy()
    runs[4:] = runs[:, 3] = np.nan
    zero_shot = library.zero_shot.copy()
    zero_shot[4:, :3] = np.nan
    bare = dataclasses.replace(library, tuned_runs=runs, zero_shot=zero_shot)
    found = source_truth(bare, bare.candidate_ids[4:], truth="tuned")
    assert np.isnan(found[:, :3]).all()
    np.testing.assert_array_equal(found[:, 3], library.zero_shot[4:, 3])


def test_profiles_of_some_sources_do_not_silence_the_others(library):
    """Profiled tasks without a usable truth beside searches that have no profile."""
    cells = []
    for one in library.cells():
        for turn in range(3):
            task = dataclasses.replace(one.task, name=f"{one.task.name}-{turn}", digest=f"{one.task.digest}{turn}")
            cells.append(dataclasses.replace(one, task=task, activity=np.empty(0)))
        bare = dataclasses.replace(one, task=dataclasses.replace(one.task, name=f"{one.task.name}-pack"), tuned={})
        cells.append(bare)
    mixed = assemble(cells)
    targets = [
        Measurement(candidate=one.id, activity=known[0])
        for one, known in zip(library.candidates, library.activity, strict=True)
    ]
    found = gather(mixed, targets, truth="tuned", shots=0)
    usable = np.isfinite(found.truth)
    assert usable.any(axis=1).all()
    assert (np.where(usable, found.to_target, 0.0).sum(axis=1) > 0.0).all()
    silent = [one.startswith("t") and not one.endswith("-pack") for one in mixed.task_names]
    weights = found.to_target[:, silent]
    np.testing.assert_allclose(weights, weights[:, :1] * np.ones_like(weights))  # none stands nearer than another
