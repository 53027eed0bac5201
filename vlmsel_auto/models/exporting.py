"""Write a tuned model as a folder that plain open_clip, or timm, loads, with its classifier beside it.

The folder is written under another name and renamed: a reader, or a kill, meets the whole folder or none of it.
"""

from __future__ import annotations

import json
import re
import secrets
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
_OLD = "-old"  # ends the name of an earlier export that is being replaced


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """A classifier head and what its rows mean: softmax(scale * normalise(embedding) @ head.T + bias)."""

    head: NDArray[np.float32]  # (K, D)
    bias: NDArray[np.float32]  # (K,)
    scale: float  # finite and positive
    classes: tuple[str, ...]  # the rows of head
    prompts: tuple[str, ...]  # class names as they are spoken
    templates: tuple[str, ...]  # each holds one {}
    about: Mapping[str, Json] = field(default_factory=dict)  # what a reader should know: method, accuracies, seed
    answers: tuple[AnswerLevel, ...] = ()  # how often it is right above which probability; none: not known
    familiar: Familiar | None = None  # what the training images look like; None: not known
    candidate: str = ""  # what the model was tuned from; only `read_classifier` fills it


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
    part = directory.parent / f".part-{directory.name}-{secrets.token_hex(4)}"
    try:
        _clear(directory)
        part.mkdir(parents=True)
        _write(part, model=model)
        tensors = {"weight": classifier.head, "bias": classifier.bias, "scale": [classifier.scale]}
        if classifier.familiar is not None:
            tensors |= {"means": classifier.familiar.means, "limit": [classifier.familiar.limit]}
        save_file({key: torch.tensor(value, dtype=torch.float32) for key, value in tensors.items()}, part / _HEAD)
        record: dict[str, Json] = {
            "format": _FORMAT,
            "version": _VERSION,
            "candidate": origin.candidate,
            "classes": list(classifier.classes),
            "prompts": list(classifier.prompts),
            "templates": list(classifier.templates),
            "about": dict(classifier.about),
            "answers": encode(classifier.answers),
        }
        _write_json(part / _CLASSES, record)
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
        _swap(part, directory)
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise WorkdirError(f"Cannot write the export folder ({error}), but got {str(directory)!r}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
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
        record = parse_json(labels.read_bytes())
        with safe_open(weights, framework="numpy") as file:
            head, bias, scale = (file.get_tensor(key).astype(np.float32) for key in ("weight", "bias", "scale"))
            known = [file.get_tensor(key).astype(np.float32) for key in ("means", "limit") if key in file.keys()]  # noqa: SIM118 - no mapping
        _check_format(record["format"], record["version"])
        found = Classifier(
            head=head,
            bias=bias,
            scale=scale.item(),
            classes=_texts(record["classes"]),
            prompts=_texts(record["prompts"]),
            templates=_texts(record["templates"]),
            about=dict(record["about"]),
            answers=tuple(decode(AnswerLevel, each) for each in record.get("answers", ())),
            familiar=Familiar(means=known[0], limit=known[1].item()) if known else None,
            candidate=str(record["candidate"]),
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


def _check_format(name: object, number: object) -> None:
    if (name, number) != (_FORMAT, _VERSION):
        raise ValueError(f"only {_FORMAT!r} version {_VERSION} is read, but got {name!r} version {number!r}")


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


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"a list of texts is needed, but got {value!r}")
    return tuple(value)


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


def _write_json(path: Path, value: Mapping[str, Json]) -> None:
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


def _swap(part: Path, directory: Path) -> None:
    """Put ``part`` in the place of ``directory``; between the two renames only the old one's name is missing."""
    if not directory.exists():
        part.rename(directory)
        return
    old = directory.parent / f"{part.name}{_OLD}"
    try:
        directory.rename(old)
        part.rename(directory)
    except BaseException:  # also on KeyboardInterrupt: the earlier export stays
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _clear(directory: Path) -> None:
    """Remove what a run that was killed left of an export to ``directory``, and of none beside it.

    What was killed between the two renames goes back to its place.
    """
    own = re.compile(rf"\.part-{re.escape(directory.name)}-[0-9a-f]{{8}}({_OLD})?")
    for scrap in directory.parent.glob(".part-*"):
        if not own.fullmatch(scrap.name):
            continue
        if scrap.name.endswith(_OLD) and not directory.exists():
            scrap.rename(directory)
        else:
            shutil.rmtree(scrap, ignore_errors=True)
