"""What tells a candidate whose weights or configuration changed from the one that was measured."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from vlmsel_auto.cache import digest, file_digest
from vlmsel_auto.models.catalogue import HUB, read_json
from vlmsel_auto.models.modeldir import CONFIG, TOKENIZER, TOKENIZER_SETTINGS, ModelDir, read_model_dir
from vlmsel_auto.records import Candidate


def fingerprint(candidate: Candidate) -> str:
    """Hex SHA-256 that changes when the candidate's weights, configuration or tokenizer change.

    A mini-zoo member's comes from its card, a hub repository's from the revision in the cache, a pretraining tag's from
    its name (published weights do not change); a folder's files are read.
    """
    if candidate.arch.startswith(HUB):
        from vlmsel_auto.models.hub import cached_revision  # imports huggingface_hub

        return digest(HUB, candidate.arch, cached_revision(candidate.arch.removeprefix(HUB), CONFIG))
    if candidate.source == "open_clip" or candidate.path is None:
        return digest("open_clip", candidate.arch, candidate.tag)
    if candidate.source == "mini-zoo":
        return digest("mini-zoo", candidate.id, str(read_json(candidate.path / "card.json").get("sha256")))
    found = read_model_dir(candidate.path)
    vocabulary = _content(found.vocabulary) if found.vocabulary else ""
    return digest("local-dir", _content(found.config_path), _content(found.weights), vocabulary, *_tokenizer(found))


def _tokenizer(found: ModelDir) -> Iterator[str]:
    """Names and digests of the files from which transformers makes the folder's tokenizer; none where it does not."""
    if found.text_cfg.get("hf_tokenizer_name"):
        for name in (*TOKENIZER, *TOKENIZER_SETTINGS):
            if (found.path / name).is_file():
                yield from (name, _content(found.path / name))


def _content(path: Path) -> str:
    status = path.stat()
    return _cached_digest(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _cached_digest(path: Path, size: int, modified: int) -> str:
    """Digest of a file; gigabytes of weights are read once a process as long as size and time stay the same."""
    del size, modified  # they are the cache's key
    return file_digest(path)
