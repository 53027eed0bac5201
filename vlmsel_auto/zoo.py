"""Loading candidates: the only module that imports open_clip.

Everything goes through open_clip's own loaders, with its known traps closed: missing weights raise instead of giving a
random model, QuickGELU follows the pretraining tag, a folder's vocabulary is found in the folder, no remote code runs.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.pretrained import list_pretrained_tags_by_model
from torch import Tensor, nn

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.hub import hub_file
from vlmsel_auto.modeldir import CONFIG, ModelDir, read_model_dir
from vlmsel_auto.records import Candidate

__all__ = ["ClipModel", "LoadedModel", "Tokenizer", "hub_config", "load", "published"]

_TEXT_BATCH = 256


class ClipModel(Protocol):
    """What is used of an open_clip model."""

    visual: nn.Module
    logit_scale: Tensor

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - open_clip's signature
        """Embed normalised images (n, 3, S, S) -> (n, D)."""
        ...

    def encode_text(self, text: Tensor, normalize: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - open_clip's signature
        """Embed tokens (n, L) -> (n, D)."""
        ...


class Tokenizer(Protocol):
    """Texts to tokens (n, L), padded with zeros or the tokenizer's own padding."""

    def __call__(self, texts: list[str], /) -> Tensor:
        """Tokenize ``texts``."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
    """A candidate with its weights, in eval mode, float32, no parameter asking for a gradient."""

    candidate: Candidate
    model: nn.Module
    tokenizer: Tokenizer | None  # None: loaded without text
    mean: tuple[float, float, float]  # of pixels in [0, 1], RGB
    std: tuple[float, float, float]
    logit_scale: float  # factor on cosines, already exponentiated
    logit_bias: float  # of sigmoid (SigLIP) models; a softmax over classes does not see it
    device: torch.device

    @property
    def visual(self) -> nn.Module:
        """The visual tower."""
        return self._clip.visual

    @property
    def _clip(self) -> ClipModel:
        return cast("ClipModel", self.model)

    def normalise(self, pixels: NDArray[np.uint8] | Tensor) -> Tensor:
        """Return uint8 images (n, S, S, 3) as float32 (n, 3, S, S) on the device: (x / 255 - mean) / std.

        The operations are those of torchvision's ``ToTensor`` and ``Normalize`` in their order, so the values are
        equal to the bit to what open_clip's own transform gives.
        """
        # a copy: arrays mapped from disk are read-only, which tensors cannot be
        images = pixels.to(self.device) if isinstance(pixels, Tensor) else torch.tensor(pixels, device=self.device)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:  # noqa: PLR2004 - n, S, S, RGB
            raise ValueError(f"Images must be uint8 (n, S, S, 3), but got {images.dtype} {tuple(images.shape)}")
        images = images.permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1)
        return images.sub_(mean).div_(std)

    def embed(self, images: Tensor) -> Tensor:
        """Return the embeddings (n, D) of normalised images (n, 3, S, S), NOT unit-norm, differentiable."""
        return self._clip.encode_image(images, normalize=False)

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Return class weights (K, D): per class the mean over templates of unit text embeddings, made unit again.

        Args:
            prompts: K class names as they are spoken.
            templates: each holds one ``{}``.

        Raises:
            ValueError: there are no prompts or templates.
            TrialUnavailable: the model was loaded without its tokenizer.
        """
        if self.tokenizer is None:
            raise TrialUnavailable(f"The model was loaded without text, but got text_features of {self.candidate.id!r}")
        if not prompts or not templates:
            raise ValueError(f"At least one prompt and one template are needed, but got {prompts!r} and {templates!r}")
        texts = [template.replace("{}", prompt) for prompt in prompts for template in templates]
        parts = [
            self._clip.encode_text(self.tokenizer(texts[start : start + _TEXT_BATCH]).to(self.device), normalize=True)
            for start in range(0, len(texts), _TEXT_BATCH)
        ]
        each = torch.cat(parts).float().reshape(len(prompts), len(templates), -1)
        return nn.functional.normalize(each.mean(dim=1), dim=-1)


def load(
    candidate: Candidate, *, device: str | torch.device = "cpu", text: bool = True, cache_dir: Path | None = None
) -> LoadedModel:
    """Load a candidate's weights.

    Args:
        candidate: from `vlmsel_auto.candidates`.
        device: where the model will be.
        text: load the tokenizer too; without it `LoadedModel.text_features` is refused.
        cache_dir: folder for downloads; None is huggingface_hub's own (``HF_HOME``, ``HF_HUB_CACHE``). The hub is the
            one that ``HF_ENDPOINT`` names.

    Raises:
        TrialUnavailable: weights or tokenizer are missing, unreadable, of another shape, or cannot be downloaded.
        CandidateError: the folder or its configuration cannot be trusted or read.
    """
    target = torch.device(device)
    if candidate.path is not None:
        found = read_model_dir(candidate.path)
        model = _from_dir(found, candidate=candidate)
        tokenizer = _dir_tokenizer(found, candidate=candidate) if text else None
        vocab_size = found.text_cfg.get("vocab_size", 49408)
    else:
        model = _from_hub(candidate, cache_dir=cache_dir)
        tokenizer = _hub_tokenizer(candidate, cache_dir=cache_dir) if text else None
        vocab_size = None
    _check_vocabulary(tokenizer, vocab_size, candidate=candidate)
    return _loaded(candidate, model=model, tokenizer=tokenizer, device=target)


