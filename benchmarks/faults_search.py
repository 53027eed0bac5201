"""`vlmsel-auto`, but for the length of its trials: they show a tower 200 images instead of 2,500. See faults.py."""

from __future__ import annotations

import functools

import vlmsel_auto.pipeline.search as pipeline
from vlmsel_auto.cli.app import main

if __name__ == "__main__":
    pipeline.run_study = functools.partial(pipeline.run_study, images_per_trial=200)  # type: ignore[assignment]
    main()
