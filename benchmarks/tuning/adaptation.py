"""What of a tower to train on few labels, and on what images: rows that stand beside full fine-tuning.

On each target the three candidates whose regression has the lowest log loss out of fold are tuned by every row, from
that regression, on all labelled images but one part (`recipes`, `plain_lines`). Rows:

- full: tower and head; with half of the images mirrored, with mixup (Zhang et al., ICLR 2018);
- the last two blocks and what follows them, deeper ones .7 times as fast (layer-wise decay);
- the projection alone, pulled to where it began by 1 / shots times the squared distance (ProLIP, Fahes et al. 2024);
- LoRA (Hu et al., ICLR 2022) of rank 4 on every matrix of the blocks;
- WiSE-FT (Wortsman et al., CVPR 2022): start and full fine-tuning interpolated, half and half, or by the share that the
  part that was left out likes best.

    python -m benchmarks.tuning.fresh_targets TASKS --out TARGETS --train 16 --seed 5 --only aerial_scenes,cats_dogs,...
    python -m benchmarks.tuning.adaptation TARGETS --records RECORDS --write benchmarks/results/adaptation.json
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import parametrize

from benchmarks.common import standard_error
from benchmarks.tuning.plain_lines import Adapted, Recipe, Tuned, fine_tune
from benchmarks.tuning.recorded_targets import Told, read_command_line
from benchmarks.tuning.target_heads import Look, look, with_fitted_head
from vlmsel_auto.conductance.blocks import find_blocks
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.pooling import log_probabilities
from vlmsel_auto.records import FloatArray, IntArray
from vlmsel_auto.tuning.data import splits

QUICK = "one candidate of the first target"
_CANDIDATES = 3
_PROJECTIONS = ("proj", "head.proj.weight", "attnpool.c_proj.weight")
_MIXES = (0.0, 0.25, 0.5, 0.75, 1.0)
_SHOTS = 16


def last_blocks(model: LoadedModel, *, count: int = 2, decay: float = 0.7) -> Adapted:
    """The last blocks and what follows the first of them."""
    blocks = find_blocks(model.visual)[-count:]
    return blocks_and_end(
        model, shares={name: decay ** (count - depth) for depth, name in enumerate(blocks)}, after=blocks[0]
    )


def blocks_and_end(model: LoadedModel, *, shares: Mapping[str, float], after: str) -> Adapted:
    """Blocks, by name at these shares of the rate, and at the whole rate what follows the block ``after``."""
    groups: dict[float, list[torch.Tensor]] = {1.0: [], **{share: [] for share in shares.values()}}
    behind = False
    for name, each in model.visual.named_parameters():
        share = next((share for block, share in shares.items() if name.startswith(f"{block}.")), None)
        behind = behind or name.startswith(f"{after}.")
        if share is not None or behind or name in _PROJECTIONS:
            groups[share or 1.0].append(each.requires_grad_(True))
    return Adapted(parameters=groups)


def projection(model: LoadedModel) -> Adapted:
    """The last linear map, with a pull to where it began."""
    named = dict(model.visual.named_parameters())
    weight = next(named[name] for name in _PROJECTIONS if name in named).requires_grad_(True)
    start = weight.detach().clone()
    return Adapted(parameters={1.0: [weight]}, pull=lambda: ((weight - start) ** 2).sum() / _SHOTS)


class _LowRank(nn.Module):
    """A matrix and a change of low rank, zero at first."""

    def __init__(self, shape: torch.Size, *, rank: int) -> None:
        super().__init__()
        inner = shape[1:].numel()
        self.down = nn.Parameter(torch.randn(rank, inner) / inner**0.5)
        self.up = nn.Parameter(torch.zeros(shape[0], rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with its change."""
        return weight + (self.up @ self.down).view_as(weight)


def lora(model: LoadedModel, *, rank: int = 4) -> Adapted:
    """Changes of low rank of all matrices, and convolutions over one pixel, of the blocks."""
    changes: list[torch.Tensor] = []
    for block in find_blocks(model.visual):
        for module in list(model.visual.get_submodule(block).modules()):
            for name, weight in list(module.named_parameters(recurse=False)):
                if weight.ndim < 2 or weight.shape[2:].numel() > 1 or min(weight.shape[:2]) <= rank:
                    continue
                change = _LowRank(weight.shape, rank=rank)
                parametrize.register_parametrization(module, name, change)
                changes += change.parameters()
    return Adapted(parameters={1.0: changes})


ROWS: Mapping[str, Recipe] = {
    "full": Recipe(),
    "full, flips": Recipe(flips=True),
    "full, mixup .2": Recipe(mixup=0.2),
    "last two blocks, decay .7": Recipe(adapt=last_blocks),
    "projection, pulled": Recipe(adapt=projection, rate=1e-3),
    "LoRA, rank 4": Recipe(adapt=lora, rate=1e-3),
}
FIXED = ("head: regression with zero-shot, all labels", "the same start: regression, without one part")
_MIXED = ("WiSE-FT, half", "WiSE-FT, chosen out of fold")
_NO_EFFORT = {"seconds": 0.0, "trained": 0.0, "depth": 0.0}
# row -> accuracy on test, log loss of the part left out, seconds of the processor, and what `_effort` says
Measured = dict[str, dict[str, float]]


