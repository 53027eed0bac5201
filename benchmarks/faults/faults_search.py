"""`vlmsel-auto`, but for the length of its trials: they show a tower 200 images. See faults.py."""

from __future__ import annotations

import functools

import vlmsel_auto.pipeline.with_labels as pipeline
from vlmsel_auto.cli.app import main
from vlmsel_auto.tuning.runner import TrialRunner

if __name__ == "__main__":
    setattr(pipeline, "TrialRunner", functools.partial(TrialRunner, images_per_trial=200))  # noqa: B010 - what it calls
    main()
