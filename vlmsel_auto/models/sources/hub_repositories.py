"""Repositories of the hub in open_clip's own format: ``hf-hub:ORG/NAME``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models.catalogue import licence_of
from vlmsel_auto.models.hubfiles import HubFile, text_files, weights_file
from vlmsel_auto.models.modeldir import CONFIG, read_config, read_model_dir
from vlmsel_auto.models.sources.source import CandidateSource, Stated, described
from vlmsel_auto.records import Candidate

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened

_NAME: Final = "hf-hub"
_PREFIX: Final = "hf-hub:"  # open_clip's


def _resolve(name: str) -> Candidate | None:
    """Download the configuration, unless it is in the cache."""
    if not name.startswith(_PREFIX):
        return None
    from vlmsel_auto.models import hub  # imports huggingface_hub: only for hub repositories

    config = _config_file(_repository(name))
    try:
        hub.bring(config)
        return described(*read_config(hub.in_cache(config)), name=name, source=_NAME, arch=name)
    except TrialUnavailable as error:
        raise CandidateError(str(error)) from error


def _facts(candidate: Candidate) -> Stated:
    repository = _repository(candidate.arch)
    return Stated(repository=repository, licence=licence_of(repository), text_cfg=_text_cfg(repository))


def _fingerprint(candidate: Candidate) -> str:
    path = _cached_config(_repository(candidate.arch))
    return digest(_PREFIX, candidate.arch, "" if path is None else path.parent.name)


def _files(candidate: Candidate) -> tuple[HubFile, ...]:
    """The configuration alone until it is in the cache: it names the others."""
    repository = _repository(candidate.arch)
    config = _config_file(repository)
    if _cached_config(repository) is None:
        return (config,)
    text_cfg = _text_cfg(repository)
    vocabulary = _vocabulary(repository, text_cfg)
    return config, *vocabulary, *text_files(text_cfg), weights_file(f"{repository}/")


def _load(candidate: Candidate) -> Opened:
    from vlmsel_auto.models import hub
    from vlmsel_auto.models.loaders import load_folder

    found = read_model_dir(hub.in_cache(_config_file(_repository(candidate.arch))).parent)
    return load_folder(candidate, found, tokenizer=candidate.arch)


def _repository(name: str) -> str:
    return name.removeprefix(_PREFIX)


def _config_file(repository: str) -> HubFile:
    return HubFile(repository=repository, names=(CONFIG,))


def _cached_config(repository: str) -> Path | None:
    from vlmsel_auto.models import hub

    return hub.cached(_config_file(repository))


def _text_cfg(repository: str) -> Mapping[str, Json]:
    path = _cached_config(repository)
    text_cfg = None if path is None else read_config(path)[0].get("text_cfg")
    return text_cfg if isinstance(text_cfg, dict) else {}


def _vocabulary(repository: str, text_cfg: Mapping[str, Json]) -> tuple[HubFile, ...]:
    kwargs = text_cfg.get("tokenizer_kwargs")
    name = kwargs.get("bpe_path") if isinstance(kwargs, dict) else None
    if not isinstance(name, str):
        return ()
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise CandidateError(f"bpe_path of {repository!r} must lie in the repository, but got {name!r}")
    return (HubFile(repository=repository, names=(name,)),)


SOURCE: Final = CandidateSource(
    name=_NAME, resolve=_resolve, facts=_facts, fingerprint=_fingerprint, load=_load, files=_files
)
