"""Do published zero-shot accuracies say who is good once a head is fitted? Looks by one table, truth from another.

    python -m benchmarks.screening.crossed_tables DIR --write benchmarks/results/crossed-tables.json

DIR holds mieb_probes.csv. The 23 models that stand in open_clip's zero-shot table and in MIEB's 16-shot probes. Truth
is the mean accuracy of four of five draws of a probe task, a look sees the fifth. Looks are ordered by zero-shot
accuracies on other data sets, by probes on other tasks, or by both side by side; data sets that share the first word
of the target's name are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.screening.looking_strategies import average_ranks
from benchmarks.screening.looking_table import mieb, word
from vlmsel_auto.library import published
from vlmsel_auto.planning.looking import next_look
from vlmsel_auto.planning.outlook import Look
from vlmsel_auto.planning.scenarios import learn_scenarios
from vlmsel_auto.records import FloatArray

SHOWN = (1, 3, 5, 10)  # looks
SAME: Mapping[str, str] = {
    "openai__clip-vit-base-patch32": "ViT-B-32/openai",
    "openai__clip-vit-base-patch16": "ViT-B-16/openai",
    "openai__clip-vit-large-patch14": "ViT-L-14/openai",
    "laion__CLIP-ViT-B-32-laion2B-s34B-b79K": "ViT-B-32/laion2b_s34b_b79k",
    "laion__CLIP-ViT-L-14-laion2B-s32B-b82K": "ViT-L-14/laion2b_s32b_b82k",
    "laion__CLIP-ViT-H-14-laion2B-s32B-b79K": "ViT-H-14/laion2b_s32b_b79k",
    "laion__CLIP-ViT-g-14-laion2B-s34B-b88K": "ViT-g-14/laion2b_s34b_b88k",
    "laion__CLIP-ViT-bigG-14-laion2B-39B-b160k": "ViT-bigG-14/laion2b_s39b_b160k",
    "laion__CLIP-ViT-B-32-DataComp.XL-s13B-b90K": "ViT-B-32/datacomp_xl_s13b_b90k",
    "laion__CLIP-ViT-B-16-DataComp.XL-s13B-b90K": "ViT-B-16/datacomp_xl_s13b_b90k",
    "laion__CLIP-ViT-L-14-DataComp.XL-s13B-b90K": "ViT-L-14/datacomp_xl_s13b_b90k",
    "google__siglip-base-patch16-224": "ViT-B-16-SigLIP/webli",
    "google__siglip-base-patch16-256": "ViT-B-16-SigLIP-256/webli",
    "google__siglip-base-patch16-256-multilingual": "ViT-B-16-SigLIP-i18n-256/webli",
    "google__siglip-base-patch16-384": "ViT-B-16-SigLIP-384/webli",
    "google__siglip-base-patch16-512": "ViT-B-16-SigLIP-512/webli",
    "google__siglip-large-patch16-256": "ViT-L-16-SigLIP-256/webli",
    "google__siglip-large-patch16-384": "ViT-L-16-SigLIP-384/webli",
    "google__siglip-so400m-patch14-384": "ViT-SO400M-14-SigLIP-384/webli",
    "QuanSun__EVA02-CLIP-B-16": "EVA02-B-16/merged2b_s8b_b131k",
    "QuanSun__EVA02-CLIP-L-14": "EVA02-L-14/merged2b_s4b_b131k",
    "QuanSun__EVA02-CLIP-bigE-14": "EVA02-E-14/laion2b_s4b_b115k",
    "QuanSun__EVA02-CLIP-bigE-14-plus": "EVA02-E-14-plus/laion2b_s9b_b144k",
}  # MIEB's name: open_clip's


def _ours(table: FloatArray, seen: FloatArray, sd: float) -> list[int]:
    known, looks = learn_scenarios(table), list[Look]()
    while len(looks) < SHOWN[-1]:
        place = next_look(known, looks)
        if place is None:
            break
        looks.append(Look(candidate=place, accuracy=float(seen[place]), sd=sd))
    return [each.candidate for each in looks]


def _average(table: FloatArray, seen: FloatArray, sd: float) -> list[int]:
    del seen, sd
    order: list[int] = np.argsort(-average_ranks(table)).tolist()
    return order[: SHOWN[-1]]


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path, help="folder of mieb_probes.csv")
    parser.add_argument("--write", type=Path, help="file of the figures as JSON")
    options = parser.parse_args()
    probes = mieb(options.tables / "mieb_probes.csv")
    rows = [probes.models.index(name) for name in SAME]
    draws, zero_shot = probes.draws[rows], published.zero_shot(list(SAME.values()))
    sd = float(np.sqrt(draws.var(axis=2, ddof=1).mean()))
    found: dict[str, list[float]] = {}
    orders: Mapping[str, Callable[[FloatArray, FloatArray, float], list[int]]] = {
        "ours": _ours, "average rank": _average,
    }  # fmt: skip
    for by in ("zero-shot", "probes", "both"):
        for name, order in orders.items():
            losses = []
            for target, task in enumerate(probes.datasets):
                columns = {
                    "zero-shot": zero_shot[:, [word(each) != word(task) for each in published.datasets()]],
                    "probes": draws.mean(axis=2)[:, [word(each) != word(task) for each in probes.datasets]],
                }
                table = np.concatenate(list(columns.values()), axis=1) if by == "both" else columns[by]
                for draw in range(draws.shape[2]):
                    truth = np.delete(draws[:, target], draw, axis=1).mean(axis=1)
                    places = order(table, draws[:, target, draw], sd)
                    losses.append([truth.max() - truth[places[:count]].max() for count in SHOWN])
            found[f"{name}, by {by}"] = (100 * np.mean(losses, axis=0)).tolist()
    print(f"{len(rows)} models, {len(probes.datasets)} tasks; points lost after {', '.join(map(str, SHOWN))} looks")
    for row, values in found.items():
        print(f"{row:>28} " + " / ".join(f"{value:.2f}" for value in values))
    if options.write:
        options.write.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
