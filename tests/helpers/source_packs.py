"""Packs of source images of drawn tasks, in the cache folder of the test."""

from helpers.loopback_hub import loopback_hub
from helpers.webdatasets import serve
from vlmsel_auto.measuring.source_pack import PUBLISHED, fetch_pack, load_pack

NAMES = ("EuroSAT", "GTSRB", "MNIST")


def serve_source(hub, name, **more):
    """Serve a drawn data set in the place of a published one."""
    serve(hub, f"clip-benchmark/wds_{PUBLISHED[name]}", **more)


def make_pack(root, *, tasks=2, images=8, **more):
    """Take a pack of drawn data sets that a hub serves below ``root``."""
    with loopback_hub(root / "hub") as hub:
        for number, name in enumerate(NAMES[:tasks]):
            serve_source(hub, name, count=30, seed=number, **more)
        assert fetch_pack(NAMES[:tasks], images=images) == {}
    return load_pack()
