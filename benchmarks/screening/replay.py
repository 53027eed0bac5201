"""QUESTION: How many models must be loaded, and how many gigabytes, to have a good one among them?

PAGE: docs/results/screening.md
RESULT: benchmarks/results/looking.json, benchmarks/results/looking-quicktune.json

    python -m benchmarks.screening.replay --tables DIR --write benchmarks/results/looking.json
    python -m benchmarks.screening.replay --quick

Settings: open_clip's 121 models on 35 data sets (zero-shot; a screening sees 160 labels, drawn by chance), those of
them up to 160 million parameters, MIEB's 48 models on 21 probe tasks (a screening sees one of five draws, truth is the
mean of the others) and QuickTune's fine-tuning of 24 models on 26 data sets (`tables`). The first two come with
the package; the files of the others must lie in --tables. One data set is left out at a time, with those that share the
first word of its name; what a strategy knows comes from the others only.

Points lost after k loads: the best true accuracy of all models minus that of the best one loaded, which is what
further tuning can reach ("looking"), and minus that of the one that the screenings so far choose ("looking_chosen").
The choice is the best screening; ours: the highest posterior mean among those loaded.

Rows: random; average_rank, imagenet (orders of published accuracy); portfolio (the order whose first k lose least on
the other data sets; no screening changes it); gp_ei (a Gaussian process on table features with expected improvement);
ours; ours_no_cover (expected improvement at every screening); ours_nested (`cover_every` and `p_reversed` chosen anew
for every target by the loss on the other targets); ours_missing (30 % of the table's cells unknown); ours_shuffled and
ours_reversed (the table under wrong names, and negated); hindsight (a bound: the greedy order by the targets' own
truth). Gigabytes, or seconds where screenings have them: paid until a model within one point of the best is among those
loaded, weights in single precision; strategies that count costs go by what the other data sets lead to expect.

With a wrong table the reference is the random order: what is printed is how much more is lost after two loads more.
--quick has two draws at most and neither ours_nested, ours_missing nor costs. The last line printed is one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import change, command_line, print_head, print_row, told_change, write_json
from benchmarks.screening.strategies import STRATEGIES, VARIANTS, Fixed, Order, Ours, greedy, holes
from benchmarks.screening.tables import Scene, Setting, quicktune, read_settings
from vlmsel_auto.planning.screening_posterior import ScreeningPolicy
from vlmsel_auto.records import FloatArray

SHOWN = (1, 3, 5, 10)  # loads
MOST = 12  # loads
_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "tables"  # beside the repository
_WRONG = ("ours_shuffled", "ours_reversed")


@dataclass(frozen=True, kw_only=True, eq=False)
class Losses:
    """Points lost: (S, draws, MOST) after 1, 2, ... loads."""

    loaded: FloatArray
    chosen: FloatArray


def replay(setting: Setting, start: Callable[[Scene], Order], *, draws: int) -> Losses:
    """Run one strategy on every data set and draw."""
    size = len(setting.datasets)
    loaded, chosen = np.empty((size, draws, MOST)), np.empty((size, draws, MOST))
    for target in range(size):
        for draw in range(draws):
            scene = setting.scene(target, draw)
            order, lost = start(scene), 100 * (scene.truth.max() - scene.truth)
            for k in range(MOST):
                order.load()
                loaded[target, draw, k] = lost[order.loaded].min()
                chosen[target, draw, k] = lost[order.choice()]
    return Losses(loaded=loaded, chosen=chosen)


def nested(setting: Setting, variants: Mapping[ScreeningPolicy, Losses]) -> Losses:
    """For every target the variant that loses least on the others, its kin left out too (mean over the loads shown)."""
    each = list(variants.values())
    shown = [k - 1 for k in SHOWN]
    score = np.stack([one.loaded[:, :, shown].mean(axis=(1, 2)) for one in each])  # (variants, S)
    pick = [int(np.delete(score, setting.kin(s), axis=1).mean(axis=1).argmin()) for s in range(score.shape[1])]
    return Losses(
        loaded=np.stack([each[v].loaded[s] for s, v in enumerate(pick)]),
        chosen=np.stack([each[v].chosen[s] for s, v in enumerate(pick)]),
    )


def hindsight(setting: Setting, *, draws: int) -> Losses:
    """No strategy: the greedy order by the mean loss on all targets, the target itself included."""
    loss = np.nanmax(setting.accuracy, axis=0) - setting.accuracy
    order = greedy(np.where(np.isfinite(loss), loss, 1.0))  # a model that is not there loses everything

    def start(scene: Scene) -> Order:
        place = {int(model): k for k, model in enumerate(scene.models)}
        return Fixed(scene, [place[model] for model in order if model in place])

    return replay(setting, start, draws=draws)


def spending(setting: Setting, start: Callable[[Scene], Order], *, draws: int) -> tuple[FloatArray, FloatArray]:
    """Cost (S, draws) until within a point of the best, and points lost (S, draws, budgets).

    Before a first load fits into a budget an average model stands for the choice.
    """
    size, budgets = len(setting.datasets), np.array(setting.budgets)
    needed, lost = np.full((size, draws), np.nan), np.empty((size, draws, len(budgets)))
    for target in range(size):
        for draw in range(draws):
            scene = setting.scene(target, draw)
            if scene.cost is None:
                raise ValueError(f"screenings of {setting.name} have no known cost")
            order, loss = start(scene), 100 * (scene.truth.max() - scene.truth)
            lost[target, draw] = loss.mean()
            spent, best = 0.0, np.inf
            while np.isnan(needed[target, draw]) or spent < budgets[-1]:
                model = order.load()
                spent, best = spent + float(scene.cost[model]), min(best, float(loss[model]))
                lost[target, draw, spent <= budgets] = best
                if best <= 1.0 and np.isnan(needed[target, draw]):
                    needed[target, draw] = spent
                if len(order.loaded) == len(loss):
                    break
    return needed, lost


def _row(name: str, losses: FloatArray, against: FloatArray) -> dict[str, object]:
    """Mean losses and the paired 95 % intervals of the difference to average rank, over data sets."""
    row: dict[str, object] = {"row": name}
    cells = []
    for k in SHOWN:
        mean, gain = losses[:, :, k - 1].mean(), (losses - against)[:, :, k - 1].mean(axis=1)
        row[str(k)] = round(float(mean), 3)
        row[f"minus_average_rank_{k}"] = change(gain, digits=3)
        cells.append(f"{mean:.2f} ({told_change(gain, digits=2)})")
    print_row(name, *cells)
    return row


def _losses(setting: Setting, *, draws: int, quick: bool) -> dict[str, Losses]:
    found = {
        name: replay(setting, start, draws=draws)
        for name, start in STRATEGIES.items()
        if name != "imagenet" or setting.imagenet is not None
    }
    if not quick:
        tried = {policy: replay(setting, partial(Ours, policy=policy), draws=draws) for policy in VARIANTS}
        found["ours_nested"] = nested(setting, tried)
        found["ours_missing"] = replay(setting, lambda scene: Ours(holes(scene)), draws=draws)
    found["hindsight"] = hindsight(setting, draws=draws)
    return found


def _weight_of_wrong(found: Mapping[str, Losses]) -> dict[str, dict[str, float]]:
    """With a wrong table, points lost after two loads more than the random order had, minus what that lost."""
    chance = found["random"].loaded.mean(axis=(0, 1))
    wrong = {name: found[name].loaded.mean(axis=(0, 1)) for name in _WRONG}
    return {name: {str(k): round(float(each[k + 1] - chance[k - 1]), 3) for k in SHOWN} for name, each in wrong.items()}


def _spending(setting: Setting, *, draws: int) -> dict[str, dict[str, object]]:
    starts: dict[str, Callable[[Scene], Order]] = {
        name: STRATEGIES[name]
        for name in ("random", "average_rank", "imagenet", "portfolio", "ours")
        if name != "imagenet" or setting.imagenet is not None
    }
    for name, power in ((f"ours, value / root of {setting.unit}", 0.5), (f"ours, value / {setting.unit}", 1.0)):
        starts[name] = partial(Ours, policy=ScreeningPolicy(cost_power=power), costly=True)
    within = ", ".join(f"{budget:g}" for budget in setting.budgets)
    print()
    print_head(setting.unit, "to one point: median", "mean", f"points lost within {within}")
    rows: dict[str, dict[str, object]] = {}
    for name, start in starts.items():
        needed, lost = spending(setting, start, draws=draws)
        median, mean = float(np.median(needed)), float(needed.mean())
        left = {f"{budget:g}": round(float(lost[..., b].mean()), 3) for b, budget in enumerate(setting.budgets)}
        print_row(name, f"{median:.1f}", f"{mean:.1f}", ", ".join(f"{each:.2f}" for each in left.values()))
        rows[name] = {"median": round(median, 2), "mean": round(mean, 2), "lost_within": left}
    return rows


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="two draws, neither ours_nested, ours_missing nor costs")
    parser.add_argument(
        "--tables", type=Path, default=_BESIDE if _BESIDE.is_dir() else None, help="folder of the CSVs (%(default)s)"
    )
    parser.add_argument("--draws", type=int, default=10, help="of the labels that screenings see; MIEB has five")
    parser.add_argument("--only", metavar="SETTING", help="openclip, openclip_small, mieb or quicktune")
    args = parser.parse_args()
    content: dict[str, object] = {}
    loaded: dict[str, dict[str, dict[str, object]]] = {}
    chosen: dict[str, dict[str, dict[str, object]]] = {}
    settings = read_settings(args.tables) + ([] if args.tables is None else quicktune(args.tables))
    for setting in (each for each in settings if args.only in {None, each.name}):
        most = setting.draws.shape[2] if setting.draws.size else args.draws
        draws = min(args.draws, 2 if args.quick else most)
        found = _losses(setting, draws=draws, quick=args.quick)
        models, size = setting.accuracy.shape
        tables = []
        for title, part in (("best of those loaded", "loaded"), ("chosen by the screenings", "chosen")):
            print(f"\n{setting.name}: {models} models, {size} data sets, {draws} draws; points lost, {title}")
            print("(minus average rank, 95 %)\n")
            print_head("row", *(f"{k} loads" for k in SHOWN))
            tables.append(
                [_row(name, getattr(one, part), getattr(found["average_rank"], part)) for name, one in found.items()]
            )
        wrong = _weight_of_wrong(found)
        print("\nwrong table: points lost after k + 2 loads minus random order after k:", json.dumps(wrong))
        paid = setting.seconds.size > 0 or setting.gigabytes is not None
        spent = _spending(setting, draws=min(draws, 2)) if paid and not args.quick else {}
        content[setting.name] = {"loaded": tables[0], "chosen": tables[1], "wrong_table": wrong, setting.unit: spent}
        for kept, rows in ((loaded, tables[0]), (chosen, tables[1])):
            kept[setting.name] = {str(row["row"]): {str(k): row[str(k)] for k in SHOWN} for row in rows}
    write_json(args.write, content)
    print(json.dumps({"looking": loaded, "looking_chosen": chosen}))


if __name__ == "__main__":
    main()
