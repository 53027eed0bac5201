"""A scikit-learn classifier of images: `fit` is a search, `predict` asks the model that it found.

Images go through files, whatever they were given as, so that a model sees the same pixels in `fit`, in `predict` and on
the command line.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Hashable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from vlmsel_auto.cache import Json, write_atomically
from vlmsel_auto.errors import InputError, TrialFailed, WorkdirError
from vlmsel_auto.events import discard
from vlmsel_auto.models.limits import NO_LIMITS, Limits
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import Budget, FloatArray, Metric
from vlmsel_auto.reporting.progress import PlainSink
from vlmsel_auto.tasks.in_memory import as_classes, as_files, as_images, names_of, write_task

if TYPE_CHECKING:
    from vlmsel_auto.pipeline.result import SearchResult

_SAVED: Final = "estimator.json"
_MODEL: Final = "model"
_FORMAT: Final = "vlmsel_auto.VlmClassifier"
_VERSION: Final = 1
_OF_SEARCH: Final = ("budget", "candidates", "offline", "method", "ensemble", "shots", "seed", "library", "cache_dir",
                     "device", "learn")  # fmt: skip  # settings that are handed on


@dataclass(kw_only=True, eq=False, repr=False)
class VlmClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Search for the best vision-language model, fine-tune it, and classify with it.

    ``X`` is a list or array of paths, a list of Pillow images, or an array (n, H, W, 3) of uint8; ``y`` any hashable
    labels that differ as text. Every label is learned from: no test split is drawn. Nothing is checked before `fit`.

    Args:
        budget: as for `vlmsel_auto.search`, like all up to ``seed``.
        candidates: what to choose from.
        limits: what a candidate may take; None: anything.
        offline: no hub is asked.
        method: methods of tuning; "zero_shot" trains nothing, "probe" suits few labels.
        ensemble: most heads, and towers, that are pooled; 0: one model alone.
        shots: labelled images a class that the ranking may look at.
        seed: of everything that is drawn.
        metric: what the search maximises: "accuracy", "balanced_accuracy" or "macro_f1". `score` is accuracy.
        domain: what the images are, as in task.toml.
        templates: prompts with a {} each; none: the usual ones.
        prompts: label -> what the {} becomes; without, the label as text.
        library: file of source tasks; None: the shipped library merged with the user's own.
        cache_dir: measurements of candidates, shared by several fits; None: inside the work directory.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        learn: add the outcome to the user's library.
        workdir: everything that one fit makes; the same fit on it resumes. None: a temporary folder, which goes with
            the estimator.
        batch_size: images that `predict` takes at a time.
        verbose: tell on standard error what is being done.

    Attributes:
        classes_: (K,) labels in the order of `predict_proba`'s columns.
        model_dir_: the exported model that predicts: the ensemble where there is one.
        result_: what `vlmsel_auto.search` gave back; not there after `load`.
    """

    budget: Budget | float | None = None
    candidates: str | Sequence[str] | Path = "auto"
    limits: Limits | None = None
    offline: bool = False
    method: str | Sequence[str] = "all"
    ensemble: int = 8
    shots: int = 16
    seed: int = 0
    metric: Metric = "accuracy"
    domain: str | None = None
    templates: Sequence[str] = ()
    prompts: Mapping[Hashable, str] | None = None
    library: str | Path | None = None
    cache_dir: str | Path | None = None
    device: str = "auto"
    learn: bool = False
    workdir: str | Path | None = None
    batch_size: int = 64
    verbose: bool = False

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Search on images and their labels.

        ``groups``: one an image, equal for images that belong together, as frames of one video do: cross-validation
        does not divide them.

        Raises:
            InputError: images, labels or settings cannot be used.
            TrialFailed: no trial succeeded, or the best model could not be written.
            KeyboardInterrupt: asked to end; with a work directory the same fit goes on.
        """
        from vlmsel_auto import search

        images = as_images(X)
        classes, numbers = as_classes(y)
        if len(numbers) != len(images):
            raise InputError(f"X and y must be as long as each other, but got {len(images)} and {len(numbers)}")
        known = None if groups is None else list(groups)
        if known is not None and len(known) != len(images):
            raise InputError(f"groups must be one for each of {len(images)} images, but got {len(known)}")
        names = names_of(classes)
        prompts = {name: self.prompts[label] for name, label in zip(names, classes.tolist(), strict=True)
                   if label in self.prompts} if self.prompts else None  # fmt: skip
        place = self._place()
        with ExitStack() as failed:  # or interrupted: what was fitted before stays as it was
            if self.workdir is None:
                failed.callback(shutil.rmtree, place, ignore_errors=True)
            write_task(
                ((image, names[number], "") for image, number in zip(images, numbers, strict=True)),
                folder=place / "task",
                metric=self.metric,
                domain=self.domain,
                templates=self.templates,
                prompts=prompts,
                groups=known,
            )
            result = search(
                place / "task",
                **{name: getattr(self, name) for name in _OF_SEARCH},
                limits=self.limits or NO_LIMITS,
                test_split=False,
                workdir=place / "search",
                sink=PlainSink() if self.verbose else discard,
            )
            chosen = result.ensemble or result.best
            if chosen is None or chosen.model_dir is None:
                raise TrialFailed(f"no model came out of the search, but got a report at {result.report_dir}")
            failed.pop_all()
        self._forget()
        if self.workdir is None:
            self._temporary = place
            weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        self.classes_ = classes
        self.model_dir_ = chosen.model_dir
        self.result_: SearchResult = result
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """(n, K) probabilities; the columns are `classes_`.

        Raises:
            InputError: there is no image, or one that cannot be read.
        """
        return self._ask(X, accuracy=None)[0]

    def _ask(self, X: Any, *, accuracy: float | None) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Probabilities (n, K), and of which images (n,) no class is to be named."""
        check_is_fitted(self, "model_dir_")
        from vlmsel_auto.models.device import pick_device
        from vlmsel_auto.models.prediction import iter_predictions

        images, row_of, silent = as_images(X), dict[Path, FloatArray](), dict[Path, bool]()
        with tempfile.TemporaryDirectory(prefix="vlmsel-") as folder:
            files = as_files(images, Path(folder))
            columns: list[int] = []
            for each in iter_predictions(
                self.model_dir_, files, accuracy=accuracy, device=pick_device(self.device), batch_size=self.batch_size
            ):
                if each.probabilities is None:
                    raise InputError(
                        f"every image to predict must be readable, but got image {files.index(each.path)}: {each.note}"
                    )
                columns = columns or [each.classes.index(name) for name in names_of(self.classes_)]
                row_of[each.path], silent[each.path] = each.probabilities[columns], each.label is None
        return np.stack([row_of[file] for file in files]), np.array([silent[file] for file in files])

    def predict(self, X: Any, *, accuracy: float | None = None) -> NDArray[Any]:
        """(n,) the most probable label of each image.

        With an ``accuracy`` a masked array: those images are masked that must get no label, so that so large a share of
        the labels is right, as `vlmsel_auto.predict` says.

        Raises:
            InputError: as for `predict_proba`, or no held-out images assure the accuracy.
        """
        probabilities, silent = self._ask(X, accuracy=accuracy)
        labels = np.asarray(self.classes_[probabilities.argmax(axis=1)])
        return labels if accuracy is None else np.ma.masked_array(labels, mask=silent)

    def save(self, folder: str | Path) -> Path:
        """Write the model and the settings to a new ``folder``: model files and JSON, no pickle.

        Settings that are no plain values (limits, budgets of trials) are not kept: they only matter to another fit.

        Raises:
            WorkdirError: the folder is there already.
            InputError: labels that JSON does not keep.
        """
        check_is_fitted(self, "model_dir_")
        target = Path(folder)
        if target.exists():
            raise WorkdirError(f"the folder must be new, but got {str(target)!r}")
        record: dict[str, Json] = {
            "format": _FORMAT,
            "version": _VERSION,
            "dtype": self.classes_.dtype.str,
            "classes": [_plain(label) for label in self.classes_.tolist()],
            "settings": {name: value for name, value in self.get_params().items() if _is_plain(value)},
        }
        shutil.copytree(self.model_dir_, target / _MODEL)
        write_atomically(target / _SAVED, (json.dumps(record, indent=1) + "\n").encode())
        return target

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The fitted classifier that `save` wrote to ``folder``, which it needs from then on.

        Raises:
            InputError: the folder is no such one, or is damaged.
        """
        path = Path(folder) / _SAVED
        try:
            record = parse_json(path.read_bytes())
            _check_format(record["format"], record["version"])
            made = cls(**record["settings"])
            made.classes_ = np.array(record["classes"], dtype=record["dtype"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"not a classifier that was saved ({error}), but got {str(path)!r}") from error
        made.model_dir_ = Path(folder) / _MODEL
        return made

    def _place(self) -> Path:
        """An empty place for the task folder, beside the folder of the search."""
        if self.workdir is None:
            return Path(tempfile.mkdtemp(prefix="vlmsel-"))
        place = Path(self.workdir)
        if place.exists() and not (place / "search").is_dir() and (place.is_file() or any(place.iterdir())):
            raise WorkdirError(f"workdir must be new, empty or of an earlier fit, but got {str(place)!r}")
        (place / "search").mkdir(parents=True, exist_ok=True)  # known from now on: a fit that failed can go on
        shutil.rmtree(place / "task", ignore_errors=True)
        return place

    def _forget(self) -> None:
        """Drop what an earlier fit left in a temporary folder."""
        if hasattr(self, "_temporary"):
            shutil.rmtree(self._temporary, ignore_errors=True)
            del self._temporary

    def __getstate__(self) -> dict[str, Any]:
        if hasattr(self, "_temporary"):
            raise TypeError("a model in a temporary folder cannot be pickled: use save(folder), or workdir=, "
                            "but got a fitted VlmClassifier")  # fmt: skip
        state: dict[str, Any] = super().__getstate__()
        return state

    def __sklearn_tags__(self) -> Any:
        """Images are no table of numbers."""
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.input_tags.string = True
        return tags


def _check_format(name: object, version: object) -> None:
    if (name, version) != (_FORMAT, _VERSION):
        raise ValueError(f"only {_FORMAT} version {_VERSION} is read, but got {name!r} version {version!r}")


def _plain(label: object) -> Json:
    if label is not None and not isinstance(label, (str, int, float, bool)):
        raise InputError(f"only labels that are texts or numbers can be saved, but got {label!r}")
    return label


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(each) for each in value)
    return value is None or isinstance(value, (str, int, float, bool))
