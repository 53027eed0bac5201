"""The DCD family, form by form: source accuracies weighted by DCD alone, leave one task out.

Every form varies one or two things of the default: how a source fails to cover the target (delta), how the target's
blocks are weighed (importance), how sharply sources are (t), whether candidates share their divergences (pooled). The
last line of each table chooses among all forms anew for every target, by the mean over the other targets: what is left
of a gain when nothing is chosen on the target that it is reported on. The entropic transport of blocks takes minutes
and has a row with ``--transport`` only.

    python benchmarks/dcd_forms.py                       # the shipped library, both truths, about two minutes
    python benchmarks/dcd_forms.py --quick               # 6 tasks
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from ranking_table import measures, print_table

from vlmsel_auto.bench.blind import average_rank
from vlmsel_auto.bench.rankings import Case
from vlmsel_auto.library.library import default_library_path, load
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.divergence import DEFAULT, PAPER, DcdForm, Delta
from vlmsel_auto.ranking.fusion import habit, standardise
from vlmsel_auto.ranking.sources import Truth, truth_of
from vlmsel_auto.records import FloatArray

DELTAS: tuple[Delta, ...] = ("uncovered", "signature", "channels", "share")
TEMPERATURES = (0.1, 0.3, 1.0)


def forms(*, transport: bool) -> dict[str, DcdForm]:
    """By name, the default first."""
    found = {"default: uncovered, t 0.1": DEFAULT}
    for delta in DELTAS:
        for t in TEMPERATURES:
            form = replace(DEFAULT, delta=delta, weight_temperature=t)
            if form != DEFAULT:
                found[f"{delta}, t {t:g}"] = form
    found |= {
        "uncovered, blocks alike": replace(DEFAULT, importance="uniform"),
        "uncovered, importance tau .3": replace(DEFAULT, importance_temperature=0.3),
        "uncovered, divergences half pooled": replace(DEFAULT, pooled=0.5),
        "uncovered, divergences pooled": replace(DEFAULT, pooled=1.0),
        "signature, divergences pooled": replace(DEFAULT, delta="signature", pooled=1.0),
        "F = norm of the embedding, uncovered": replace(DEFAULT, scalar="norm"),
        "paper's outline": PAPER,
    }
    if transport:
        found["uncovered, blocks aligned by transport"] = replace(DEFAULT, importance="transport")
    return found


def table(library: Library, *, truth: Truth, transport: bool) -> list[dict[str, object]]:
    """Print and return the rows of one truth."""
    known = truth_of(library, truth=truth)
    found: dict[str, list[FloatArray]] = {}
    for s in range(len(library.tasks)):
        rows = np.flatnonzero(np.isfinite(known[:, s]))
        case = Case(library=library, column=s, rows=rows, truth=truth, shots=0, form=DEFAULT, seed=0)
        runs = [library.tuned_runs[rows, s, r] for r in range(library.tuned_runs.shape[2])]
        whole = [run for run in runs if np.isfinite(run).all()]
        truths = whole if truth == "tuned" and whole else [known[rows, s]]
        found.setdefault("average rank", []).append(measures([average_rank(case.source_truth)], truths))
        z = np.where(np.isfinite(case.source_truth), standardise(case.source_truth), np.nan)
        for name, form in forms(transport=transport).items():
            near = case.gathered(shots=0, form=form).alone
            found.setdefault(name, []).append(measures([habit(z, near, shrink=0.0)], truths))
    every = {name: np.array(values) for name, values in found.items()}
    title = f"{truth} truth, {len(library.tasks)} targets"
    return print_table(every, title=title, against="average rank", bounds=["average rank"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--transport", action="store_true")
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    library = load(args.library)
    if args.quick:
        library = library.select_tasks(library.task_names[:6])
    truths: tuple[Truth, ...] = ("zero_shot", "tuned")
    rows = [row for truth in truths for row in table(library, truth=truth, transport=args.transport)]
    if args.write is not None:
        args.write.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    print(
        json.dumps({"rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]})
    )


if __name__ == "__main__":
    main()
