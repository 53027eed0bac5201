"""Whole searches that end sooner: a trial shows a tower 200 images, not 2,500, and the winner is fitted once.

It learns from them, a tenth as long. The mean of four fits has tests of its own: tests/pipeline/test_final_fit.py.
"""

from collections.abc import Iterator
from functools import partial

import pytest

IMAGES = 200  # of a default trial


@pytest.fixture(scope="module", autouse=True)
def short_trials() -> Iterator[None]:
    """Import it into a test file whose searches fine-tune."""
    from vlmsel_auto.pipeline import with_labels
    from vlmsel_auto.study.study import run_study
    from vlmsel_auto.tuning import averaging

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_labels, "run_study", partial(run_study, images_per_trial=IMAGES))
        patch.setattr(averaging, "MOST_FITS", 1)
        yield
