"""Visual towers of timm, which know no class names: ``timm:NAME`` of its published ones, ``timm:FOLDER`` of own ones.

A folder is as timm writes it for the hub: ``config.json`` and ``model.safetensors``, or ``pytorch_model.bin``. Images
are scaled to the tower's whole input: timm's ``crop_pct`` is left out, as no candidate cuts margins off.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import CandidateError, InputError
from vlmsel_auto.models.catalogue import UNKNOWN
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.modeldir import CONFIG, family_of, view_of, within
from vlmsel_auto.models.sources.local_folders import content, resolved
from vlmsel_auto.models.sources.source import CandidateSource, Stated, Unusable
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.file_names import is_folder

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened

TOWER_CONFIG: Final = "config.json"
TOWER_WEIGHTS: Final = ("model.safetensors", "pytorch_model.bin")  # in timm's order
_NAME: Final = "timm"
_PREFIX: Final = "timm:"
_RESIZE_MODES: Final = {"center": "shortest", "squash": "squash", "border": "longest"}  # by timm's crop_mode
_KEPT: Final = ("input_size", "mean", "std", "interpolation", "crop_mode", "license")  # in an export


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tower:
    """What timm, or a folder as it writes one, says of a tower."""

    name: str  # for timm's constructor, with the tag of its pretraining where it is a published one
    arguments: Mapping[str, Json]  # of the constructor, beside the number of classes
    stated: Mapping[str, Json]  # of the weights: timm's pretrained_cfg


def _resolve(name: str) -> Candidate | Unusable | None:
    if not name.startswith(_PREFIX):
        return None
    rest = name.removeprefix(_PREFIX)
    return at(Path(rest)) if is_folder(Path(rest)) else _candidate(_published(rest), name=name)


def is_tower(folder: Path) -> bool:
    """Whether a folder holds a tower of timm, and no model of open_clip."""
    return (folder / TOWER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def at(path: Path) -> Candidate | Unusable:
    """The candidate of a folder, its id ``timm:FOLDER``.

    Raises:
        CandidateError: its path cannot be followed.
    """
    folder = resolved(path)
    label = f"{_PREFIX}{folder}"
    try:
        _weights(folder)
        tower = _read(folder)
        return replace(_candidate(tower, name=label), path=folder, tag=digest(dict(tower.stated))[:8])
    except CandidateError as error:
        return Unusable(id=label, reason=str(error))


def _published(name: str) -> _Tower:
    import timm

    try:
        found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except (RuntimeError, ValueError, KeyError):  # as timm's versions have it
        found = None
    if found is None:
        close = difflib.get_close_matches(name, timm.list_models(pretrained=True))
        hint = f"; did you mean {' or '.join(f'{_PREFIX}{each}' for each in close)}?" if close else ""
        raise CandidateError(f"timm has no such tower, and there is no such folder{hint}, but got {_PREFIX + name!r}")
    if not found.hf_hub_id:
        raise CandidateError(
            f"timm has no pretrained weights of the tower on the hub: name one that has, but got {_PREFIX + name!r}"
        )
    return _Tower(name=name, arguments={}, stated=json.loads(json.dumps(vars(found), default=str)))


def _read(folder: Path) -> _Tower:
    path = within(folder, TOWER_CONFIG)
    try:
        config = parse_json(path.read_bytes())
    except (OSError, InputError) as error:
        raise CandidateError(f"Cannot read the tower's configuration ({error}), but got {str(path)!r}") from error
    stated = config.get("pretrained_cfg") if isinstance(config, dict) else None
    if not isinstance(config, dict) or not isinstance(stated, dict):
        raise CandidateError(f"{str(path)!r} needs an object pretrained_cfg, as timm writes it, but got {stated!r}")
    arch, arguments = config.get("architecture"), config.get("model_args") or {}
    # a colon would have timm fetch another model
    if not isinstance(arch, str) or ":" in arch:
        raise CandidateError(f"architecture in {str(path)!r} must name a built-in tower of timm, but got {arch!r}")
    if not isinstance(arguments, dict) or not all(_is_number(each) for each in arguments.values()):
        raise CandidateError(f"model_args in {str(path)!r} must be numbers by name, but got {arguments!r}")
    return _Tower(name=arch, arguments=arguments, stated=stated)


def _is_number(value: Json) -> bool:
    return all(_is_number(each) for each in value) if isinstance(value, list) else isinstance(value, (int, float))


def _weights(folder: Path) -> Path:
    found = next((each for each in TOWER_WEIGHTS if (folder / each).is_file()), None)
    if found is None:
        raise CandidateError(f"The tower's folder has no {' or '.join(TOWER_WEIGHTS)}, but got {str(folder)!r}")
    return within(folder, found)


def _of(candidate: Candidate) -> _Tower:
    return _published(candidate.id.removeprefix(_PREFIX)) if candidate.path is None else _read(candidate.path)


def _candidate(tower: _Tower, *, name: str) -> Candidate:
    sizes, crop = tower.stated.get("input_size"), str(tower.stated.get("crop_mode") or "center")
    preprocess: dict[str, Json] = {
        "resize_mode": _RESIZE_MODES.get(crop, crop),
        "interpolation": tower.stated.get("interpolation"),
    }
    return Candidate(
        id=name,
        source=_NAME,
        arch=tower.name.partition(".")[0],
        tag=str(tower.stated.get("tag") or ""),
        view=view_of(preprocess, size=sizes[1:] if isinstance(sizes, list) else None, name=name),
        params=_counted(tower),
        family=family_of({"vision_cfg": {"timm_model_name": tower.name}}),
        has_text=False,
    )


def _counted(tower: _Tower) -> int:
    """Parameters without the classifier; nothing is read or drawn."""
    import timm
    import torch

    create: Callable[..., torch.nn.Module] = timm.create_model
    try:
        with torch.device("meta"):
            made = create(tower.name, pretrained=False, num_classes=0, **tower.arguments)
    except Exception as error:  # timm raises all kinds here
        raise CandidateError(
            f"timm cannot build the tower ({type(error).__name__}: {error}), but got {tower.name!r}"
        ) from error
    return sum(each.numel() for each in made.parameters())


def _facts(candidate: Candidate) -> Stated:
    stated = _of(candidate).stated
    return Stated(
        repository=str(stated.get("hf_hub_id") or "") if candidate.path is None else "",
        licence=str(stated.get("license") or UNKNOWN),
        elsewhere=candidate.id if candidate.path is None else candidate.arch,
    )


def _fingerprint(candidate: Candidate) -> str:
    if candidate.path is None:
        return digest(_NAME, candidate.id)  # published weights do not change
    return digest(_NAME, content(candidate.path / TOWER_CONFIG), content(_weights(candidate.path)))


def _files(candidate: Candidate) -> tuple[HubFile, ...]:
    if candidate.path is not None:
        return ()
    stated = _of(candidate).stated
    named = stated.get("hf_hub_filename")
    return (HubFile(repository=str(stated["hf_hub_id"]), names=(str(named),) if named else TOWER_WEIGHTS),)


def _load(candidate: Candidate) -> Opened:
    from vlmsel_auto.models import hub
    from vlmsel_auto.models.loaders import load_tower

    tower = _of(candidate)
    weights = _weights(candidate.path) if candidate.path is not None else hub.in_cache(_files(candidate)[0])
    named = tower.stated.get("classifier") or []
    kept = {key: tower.stated[key] for key in _KEPT if tower.stated.get(key)}
    config: dict[str, Json] = {"architecture": candidate.arch, "num_classes": 0, "model_args": dict(tower.arguments)}
    return load_tower(
        candidate,
        weights,
        name=tower.name,
        arguments=tower.arguments,
        classifier=[str(each) for each in (named if isinstance(named, list) else [named])],
        config={**config, "pretrained_cfg": {**kept, "crop_pct": 1.0, "num_classes": 0}},
    )


SOURCE: Final = CandidateSource(
    name=_NAME, resolve=_resolve, facts=_facts, fingerprint=_fingerprint, load=_load, files=_files
)
