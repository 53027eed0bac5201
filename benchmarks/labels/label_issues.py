"""How many planted label errors a report names: python -m benchmarks.labels.label_issues.

Of the demo's 1,000 training digits 3 % get a wrong label, and 2 % a copy (a little darker, saved again as JPEG) under
another class. A search by probes of five members then says which labels it doubts.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from PIL import Image, ImageEnhance

import vlmsel_auto
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.reporting.report import load
from vlmsel_auto.tasks.digits import write_digits

_WRONG, _COPIED = 0.03, 0.02  # shares


def plant(source: Path, folder: Path) -> tuple[set[str], set[frozenset[str]]]:
    """Write the spoilt task; return paths with a wrong label, and pairs of near-duplicates with different labels."""
    draw = random.Random(0)  # noqa: S311 - repeatable
    classes = sorted(each.name for each in source.iterdir())
    wrong: set[str] = set()
    pairs: set[frozenset[str]] = set()
    for path in sorted(source.rglob("*.png")):
        true = path.parent.name
        label = true
        if draw.random() < _WRONG:
            label = draw.choice([each for each in classes if each != true])
            wrong.add(f"{label}/{true}-{path.name}")
        (folder / label).mkdir(parents=True, exist_ok=True)
        picture = Image.open(path).convert("RGB")
        picture.save(folder / label / f"{true}-{path.name}")
        if draw.random() < _COPIED:
            other = draw.choice([each for each in classes if each != label])
            (folder / other).mkdir(parents=True, exist_ok=True)
            copy = f"{other}/{true}-{path.stem}.jpg"
            ImageEnhance.Brightness(picture).enhance(0.95).save(folder / copy, quality=85)
            pairs.add(frozenset({f"{label}/{true}-{path.name}", copy}))
            if other != true:
                wrong.add(copy)
    return wrong, pairs


def main() -> None:
    """Plant, search, count."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        written = write_digits(place)
        wrong, pairs = plant(written.task / "train", place / "spoilt")
        members = [one.id for one in mini_zoo()[:5]]
        vlmsel_auto.search(
            place / "spoilt", candidates=members, method="probe", price=0.0, budget=vlmsel_auto.Budget(trials=5),
            workdir=place / "search", cache_dir=place / "cache", learn=False, thumbnails=False,
        )  # fmt: skip
        found = load(place / "search").label_issues
    assert found is not None  # noqa: S101 - trials were made
    named = {one.path for one in found.suspects}
    shown = {frozenset({each.first.path, each.second.path}) for each in found.near_duplicates}
    print(f"{found.models} trials, {found.judged} images judged, {found.missed} missed by all")
    print(
        f"suspected {found.suspected}; wrong labels {len(wrong)}; of {len(named)} named {len(named & wrong)} are wrong"
    )
    print(f"near-duplicates {found.near_duplicate_pairs}; planted {len(pairs)}")
    print(f"of {len(shown)} pairs named {len(shown & pairs)} are planted")


if __name__ == "__main__":
    main()
