"""What a visual tower costs for one image: operations, bytes written and peak memory, counted without weights.

Towers are made on torch's meta device, which computes shapes and nothing else, so the largest takes a second.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from vlmsel_auto.cache import Json
from vlmsel_auto.models.loadedmodel import ClipModel

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
