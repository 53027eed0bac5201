"""A drawn library: three candidates on two tasks, one of them without conductance."""

import dataclasses

import numpy as np

from vlmsel_auto.library.assemble import assemble
from vlmsel_auto.library.records import Build, Cell, CellFailure, Library, SourceCandidate, SourceTask

BLOCKS = {"a": ("block0", "block1"), "b": ("block0",), "c": ()}
NONE = np.empty((0, 0), dtype=np.int16)
BUILD = Build(
    source="vlmsel-auto library build", code_version="0.1.0", settings=(("images", "8"), ("scalar", "margin"))
)


def task(name: str, *, digest: str = "", classes: int = 2) -> SourceTask:
    return SourceTask(
        name=name,
        domain=f"pictures of {name}",
        classes=tuple(f"{name}{k}" for k in range(classes)),
        digest=digest or f"digest-of-{name}",
        n_test=40,
    )


def candidate(name: str, *, sha256: str = "") -> SourceCandidate:
    return SourceCandidate(
        id=name,
        arch=f"arch-{name}",
        tag="t",
        params=1000,
        flops=2e6,
        sha256=sha256 or f"sha-of-{name}",
        blocks=BLOCKS[name],
    )


def cell(name: str, on: str, *, finished: float = 1.0, zero_shot: float = 0.5, classes: int = 2, **changes) -> Cell:
    rng = np.random.default_rng(len(name) * 31 + sum(map(ord, name + on)))
    made = Cell(
        candidate=candidate(name),
        task=task(on, classes=classes),
        build=BUILD,
        finished=finished,
        zero_shot=zero_shot,
        total=1.5 if BLOCKS[name] else np.nan,
        seconds=0.25,
        tuned={"run 0": 0.75},
        signals={"confidence": 0.25},
        evidence={(0, 1, "knn"): 0.5, (1, 1, "knn"): 0.75, (0, 4, "knn"): 0.625, (0, 4, "logme"): -1.5},
        # float32 values, so that a file gives them back to the bit
        activity=rng.uniform(size=len(BLOCKS[name])).astype(np.float32).astype(np.float64),
        predicted=np.arange(4.0 + len(on)) % classes if BLOCKS[name] else np.empty(0),
        predicted_on=float(len(on)) if BLOCKS[name] else np.nan,
        neighbours=rng.integers(300, size=(3 + len(on), 2)).astype(np.int16) if BLOCKS[name] else NONE,
        neighbours_on=float(len(on)) if BLOCKS[name] else np.nan,
    )
    return dataclasses.replace(made, **changes)


def small() -> Library:
    grid = [cell(m, s, classes=k) for m in "abc" for s, k in (("birds", 3), ("cars", 2))]
    return assemble(grid[:-1], failures=[CellFailure(candidate="c", task="cars", reason="out of memory")])


def assert_equal(one: Library, other: Library) -> None:
    for item in dataclasses.fields(Library):
        np.testing.assert_equal(getattr(one, item.name), getattr(other, item.name), err_msg=item.name)
