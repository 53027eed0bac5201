"""What a screening of a candidate costs: seconds of download and embedding, corrected by the screenings so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vlmsel_auto.records import FloatArray

_OVERHEAD: Final = 0.3  # seconds to read weights and class names, whatever the size; our own choice
_UNKNOWN_SECONDS: Final = 1.0  # to embed all images, where nothing is known of any candidate
_LEAST_BYTES: Final = 1e6  # of a download that tells the bandwidth


@dataclass(frozen=True, kw_only=True, slots=True)
class TimedScreening:
    """What one screening took."""

    candidate: int  # index into the arrays
    seconds: float  # of loading and embedding
    downloaded: float = 0.0  # bytes
    download_seconds: float = 0.0


def screening_seconds(
    *, embedding: FloatArray, downloads: FloatArray, timed: Sequence[TimedScreening], bandwidth: float
) -> FloatArray:
    """Expected seconds (M,) of a screening of each candidate.

    Args:
        embedding: (M,) predicted seconds to embed all images; NaN: unknown, taken as the median candidate.
        downloads: (M,) bytes still to download; NaN: unknown, likewise.
        timed: screenings so far; the median of their ratios to what was predicted corrects the prediction.
        bandwidth: bytes a second, before anything was downloaded, > 0.
    """
    seconds = _OVERHEAD + _filled(embedding, _UNKNOWN_SECONDS)
    if timed:
        seconds = seconds * float(np.median([each.seconds / seconds[each.candidate] for each in timed]))
    told = [each for each in timed if each.downloaded >= _LEAST_BYTES and each.download_seconds > 0]
    if told:
        bandwidth = sum(each.downloaded for each in told) / sum(each.download_seconds for each in told)
    return seconds + _filled(downloads, 0.0) / bandwidth


def _filled(values: FloatArray, otherwise: float) -> FloatArray:
    known = values[np.isfinite(values)]
    return np.where(np.isfinite(values), values, float(np.median(known)) if len(known) else otherwise)
