"""QUESTION: Do finished searches make later rankings better?

PAGE: docs/results/ranking.md
RESULT: benchmarks/results/learning.json

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 9 --halves
    python -m benchmarks.ranking.learning TARGETS --records RECORDS --write OUT.json

Of the shipped library's tasks that have a target in TARGETS, every fifth is a **base** (what a library knows before),
the others are drawn in turn to be **learned from** (searched by the product, in order, each outcome added to the user's
library) or **judged** (ranked by what the shipped library measured of them; truth is its accuracy zero-shot or after
tuning, each tuning run by itself). No task is two of these; one that is learned from is searched in two halves of its
classes, all first halves before the second ones. After 0, 5, 10 ... searches the judged tasks are ranked
with base and learned tasks together: NDCG@5, tau and top-1 loss, and their paired differences to 0 searches. Rows
"shuffled": the learned accuracies are dealt to wrong candidates, task by task. Row "zero-shot for tuned": zero-shot
accuracies stand in for those of probes, which rankings do not do by themselves.

One division into base and judged tasks says little of a change of a few hundredths. With ``--divisions N`` the tasks
that were not learned from are divided anew N - 1 times, as many bases drawn by chance, the learned tasks in another
order; a task's figures are means over the divisions that judge it. The searches are the same: the first division's
base guided them.

Among so many rows some are worse by chance. The last table has the p-value of each that is worse beyond its own error,
adjusted for all rows, truths and measures: those of the searches as they were, and those with shuffled accuracies.

Searches leave records, and what is on record is not made again. With ``--recorded`` nothing is searched. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import vlmsel_auto
from benchmarks.common import adjusted_p, change
from vlmsel_auto.bench.case import Case
from vlmsel_auto.library.assemble import merge
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.agreement import ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.sources import Truth
from vlmsel_auto.records import Budget, FloatArray

MEASURES = ("ndcg5", "tau", "top1_loss")
SETTINGS: tuple[tuple[Truth, int], ...] = (("zero_shot", 0), ("tuned", 0), ("tuned", 4), ("tuned", 16))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Who is what."""

    targets: Path
    records: Path
    base: tuple[str, ...]
    learned: tuple[str, ...]  # in the order of the searches
    judged: tuple[str, ...]
    seconds: float

    @property
    def own(self) -> Path:
        """The user's library."""
        return self.records / "own.safetensors"


def divide(targets: Path, *, records: Path, seconds: float, learned: int) -> Setting:
    """Base, learned and judged tasks by name."""
    shipped = default_library()
    known = np.isfinite(shipped.tuned).sum(axis=0) > len(shipped.candidates) / 2
    names = [name for name, has in zip(shipped.task_names, known, strict=True) if has and halves(targets, name)]
    base = names[::5]
    rest = [name for name in names if name not in base]
    judged = rest[1::2]
    searched = [halves(targets, name) for name in rest[::2]]
    in_turn = [each[turn] for turn in range(2) for each in searched if turn < len(each)]
    return Setting(
        targets=targets,
        records=records,
        base=tuple(base),
        learned=tuple(in_turn[:learned]),
        judged=tuple(judged),
        seconds=seconds,
    )


def divided_anew(setting: Setting, number: int) -> Setting:
    """Division ``number``: 0 is the setting itself, others draw the bases and the order of what is learned."""
    if number == 0:
        return setting
    rng = np.random.default_rng(number)
    names = rng.permutation([*setting.base, *setting.judged]).tolist()
    count = len(setting.base)
    learned = rng.permutation(list(setting.learned)).tolist()
    return replace(setting, base=tuple(names[:count]), judged=tuple(names[count:]), learned=tuple(learned))


def halves(targets: Path, name: str) -> list[str]:
    """Targets made of a task."""
    return [f"{name}{end}" for end in ("-even", "-odd") if (targets / f"{name}{end}").is_dir()]


def as_recorded(setting: Setting) -> Setting:
    """As if no more searches had been wanted than were made."""
    made = [
        name for number, name in enumerate(setting.learned) if (setting.records / f"{number:02d}-{name}.done").exists()
    ]
    return replace(setting, learned=tuple(made))


