"""Frozen records that pass between the rooms: numpy arrays and plain values, no behaviour beyond look-ups.

Shapes: n images, M candidates, S source tasks, B visual blocks, C channels of a block, K classes, D embedding width.
"""

from vlmsel_auto.records.arrays import FloatArray, IntArray
from vlmsel_auto.records.candidate import Candidate, Profile
from vlmsel_auto.records.model import AnswerLevel, BestModel, EnsembleModel, ExpectedAccuracy, FinalScore
from vlmsel_auto.records.ranking import Agreement, Basis, Interval, NotScreened, RankedCandidate, Ranking
from vlmsel_auto.records.task import CLASSES_ALIKE, UNLABELLED, BadFile, Draw, ImageView, Metric, PixelSource, Task
from vlmsel_auto.records.trial import (
    Budget,
    StoppedBy,
    TrialOrigin,
    TrialResult,
    TrialSpec,
    TrialState,
    settings_key,
)

__all__ = [
    "CLASSES_ALIKE",
    "UNLABELLED",
    "Agreement",
    "AnswerLevel",
    "BadFile",
    "Basis",
    "BestModel",
    "Budget",
    "Candidate",
    "Draw",
    "EnsembleModel",
    "ExpectedAccuracy",
    "FinalScore",
    "FloatArray",
    "ImageView",
    "IntArray",
    "Interval",
    "Metric",
    "NotScreened",
    "PixelSource",
    "Profile",
    "RankedCandidate",
    "Ranking",
    "StoppedBy",
    "Task",
    "TrialOrigin",
    "TrialResult",
    "TrialSpec",
    "TrialState",
    "settings_key",
]
