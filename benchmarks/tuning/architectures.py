"""QUESTION: Can a part of every open_clip architecture be trained, merged, saved and read again?

PAGE: docs/results/real-models.md
RESULT: none

Every visual tower of ``open_clip.list_models()`` with random weights, at most three blocks a stage, at its own image
size; equal towers once. For each part: a step of AdamW on one image, `merge`, safetensors into a fresh tower; what
both say of the image must be equal to 1e-4 of its norm. And the cosine of its embedding in bfloat16 and in float32.

    python -m benchmarks.tuning.architectures --write ...
    python -m benchmarks.tuning.architectures --quick
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import open_clip
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from benchmarks.common import command_line, print_head, print_row, write_json
from benchmarks.conductance.towers import QUICK, build, key_of, liven, reason_of, side_of
from vlmsel_auto.conductance.blocks import first_tensor
from vlmsel_auto.models.modeldir import family_of
from vlmsel_auto.planning.method import Part
from vlmsel_auto.tuning.checkpoints import apart
from vlmsel_auto.tuning.trainable import choose, merge

DEPTH = 3  # blocks a stage
EQUAL = 1e-4
Line = dict[str, str | float | bool]


def try_part(name: str, part: Part) -> float:
    """Share of the weights that are trained.

    Raises:
        AssertionError: nothing moved, or the tower that was read again says something else.
    """
    torch.manual_seed(0)
    tower = liven(build(name, DEPTH))
    side = side_of(name)
    image = nn.functional.interpolate(torch.randn(1, 3, 8, 8), size=(side, side), mode="bicubic")

    def run(one: nn.Module) -> Tensor:
        return nn.functional.normalize(first_tensor(one(image)), dim=-1)

    with torch.no_grad():
        before = run(tower)
    choose(tower, part, run=partial(run, tower))
    trained = [each for each in tower.parameters() if each.requires_grad]
    share = sum(each.numel() for each in trained) / sum(each.numel() for each in tower.parameters())
    optimiser = torch.optim.AdamW(trained, lr=1e-3)
    for _ in range(2):  # of low rank the second factor begins at zero
        optimiser.zero_grad()
        (run(tower) @ torch.linspace(-1, 1, before.shape[1])).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        optimiser.step()
    with torch.no_grad():
        after = run(tower)
        merge(tower)
        again = build(name, DEPTH)
        again.load_state_dict(load(save(apart(tower.state_dict()))))
        read = run(again)
    moved, lost = float((after - before).norm()), float((read - after).norm())
    assert moved > EQUAL, f"a step moved {moved:.1e}"  # noqa: S101 - what is measured
    assert lost < EQUAL, f"reading again lost {lost:.1e}"  # noqa: S101
    return share


def in_bfloat16(name: str) -> float:
    """Cosine of an embedding in both precisions."""
    torch.manual_seed(0)
    tower = liven(build(name, DEPTH))
    image = torch.randn(1, 3, side_of(name), side_of(name))
    with torch.no_grad():
        exact = first_tensor(tower(image))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = first_tensor(tower(image)).float()
    return float(nn.functional.cosine_similarity(exact, rounded).item())


def measure(name: str) -> Line:
    """All checks of an architecture."""
    line: Line = {"arch": name, "family": family_of(open_clip.get_model_config(name))}
    for part in Part:
        try:
            line[part] = round(try_part(name, part), 4)
        except Exception as error:  # noqa: BLE001 - the table says why, whatever it was
            line[part] = reason_of(error)
    try:
        line["bfloat16"] = round(in_bfloat16(name), 5)
    except Exception as error:  # noqa: BLE001 - likewise
        line["bfloat16"] = reason_of(error)
    return line


def table(lines: Sequence[Line]) -> None:
    """By family: how many pass, and the share of the weights that is trained."""
    print_head("family", "towers", *Part, "smallest cosine in bfloat16")
    for family in dict.fromkeys(str(line["family"]) for line in lines):
        mine = [line for line in lines if line["family"] == family]
        told = []
        for part in Part:
            shares = [float(line[part]) for line in mine if not isinstance(line[part], str)]
            told.append(f"{len(shares)}, {100 * min(shares, default=0):.1f} to {100 * max(shares, default=0):.1f} %")
        cosines = [float(line["bfloat16"]) for line in mine if not isinstance(line["bfloat16"], str)]
        print_row(family, len(mine), *told, min(cosines, default="-"))
    for line in lines:
        for name, value in line.items():
            if isinstance(value, str) and name not in ("arch", "family"):
                print(f"{line['arch']}, {name}: {value}")


def main() -> None:
    """Command line."""
    args = command_line(__doc__, quick="one of each of three families").parse_args()
    torch.set_num_threads(1)
    names = list({key_of(name): name for name in reversed(open_clip.list_models())}.values())[::-1]
    kept: Path | None = args.write
    done: Mapping[str, Line] = (
        {str(line["arch"]): line for line in json.loads(kept.read_text())} if kept and kept.exists() else {}
    )
    lines = []
    for name in QUICK if args.quick else names:
        lines.append(done.get(name) or measure(name))
        print(json.dumps(lines[-1]), flush=True)
        write_json(kept, lines)
    table(lines)


if __name__ == "__main__":
    main()
