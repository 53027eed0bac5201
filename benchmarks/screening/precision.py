"""QUESTION: How much faster is bfloat16 than float32, and how far do embeddings turn?

PAGE: docs/results/real-models.md
RESULT: benchmarks/results/precision.json

    python -m benchmarks.screening.precision --write benchmarks/results/precision.json
    python -m benchmarks.screening.precision --quick

Random weights at open_clip's start values and smooth random images: real weights turn more or less. One thread. A step
of tuning is forward, backward and AdamW on eight images; --only names architectures.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import open_clip
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from benchmarks.common import command_line, write_json
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.precision import has_bfloat16_units, quick_encoder
from vlmsel_auto.records import Candidate, ImageView

ARCHITECTURES = ("ViT-B-32", "ViT-B-16", "RN50", "convnext_base", "EVA02-B-16", "ViT-B-16-SigLIP", "MobileCLIP2-S0",
                 "ViT-L-14")  # fmt: skip
IMAGES = 16
STEP_IMAGES = 8


@dataclass(frozen=True, kw_only=True)
class Row:
    """One architecture."""

    architecture: str
    float32: float  # seconds an image
    chosen: float  # the way that `quick_encoder` chose
    is_bfloat16: bool
    cosine: float  # smallest between both embeddings of an image
    step_float32: float  # seconds an image of a step of tuning
    step_bfloat16: float  # in mixed precision


def _fastest(encode: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, float]:
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        made = encode(images)
        best = min(best, (time.perf_counter() - began) / len(images))
    return made, best


def step_seconds(model: LoadedModel, images: Tensor, *, bfloat16: bool) -> float:
    """Seconds an image of the faster of two steps; the first also chooses kernels."""
    optimiser = torch.optim.AdamW(model.visual.parameters(), lr=1e-6)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            embedded = model.embed(images)
        torch.autograd.backward(embedded.float().square().mean())
        optimiser.step()
        optimiser.zero_grad()
        best = min(best, (time.perf_counter() - began) / len(images))
    return best


def measure(arch: str) -> Row:
    """Time one architecture."""
    model = open_clip.create_model(arch, pretrained=None).eval()
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    candidate = Candidate(
        id=arch, source="local-dir", arch=arch, tag="", view=ImageView(size=side), flops=1e10
    )  # as if it were large
    loaded = LoadedModel(
        candidate=candidate, model=model, tokenizer=None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), logit_scale=1.0,
        logit_bias=0.0, device=torch.device("cpu"), model_cfg={}, preprocess_cfg={}, vocabulary=None,
    )  # fmt: skip
    noise = torch.randn(IMAGES, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    images = interpolate(noise, size=(side, side), mode="bicubic")
    with torch.inference_mode():
        expected, slow = _fastest(loaded.embed, images)
        chosen = quick_encoder(loaded, images)
        found, fast = _fastest(chosen.encode, images)
    few = images[:STEP_IMAGES]
    model.visual.requires_grad_(True).train()
    steps = [step_seconds(loaded, few, bfloat16=bfloat16) for bfloat16 in (False, True)]
    return Row(
        architecture=arch, float32=slow, chosen=fast, is_bfloat16=chosen.is_bfloat16,
        cosine=float(cosine_similarity(found, expected, dim=1).min()), step_float32=steps[0], step_bfloat16=steps[1],
    )  # fmt: skip


def main() -> None:
    """Print the table; write it as JSON where asked."""
    parser = command_line(__doc__, quick="two architectures")
    parser.add_argument("--only", default=",".join(ARCHITECTURES), help="comma list; default: %(default)s")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"bfloat16 units: {has_bfloat16_units(torch.device('cpu'))}")
    print(f"{'architecture':>16} {'float32':>9} {'chosen':>9} {'faster':>7}  cosine  step: float32, bfloat16, faster")
    rows, named = [], options.only.split(",")
    for arch in named[:2] if options.quick else named:
        row = measure(arch)
        rows.append(asdict(row))
        how = "bfloat16" if row.is_bfloat16 else "float32"
        print(f"{arch:>16} {1e3 * row.float32:6.0f} ms {1e3 * row.chosen:6.0f} ms {row.float32 / row.chosen:6.1f}x  "
              f"{row.cosine:.5f} {how}  {1e3 * row.step_float32:6.0f} ms {1e3 * row.step_bfloat16:6.0f} ms "
              f"{row.step_float32 / row.step_bfloat16:6.1f}x", flush=True)  # fmt: skip
    write_json(options.write, rows)


if __name__ == "__main__":
    main()
