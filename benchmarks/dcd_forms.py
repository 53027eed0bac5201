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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ranking_table import measures, print_table

from vlmsel_auto.bench.blind import average_rank
from vlmsel_auto.bench.case import Case
from vlmsel_auto.bench.rankings import RANKINGS
from vlmsel_auto.bench.research import Research, research_path
from vlmsel_auto.bench.research import load as load_research
from vlmsel_auto.library.file import load
from vlmsel_auto.library.places import default_library_path
from vlmsel_auto.library.records import Library
from vlmsel_auto.ranking.dcd import DEFAULT, Dcd, Delta
from vlmsel_auto.ranking.divergence import Weighting
from vlmsel_auto.ranking.fusion import candidate_effect
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.sources import DEFAULT_WEIGHTING, Truth
from vlmsel_auto.records import FloatArray

DELTAS: tuple[Delta, ...] = ("uncovered", "signature", "channels", "share")
TEMPERATURES = (0.1, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form of DCD and of the weights that follow from it."""

    dcd: Dcd = DEFAULT
    weighting: Weighting = DEFAULT_WEIGHTING
    norm: bool = False  # profiles of F = norm of the embedding

    def case(self, plain: Case) -> Case:
        """A target under this form."""
        return replace(plain, divergence=self.dcd, weighting=self.weighting, norm=self.norm)


def forms(*, transport: bool) -> dict[str, Form]:
    """By name, the default first."""
    found = {"default: uncovered, t 0.1": Form()}
    for delta in DELTAS:
        for t in TEMPERATURES:
            form = Form(dcd=Dcd(delta=delta), weighting=Weighting(alone=t))
            if form != Form():
                found[f"{delta}, t {t:g}"] = form
    found |= {
        "uncovered, blocks alike": Form(dcd=replace(DEFAULT, importance="uniform")),
        "uncovered, importance tau .3": Form(dcd=replace(DEFAULT, importance_temperature=0.3)),
        "uncovered, divergences half pooled": Form(weighting=Weighting(pooled=0.5)),
        "uncovered, divergences pooled": Form(weighting=Weighting(pooled=1.0)),
        "signature, divergences pooled": Form(dcd=Dcd(delta="signature"), weighting=Weighting(pooled=1.0)),
        "F = norm of the embedding, uncovered": Form(norm=True),
    }
    if transport:
        found["uncovered, blocks aligned by transport"] = Form(dcd=replace(DEFAULT, importance="transport"))
    return found


def table(library: Library, research: Research, *, truth: Truth, transport: bool) -> list[dict[str, object]]:
    """Print and return the rows of one truth."""
    found: dict[str, list[FloatArray]] = {}
    for s in range(len(library.tasks)):
        case = Case(library=library, column=s, truth=truth, shots=0, research=research)
        found.setdefault("average rank", []).append(measures([average_rank(case.source_truth)], case.truths))
        found.setdefault("the authors' form", []).append(measures(RANKINGS["dcd_authors"](case), case.truths))
        z = np.where(np.isfinite(case.source_truth), standardise(case.source_truth), np.nan)
        for name, form in forms(transport=transport).items():
            near = form.case(case).gathered(shots=0).alone
            score = candidate_effect(z, near, shrink=0.0)
            found.setdefault(name, []).append(measures([score], case.truths))
    every = {name: np.array(values) for name, values in found.items()}
    title = f"{truth} truth, {len(library.tasks)} targets"
    return print_table(every, title=title, against="average rank", bounds=["average rank"])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=default_library_path())
    parser.add_argument("--research", type=Path, default=research_path(), help="norms and channels")
    parser.add_argument("--transport", action="store_true")
    parser.add_argument("--write", type=Path, help="JSON of all rows")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    library = load(args.library)
    if args.quick:
        library = library.select_tasks(library.task_names[:6])
    research = load_research(args.research).aligned(library)
    truths: tuple[Truth, ...] = ("zero_shot", "tuned")
    rows = [row for truth in truths for row in table(library, research, truth=truth, transport=args.transport)]
    if args.write is not None:
        args.write.write_text(json.dumps({"rows": rows}, indent=1) + "\n", "utf-8")
    print(
        json.dumps({"rows": [{k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()} for row in rows]})
    )


if __name__ == "__main__":
    main()
