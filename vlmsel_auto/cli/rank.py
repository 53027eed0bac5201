"""``vlmsel-auto rank``: the ranking alone."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from vlmsel_auto.cli.options import (
    AsJson,
    CacheDir,
    Candidates,
    Classes,
    Debug,
    Device,
    Folder,
    Images,
    LibraryPath,
    LimitOptions,
    LogFile,
    Offline,
    Quiet,
    Seed,
    Shots,
    Unlabelled,
    limited,
)
from vlmsel_auto.cli.support import guarded, make_sink


@limited
def rank(
    *,
    directory: Folder,
    candidates: Candidates = ["auto"],  # noqa: B006 - typer copies defaults
    limits: LimitOptions,
    offline: Offline = False,
    top: Annotated[int, typer.Option(min=0, metavar="N", help="Show the best N only; 0: all.")] = 0,
    shots: Shots = 16,
    classes: Classes = None,
    unlabelled: Unlabelled = False,
    images: Images = None,
    truth: Annotated[
        Literal["zeroshot", "tuned"] | None,
        typer.Option(
            help="What to predict: accuracy once tuned, for images without labels too, or zero-shot accuracy. "
            "Default: tuned where there are labels, else zeroshot."
        ),
    ] = None,
    seed: Seed = 0,
    library: LibraryPath = None,
    cache_dir: CacheDir = None,
    device: Device = "auto",
    as_json: AsJson = False,
    log_file: LogFile = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Predict how the candidates will rank on DIR once tuned, or zero-shot; nothing is trained."""
    with guarded(debug=debug, as_json=as_json, resumes=True) as answer:
        from vlmsel_auto.cache import default_cache_dir
        from vlmsel_auto.cli.answers import check_task, print_ranking, rank_json
        from vlmsel_auto.process import collections_paused

        asked = limits.read()
        own = (cache_dir or default_cache_dir(),)
        named = check_task(directory, candidates, classes=classes, unlabelled=unlabelled, exclude=own)
        with collections_paused():
            from vlmsel_auto.pipeline.rank import rank as run_rank

        with make_sink(quiet=quiet, log_file=log_file) as sink:
            ranking = run_rank(
                directory,
                candidates=tuple(candidates),
                limits=asked,
                offline=offline,
                shots=shots,
                classes=named,
                unlabelled=unlabelled,
                images=images,
                truth="zero_shot" if truth == "zeroshot" else truth,
                seed=seed,
                library=library,
                cache_dir=cache_dir,
                device=device,
                sink=sink,
            )
        shown = top or len(ranking.ranked)
        answer.json = rank_json(ranking, top=shown)
        if not as_json:
            print_ranking(ranking, top=shown)