def search_all(setting: Setting) -> None:
    """Search the learned tasks one after the other; each outcome goes into the user's library."""
    os.environ["VLMSEL_LIBRARY"] = str(setting.own)
    base = default_library().select_tasks(list(setting.base))
    for number, name in enumerate(setting.learned):
        done = setting.records / f"{number:02d}-{name}.done"
        if done.exists():
            continue
        result = vlmsel_auto.search(
            setting.targets / name, candidates="mini-zoo", library=base, budget=Budget(seconds=setting.seconds),
            workdir=setting.records / "searches" / name, learn=True,
        )  # fmt: skip
        done.write_text(f"{result.best.test if result.best else None}\n")
        print(f"searched {name}: {len(result.trials)} trials", flush=True)


def shuffled(own: Library, *, seed: int) -> Library:
    """The same library with each task's accuracies dealt to other candidates that have one."""
    rng = np.random.default_rng(seed)
    tuned, probed, zero_shot = own.tuned_runs.copy(), own.probed.copy(), own.zero_shot.copy()
    for s in range(len(own.tasks)):
        for values in (tuned[:, s], probed[:, s], zero_shot[:, s]):
            known = np.isfinite(values) if values.ndim == 1 else np.isfinite(values).any(axis=1)
            rows = np.flatnonzero(known)
            values[rows] = values[rng.permutation(rows)]
    return replace(own, tuned_runs=tuned, probed=probed, zero_shot=zero_shot)


def zero_shot_for_tuned(own: Library) -> Library:
    """The same library with zero-shot accuracies for those of probes."""
    return replace(own, probed=own.zero_shot)


def judge(setting: Setting, library: Library, *, truth: Truth, shots: int) -> dict[str, FloatArray]:
    """`MEASURES` of the ranking of every judged task by the sources in ``library``: means over draws and truths."""
    joined = merge(library, default_library().select_tasks(setting.judged))
    found = {}
    for name in setting.judged:
        known = joined.select_tasks([*library.task_names, name])
        case = Case(library=known, column=known.column(name), truth=truth, shots=shots)
        pairs = [(each.score, accuracy) for each in case.fused for accuracy in case.truths]
        measures = [(ndcg(*pair), tau_b(*pair), 100 * top_k_loss(*pair, k=1)) for pair in pairs]
        found[name] = np.mean(measures, axis=0)
    return found


def learned_in(own: Library, setting: Setting) -> list[str]:
    """Names in the user's library of the tasks that were searched, in their order."""
    return [next(one for one in own.task_names if one.startswith(name)) for name in setting.learned]


def rows_of(setting: Setting, own: Library, *, truth: Truth, shots: int) -> dict[str, dict[str, FloatArray]]:
    """Row -> judged task -> `MEASURES`; the first row is the start."""
    base = default_library().select_tasks(list(setting.base))
    learned = learned_in(own, setting)
    found = {"0 searches": judge(setting, base, truth=truth, shots=shots)}
    for count in counts_of(len(learned))[1:]:
        part = own.select_tasks(learned[:count])
        for row, known in (
            (f"{count} searches", part),
            (f"{count} searches, shuffled", shuffled(part, seed=count)),
        ):
            found[row] = judge(setting, merge(base, known), truth=truth, shots=shots)
    if truth == "tuned":
        known = zero_shot_for_tuned(own.select_tasks(learned))
        row = f"{len(learned)} searches, zero-shot for tuned"
        found[row] = judge(setting, merge(base, known), truth=truth, shots=shots)
    return found


def over_divisions(
    settings: Sequence[Setting], own: Library, *, truth: Truth, shots: int
) -> dict[str, dict[str, FloatArray]]:
    """`rows_of`, each task's figures averaged over the divisions that judge it."""
    lists: dict[str, dict[str, list[FloatArray]]] = {}
    for setting in settings:
        for row, values in rows_of(setting, own, truth=truth, shots=shots).items():
            for name, each in values.items():
                lists.setdefault(row, {}).setdefault(name, []).append(each)
    return {row: {name: np.mean(each, axis=0) for name, each in values.items()} for row, values in lists.items()}


