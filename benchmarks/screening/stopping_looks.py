"""When looking stops: models loaded, minutes spent and points lost under a price, on published tables.

    python -m benchmarks.screening.stopping_looks --write benchmarks/results/stopping-looks.json
    python -m benchmarks.screening.stopping_looks --quick

Each data set of open_clip's table is the target in turn, its kin left out (`looking_table`); a look shows 160 labels. A
look takes the download at 20 MB/s and 160 images at 50 GFLOP/s. Rows: stopping at a price (points that a look must
promise for each minute), and the first k models by average rank, whatever they take. `lost` is of the model that would
be chosen; `in all` adds the default price of the minutes that were spent.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.screening.looking_strategies import average_ranks
from benchmarks.screening.looking_table import LABELS, Scene, Setting, read_settings
from vlmsel_auto.library import published
from vlmsel_auto.planning.look_seconds import look_seconds
from vlmsel_auto.planning.looking import best_seen, next_look
from vlmsel_auto.planning.outlook import Look
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.scenarios import learn_scenarios
from vlmsel_auto.records import FloatArray

BANDWIDTH = 2e7  # bytes a second
SPEED = 5e10  # operations a second, two cores
PRICES = (0.02, 0.05, 0.1, 0.2, 0.5)
FIXED = (1, 3, 5, 10)
TITLES = ("row", "loads", "minutes", "lost", "in all")


@dataclass(frozen=True, kw_only=True)
class Line:
    """Means over targets and draws."""

    row: str
    loads: float
    minutes: float
    lost: float  # points
    in_all: float  # points, with the default price of the minutes


def _seconds(setting: Setting) -> FloatArray:
    library = published.import_table(published.open_clip_path(), kind="open_clip")
    flops = {one.id: one.flops or np.nan for one in library.candidates}
    if setting.gigabytes is None:
        raise ValueError(f"the models of {setting.name} have no known size")
    return look_seconds(
        embedding=LABELS / SPEED * np.array([flops[name] for name in setting.models]),
        downloads=1e9 * setting.gigabytes,
        timed=(),
        bandwidth=BANDWIDTH,
    )


def _stopped(scene: Scene, seconds: FloatArray, *, price: float) -> list[int]:
    """Models looked at, the chosen one last."""
    known = learn_scenarios(scene.table)
    looks: list[Look] = []
    while (place := next_look(known, looks, costs=seconds, least=price / 100 * seconds / 60)) is not None:
        looks.append(Look(candidate=place, accuracy=float(scene.seen[place]), sd=float(scene.sd[place])))
    if not looks:
        return [int(average_ranks(scene.table).argmax())]
    return [*(each.candidate for each in looks), best_seen(known, looks)]


def _first(scene: Scene, *, count: int) -> list[int]:
    """The first by average rank, the best seen last."""
    order = np.argsort(-average_ranks(scene.table))[:count].tolist()
    return [*order, max(order, key=lambda place: float(scene.seen[place]))]


def _line(row: str, found: list[tuple[Scene, list[int]]], seconds: FloatArray) -> Line:
    loads = float(np.mean([len(set(places)) for _, places in found]))
    minutes = float(np.mean([seconds[list(set(places))].sum() / 60 for _, places in found]))
    lost = 100 * float(np.mean([scene.truth.max() - scene.truth[places[-1]] for scene, places in found]))
    return Line(row=row, loads=loads, minutes=minutes, lost=lost, in_all=lost + 100 * POLICY.price * minutes)


def measure(setting: Setting, *, draws: int, prices: tuple[float, ...]) -> list[Line]:
    """All rows of a setting."""
    seconds = _seconds(setting)
    scenes = [setting.scene(target, seed) for target in range(len(setting.datasets)) for seed in range(draws)]
    lines = [
        _line(f"price {price:g}", [(scene, _stopped(scene, seconds, price=price)) for scene in scenes], seconds)
        for price in prices
    ]
    return lines + [
        _line(f"first {count} by average rank", [(scene, _first(scene, count=count)) for scene in scenes], seconds)
        for count in FIXED
    ]


def main() -> None:
    """Print the tables; write them as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, help="file of the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="one draw, two prices")
    options = parser.parse_args()
    found = {}
    for setting in [each for each in read_settings(None) if each.gigabytes is not None]:
        prices = (0.1, 1.0) if options.quick else PRICES
        lines = measure(setting, draws=1 if options.quick else 3, prices=prices)
        found[setting.name] = [asdict(line) for line in lines]
        print(f"\n{setting.name}\n{TITLES[0]:>26} {TITLES[1]:>6} {TITLES[2]:>8} {TITLES[3]:>6} {TITLES[4]:>7}")
        for line in lines:
            print(f"{line.row:>26} {line.loads:6.1f} {line.minutes:8.1f} {line.lost:6.2f} {line.in_all:7.2f}")
    if options.write:
        options.write.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
