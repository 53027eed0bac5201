"""Whole searches that end sooner: a trial shows a tower 200 images, not 25 times all of them."""

from collections.abc import Iterator
from functools import partial

import pytest

IMAGES = 200  # of a default trial


@pytest.fixture(scope="module", autouse=True)
def short_trials() -> Iterator[None]:
    """Import it into a test file whose searches fine-tune."""
    from vlmsel_auto.pipeline import with_labels
    from vlmsel_auto.tuning.runner import TrialRunner

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(with_labels, "TrialRunner", partial(TrialRunner, images_per_trial=IMAGES))
        yield
