"""Packs of source images of drawn tasks, in the cache folder of the test."""

from helpers.webdatasets import write
from vlmsel_auto.measuring.source_pack import fetch_pack, load_pack, plan_pack

SHAPES = ("circle", "square", "triangle")


def make_pack(root, *, tasks=2, images=8, **more):
    """Write webdatasets below ``root`` and take a pack of them."""
    folders = [write(root / f"drawn{number}", count=30, seed=number, **more) for number in range(tasks)]
    assert fetch_pack(plan_pack([str(one) for one in folders], images=images)) == {}
    return load_pack()
