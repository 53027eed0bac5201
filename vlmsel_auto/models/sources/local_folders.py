"""A user's own folders in open_clip's format: ``local-dir:FOLDER``."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safetensors import SafetensorError, safe_open

from vlmsel_auto.cache import digest, file_digest
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models.hubfiles import text_config
from vlmsel_auto.models.modeldir import TOKENIZER, TOKENIZER_SETTINGS, ModelDir, read_model_dir
from vlmsel_auto.models.sources.source import CandidateSource, Stated, Unusable, described
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.file_names import is_folder

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened

_NAME: Final = "local-dir"
_PREFIX: Final = "local-dir:"  # open_clip's


def _resolve(name: str) -> Candidate | Unusable | None:
    return at(Path(name.removeprefix(_PREFIX))) if name.startswith(_PREFIX) else None


def is_whole(name: str) -> bool:
    """Whether the text is one name, its commas being part of a folder's."""
    return name.startswith(_PREFIX) and is_folder(Path(name.removeprefix(_PREFIX)))


def at(path: Path) -> Candidate | Unusable:
    """The candidate of a folder, its id ``local-dir:FOLDER``.

    Raises:
        CandidateError: there is no such folder, which more likely is a slip of the pen than a candidate.
    """
    # resolve(): one folder reached by two routes is one candidate, and a later chdir changes nothing
    folder = resolved(path)
    label = f"{_PREFIX}{folder}"
    try:
        found = read_model_dir(folder)
        tag = digest(dict(found.model_cfg), dict(found.preprocess_cfg))[:8]
        made = described(found.model_cfg, found.preprocess_cfg, name=label, source=_NAME, arch=folder.name, tag=tag)
        return replace(made, path=folder)
    except CandidateError as error:
        if not is_folder(folder):
            raise
        return Unusable(id=label, reason=str(error))


def _facts(candidate: Candidate) -> Stated:
    if candidate.path is None:
        return Stated(elsewhere=candidate.arch)
    found = read_model_dir(candidate.path)
    return Stated(params=_counted(found.weights), text_cfg=found.text_cfg, elsewhere=candidate.arch)


def _fingerprint(candidate: Candidate) -> str:
    found = _folder(candidate)
    vocabulary = content(found.vocabulary) if found.vocabulary else ""
    return digest(_NAME, content(found.config_path), content(found.weights), vocabulary, *_tokenizer(found))


def load(candidate: Candidate) -> Opened:
    """Load the folder; no hub is asked because a folder says so.

    Raises:
        TrialUnavailable: also where its text tower needs a file of the hub that is not in the cache.
    """
    from vlmsel_auto.models import hub
    from vlmsel_auto.models.loaders import load_folder

    found = _folder(candidate)
    if any(hub.cached(file) is None for file in text_config(found.text_cfg)):
        raise TrialUnavailable(
            f"The folder of {candidate.id!r} names a text tower of the hub whose config.json is not in the cache: "
            f"fetch it with `hf download NAME config.json` if you trust it, but got {found.text_cfg['hf_model_name']!r}"
        )
    return load_folder(candidate, found, tokenizer=f"{_PREFIX}{found.path}")


def resolved(path: Path) -> Path:
    """The path without links and ``~``.

    Raises:
        CandidateError: it cannot be followed: a link to itself, a NUL, a name too long, no such user.
    """
    try:
        found = path.expanduser().resolve()
        found.is_file()
    except (OSError, ValueError, RuntimeError) as error:
        raise CandidateError(f"Cannot follow the path of a candidate ({error}), but got {str(path)!r}") from error
    return found


def _folder(candidate: Candidate) -> ModelDir:
    if candidate.path is None:
        raise CandidateError(f"A folder of this disk needs a path, but got none for {candidate.id!r}")
    return read_model_dir(candidate.path)


def _counted(weights: Path) -> int | None:
    try:
        with safe_open(weights, framework="numpy") as file:  # reads the header alone
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):  # a PyTorch file tells nothing unless it is read
        return None
    return int(sum(math.prod(shape) for shape in shapes))


def _tokenizer(found: ModelDir) -> Iterator[str]:
    """Names and digests of the files from which transformers makes the folder's tokenizer; none where it does not."""
    if found.text_cfg.get("hf_tokenizer_name"):
        for name in (*TOKENIZER, *TOKENIZER_SETTINGS):
            if (found.path / name).is_file():
                yield from (name, content(found.path / name))


def content(path: Path) -> str:
    """Digest of a file."""
    status = path.stat()
    return _cached_digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _cached_digest(path: Path, size: int, modified: int) -> str:
    """Digest of a file; gigabytes of weights are read once a process as long as size and time stay the same."""
    del size, modified  # they are the cache's key
    return file_digest(path)


SOURCE: Final = CandidateSource(name=_NAME, resolve=_resolve, facts=_facts, fingerprint=_fingerprint, load=load)
