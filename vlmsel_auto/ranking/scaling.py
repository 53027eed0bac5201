"""Scales of arrays: means of what is known, standard units over candidates, rows of unit length."""

from __future__ import annotations

import numpy as np

from vlmsel_auto.records import FloatArray


def known_mean(values: FloatArray, *, axis: int) -> FloatArray:
    """Mean of the finite values, with the axis kept; 0 where there is none."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=axis, keepdims=True)
    return np.asarray(total / np.maximum(known.sum(axis=axis, keepdims=True), 1), dtype=np.float64)


def standardise(values: FloatArray) -> FloatArray:
    """Zero mean and unit standard deviation over the first axis (candidates); unknown and constant values become 0."""
    values = np.asarray(values, dtype=np.float64)
    mean = known_mean(values, axis=0)
    spread = np.sqrt(known_mean((values - mean) ** 2, axis=0))
    # beyond rounding: a constant column must not become noise
    differ = spread > 1e-12 * np.maximum(1.0, np.abs(mean))
    z = (values - mean) / np.where(differ, spread, 1.0)
    return np.where(np.isfinite(values) & differ, z, 0.0)


def unit_rows(matrix: FloatArray) -> FloatArray:
    """Scale the rows (n, D) to unit length; rows of zeros stay zero."""
    matrix = np.asarray(matrix, dtype=np.float64)
    length = np.linalg.norm(matrix, axis=-1, keepdims=True)
    return np.asarray(matrix / np.where(length > 0.0, length, 1.0), dtype=np.float64)
