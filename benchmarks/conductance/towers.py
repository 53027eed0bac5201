"""QUESTION: Which blocks are found in every open_clip architecture, and is conductance complete there?

PAGE: docs/results/towers.md
RESULT: benchmarks/results/conductance-towers.json

Every architecture of ``open_clip.list_models()`` is built twice: once whole on the meta device (no memory) to count its
blocks, once with random weights to sweep one image to an estimated error of 1 %. Towers of more than LARGE parameters
are swept with at most two blocks a stage. Architectures with the same visual tower are measured once. Only visual
towers are built: text towers that need files of a hub stay out.

    python -m benchmarks.conductance.towers --quick        one of each family, under a minute
    python -m benchmarks.conductance.towers --keep benchmarks/results/conductance-towers.json \
        --write docs/results/towers.md
                                               all of them (ten minutes); lines that are kept are not measured again
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import open_clip
import torch
from open_clip import timm_model
from open_clip.model import CLIPVisionCfg, _build_vision_tower  # the public builders need the text tower's files
from torch import nn

from benchmarks.common import command_line
from vlmsel_auto.conductance.blocks import find_blocks
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.conductance.scalars import make_scalar

LARGE = 25_000_000  # parameters of a visual tower that two cores sweep in seconds
QUICK = ("RN50", "mobileclip_s1" if "mobileclip_s1" in open_clip.list_models() else "MobileCLIP-S1", "ViT-S-32-alt")
WANTED, MOST = 0.01, 65  # error, and points at which the search for it ends
ENGINE = 4  # of the rules: kept lines of another one are measured again
Line = dict[str, str | int | float | None]


@contextmanager
def _shallow_timm(depth: int, stages: int) -> Iterator[None]:
    """Inside, open_clip builds timm towers with at most ``depth`` blocks a stage, where they can be told so."""
    original = timm_model.timm.create_model

    def create(name: str, **settings: object) -> nn.Module:
        for shallow in ({"depth": depth}, {"depths": (depth,) * stages}, {"layers": (depth,) * stages}, {}):
            try:
                module: nn.Module = original(name, **settings, **shallow)
            except (TypeError, RuntimeError, ValueError):
                continue
            return module
        raise RuntimeError(f"timm cannot build {name}")

    timm_model.timm.create_model = create
    try:
        yield
    finally:
        timm_model.timm.create_model = original


def build(name: str, depth: int | None) -> nn.Module:
    """Visual tower of ``name`` with random weights, cut to ``depth`` blocks a stage (None: whole)."""
    config = open_clip.get_model_config(name)
    vision = CLIPVisionCfg(**{**config["vision_cfg"], "timm_model_pretrained": False})
    build = partial(_build_vision_tower, config["embed_dim"], quick_gelu=config.get("quick_gelu", False))
    if depth is None:
        tower: nn.Module = build(vision)
    elif vision.timm_model_name:
        with torch.device("meta"):
            names = find_blocks(build(vision))
        with _shallow_timm(depth, _stages(names)):
            tower = build(vision)
    else:
        layers = [min(n, depth) for n in vision.layers] if isinstance(vision.layers, list | tuple) else depth
        tower = build(dataclasses.replace(vision, layers=layers))
    return tower.eval()


def _stages(names: Sequence[str]) -> int:
    """Number of stages that hold the blocks ``names`` (trunk.stages.1.blocks.0); 4 where they have none."""
    found = {match[1] for name in names if (match := re.search(r"(?:stages|layers)\.(\d+)\.", name))}
    return len(found) or 4


def liven(tower: nn.Module) -> nn.Module:
    """Biases away from zero, as training leaves them: normalisation layers are singular at an all-zero input."""
    for name, value in tower.named_parameters():
        if value.ndim == 1:
            nn.init.normal_(value, 1.0 if name.endswith("weight") else 0.0, 0.1)
    return tower


def side_of(name: str) -> int:
    """Pixels of the images that the tower of an architecture takes."""
    size = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
    return int(size if isinstance(size, int) else size[0])


def count(name: str) -> Line:
    """Parameters and blocks of the whole visual tower, built on the meta device."""
    line: Line = {
        "arch": name,
        "blocks": None,
        "parameters": None,
        "swept": None,
        "error": None,
        "note": "",
        "rule": "-",
    }
    try:
        with torch.device("meta"):
            whole = build(name, None)
        line["parameters"] = sum(p.numel() for p in whole.parameters())
        line["blocks"] = len(find_blocks(whole))
    except Exception as error:  # noqa: BLE001 - the table says why, whatever it was
        line["note"] = reason_of(error)
    return line


def sweep(line: Line) -> Line:
    """``line`` with what one image on random weights gives."""
    name, size = str(line["arch"]), float(line["parameters"] or 0)
    began = time.perf_counter()
    found: Line = {"note": "", "engine": ENGINE}
    try:
        torch.manual_seed(0)
        tower = build(name, 2 if size > LARGE else None)
        side = side_of(name)
        image = nn.functional.interpolate(torch.randn(1, 3, 8, 8), size=(side, side), mode="bicubic")
        text = nn.functional.normalize(torch.randn(8, open_clip.get_model_config(name)["embed_dim"]), dim=-1)
        scalar = make_scalar("margin", text_features=text, logit_scale=100.0)
        result = conductance(liven(tower), image, scalar=scalar, error=WANTED, max_points=MOST)
        gap = result.completeness_error[0] * abs(result.total[0])
        found["swept"] = len(result.blocks)
        found["rule"] = f"{result.integrator} {result.points[0]}"
        found["error"] = float(result.error[0])
        found["gap"] = float((gap / result.activity[0]).max())
        found["net"] = float(abs(result.total[0]) / result.activity[0].mean())
    except Exception as error:  # noqa: BLE001 - the table says why, whatever it was
        found["note"] = reason_of(error)
    found["seconds"] = round(time.perf_counter() - began, 1)
    return {**line, **found}


def reason_of(error: Exception) -> str:
    """Type and first line of what went wrong."""
    return f"{type(error).__name__}: {(str(error) or '-').splitlines()[0][:160]}"


def key_of(name: str) -> str:
    """Equal for architectures with the same visual tower."""
    config = open_clip.get_model_config(name)
    return json.dumps([config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)], sort_keys=True)


def table(lines: list[Line]) -> str:
    """Markdown of all lines."""
    done = [line for line in lines if line["error"] is not None]
    head = [
        "# Towers whose conductance can be computed",
        "",
        "Made by `python -m benchmarks.conductance.towers --keep benchmarks/results/conductance-towers.json --write",
        "docs/results/towers.md` over every architecture that `open_clip.list_models()` of open_clip",
        f"{open_clip.__version__} gives: {len(done)} of {len(lines)} are swept.",
        "",
        "*blocks*: visual blocks found in the whole tower, built on the meta device. *swept*: blocks of the tower that",
        f"was run with random weights; towers of more than {LARGE // 10**6} million parameters were cut to two blocks",
        "a stage. One image, F = margin over 8 random classes, float32, points chosen by the engine for an error of",
        f"{WANTED:.0%} a neuron, at most {MOST}. *estimate*: the mean relative error a neuron that the engine reports.",
        "*completeness*: largest |sum of C - (F(x) - F(x0))| over the blocks, relative to the sum of |C|. *net*:",
        "|F(x) - F(x0)| relative to the sum of |C|. In random towers positive and negative conductance nearly cancel:",
        "the gap relative to F(x) - F(x0) itself (completeness / net) says little there. Blocks that are no full cut",
        "of the graph would leave a gap of the size of *net* at any number of points.",
        "",
        "| architecture | M parameters | blocks | swept | rule, points | estimate | completeness | net | note |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {x['arch']} | {_millions(x['parameters'])} | {_text(x['blocks'])} | {_text(x['swept'])} | "
        f"{_text(x.get('rule'))} | {_error(x['error'])} | {_error(x.get('gap'))} | {_error(x.get('net'))} | "
        f"{x['note']} |"
        for x in lines
    ]
    return "\n".join([*head, *rows, ""])


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _millions(value: str | float | None) -> str:
    return "-" if value is None else f"{float(value) / 1e6:.1f}"


def _error(value: str | float | None) -> str:
    return "-" if value is None else f"{float(value):.1e}"


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = command_line(__doc__, write=False, quick="one of each family")
    parser.add_argument("--write", type=Path, help="Markdown file to write")
    parser.add_argument("--keep", type=Path, help="JSON file with lines measured so far; continued")
    parser.add_argument("--only", help="architectures whose name holds this")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    warnings.simplefilter("ignore")  # deprecations inside timm
    names = [n for n in open_clip.list_models() if options.only is None or options.only in n]
    if options.quick:
        names = [n for n in names if n in QUICK]
    known: dict[str, Line] = {}
    if options.keep is not None and options.keep.exists():
        known = json.loads(options.keep.read_text("utf-8"))
    for name in names:
        known.setdefault(key_of(name), count(name) if key_of(name) not in known else {})
    # those never swept come first, and small ones among them
    for key in sorted(known, key=lambda k: ("seconds" in known[k], float(known[k]["parameters"] or 0))):
        if known[key].get("engine") != ENGINE and known[key]["blocks"] is not None:
            known[key] = sweep(known[key])
            print(known[key], flush=True)
            if options.keep is not None:
                options.keep.write_text(json.dumps(known, indent=1) + "\n", "utf-8")
            if options.write is not None:  # also what is done so far: the rest takes long
                options.write.write_text(table([{**known[key_of(n)], "arch": n} for n in names]), "utf-8")
    lines = [{**known[key_of(name)], "arch": name} for name in names]
    if options.write is not None:
        options.write.write_text(table(lines), "utf-8")
    swept = [line for line in lines if line["error"] is not None]
    worst = max((float(line["gap"] or 0.0) for line in swept), default=None)
    failed = {str(line["arch"]): str(line["note"]) for line in lines if line["note"]}
    print(json.dumps({"architectures": len(lines), "swept": len(swept), "worst_completeness": worst, "failed": failed}))


if __name__ == "__main__":
    main()
