"""QUESTION: Is a guess from facts better than the average for models of which nothing is published?

PAGE: docs/results/screening.md
RESULT: benchmarks/results/looking-unpublished.json

    python -m benchmarks.screening.looking_unpublished --write benchmarks/results/looking-unpublished.json

Setting: open_clip's 121 models on 35 data sets, as in looking.py, one data set left out at a time with its kin. In turn
the figures of a whole line of models are hidden: all that were trained on the same kind of data. What is expected of
them (`vlmsel_auto.library.published`) is fitted on the other lines and the other data sets. Printed by line: the
error of the mean accuracy over all data sets, in points, root mean square; points lost after 1, 3, 5 and 10 loads where
hidden models count as average ones, and where they stand as expected; and the paired difference with its 95 % interval
over data sets. Lines whose amount of training data is not stated (CommonPool's subsets, NLLB) are left out: of them
nothing is expected. The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import change
from benchmarks.screening.looking import SHOWN, replay
from benchmarks.screening.looking_strategies import Ours
from benchmarks.screening.looking_table import Scene, Setting, open_clip
from vlmsel_auto.library import published
from vlmsel_auto.library.published import features_of, regress
from vlmsel_auto.models.sources import open_clip_tags
from vlmsel_auto.records import FloatArray

LINES = {
    "SigLIP": ("webli",),
    "DFN": ("dfn",),
    "EVA": ("merged", "laion400m_s11b"),
    "MetaCLIP": ("metaclip",),
    "OpenAI": ("openai",),
    "DataComp": ("datacomp",),
    "LAION": ("laion", "mscoco_finetuned", "frozen_laion"),
    "YFCC, CC12M": ("yfcc", "cc12m"),
}


def line_of(name: str) -> str:
    """The line of a model ARCH/TAG; empty: none of these."""
    arch, _, tag = name.partition("/")
    if arch.startswith("EVA"):
        return "EVA"
    return next((line for line, starts in LINES.items() if tag.startswith(starts)), "")


def guess(scene: Scene, features: FloatArray) -> Scene:
    """The scene with the figures of hidden models as they are expected by those that are not hidden."""
    return replace(scene, table=filled(scene.table, features[scene.models]))


def filled(table: FloatArray, features: FloatArray) -> FloatArray:
    """A table (M, J) with hidden rows as expected by features (M, F)."""
    hidden = np.isnan(table).all(axis=1)
    found = table.copy()
    found[hidden] = regress(features[~hidden], table[~hidden], wanted=features[hidden])
    return found


def hide(scene: Scene, hidden: NDArray[np.bool_]) -> Scene:
    """The scene without the figures of some models."""
    return replace(scene, table=np.where(hidden[scene.models, None], np.nan, scene.table))


def start(scene: Scene, *, hidden: NDArray[np.bool_], features: FloatArray | None) -> Ours:
    """Screenings without the figures of some models; with ``features`` these are expected."""
    known = hide(scene, hidden)
    return Ours(known if features is None else guess(known, features))


def errors(setting: Setting, hidden: NDArray[np.bool_], features: FloatArray) -> tuple[float, float]:
    """Points, root mean square over hidden models, on all data sets: of the average model, of the guess."""
    table = np.where(hidden[:, None], np.nan, setting.accuracy)
    truth = setting.accuracy[hidden].mean(axis=1)
    average = float(np.nanmean(table))
    found = filled(table, features)[hidden].mean(axis=1)
    rms = [100 * float(np.sqrt(np.mean((each - truth) ** 2))) for each in (np.full(len(truth), average), found)]
    return rms[0], rms[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1, help="of the labels that screenings see")
    parser.add_argument("--only", metavar="LINE", help=", ".join(LINES))
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    args = parser.parse_args()
    setting = open_clip(published.open_clip_path())
    models = [open_clip_tags.published(*name.split("/")) for name in setting.models]
    features = np.array([features_of(one) if one is not None else np.full(4, np.nan) for one in models])
    lines = np.array([line_of(name) for name in setting.models])
    print("| line hidden | models | error: average, guess | points lost: average | guess | difference |")
    print("|---|---|---|---|---|---|")
    rows: dict[str, dict[str, object]] = {}
    every = []
    for line in (each for each in LINES if args.only in {None, each}):
        hidden = lines == line
        plain, told = (
            replay(setting, partial(start, hidden=hidden, features=by), draws=args.draws, choices=False)
            for by in (None, features)
        )
        every.append((told.loaded - plain.loaded).mean(axis=1))
        rows[line] = _row(line, errors(setting, hidden, features), plain.loaded, told.loaded, models=int(hidden.sum()))
    together = np.mean(every, axis=0)
    over = {str(k): change(together[:, k - 1], digits=3) for k in SHOWN}
    print("mean over lines, after", ", ".join(f"{k}: {each}" for k, each in over.items()))
    content = {"lines": rows, "mean_difference": over}
    if args.write is not None:
        args.write.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps({"looking_unpublished": content}))


def _row(
    line: str, error: tuple[float, float], plain: FloatArray, told: FloatArray, *, models: int
) -> dict[str, object]:
    row: dict[str, object] = {"models": models, "error": [round(each, 2) for each in error]}
    losses = {}
    for name, lost in (("average", plain), ("guess", told)):
        losses[name] = [round(float(lost[:, :, k - 1].mean()), 2) for k in SHOWN]
        row[name] = dict(zip(map(str, SHOWN), losses[name], strict=True))
    gains = {str(k): change((told - plain)[:, :, k - 1].mean(axis=1), digits=3) for k in SHOWN}
    row["difference"] = gains
    shown = [" / ".join(f"{each:.2f}" for each in losses[name]) for name in ("average", "guess")]
    between = "; ".join(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]" for mean, low, high in gains.values())
    print(f"| {line} | {models} | {error[0]:.1f}, {error[1]:.1f} | {shown[0]} | {shown[1]} | {between} |", flush=True)
    return row


if __name__ == "__main__":
    main()
