"""Predicted against measured: seconds and memory to embed images with towers of open_clip, random weights, no network.

    python -m benchmarks.screening.predicted_costs --write benchmarks/results/predicted-costs.json

The machine is measured anew before each tower, which then embeds a batch of 16 images (zeros) several times. "seconds"
is of the fastest batch; "corrected" predicts with the first two towers as timed, which is what a search knows after two
looks. "memory" is by how much the resident memory rises while the batch is embedded, beside the estimate without the
weights (Linux only). The last line printed is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path

import numpy as np
import open_clip
import psutil
import torch

from vlmsel_auto.models import candidates, catalogue
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.models.machine import Timed, corrected, embedding_seconds, measure

IMAGES = 16
NAMES = (
    "ViT-B-32/openai",
    "RN50/openai",
    "MobileCLIP2-S0/dfndr2b",
    "ViTamin-S/datacomp1b",
    "MobileCLIP-S1/datacompdr",
    "convnext_base/laion400m_s13b_b51k",
    "ViT-B-16/openai",
    "EVA02-B-16/merged2b_s8b_b131k",
    "ViT-B-16-SigLIP2/webli",
    "ViT-L-14/openai",
)


def resident_peak() -> int:
    """Most bytes that were resident since the last call; the mark is set back."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    Path("/proc/self/clear_refs").write_text("5")  # Linux: resets the mark
    return int(found[1]) * 1024 if found else 0


@torch.inference_mode()
def embed(arch: str, *, size: int, rounds: int) -> tuple[float, int]:
    """Seconds of the fastest batch, and bytes by which the resident memory rose in the first."""
    model = open_clip.create_model(arch, pretrained=None).eval()
    model.encode_image(torch.zeros(1, 3, size, size))
    resident_peak()
    before = psutil.Process().memory_info().rss
    best, rise = np.inf, 0
    for _ in range(rounds):
        images = torch.zeros(IMAGES, 3, size, size)
        start = time.perf_counter()
        model.encode_image(images)
        best = min(best, time.perf_counter() - start)
        rise = rise or resident_peak() - before
    return best, rise


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="batches of each tower")
    parser.add_argument("--write", type=Path, help="write the figures as JSON")
    asked = parser.parse_args()
    found: list[dict[str, float | str]] = []
    seen: list[Timed] = []
    for name in NAMES:
        facts = facts_of(candidates.resolve(name)[0])
        machine = measure("cpu", cache=Path())
        predicted = embedding_seconds(facts, images=IMAGES, machine=machine)
        again = embedding_seconds(facts, images=IMAGES, machine=corrected(machine, seen[:2]))
        seconds, rise = embed(name.partition("/")[0], size=facts.image_size, rounds=asked.rounds)
        seen.append(Timed(facts=facts, images=IMAGES, seconds=seconds))
        peak = catalogue.architecture(name.partition("/")[0])["visual_peak"]
        if predicted is None or again is None or not isinstance(peak, int):
            raise ValueError(f"the catalogue must have the costs of {name}")
        row: dict[str, float | str] = {
            "name": name,
            "seconds": seconds / IMAGES,
            "predicted": predicted / IMAGES,
            "corrected": again / IMAGES,
            "memory": rise / IMAGES,
            "memory_predicted": peak,
        }
        print(
            f"{name:36}{1e3 * seconds / IMAGES:7.1f} ms an image, predicted {predicted / seconds:.2f} of it, corrected "
            f"{again / seconds:.2f}; {rise / IMAGES / 1e6:5.1f} MB, predicted {peak * IMAGES / rise:.2f} of it",
            flush=True,
        )
        found.append(row)
    if asked.write:
        asked.write.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps({"predicted_costs": found}))


if __name__ == "__main__":
    main()
