"""What a look at a candidate costs: seconds of download, and of embedding by operations, corrected by looks so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.records import FloatArray

_OVERHEAD: Final = 0.3  # seconds to read weights and class names, whatever the size; our own choice
_UNKNOWN_OPERATIONS: Final = 1e12  # of all images, where nothing is known of any candidate
_LEAST_BYTES: Final = 1e6  # of a download that tells the bandwidth


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedLook:
    """What one look took."""

    candidate: int  # index into the arrays
    seconds: float  # of loading and embedding
    downloaded: float = 0.0  # bytes
    download_seconds: float = 0.0


def look_seconds(
    *, operations: FloatArray, downloads: FloatArray, timed: Sequence[TimedLook], speed: float, bandwidth: float
) -> FloatArray:
    """Expected seconds (M,) of a look at each candidate.

    Args:
        operations: (M,) floating-point operations to embed all images; NaN: unknown, taken as the median candidate.
        downloads: (M,) bytes still to download; NaN: unknown, likewise.
        timed: looks so far; the median of their ratios to what was expected corrects the embedding.
        speed: operations a second, before any look was timed, > 0.
        bandwidth: bytes a second, before anything was downloaded, > 0.

    Raises:
        ValueError: speed or bandwidth is not positive.
    """
    if not (speed > 0 and bandwidth > 0):
        raise ValueError(f"speed and bandwidth must be positive, but got {speed!r} and {bandwidth!r}")
    embedding = _OVERHEAD + _filled(operations, _UNKNOWN_OPERATIONS) / speed
    if timed:
        embedding = embedding * float(np.median([each.seconds / embedding[each.candidate] for each in timed]))
    told = [each for each in timed if each.downloaded >= _LEAST_BYTES and each.download_seconds > 0]
    if told:
        bandwidth = sum(each.downloaded for each in told) / sum(each.download_seconds for each in told)
    return embedding + _filled(downloads, 0.0) / bandwidth


def _filled(values: FloatArray, otherwise: float) -> FloatArray:
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, float(np.median(known)) if len(known) else otherwise)
