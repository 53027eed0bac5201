"""Make the small JSON files that let candidates be listed without torch.

    python -m tools.model_cards

Writes ``card.json`` beside each mini-zoo model (parameters, cost of the visual tower, image size, preprocessing
geometry, digest of weights and configuration) and ``data/openclip_catalogue.json`` (open_clip's architectures and
pretraining tags, with where the files lie on the hub). Run it after a change of the mini zoo or of the pinned
open_clip.

Costs of towers (operations, bytes written, peak memory) are counted on torch's meta device, which computes shapes and
nothing else, so the largest takes a second.
"""

from __future__ import annotations

import argparse
import csv
import json
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import cast

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vlmsel_auto.cache import Json, digest, file_digest, write_atomically
from vlmsel_auto.library import published
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve
from vlmsel_auto.models.catalogue import installed
from vlmsel_auto.models.loadedmodel import ClipModel
from vlmsel_auto.models.modeldir import family_of, read_model_dir

_PLAIN_TEXT: dict[str, Json] = {"width": 64, "heads": 1, "layers": 1}  # where transformers would make the text tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerCost:
    """Of one image in float32."""

    flops: float  # 2 x multiply-adds of products, convolutions and attention
    written: int  # bytes of the results of all operations
    peak: int  # bytes that are alive at once, the image among them, weights not


class _Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Counts the bytes of new results and of those alive at once."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # likewise
        self.written = self.peak = self._live = 0
        self._known = {_key(each.untyped_storage()): 0 for each in weights}  # storage -> bytes

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation and note what it made."""
        del types
        found = func(*args, **(kwargs or {}))
        for each in tree_leaves(found):
            if isinstance(each, Tensor):
                self._note(each.untyped_storage(), each.numel() * each.element_size(), func=func)
        return found

    def _note(self, storage: torch.UntypedStorage, size: int, *, func: Callable[..., object]) -> None:
        if not getattr(func, "is_view", False):
            self.written += size
        key = _key(storage)
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self._live += storage.nbytes()
            self.peak = max(self.peak, self._live)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._live -= self._known.pop(key)


def _key(storage: torch.UntypedStorage) -> int:
    return int(storage._cdata)  # noqa: SLF001 - the storage itself; on the meta device all have one address


def tower_cost(model: nn.Module, *, size: int) -> TowerCost:
    """Count one image of ``size`` x ``size`` pixels through a CLIP model's visual tower, on whatever device it is."""
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, size, size, device=device)
    model = model.eval().requires_grad_(False)
    encode = cast("ClipModel", model).encode_image
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # fused operations hide from the counter: this one and CPU's flash
    try:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
            encode(image, normalize=False)
        with _Traffic([*model.parameters(), *model.buffers()]) as traffic, torch.no_grad():
            encode(image, normalize=False)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return TowerCost(flops=float(counter.get_total_flops()), written=traffic.written, peak=traffic.peak + image.nbytes)


def made(model_cfg: Mapping[str, Json]) -> tuple[nn.Module, bool]:
    """A model of an open_clip configuration on the meta device, and whether its text tower is the real one."""
    cfg = dict(model_cfg)
    custom = bool(cfg.pop("custom_text", False))
    text = cast("dict[str, Json]", cfg["text_cfg"])
    is_real = "hf_model_name" not in text
    if not is_real:
        cfg["text_cfg"] = _PLAIN_TEXT
    kind = open_clip.CoCa if "multimodal_cfg" in cfg else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.device("meta"):
        return cast("nn.Module", kind(**cfg)), is_real


def cost_fields(cost: TowerCost) -> dict[str, Json]:
    """A tower's cost as a card and the catalogue keep it."""
    return {"visual_flops": cost.flops, "visual_written": cost.written, "visual_peak": cost.peak}


