"""One search while it lasts: what was asked for, what is open, and since when."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vlmsel_auto.cache import Json
from vlmsel_auto.pipeline.request import SearchRequest
from vlmsel_auto.pipeline.session import Session


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A search that has its task, its candidates and its work directory."""

    request: SearchRequest
    session: Session
    workdir: Path
    command: str  # as the report says it
    settings: Mapping[str, Json]  # likewise; those that a work directory is bound to
    began: float  # `time.monotonic` from which wall time counts
    started_after: float  # seconds until the first image was read

    @property
    def seconds(self) -> float:
        """Wall time so far."""
        return time.monotonic() - self.began