def report(found: Mapping[str, Mapping[str, FloatArray]]) -> list[dict[str, object]]:
    """Means of every row, and paired differences to the first."""
    start = next(iter(found.values()))
    rows = []
    for row, values in found.items():
        each = np.array(list(values.values()))
        gaps = each - np.array([start[name] for name in values])
        record: dict[str, object] = {"row": row}
        for place, measure in enumerate(MEASURES):
            record[measure] = round(float(each[:, place].mean()), 4)
            record[f"{measure}, change"] = change(gaps[:, place], digits=4)
        rows.append(record)
        told = ", ".join(f"{name} {record[name]} ({record[f'{name}, change']})" for name in MEASURES)
        print(f"| {row} | {told} |", flush=True)
    return rows


def worse_table(found: Mapping[str, Mapping[str, Mapping[str, FloatArray]]]) -> list[dict[str, object]]:
    """Rows that are worse beyond their own error, with p-values adjusted for all: title -> row -> task -> measures."""
    rows: list[dict[str, object]] = []
    print("\n| worse beyond its own error | measure | by | adjusted p |\n|---|---|---|---|")
    for dealt in (False, True):
        names, gaps = [], []
        for title, table in found.items():
            (_, start), *others = table.items()
            for row, values in others:
                if "zero-shot for tuned" in row or ("shuffled" in row) != dealt:
                    continue
                for place, (measure, sign) in enumerate(zip(MEASURES, (-1, -1, 1), strict=True)):
                    names.append((f"{row}, {title}", measure))
                    gaps.append([sign * float(values[name][place] - first[place]) for name, first in start.items()])
        p = adjusted_p(np.array(gaps))
        for (row, measure), gap, adjusted in zip(names, gaps, p, strict=True):
            over = change(np.array(gap), digits=4)
            if over[1] > 0:
                rows.append({"row": row, "measure": measure, "worse": over, "p": round(float(adjusted), 3)})
                print(f"| {row} | {measure} | {over} | {adjusted:.3f} of {len(gaps)} |", flush=True)
    return rows


def _counts(accuracies: FloatArray) -> list[int]:
    """How many candidates have one, task by task."""
    return [int(each) for each in np.isfinite(accuracies).sum(axis=0)]


def counts_of(total: int) -> Sequence[int]:
    """0, 5, 10, ... and all."""
    return [*range(0, total, 5), total]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", type=Path, help="folder of task folders, each with train/ and test/")
    parser.add_argument("--records", type=Path, required=True, help="folder that keeps searches and measurements")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each search")
    parser.add_argument("--searches", type=int, default=20)
    parser.add_argument("--divisions", type=int, default=1, help="into base and judged tasks; default: %(default)s")
    parser.add_argument("--recorded", action="store_true", help="search no more")
    parser.add_argument("--write", type=Path, help="JSON")
    parser.add_argument("--quick", action="store_true", help="two searches of 10 seconds, without labels only")
    args = parser.parse_args()
    setting = divide(
        args.targets, records=args.records, seconds=10.0 if args.quick else args.seconds,
        learned=2 if args.quick else args.searches,
    )  # fmt: skip
    args.records.mkdir(parents=True, exist_ok=True)
    if args.recorded:
        setting = as_recorded(setting)
    search_all(setting)
    own = load(setting.own)
    settings = [divided_anew(setting, number) for number in range(args.divisions)]
    tables, whole = {}, {}
    for truth, shots in SETTINGS[:1] if args.quick else SETTINGS:
        title = f"{truth} truth, {shots or 'no'} labels a class"
        found = over_divisions(settings, own, truth=truth, shots=shots)
        judged = len(found["0 searches"])
        print(f"{len(setting.base)} base, {len(setting.learned)} learned, {judged} judged; {title}")
        tables[title] = report(found)
        whole[title] = found
    made = own.select_tasks(learned_in(own, setting))
    record = {
        "base": setting.base, "learned": setting.learned, "judged": setting.judged, "seconds": args.seconds,
        "divisions": args.divisions,
        "screened": _counts(made.zero_shot), "probed": _counts(made.probed), "tuned": _counts(made.tuned),
        "tables": tables, "worse": worse_table(whole),
    }  # fmt: skip
    if args.write:
        args.write.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