def card(folder: Path) -> dict[str, Json]:
    """Measure the model in ``folder``."""
    found = read_model_dir(folder)
    (candidate,) = resolve(folder)
    model = zoo.load(candidate)
    vocabulary = file_digest(found.vocabulary) if found.vocabulary else ""
    geometry: dict[str, Json] = {
        key: found.preprocess_cfg[key]
        for key in ("resize_mode", "interpolation", "fill_color")
        if key in found.preprocess_cfg
    }
    return {
        "params": sum(each.numel() for each in model.model.parameters()),
        "visual_params": sum(each.numel() for each in model.visual.parameters()),
        **cost_fields(tower_cost(model.model, size=candidate.view.size)),
        "image_size": candidate.view.size,
        "preprocess": geometry,
        "family": candidate.family,
        "sha256": digest(file_digest(found.weights), file_digest(found.config_path), vocabulary),
    }


def catalogue(profile: Mapping[str, Mapping[str, str]]) -> dict[str, Json]:
    """What the installed open_clip knows. ``profile`` (rows of model_profile.csv) has what cannot be counted here."""
    architectures: dict[str, Json] = {}
    pretrained: dict[str, dict[str, dict[str, Json]]] = {}
    for arch, (model_cfg, tags) in sorted(installed().items()):
        vision = cast("dict[str, Json]", model_cfg["vision_cfg"])
        size = cast("int", vision.get("image_size", 224))
        model, has_text = made(model_cfg)
        row = profile.get(arch.removesuffix("-quickgelu"))
        params: int | None = sum(each.numel() for each in model.parameters())
        if not has_text:  # transformers would take the text tower's size from the hub
            params = round(float(row["mparams"]) * 1e6) if row else None
        architectures[arch] = {
            "image_size": size,
            "family": family_of(model_cfg),
            "params": params,
            **cost_fields(tower_cost(model, size=size)),
            **text_sources(model_cfg),
        }
        pretrained[arch] = {
            tag: {key: cfg.get(key) for key in ("resize_mode", "interpolation", "hf_hub")}
            for tag, cfg in sorted(tags.items())
        }
    for name, twin in twins(pretrained).items():
        arch, _, tag = name.rpartition("/")
        pretrained[arch][tag]["same_as"] = twin
    return {
        "source": f"open_clip {version('open_clip_torch')} (MIT); params of models with a text tower of transformers "
        "restated from mlfoundations/open_clip docs/model_profile.csv (MIT)",
        "open_clip": version("open_clip_torch"),
        "architectures": architectures,
        "pretrained": cast("Json", pretrained),
    }


def twins(pretrained: Mapping[str, Mapping[str, Mapping[str, Json]]]) -> dict[str, str]:
    """Names of one file of weights, each with the name to use: the one with the best published figures."""
    named: dict[Json, list[str]] = defaultdict(list)
    for arch, tags in pretrained.items():
        for tag, cfg in tags.items():
            named[cfg["hf_hub"]].append(f"{arch}/{tag}")
    found: dict[str, str] = {}
    for names in named.values():
        means = np.nan_to_num(published.zero_shot(names).mean(axis=1))
        best = names[int(means.argmax())]
        found |= {name: best for name in names if name != best}
    return found


def text_sources(model_cfg: Mapping[str, Json]) -> dict[str, Json]:
    """The repositories that the text tower and its tokenizer come from, where transformers makes them."""
    text = cast("dict[str, Json]", model_cfg["text_cfg"])
    return {key: text[key] for key in ("hf_model_name", "hf_tokenizer_name") if text.get(key)}


def main() -> None:
    """Write every card; with the path of open_clip's docs/model_profile.csv as argument, the catalogue too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path, nargs="?", help="open_clip's docs/model_profile.csv: the catalogue too")
    args = parser.parse_args()
    package = Path(str(files("vlmsel_auto")))
    for folder in sorted((package / "minizoo").iterdir()):
        if folder.is_dir():
            write_atomically(folder / "card.json", (json.dumps(card(folder), indent=1) + "\n").encode())
    if args.profile is not None:
        with args.profile.open(encoding="utf-8", newline="") as stream:
            rows = {row["model"]: row for row in csv.DictReader(stream)}
        path = package / "data" / "openclip_catalogue.json"
        write_atomically(path, (json.dumps(catalogue(rows), indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
