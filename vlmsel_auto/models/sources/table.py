"""The table of sources; nobody else compares names of candidates with a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vlmsel_auto.models.sources import hub_repositories, local_folders, mini_zoo, open_clip_tags, timm_towers
from vlmsel_auto.models.sources.source import CandidateSource
from vlmsel_auto.records import Candidate

SOURCES: Final[Mapping[str, CandidateSource]] = {
    each.SOURCE.name: each.SOURCE for each in (mini_zoo, timm_towers, open_clip_tags, hub_repositories, local_folders)
}


def source_of(candidate: Candidate) -> CandidateSource:
    """The source that a candidate comes from."""
    return SOURCES[candidate.source]


def fingerprint(candidate: Candidate) -> str:
    """Hex SHA-256 that changes when the candidate's weights, configuration or tokenizer change."""
    return source_of(candidate).fingerprint(candidate)