def measure(seen: Look, *, number: int, known: Measured, rows: Mapping[str, Recipe]) -> Measured:
    """Those of ``rows`` that are not known yet for the ``number``-th candidate of a target."""
    task, place = seen.task, seen.order[number]
    parts = splits(task)
    out = np.sort(task.folds[number % len(task.folds)])
    train = np.setdiff1d(parts.labelled, out)
    held_out, of_test = seen.heads[place]["with text"]
    at = np.searchsorted(parts.labelled, out)
    found: Measured = {FIXED[0]: _scores(held_out[at], of_test, seen, out)}

    def scored(tuned: Tuned, seconds: float) -> dict[str, float]:
        scores = _scores(tuned.logits(task, out), tuned.logits(task, parts.test), seen, out)
        return {**scores, "seconds": seconds, **_effort(tuned.model)}

    for name, recipe in rows.items():
        if name in known:
            continue
        tuned = with_fitted_head(task, seen.features[place], place, train=train)
        start = _state(tuned)
        begun = time.process_time()
        fine_tune(task, tuned, train=train, recipe=recipe, seed=number)
        seconds = time.process_time() - begun
        found[name] = scored(tuned, seconds)
        if name == "full":
            end = _state(tuned)
            mixes = {}
            for mix in _MIXES:
                _load(tuned, {key: (1 - mix) * start[key] + mix * end[key] for key in start})
                mixes[mix] = scored(tuned, seconds)
            found[FIXED[1]] = {**mixes[0.0], **_NO_EFFORT}
            found[_MIXED[0]] = mixes[0.5]
            found[_MIXED[1]] = min(mixes.values(), key=lambda each: each["loss"])
    return {**known, **found}


def _scores(
    held_out: FloatArray | NDArray[np.float32],
    of_test: FloatArray | NDArray[np.float32],
    seen: Look,
    out: IntArray,
) -> dict[str, float]:
    logs, labels = log_probabilities(held_out), seen.task.labels
    truth = labels[splits(seen.task).test]
    return {
        "accuracy": float((of_test.argmax(axis=1) == truth).mean()),
        "loss": -float(logs[np.arange(len(out)), labels[out]].mean()),
        **_NO_EFFORT,
    }


def _effort(model: LoadedModel) -> dict[str, float]:
    """Numbers of the tower that are trained, and the share of its blocks that the gradient passes."""
    blocks = find_blocks(model.visual)
    is_trained = [any(each.requires_grad for each in model.visual.get_submodule(one).parameters()) for one in blocks]
    trained = sum(each.numel() for each in model.visual.parameters() if each.requires_grad)
    depth = len(blocks) - is_trained.index(True) if any(is_trained) else 0
    return {"trained": float(trained), "depth": depth / len(blocks)}


def _state(tuned: Tuned) -> dict[str, torch.Tensor]:
    parts = (("tower.", tuned.model.visual), ("head.", tuned.head))
    return {
        f"{part}{name}": each.detach().clone() for part, module in parts for name, each in module.named_parameters()
    }


def _load(tuned: Tuned, state: Mapping[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for part, module in (("tower.", tuned.model.visual), ("head.", tuned.head)):
            for name, each in module.named_parameters():
                each.copy_(state[f"{part}{name}"])


def table(
    found: Mapping[str, Sequence[Measured]], names: Sequence[str], *, against: str = "full"
) -> dict[str, dict[str, float]]:
    """Mean over targets and candidates of some rows, with the difference to one row and its error over the pairs."""
    every = [one for each in found.values() for one in each]
    means = {}
    print(f"\n| row | accuracy | to {against} | seconds | trained | depth | " + " | ".join(found) + " |")
    print("|---" * (len(found) + 6) + "|")
    for name in names:
        gap = np.array([one[name]["accuracy"] - one[against]["accuracy"] for one in every])
        error = standard_error(gap)
        mean = {what: float(np.mean([one[name][what] for one in every])) for what in ("accuracy", *_NO_EFFORT)}
        cells = " | ".join(f"{np.mean([one[name]['accuracy'] for one in each]):.3f}" for each in found.values())
        effort = f"{mean['seconds']:.1f} | {mean['trained'] / 1e6:.2f} M | {mean['depth']:.2f}"
        print(f"| {name} | {mean['accuracy']:.3f} | {100 * gap.mean():+.1f} ({100 * error:.1f}) | {effort} | {cells} |")
        means[name] = {**mean, "gap": float(gap.mean()), "gap_se": error}
    return means


def measure_all(
    told: Told, *, names: Sequence[str], rows_of: Callable[[Look, int], Mapping[str, Recipe]]
) -> dict[str, list[Measured]]:
    """Rows of these names, of all targets' leading candidates.

    ``rows_of`` a target and a candidate, by its place in the mini zoo, are their recipes.
    """
    found: dict[str, list[Measured]] = {}
    for target in told.targets:
        seen: Look | None = None
        found[target.name] = []
        for number in range(1 if told.quick else _CANDIDATES):
            file = told.records / f"{target.name}-{number}.json"
            known: Measured = json.loads(file.read_text("utf-8")) if file.is_file() else {}
            if set(names) - set(known):
                seen = seen or look(target, scratch=told.scratch)
                known = measure(seen, number=number, known=known, rows=rows_of(seen, seen.order[number]))
                file.write_text(json.dumps(known), "utf-8")
                print(f"{target.name}: {mini_zoo()[seen.order[number]].id}", flush=True)
            found[target.name].append(known)
    return found


def main() -> None:
    """Command line."""
    told = read_command_line(__doc__, quick=QUICK)
    found = measure_all(told, names=tuple(ROWS), rows_of=lambda _seen, _place: ROWS)
    told.finish({"targets": list(found), "rows": table(found, [*FIXED, *ROWS, *_MIXED])})


if __name__ == "__main__":
    main()
