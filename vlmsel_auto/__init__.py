"""Pick and fine-tune the best pretrained vision-language model for a folder of images.

    result = vlmsel_auto.search("photos", budget=600)

Names are loaded when they are first used: ``import vlmsel_auto`` itself imports neither torch nor open_clip.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vlmsel_auto import errors
    from vlmsel_auto.estimator import VlmClassifier
    from vlmsel_auto.events import Event, Sink
    from vlmsel_auto.library.records import Library
    from vlmsel_auto.models import candidates
    from vlmsel_auto.models.limits import Limits
    from vlmsel_auto.models.onnxfile import OnnxExport, export_onnx
    from vlmsel_auto.models.prediction import Prediction, Predictions, iter_predictions, predict
    from vlmsel_auto.pipeline.label import LabelResult, label
    from vlmsel_auto.pipeline.rank import rank
    from vlmsel_auto.pipeline.result import RankResult, SearchResult
    from vlmsel_auto.pipeline.search import search
    from vlmsel_auto.planning.objective import Objective
    from vlmsel_auto.records import (
        Agreement,
        BestModel,
        Budget,
        Candidate,
        RankedCandidate,
        Ranking,
        TrialResult,
        TrialSpec,
    )
    from vlmsel_auto.reporting.progress import NotebookSink

_HOMES = {
    "Agreement": "records",
    "BestModel": "records",
    "Budget": "records",
    "Candidate": "records",
    "Event": "events",
    "LabelResult": "pipeline.label",
    "Library": "library.records",
    "Limits": "models.limits",
    "NotebookSink": "reporting.progress",
    "Objective": "planning.objective",
    "OnnxExport": "models.onnxfile",
    "Prediction": "models.prediction",
    "Predictions": "models.prediction",
    "RankResult": "pipeline.result",
    "RankedCandidate": "records",
    "Ranking": "records",
    "SearchResult": "pipeline.result",
    "Sink": "events",
    "TrialResult": "records",
    "TrialSpec": "records",
    "VlmClassifier": "estimator",
    "export_onnx": "models.onnxfile",
    "iter_predictions": "models.prediction",
    "label": "pipeline.label",
    "predict": "models.prediction",
    "rank": "pipeline.rank",
    "search": "pipeline.search",
}
_MODULES = {"candidates": "models.candidates", "errors": "errors"}

__all__ = [
    "Agreement",
    "BestModel",
    "Budget",
    "Candidate",
    "Event",
    "LabelResult",
    "Library",
    "Limits",
    "NotebookSink",
    "Objective",
    "OnnxExport",
    "Prediction",
    "Predictions",
    "RankResult",
    "RankedCandidate",
    "Ranking",
    "SearchResult",
    "Sink",
    "TrialResult",
    "TrialSpec",
    "VlmClassifier",
    "candidates",
    "errors",
    "export_onnx",
    "iter_predictions",
    "label",
    "predict",
    "rank",
    "search",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use (PEP 562)."""
    if name not in _MODULES and name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vlmsel_auto.process import collections_paused, import_apart  # imports filelock

    if name == "search":
        import_apart("optuna")  # else it would hold the data of whoever asks for ever
    with collections_paused():
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name) or _HOMES[name]}")
    value = module if name in _MODULES else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Public names, loaded or not."""
    return sorted([*globals(), *__all__])
