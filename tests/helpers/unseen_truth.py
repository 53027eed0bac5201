"""Two worlds that differ in the truth of one task alone: no ranking on that task may tell them apart."""

import dataclasses

import numpy as np

from vlmsel_auto.bench.case import Case


def check_own_truth_is_unseen(rankings, library):
    """With the truth of one task reversed, scores of rankings on that task stay as they were."""
    runs = library.tuned_runs.copy()
    runs[:, 2] = 1.0 - runs[:, 2]
    zero_shot = library.zero_shot.copy()
    zero_shot[:, 2] = 1.0 - zero_shot[:, 2]
    reversed_library = dataclasses.replace(library, tuned_runs=runs, zero_shot=zero_shot)
    for truth in ("tuned", "zero_shot"):
        cases = [Case(library=one, column=2, truth=truth, shots=4) for one in (library, reversed_library)]
        for name, ranking in rankings.items():
            if name != "source_ceiling":
                for a, b in zip(ranking(cases[0]), ranking(cases[1]), strict=True):
                    np.testing.assert_array_equal(a, b, err_msg=name)
