"""Which files of the hub a candidate is loaded from: weights, configuration, vocabulary, tokenizer. Asks no network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models import hub
from vlmsel_auto.models.catalogue import HUB, HubSources, hub_sources, sources_of
from vlmsel_auto.models.hub import HubFile
from vlmsel_auto.models.modeldir import CONFIG, TOKENIZER, TOKENIZER_SETTINGS
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import Candidate

_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")  # open_clip.constants, in its order
_PICKLES = (".bin", ".pth")  # for which open_clip tries .safetensors first


def files_of(candidate: Candidate) -> tuple[HubFile, ...]:
    """Return what loading a candidate reads from the hub, small files first; empty for the mini zoo and for folders.

    Of a hub repository whose configuration is not in the cache, configuration and weights are all that is known.

    Raises:
        CandidateError: the cached configuration is not in open_clip's format, or points out of its repository.
    """
    if candidate.path is not None:
        return ()
    sources = sources_for(candidate)
    text = _text_files(sources)
    if not candidate.arch.startswith(HUB):
        return (*text, weights_file(sources.weights)) if sources.weights else ()
    repository = candidate.arch.removeprefix(HUB)
    vocabulary = _vocabulary(repository, _text_cfg(repository))
    return config_file(repository), *vocabulary, *text, weights_file(sources.weights)


def sources_for(candidate: Candidate) -> HubSources:
    """Return where on the hub the candidate's files lie, as far as is known without asking it."""
    if candidate.arch.startswith(HUB):
        repository = candidate.arch.removeprefix(HUB)
        return sources_of(_text_cfg(repository), weights=f"{repository}/")
    return hub_sources(candidate.arch, candidate.tag) or sources_of({}, weights="")


def check_packages(sources: HubSources, *, candidate: Candidate) -> None:
    """Tell before a download of gigabytes that a text tower or tokenizer needs a package that is not installed.

    Raises:
        TrialUnavailable: transformers is needed and missing.
    """
    wanted = sources.tokenizer or sources.text_model
    if wanted and find_spec("transformers") is None:
        raise TrialUnavailable(
            f"Candidate {candidate.id!r} needs the package transformers for its texts ({wanted}): pip install "
            f"transformers sentencepiece, or leave it out, but got none"
        )


def check_text_tower(sources: HubSources, *, candidate: Candidate) -> None:
    """Ask no hub because a folder on this disk says so: what its text tower needs of one must be in the cache.

    Raises:
        TrialUnavailable: it is not.
    """
    if sources.text_model and hub.cached(_text_config(sources)) is None:
        raise TrialUnavailable(
            f"The folder of {candidate.id!r} names a text tower of the hub whose config.json is not in the cache: "
            f"fetch it with `hf download NAME config.json` if you trust it, but got {sources.text_model!r}"
        )


def _text_config(sources: HubSources) -> HubFile:
    return HubFile(repository=sources.text_model, names=("config.json",))


def config_file(repository: str) -> HubFile:
    """Return the configuration of a repository in open_clip's format."""
    return HubFile(repository=repository, names=(CONFIG,))


def weights_file(place: str) -> HubFile:
    """Return the weights at ``place``: ``ORG/NAME/`` for open_clip's usual names, or ``ORG/NAME/FILE``."""
    repository, _, name = place.rpartition("/")
    if not name:
        return HubFile(repository=repository, names=_WEIGHTS)
    safe = (f"{name[: -len(Path(name).suffix)]}.safetensors",) if name.endswith(_PICKLES) else ()
    return HubFile(repository=repository, names=(*safe, name))


def read_config(path: Path) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Return (model_cfg, preprocess_cfg) of a downloaded configuration.

    Raises:
        CandidateError: it is not in open_clip's format.
    """
    try:
        config = parse_json(path.read_bytes())
        return dict(config["model_cfg"]), dict(config.get("preprocess_cfg") or {})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CandidateError(f"{CONFIG} is not in open_clip's format, but got {error!r} for {str(path)!r}") from error


def _text_cfg(repository: str) -> Mapping[str, Json]:
    found = hub.cached(config_file(repository))
    text_cfg = None if found is None else read_config(found)[0].get("text_cfg")
    return text_cfg if isinstance(text_cfg, dict) else {}


def _vocabulary(repository: str, text_cfg: Mapping[str, Json]) -> tuple[HubFile, ...]:
    kwargs = text_cfg.get("tokenizer_kwargs")
    name = kwargs.get("bpe_path") if isinstance(kwargs, dict) else None
    if not isinstance(name, str):
        return ()
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise CandidateError(f"bpe_path of {repository!r} must lie in the repository, but got {name!r}")
    return (HubFile(repository=repository, names=(name,)),)


def _text_files(sources: HubSources) -> tuple[HubFile, ...]:
    files = [_text_config(sources)] if sources.text_model else []
    if sources.tokenizer:
        files += [HubFile(repository=sources.tokenizer, names=(name,), optional=True) for name in TOKENIZER_SETTINGS]
        files.append(HubFile(repository=sources.tokenizer, names=TOKENIZER))
    return tuple(files)
