"""Visual towers of timm, which know no class names: ``timm:NAME`` of its published ones, ``timm:FOLDER`` of own ones.

A folder is as timm writes it for the hub: ``config.json`` and ``model.safetensors``, or ``pytorch_model.bin``. Images
are scaled to the tower's whole input: timm's ``crop_pct`` is left out, as no candidate cuts margins off.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
_STATED: Final = ("input_size", "mean", "std", "interpolation", "crop_mode", "classifier", "license")


def _resolve(name: str, base: Path) -> Candidate | Unusable | None:
    if not name.startswith(_PREFIX):
        return None
    rest = name.removeprefix(_PREFIX)
    return at(base / rest) if is_folder(base / rest) else _described(rest, {}, _published(rest), name=name)


def is_tower(folder: Path) -> bool:
    """Whether a folder holds a tower of timm, and no model of open_clip."""
    return (folder / TOWER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def at(path: Path, *, name: str | None = None) -> Candidate | Unusable:
    """The candidate of a folder, its id ``name`` or else ``timm:FOLDER``.

    Raises:
        CandidateError: its path cannot be followed.
    """
    folder = resolved(path)
    label = name or f"{_PREFIX}{folder}"
    try:
        _weights(folder)
        arch, arguments, stated = _read(folder)
        return replace(_described(arch, arguments, stated, name=label), path=folder, tag=digest(dict(stated))[:8])
    except CandidateError as error:
        return Unusable(id=label, reason=str(error))


def _published(name: str) -> dict[str, Json]:
    """What timm states of a published tower, with the place of its weights."""
    import timm

    try:
        found = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except (RuntimeError, ValueError, KeyError):  # as timm's versions have it
        found = None
    if found is None:
        known = timm.list_models(pretrained=True)
        close = difflib.get_close_matches(name, known, n=3) or [each for each in known if each.startswith(name)][:3]
        hint = f"; did you mean {' or '.join(f'{_PREFIX}{each}' for each in close)}?" if close else ""
        raise CandidateError(f"timm has no such tower, and there is no such folder{hint}, but got {_PREFIX + name!r}")
    if not found.hf_hub_id:
        raise CandidateError(
            f"timm has no pretrained weights of the tower on the hub: name one that has, but got {_PREFIX + name!r}"
        )
    stated = {key: value for key, value in vars(found).items() if key in _STATED}
    return {**stated, "hf_hub_id": found.hf_hub_id, "hf_hub_filename": found.hf_hub_filename, "tag": found.tag}


def _described(arch: str, arguments: Mapping[str, Json], stated: Mapping[str, Json], *, name: str) -> Candidate:
    sizes, crop = stated.get("input_size"), str(stated.get("crop_mode") or "center")
    size = list(sizes[1:]) if isinstance(sizes, (list, tuple)) else None
    preprocess: dict[str, Json] = {
        "resize_mode": _RESIZE_MODES.get(crop, crop),
        "interpolation": stated.get("interpolation"),
    }
    return Candidate(
        id=name,
        source=_NAME,
        arch=arch.partition(".")[0],
        tag=str(stated.get("tag") or ""),
        view=view_of(preprocess, size=size, name=name),
        params=_counted(arch, arguments),
        family=family_of({"vision_cfg": {"timm_model_name": arch}}),
        has_text=False,
    )


def _counted(arch: str, arguments: Mapping[str, Json]) -> int:
    """Parameters without the classifier; nothing is read or drawn."""
    import timm
    import torch

    create: Callable[..., torch.nn.Module] = timm.create_model
    try:
        with torch.device("meta"):
            tower = create(arch, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # timm raises all kinds here
        raise CandidateError(
            f"timm cannot build the tower ({type(error).__name__}: {error}), but got {arch!r}"
        ) from error
    return sum(each.numel() for each in tower.parameters())


def _read(folder: Path) -> tuple[str, dict[str, Json], dict[str, Json]]:
    """Architecture, numbers for its constructor and what is stated of the weights: a folder's configuration."""
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
    return arch, arguments, {key: value for key, value in stated.items() if key in _STATED}


def _is_number(value: Json) -> bool:
    return all(_is_number(each) for each in value) if isinstance(value, list) else isinstance(value, (int, float))


def _weights(folder: Path) -> Path:
    found = next((each for each in TOWER_WEIGHTS if (folder / each).is_file()), None)
    if found is None:
        raise CandidateError(f"The tower's folder has no {' or '.join(TOWER_WEIGHTS)}, but got {str(folder)!r}")
    return within(folder, found)


def _of(candidate: Candidate) -> tuple[str, Mapping[str, Json], Mapping[str, Json]]:
    if candidate.path is not None:
        return _read(candidate.path)
    name = candidate.id.removeprefix(_PREFIX)
    return name, {}, _published(name)


def _facts(candidate: Candidate) -> Stated:
    _, _, stated = _of(candidate)
    return Stated(
        repository=str(stated.get("hf_hub_id") or ""),
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
    _, _, stated = _of(candidate)
    named = stated.get("hf_hub_filename")
    return (HubFile(repository=str(stated["hf_hub_id"]), names=(str(named),) if named else TOWER_WEIGHTS),)


def _load(candidate: Candidate) -> Opened:
    from vlmsel_auto.models import hub
    from vlmsel_auto.models.loaders import load_tower

    name, arguments, stated = _of(candidate)
    weights = _weights(candidate.path) if candidate.path is not None else hub.in_cache(_files(candidate)[0])
    named = stated.get("classifier")
    return load_tower(
        candidate,
        weights,
        name=name,
        arguments=arguments,
        classifier=[named] if isinstance(named, str) else _texts(named),
        config=_config(candidate, arguments, stated),
    )


def _texts(value: Json | Sequence[str]) -> list[str]:
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else []


def _plain(value: Json | tuple[float, ...]) -> Json:
    """A value of timm's as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def _config(candidate: Candidate, arguments: Mapping[str, Json], stated: Mapping[str, Json]) -> dict[str, Json]:
    """Configuration of the tower without its classifier, as timm and `at` read it."""
    modes = {ours: theirs for theirs, ours in _RESIZE_MODES.items()}
    view = candidate.view
    kept: dict[str, Json] = {
        "input_size": [3, view.size, view.size],
        "mean": _plain(stated.get("mean")),
        "std": _plain(stated.get("std")),
        "interpolation": view.interpolation,
        "crop_mode": modes[view.resize_mode],
        "crop_pct": 1.0,
        "num_classes": 0,
    }
    if stated.get("license"):
        kept["license"] = stated["license"]
    config: dict[str, Json] = {"architecture": candidate.arch, "num_classes": 0, "pretrained_cfg": kept}
    return {**config, "model_args": dict(arguments)} if arguments else config


SOURCE: Final = CandidateSource(
    name=_NAME, resolve=_resolve, facts=_facts, fingerprint=_fingerprint, load=_load, files=_files
)
