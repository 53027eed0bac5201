"""Loading candidates: their files are brought, open_clip builds the model, and what it made is checked."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Literal, TypeGuard, cast

import torch
from torch import nn

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.models.download import fetch
from vlmsel_auto.models.loadedmodel import ClipModel, LoadedModel, Tokenizer
from vlmsel_auto.models.loaders import Opened
from vlmsel_auto.models.modeldir import view_of
from vlmsel_auto.models.sources.table import source_of
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import Candidate


def load(
    candidate: Candidate,
    *,
    device: str | torch.device = "cpu",
    text: bool = True,
    sink: Sink = discard,
) -> LoadedModel:
    """Load a candidate's weights.

    Args:
        candidate: from `vlmsel_auto.models.candidates`.
        device: where the model will be.
        text: load the tokenizer too; without it `LoadedModel.text_features` is refused.
        sink: takes the progress of a download from the hub that ``HF_ENDPOINT`` names to huggingface_hub's cache.

    Raises:
        TrialUnavailable: weights or tokenizer are missing, unreadable, of another shape, or cannot be downloaded.
        CandidateError: the folder or its configuration cannot be trusted or read.
    """
    try:
        fetch(candidate, sink=sink)
        load_files = source_of(candidate).load  # no name for what it returns: an error would keep the model alive
        return _checked(candidate, load_files(candidate), text=text, device=torch.device(device))
    except (CandidateError, TrialUnavailable) as error:
        _forget_frames(error)
        release_memory()
        raise


def _checked(candidate: Candidate, opened: Opened, *, text: bool, device: torch.device) -> LoadedModel:
    _check_finite(opened.model, candidate=candidate)
    model = opened.model.float().eval().requires_grad_(False).to(device)
    clip = cast("ClipModel", model)
    preprocess = cast("Mapping[str, Json]", getattr(clip.visual, "preprocess_cfg", {}))
    size = preprocess["size"]
    view = view_of(preprocess, size=list(size) if isinstance(size, tuple) else size, name=candidate.id)
    preprocess = {**preprocess, "size": view.size}
    if view != candidate.view:
        raise TrialUnavailable(
            f"The installed open_clip prepares images of {candidate.id!r} in another way than the candidate's record "
            f"says: name the candidate again, but got {view} instead of {candidate.view}"
        )
    tokenizer = opened.tokenizer() if text and opened.tokenizer is not None else None
    _check_vocabulary(tokenizer, opened.model_cfg.get("text_cfg"), candidate=candidate)
    return LoadedModel(
        candidate=candidate,
        model=model,
        tokenizer=tokenizer,
        mean=_triple(preprocess["mean"], what="mean", candidate=candidate),
        std=_triple(preprocess["std"], what="std", candidate=candidate),
        logit_scale=float(clip.logit_scale.exp()),
        device=device,
        model_cfg=opened.model_cfg,
        preprocess_cfg=preprocess,
        vocabulary=opened.vocabulary,
    )


def _triple(value: object, *, what: Literal["mean", "std"], candidate: Candidate) -> tuple[float, float, float]:
    """Three finite numbers, of a std positive ones: pixels are divided by it."""
    found = [float(each) for each in value if _is_number(each)] if isinstance(value, (list, tuple)) else []
    fits = len(found) == 3 == len(cast("Sequence[object]", value))  # noqa: PLR2004 - red, green, blue
    if not fits or (what == "std" and min(found) <= 0):
        wanted = "finite numbers" if what == "mean" else "finite positive numbers"
        raise CandidateError(f"Candidate {candidate.id!r} needs three {wanted} as {what}, but got {value!r}")
    red, green, blue = found
    return red, green, blue


def _is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number of single precision, in which pixels are prepared."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= torch.finfo(torch.float32).max
    )


def _check_finite(model: nn.Module, *, candidate: Candidate) -> None:
    """Refuse damaged weights by name; every later error would only say that some result is not finite."""
    damaged = [name for name, value in model.named_parameters() if not bool(torch.isfinite(_ends(value)).all())]
    damaged += [name for name, value in model.named_buffers() if bool(torch.isnan(_ends(value)).any())]  # masks: -inf
    if damaged:
        raise TrialUnavailable(
            f"The weights of {candidate.id!r} are damaged: take a whole copy or leave it out, "
            f"but got NaN or infinite values in {damaged[0]!r}"
        )


def _ends(values: torch.Tensor) -> torch.Tensor:
    """The smallest and the largest value, NaN where one is: in a tenth of the time that a screening of each takes."""
    return torch.stack(torch.aminmax(values.detach())) if values.numel() else values.detach()


def _check_vocabulary(tokenizer: Tokenizer | None, text_cfg: Json, *, candidate: Candidate) -> None:
    """Refuse a tokenizer whose ids the text tower does not have; open_clip would fail at the first text."""
    tokens = getattr(tokenizer, "vocab_size", None)
    rows = cast("Mapping[str, Json]", text_cfg or {}).get("vocab_size", 49408)
    if isinstance(tokens, int) and isinstance(rows, int) and tokens > rows:
        raise TrialUnavailable(
            f"The tokenizer of {candidate.id!r} has more tokens than the text tower ({tokens} > {rows}): put the "
            f"model's own vocabulary into the folder and name it in text_cfg.tokenizer_kwargs.bpe_path, "
            f"but got {str(candidate.path)!r}"
        )


def _forget_frames(error: BaseException) -> None:
    """Let go of what the functions that raised an error held: whoever keeps the error must not keep a model."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
