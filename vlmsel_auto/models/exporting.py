"""Write a tuned model as a folder that plain open_clip, or timm, loads, with its classifier beside it.

The folder is written under another name and renamed: a reader, or a kill, meets the whole folder or none of it.
"""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, WorkdirError
from vlmsel_auto.models.card import NOTHING_KNOWN, Provenance, model_card
from vlmsel_auto.models.facts import Facts, facts_of
from vlmsel_auto.models.familiar import Familiar
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.models.modeldir import CONFIG, VOCABULARY, WEIGHTS, within
from vlmsel_auto.models.sources.table import source_of
from vlmsel_auto.models.sources.timm_towers import TOWER_CONFIG, TOWER_WEIGHTS
from vlmsel_auto.recordjson import decode, encode, parse_json
from vlmsel_auto.records import AnswerLevel, Candidate

_HEAD = "head.safetensors"
_CLASSES = "classes.json"
_FORMAT = "vlmsel_auto classifier"
_VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A classifier head and what its rows mean: softmax(scale * normalise(embedding) @ head.T + bias)."""

    head: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float  # finite and positive
    classes: tuple[str, ...]  # the rows of head
    prompts: tuple[str, ...]  # class names as they are spoken
    templates: tuple[str, ...]  # each holds one {}
    about: Mapping[str, object] = field(default_factory=dict)  # what a reader should know: method, accuracies, seed
    answers: tuple[AnswerLevel, ...] = ()  # how often it is right above which probability; none: not known
    familiar: Familiar | None = None  # what the training images look like; None: not known
    candidate: str = ""  # what the model was tuned from; only `read_classifier` fills it


@dataclass(frozen=True, kw_only=True, slots=True)
class _Record:
    """A classifier but for its arrays, as a file."""

    format: str
    version: int
    candidate: str
    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    templates: tuple[str, ...]
    about: Mapping[str, object]
    answers: tuple[AnswerLevel, ...] = ()


def export(model: LoadedModel, classifier: Classifier, *, directory: Path, known: Provenance = NOTHING_KNOWN) -> Path:
    """Write the tuned ``model``, as float32, and its classifier to ``directory`` and return it.

    The card there tells what is ``known`` of how it came about. An earlier export there is replaced, anything else is
    left alone.

    Raises:
        ValueError: the head does not fit the classes or the model, or is not finite.
        WorkdirError: ``directory`` holds something else, or cannot be written.
    """
    _check(classifier)
    if directory.exists() and not _is_replaceable(directory):
        raise WorkdirError(
            f"The export folder must be new, empty or an earlier export: choose another, but got {str(directory)!r}"
        )
    origin = _origin(model.candidate)
    part, old = _beside(directory)
    try:
        _clear(directory)  # of what a run that was killed left
        part.mkdir(parents=True)
        _write(part, model=model)
        tensors = {"weight": classifier.head, "bias": classifier.bias, "scale": [classifier.scale]}
        if classifier.familiar is not None:
            tensors |= {"means": classifier.familiar.means, "limit": [classifier.familiar.limit]}
        save_file({key: torch.tensor(value, dtype=torch.float32) for key, value in tensors.items()}, part / _HEAD)
        record = _Record(
            format=_FORMAT,
            version=_VERSION,
            candidate=origin.candidate,
            classes=classifier.classes,
            prompts=classifier.prompts,
            templates=classifier.templates,
            about=classifier.about,
            answers=classifier.answers,
        )
        _write_json(part / _CLASSES, encode(record))
        text_cfg = cast("Mapping[str, Json]", model.model_cfg.get("text_cfg", {}))
        text = model_card(
            origin,
            name=directory.name,
            classes=classifier.classes,
            known=known,
            own_context=cast("int", text_cfg.get("context_length", 77)) if model.vocabulary else None,
            tower=not model.candidate.has_text,
        )
        (part / "README.md").write_text(text, "utf-8")
        _same_mode(part)
        if directory.exists():
            directory.rename(old)
        part.rename(directory)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise WorkdirError(f"Cannot write the export folder ({error}), but got {str(directory)!r}") from error
    finally:
        _clear(directory)
    return directory


def read_classifier(directory: Path) -> Classifier:
    """Read the classifier of an exported folder.

    Raises:
        CandidateError: the folder is no export of vlmsel_auto, its files are damaged or do not fit together, or one is
            a link to outside of it.
    """
    where = str(directory)
    labels, weights = within(directory, _CLASSES), within(directory, _HEAD)
    try:
        record = decode(_Record, parse_json(labels.read_bytes()))
        with safe_open(weights, framework="numpy") as file:
            head, bias, scale = (file.get_tensor(key).astype(np.float32) for key in ("weight", "bias", "scale"))
            known = [file.get_tensor(key).astype(np.float32) for key in ("means", "limit") if key in file.keys()]  # noqa: SIM118 - no mapping
        if (record.format, record.version) != (_FORMAT, _VERSION):
            raise ValueError(f"only {_FORMAT!r} version {_VERSION} is read")  # noqa: TRY301 - as what decode finds
        found = Classifier(
            head=head,
            bias=bias,
            scale=scale.item(),
            classes=record.classes,
            prompts=record.prompts,
            templates=record.templates,
            about=record.about,
            answers=record.answers,
            familiar=Familiar(means=known[0], limit=known[1].item()) if known else None,
            candidate=record.candidate,
        )
        _check(found)
    except FileNotFoundError as error:
        missing = Path(str(error.filename or error)).name
        raise CandidateError(
            f"Only a folder that vlmsel_auto exported can predict; {missing} is missing, but got {where!r}"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        raise CandidateError(
            f"The classifier is damaged ({type(error).__name__}: {error}), but got {where!r}"
        ) from error
    return found


def _check(classifier: Classifier) -> None:
    head, bias, scale, count = classifier.head, classifier.bias, classifier.scale, len(classifier.classes)
    means = head if classifier.familiar is None else classifier.familiar.means
    fits = means.shape[1:] == head.shape[1:] and head.ndim == 2 and len(head) == count and bias.shape == (count,)  # noqa: PLR2004 - (K, D)
    if not fits or len(classifier.prompts) != count or count < 1:
        raise ValueError(
            f"The head must be (K, D), means as wide, the bias (K,) and the prompts K for the K = {count} classes, but "
            f"got {head.shape}, {means.shape}, {bias.shape} and {len(classifier.prompts)}"
        )
    if len(set(classifier.classes)) < count:  # predictions are told by name
        raise ValueError(f"Each class needs a name of its own, but got {list(classifier.classes)!r}")
    if not (np.isfinite(head).all() and np.isfinite(bias).all() and np.isfinite(scale) and scale > 0):
        raise ValueError(f"Head and bias must be finite and the scale positive, but got scale {scale!r}")


def _is_replaceable(directory: Path) -> bool:
    return directory.is_dir() and ((directory / _CLASSES).is_file() or not any(directory.iterdir()))


def _write(folder: Path, *, model: LoadedModel) -> None:
    alone = not model.candidate.has_text
    # clones: safetensors refuses tensors that share memory
    weights = {
        key: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).clone().contiguous()
        for key, value in (model.visual if alone else model.model).state_dict().items()
    }
    save_file(weights, folder / (TOWER_WEIGHTS[0] if alone else WEIGHTS), metadata={"format": "pt"})
    if alone:
        _write_json(folder / TOWER_CONFIG, model.model_cfg)
        return
    model_cfg = json.loads(json.dumps(dict(model.model_cfg)))  # a deep copy that is surely JSON
    text_cfg = model_cfg["text_cfg"]
    if "timm_model_name" in model_cfg["vision_cfg"]:
        model_cfg["vision_cfg"]["timm_model_pretrained"] = False
    text_cfg.get("tokenizer_kwargs", {}).pop("trust_remote_code", None)
    if model.vocabulary is not None:
        shutil.copyfile(model.vocabulary, folder / VOCABULARY)
        # relative to the folder: zoo.load resolves it; open_clip does not, and says so rather than using its default
        text_cfg["tokenizer_kwargs"] = {**text_cfg.get("tokenizer_kwargs", {}), "bpe_path": VOCABULARY}
    elif text_cfg.get("hf_tokenizer_name") and callable(save := getattr(model.tokenizer, "save_pretrained", None)):
        save(str(folder))  # where open_clip looks for it when it loads a local-dir
    _write_json(folder / CONFIG, {"model_cfg": model_cfg, "preprocess_cfg": dict(model.preprocess_cfg)})


def _write_json(path: Path, value: Json | Mapping[str, Json]) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", "utf-8")


def _same_mode(folder: Path) -> None:
    """Let everybody read the weights who may read the rest: safetensors writes files that only their owner can read."""
    mode = stat.S_IMODE((folder / _CLASSES).stat().st_mode)
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)


def _origin(candidate: Candidate) -> Facts:
    """What is known of the candidate; of a user's own folder only its name, since exports travel to other machines."""
    known = facts_of(candidate)
    return replace(known, candidate=source_of(candidate).facts(candidate).elsewhere or candidate.id)


def _beside(directory: Path) -> tuple[Path, Path]:
    """Where the export to ``directory`` is written, and where an earlier one lies while it is replaced."""
    return directory.with_name(f".part-{directory.name}"), directory.with_name(f".old-{directory.name}")


def _clear(directory: Path) -> None:
    """Remove what is half written; an earlier export that nothing has replaced goes back to its place."""
    part, old = _beside(directory)
    if old.exists() and not directory.exists():
        old.rename(directory)
    for scrap in (part, old):
        shutil.rmtree(scrap, ignore_errors=True)
