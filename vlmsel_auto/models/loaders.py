"""open_clip's own loaders with their known traps closed: how its models and tokenizers are built from files.

Missing weights raise instead of giving a random model, QuickGELU follows the pretraining tag, a folder's vocabulary is
found in the folder, no remote code runs, no hub is asked.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, cast

import open_clip
import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models.loadedmodel import Tokenizer
from vlmsel_auto.models.modeldir import ModelDir
from vlmsel_auto.records import Candidate

_create: Final[Callable[..., nn.Module]] = timm.create_model
_DRAWS: Final = frozenset({
    "normal_", "uniform_", "erfinv_", "trunc_normal_", "kaiming_normal_", "kaiming_uniform_", "xavier_normal_",
    "xavier_uniform_",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Opened:
    """What open_clip made of a candidate's files; `vlmsel_auto.models.zoo` checks it."""

    model: nn.Module
    model_cfg: Mapping[str, Json]  # open_clip's, with the activation that the weights were trained with; or timm's
    tokenizer: Callable[[], Tokenizer] | None = None  # makes it: not everyone wants one; None: there is no text tower
    vocabulary: Path | None = None  # the candidate's own byte-pair vocabulary


def load_tag(candidate: Candidate, weights: Path | None) -> Opened:
    """Build a pretrained model of open_clip from a file; None: open_clip brings it from elsewhere than the hub."""
    model_cfg = _built_in_cfg(candidate)
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
    text_cfg = cast("Mapping[str, Json]", model_cfg["text_cfg"])
    tokenizer = partial(_named_tokenizer, candidate, candidate.arch, text_cfg)
    return Opened(model=model, tokenizer=tokenizer, model_cfg=model_cfg)


def load_folder(candidate: Candidate, found: ModelDir, *, tokenizer: str) -> Opened:
    """Build the model of a folder in open_clip's format; ``tokenizer``: open_clip's name for where its files are."""
    with _loading(candidate, where=str(found.weights)), NoStartValues():
        model = open_clip.create_model(f"local-dir:{found.path}", require_pretrained=True, weights_only=True)
    return Opened(
        model=model,
        tokenizer=partial(_folder_tokenizer, candidate, found, tokenizer),
        model_cfg=found.model_cfg,
        vocabulary=found.vocabulary,
    )


class TowerAlone(nn.Module):
    """A visual tower of timm, without its classifier, as the rest of the package sees a model of open_clip."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("logit_scale", torch.zeros(()), persistent=False)  # exponentiated: 1, no text has another

    def encode_image(self, image: Tensor, normalize: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - open_clip's signature
        """Embed normalised images (n, 3, S, S) -> (n, D)."""
        found = cast("Tensor", self.visual(image))
        return nn.functional.normalize(found, dim=-1) if normalize else found


def load_tower(
    candidate: Candidate,
    weights: Path,
    *,
    name: str,
    arguments: Mapping[str, Json],
    classifier: Sequence[str],
    config: Mapping[str, Json],
) -> Opened:
    """Build a visual tower of timm, its classifier left out, and fill it from a file: every weight, and no other.

    Args:
        candidate: whose view tells how images are prepared.
        weights: safetensors, or a PyTorch file of which only tensors are read.
        name: of a model of timm, with the tag of its pretraining where timm must translate the file.
        arguments: of its constructor, beside the number of classes.
        classifier: names of the modules that timm leaves out.
        config: as timm writes it; mean and std stand in its ``pretrained_cfg``.
    """
    stated = cast("Mapping[str, Json]", config["pretrained_cfg"])
    with _loading(candidate, where=str(weights)), NoStartValues():
        state = timm.models.load_state_dict(str(weights), weights_only=True)
        with torch.device("meta"):
            wanted = _create(name, pretrained=False, num_classes=0, **arguments).state_dict().keys()
        heads = tuple(f"{part.rpartition('.')[0] or part}." for part in classifier)
        state = {key: each for key, each in state.items() if key in wanted or not key.startswith(heads)}
        # without a classifier in its configuration timm loads strictly: no weight stays as it was drawn
        overlay = {"state_dict": state, "classifier": None, "num_classes": 0, "source": ""}
        tower = _create(
            name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay, **arguments
        )  # fmt: skip
    view = candidate.view
    preprocess = {
        "size": view.size, "mode": "RGB", "mean": stated["mean"], "std": stated["std"],
        "interpolation": view.interpolation, "resize_mode": view.resize_mode, "fill_color": view.fill_color,
    }  # fmt: skip
    tower.__dict__["preprocess_cfg"] = preprocess  # where open_clip's towers have it
    return Opened(model=TowerAlone(tower), model_cfg=config)


def _folder_tokenizer(candidate: Candidate, found: ModelDir, name: str) -> Tokenizer:
    text = found.text_cfg
    if text.get("hf_tokenizer_name"):
        return _named_tokenizer(candidate, name, text)
    kwargs = dict(cast("Mapping[str, Json]", text.get("tokenizer_kwargs") or {}))
    kwargs.pop("bpe_path", None)
    if found.vocabulary is not None:
        kwargs["bpe_path"] = str(found.vocabulary)  # absolute: open_clip does not resolve it against the folder
    with _loading(candidate, where=str(found.config_path)):
        return cast("Tokenizer", open_clip.SimpleTokenizer(context_length=text.get("context_length", 77), **kwargs))


def _named_tokenizer(candidate: Candidate, name: str, text_cfg: Mapping[str, Json]) -> Tokenizer:
    with _loading(candidate, where="its tokenizer's files"):
        if not text_cfg.get("hf_tokenizer_name"):
            return cast("Tokenizer", open_clip.get_tokenizer(name))
        # a caller's arguments win over the configuration's: no tokenizer brings its own code, no hub is asked again
        made = open_clip.get_tokenizer(name, trust_remote_code=False, local_files_only=True)
        return cast("Tokenizer", made)


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
