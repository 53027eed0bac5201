"""Small libraries: two members of the mini zoo, cells of few images."""

from pathlib import Path

from vlmsel_auto.measuring import build as library_build
from vlmsel_auto.measuring.cells import CellSettings
from vlmsel_auto.models import candidates

MEMBERS = ("ConvNeXt-Mi-64.all-m", "EffNet-Mi-64.all-m")
SETTINGS = CellSettings(images=4, norm_images=2, signal_images=6, points=5, shots=(1, 2), draws=2)


def build(root: Path, *, tasks, members=MEMBERS, out="lib.safetensors", **kwargs):
    """Build ROOT/``out`` on some tasks, cells in ROOT/cache."""
    return library_build.build(
        tasks=tasks,
        candidates=candidates.resolve(members),
        out=root / out,
        settings=SETTINGS,
        cache=root / "cache",
        **kwargs,
    )
