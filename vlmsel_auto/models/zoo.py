"""Loading candidates, by open_clip.

Everything goes through open_clip's own loaders, with its known traps closed: missing weights raise instead of giving a
random model, QuickGELU follows the pretraining tag, a folder's vocabulary is found in the folder, no remote code runs.
"""

from __future__ import annotations

import logging
import pickle
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, TypeGuard, cast

import open_clip
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.events import Sink, discard
from vlmsel_auto.models.catalogue import HUB, sources_of
from vlmsel_auto.models.download import fetch
from vlmsel_auto.models.hub import HubFile, cached
from vlmsel_auto.models.hubfiles import check_packages, check_text_tower, files_of
from vlmsel_auto.models.loadedmodel import ClipModel, LoadedModel, Tokenizer
from vlmsel_auto.models.modeldir import ModelDir, read_model_dir, view_of
from vlmsel_auto.process import release_memory
from vlmsel_auto.records import Candidate

_DRAWS: Final = frozenset({
    "normal_", "uniform_", "erfinv_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_",
    "xavier_uniform_",
})  # fmt: skip


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
        is_tag = candidate.path is None and not candidate.arch.startswith(HUB)
        make = _load_tag if is_tag else _load_dir
        return make(candidate, device=device, text=text, sink=sink)
    except (CandidateError, TrialUnavailable) as error:
        _forget_frames(error)
        release_memory()
        raise


def _load_tag(candidate: Candidate, *, device: str | torch.device, text: bool, sink: Sink) -> LoadedModel:
    model_cfg = _built_in_cfg(candidate)
    fetch(candidate, sink=sink)
    files = files_of(candidate)
    weights = _in_cache(files[-1]) if files else None
    with _loading(candidate, where="its download" if weights is None else str(weights)), NoStartValues():
        # a path and not the tag: open_clip would ask the hub again, and take what that then has without checking it
        model = open_clip.create_model(
            candidate.arch,
            candidate.tag if weights is None else str(weights),
            force_quick_gelu=bool(model_cfg["quick_gelu"]),
            force_preprocess_cfg=dict(open_clip.get_pretrained_cfg(candidate.arch, candidate.tag)),
            require_pretrained=True,
            weights_only=True,
        )
    tokenizer = _named_tokenizer(candidate, candidate.arch, model_cfg) if text else None
    return _loaded(candidate, model, tokenizer, device=device, model_cfg=model_cfg, vocabulary=None)


def _load_dir(candidate: Candidate, *, device: str | torch.device, text: bool, sink: Sink) -> LoadedModel:
    if candidate.path is None:
        fetch(candidate, sink=sink)
        found = read_model_dir(_in_cache(files_of(candidate)[0]).parent)
    else:
        found = read_model_dir(candidate.path)
        sources = sources_of(found.text_cfg, weights="")
        check_packages(sources, candidate=candidate)
        check_text_tower(sources, candidate=candidate)
    with _loading(candidate, where=str(found.weights)), NoStartValues():
        model = open_clip.create_model(f"local-dir:{found.path}", require_pretrained=True, weights_only=True)
    tokenizer = _dir_tokenizer(candidate, found) if text else None
    return _loaded(candidate, model, tokenizer, device=device, model_cfg=found.model_cfg, vocabulary=found.vocabulary)


def _loaded(
    candidate: Candidate,
    model: nn.Module,
    tokenizer: Tokenizer | None,
    *,
    device: str | torch.device,
    model_cfg: Mapping[str, Json],
    vocabulary: Path | None,
) -> LoadedModel:
    _check_finite(model, candidate=candidate)
    target = torch.device(device)
    model = model.float().eval().requires_grad_(False).to(target)
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
    _check_vocabulary(tokenizer, model_cfg, candidate=candidate)
    bias = getattr(model, "logit_bias", None)
    return LoadedModel(
        candidate=candidate,
        model=model,
        tokenizer=tokenizer,
        mean=_triple(preprocess["mean"], what="mean", candidate=candidate),
        std=_triple(preprocess["std"], what="std", candidate=candidate),
        logit_scale=float(clip.logit_scale.exp()),
        logit_bias=0.0 if bias is None else float(bias),
        device=target,
        model_cfg=model_cfg,
        preprocess_cfg=preprocess,
        vocabulary=vocabulary,
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


def _dir_tokenizer(candidate: Candidate, found: ModelDir) -> Tokenizer:
    text = found.text_cfg
    if text.get("hf_tokenizer_name"):
        hub_name = candidate.arch if candidate.arch.startswith(HUB) else f"local-dir:{found.path}"
        return _named_tokenizer(candidate, hub_name, found.model_cfg)
    kwargs = dict(cast("Mapping[str, Json]", text.get("tokenizer_kwargs") or {}))
    kwargs.pop("bpe_path", None)
    if found.vocabulary is not None:
        kwargs["bpe_path"] = str(found.vocabulary)  # absolute: open_clip does not resolve it against the folder
    with _loading(candidate, where=str(found.config_path)):
        return cast("Tokenizer", open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **kwargs))


