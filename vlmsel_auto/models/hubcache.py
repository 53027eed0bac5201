"""What lies in huggingface_hub's cache on this disk. Asks no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import constants, try_to_load_from_cache

from vlmsel_auto.models import catalogue
from vlmsel_auto.models.facts import facts_of
from vlmsel_auto.records import Candidate

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip.constants, in its order
_TEXTS = {  # key of an architecture in the catalogue -> files of which transformers reads one
    "hf_tokenizer_name": ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model"),
    "hf_model_name": ("config.json",),
}


def cache_dir() -> Path:
    """Folder of huggingface_hub's cache, as its environment variables say."""
    return Path(constants.HF_HUB_CACHE)


def is_cached(candidate: Candidate) -> bool:
    """Whether everything that loading an open_clip model or hub repository reads is in the cache."""
    repository = facts_of(candidate).repository
    if not repository:
        return False
    costs = catalogue.architecture(candidate.arch)
    tag = catalogue.tags().get(candidate.arch, {}).get(candidate.tag)
    file = str(tag.get("hf_hub") or "").removeprefix(f"{repository}/") if isinstance(tag, dict) else ""
    wanted: list[tuple[str, Sequence[str]]] = [(repository, (file,) if file else _WEIGHTS)]
    wanted += [(str(costs[key]), names) for key, names in _TEXTS.items() if costs.get(key)]
    return all(_has_one(of, names) for of, names in wanted)


def _has_one(repository: str, names: Sequence[str]) -> bool:
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)