def _loaded(
    candidate: Candidate, *, model: nn.Module, tokenizer: Tokenizer | None, device: torch.device
) -> LoadedModel:
    model = model.float().eval().requires_grad_(False).to(device)
    clip = cast("ClipModel", model)
    preprocess = cast("Mapping[str, Json]", getattr(clip.visual, "preprocess_cfg", {}))
    bias = getattr(model, "logit_bias", None)
    return LoadedModel(
        candidate=candidate,
        model=model,
        tokenizer=tokenizer,
        mean=_triple(preprocess["mean"]),
        std=_triple(preprocess["std"]),
        logit_scale=float(clip.logit_scale.exp()),
        logit_bias=0.0 if bias is None else float(bias),
        device=device,
    )


def _triple(value: Json) -> tuple[float, float, float]:
    red, green, blue = (float(cast("float", each)) for each in cast("Sequence[Json]", value))
    return red, green, blue


def _from_dir(found: ModelDir, *, candidate: Candidate) -> nn.Module:
    with _quiet(), _explained(candidate, where=str(found.weights)):
        return cast(
            "nn.Module",
            open_clip.create_model_from_pretrained(
                f"local-dir:{found.path}", device="cpu", return_transform=False, weights_only=True
            ),
        )


def _dir_tokenizer(found: ModelDir, *, candidate: Candidate) -> Tokenizer:
    text = found.text_cfg
    kwargs = dict(cast("Mapping[str, Json]", text.get("tokenizer_kwargs") or {}))
    with _quiet(), _explained(candidate, where=str(found.config_path)):
        if text.get("hf_tokenizer_name"):
            # the caller's argument wins over the configuration's, so no tokenizer brings its own code
            return cast("Tokenizer", open_clip.get_tokenizer(f"local-dir:{found.path}", trust_remote_code=False))
        kwargs.pop("bpe_path", None)
        if found.vocabulary is not None:
            kwargs["bpe_path"] = str(found.vocabulary.resolve())  # open_clip does not resolve it against the folder
        return cast("Tokenizer", open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **kwargs))


def _check_vocabulary(tokenizer: Tokenizer | None, vocab_size: Json, *, candidate: Candidate) -> None:
    size = getattr(tokenizer, "vocab_size", None)
    if isinstance(size, int) and isinstance(vocab_size, int) and size > vocab_size:
        raise TrialUnavailable(
            f"The tokenizer of {candidate.id!r} has more tokens than the text tower ({size} > {vocab_size}): put the "
            f"model's own vocabulary into the folder and name it in text_cfg.tokenizer_kwargs.bpe_path, "
            f"but got {str(candidate.path)!r}"
        )


def _from_hub(candidate: Candidate, *, cache_dir: Path | None) -> nn.Module:
    tag_cfg = open_clip.get_pretrained_cfg(candidate.arch, candidate.tag)
    with _quiet(), _explained(candidate, where="the hub"):
        return cast(
            "nn.Module",
            open_clip.create_model_from_pretrained(
                candidate.arch,
                candidate.tag or None,
                device="cpu",
                # open_clip only warns when name and tag disagree, and computes another function than was trained
                force_quick_gelu=bool(tag_cfg.get("quick_gelu", False)),
                return_transform=False,
                cache_dir=None if cache_dir is None else str(cache_dir),
                weights_only=True,
            ),
        )


def _hub_tokenizer(candidate: Candidate, *, cache_dir: Path | None) -> Tokenizer:
    with _quiet(), _explained(candidate, where="the hub"):
        return cast(
            "Tokenizer",
            open_clip.get_tokenizer(candidate.arch, cache_dir=None if cache_dir is None else str(cache_dir)),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip's logging and warnings off the terminal: what matters is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


@contextmanager
def _explained(candidate: Candidate, *, where: str) -> Iterator[None]:
    """Turn whatever loading raises into one TrialUnavailable that names the candidate and the place."""
    try:
        yield
    except ImportError as error:
        raise TrialUnavailable(
            f"Candidate {candidate.id!r} needs the package {error.name!r}: install it and run again, but got {error}"
        ) from error
    except (CandidateError, TrialUnavailable):
        raise
    except Exception as error:  # open_clip and torch raise all kinds here
        text = " ".join(str(error).split())
        raise TrialUnavailable(
            f"Cannot load candidate {candidate.id!r} from {where}: replace the files or leave it out, but got "
            f"{type(error).__name__}: {text[:500]}"
        ) from error


def published() -> dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]]:
    """What the installed open_clip knows: architecture -> (model_cfg, pretraining tag -> its configuration)."""
    found: dict[str, tuple[dict[str, Json], dict[str, dict[str, Json]]]] = {}
    for arch in open_clip.list_models():
        tags = {tag: dict(open_clip.get_pretrained_cfg(arch, tag)) for tag in list_pretrained_tags_by_model(arch)}
        found[arch] = (cast("dict[str, Json]", open_clip.get_model_config(arch)), tags)
    return found


def hub_config(repository: str, *, cache_dir: Path | None = None) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Return (model_cfg, preprocess_cfg) of the hub repository ``ORG/NAME`` in open_clip's format.

    Raises:
        CandidateError: it cannot be reached, or is not in open_clip's format.
    """
    name = f"hf-hub:{repository}"
    try:
        path = hub_file(repository, (CONFIG,), cache_dir=cache_dir)
        config = json.loads(path.read_text("utf-8"))
        return dict(config["model_cfg"]), dict(config.get("preprocess_cfg") or {})
    except TrialUnavailable as error:
        raise CandidateError(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CandidateError(f"{CONFIG} of {name!r} is not in open_clip's format, but got {error!r}") from error