def _named_tokenizer(candidate: Candidate, name: str, model_cfg: Mapping[str, Json]) -> Tokenizer:
    with _loading(candidate, where="its tokenizer's files"):
        if not _text_cfg(model_cfg).get("hf_tokenizer_name"):
            return cast("Tokenizer", open_clip.get_tokenizer(name))
        # a caller's arguments win over the configuration's: no tokenizer brings its own code, no hub is asked again
        made = open_clip.get_tokenizer(name, trust_remote_code=False, local_files_only=True)
        return cast("Tokenizer", made)


def _text_cfg(model_cfg: Mapping[str, Json]) -> Mapping[str, Json]:
    return cast("Mapping[str, Json]", model_cfg["text_cfg"])


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


def _check_vocabulary(tokenizer: Tokenizer | None, model_cfg: Mapping[str, Json], *, candidate: Candidate) -> None:
    """Refuse a tokenizer whose ids the text tower does not have; open_clip would fail at the first text."""
    tokens = getattr(tokenizer, "vocab_size", None)
    rows = _text_cfg(model_cfg).get("vocab_size", 49408)
    if isinstance(tokens, int) and isinstance(rows, int) and tokens > rows:
        raise TrialUnavailable(
            f"The tokenizer of {candidate.id!r} has more tokens than the text tower ({tokens} > {rows}): put the "
            f"model's own vocabulary into the folder and name it in text_cfg.tokenizer_kwargs.bpe_path, "
            f"but got {str(candidate.path)!r}"
        )


def _built_in_cfg(candidate: Candidate) -> Mapping[str, Json]:
    tag_cfg = open_clip.get_pretrained_cfg(candidate.arch, candidate.tag)
    built_in = open_clip.get_model_config(candidate.arch)
    if not tag_cfg or built_in is None:
        raise TrialUnavailable(
            f"The installed open_clip {open_clip.__version__} does not know the candidate, but got {candidate.id!r}"
        )
    # open_clip only warns when name and tag disagree, and then computes another function than was trained
    quick_gelu = bool(built_in.get("quick_gelu", False) or tag_cfg.get("quick_gelu", False))
    return {**built_in, "quick_gelu": quick_gelu}


def _in_cache(file: HubFile) -> Path:
    found = cached(file)
    if found is None:
        raise TrialUnavailable(f"A file vanished from the cache after its download, but got {file}")
    return found


def _forget_frames(error: BaseException) -> None:
    """Let go of what the functions that raised an error held: whoever keeps the error must not keep a model."""
    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__


@contextmanager
def _loading(candidate: Candidate, *, where: str) -> Iterator[None]:
    """Keep open_clip's logging and warnings off the terminal; whatever it raises becomes one TrialUnavailable."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (CandidateError, TrialUnavailable):
        raise
    except pickle.UnpicklingError as error:  # torch's own text advises to run the code in it
        raise TrialUnavailable(
            f"Cannot load candidate {candidate.id!r} from {where}: of a PyTorch file only tensors are read, no code; "
            f"save the weights as safetensors, but got a pickle of something else, or a damaged one"
        ) from error
    except Exception as error:  # open_clip and torch raise all kinds here
        text = " ".join(str(error).split())
        raise TrialUnavailable(
            f"Cannot load candidate {candidate.id!r} from {where}: replace the files or leave it out, but got "
            f"{type(error).__name__}: {text[:500]}"
        ) from error
    finally:
        logging.disable(level)


class NoStartValues(TorchFunctionMode):
    """Within, in this thread, `torch.nn.init` and tensors fill nothing at random: they leave what memory holds.

    Each weight is read from a file right after, and open_clip refuses files that lack one.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Torch's question what a call of ``func`` gives."""
        del types
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
