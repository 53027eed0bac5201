"""A search's study as a reader understands it: optuna-dashboard shows this, and can change nothing.

What a study holds is made for the search: indices of candidates, points of the unit cube, and metrics of trials that
were not measured on the same images. `StudyView` shows names, real settings, and as a trial's value what the report
chooses by, so that the best trial there is the report's.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError
from vlmsel_auto.planning.curves import RUNGS
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.study.optuna_study import CANDIDATES, EXPECTED, JOURNAL, OUTCOME, PREDICTION
from vlmsel_auto.tuning.methods import METHODS, label_of

if TYPE_CHECKING:
    from optuna.study._frozen import FrozenStudy

_DIGITS: Final = 6  # of values: fewer could make ties of trials that differ


class StudyView(BaseStorage):
    """The study of a search in its storage, in a reader's terms. Notes are kept in memory; nothing is written."""

    def __init__(self, source: BaseStorage) -> None:
        self._source = source
        self._notes: dict[str, Any] = {}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # Optuna's JSON type is private
        """Keep a note for this reader alone."""
        del study_id
        self._notes[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Those of the study, and this reader's notes."""
        return {**self._source.get_study_system_attrs(study_id), **self._notes}

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As they are stored."""
        return self._source.get_study_user_attrs(study_id)

    def get_study_id_from_name(self, study_name: str) -> int:
        """As it is stored."""
        return self._source.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As it is stored."""
        return self._source.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As they are stored."""
        return self._source.get_study_directions(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """The study of the search, without what only the search needs to know."""
        studies = self._source.get_all_studies()
        for study in studies:
            study.system_attrs = {**study.system_attrs, **self._notes}
            kept = {"methods": study.user_attrs.get("methods"), "task": study.user_attrs.get("task")}
            study.user_attrs = {**kept, "candidates": len(study.user_attrs.get(CANDIDATES, ()))}
        return studies

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial in a reader's terms."""
        studies = (each._study_id for each in self.get_all_studies())  # noqa: SLF001 - its public API has no id
        trials = (trial for study_id in studies for trial in self.get_all_trials(study_id))
        for trial in trials:
            if trial._trial_id == trial_id:  # noqa: SLF001 - likewise
                return trial
        raise KeyError(f"no trial of a search has this id, but got {trial_id}")

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None  # noqa: FBT001, FBT002 - Optuna's signature
    ) -> list[FrozenTrial]:  # fmt: skip
        """All trials in a reader's terms."""
        known = self.get_study_user_attrs(study_id)
        trials = self._source.get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [readable(each, known) for each in trials]

    def _refuse(self, *_args: object, **_named: object) -> NoReturn:
        raise PermissionError("the study belongs to the search: it can only be read here")

    create_new_study = delete_study = set_study_user_attr = create_new_trial = set_trial_param = _refuse
    set_trial_state_values = set_trial_intermediate_value = set_trial_user_attr = set_trial_system_attr = _refuse


def open_view(workdir: Path) -> StudyView:
    """The study in a work directory.

    Raises:
        InputError: there is none.
    """
    journal = workdir / JOURNAL
    if not journal.is_file():
        raise InputError(
            f"a dashboard needs the work directory of a search that has begun its trials, but got {str(workdir)!r} "
            f"without {JOURNAL}"
        )
    return StudyView(JournalStorage(JournalFileBackend(str(journal))))


def readable(trial: FrozenTrial, known: Mapping[str, Json]) -> FrozenTrial:
    """A trial in a reader's terms; ``known`` are the attributes of its study."""
    shown = copy.copy(trial)
    shown.user_attrs = dict(_attributes(trial))
    shown.params, shown.distributions = _parameters(trial, known)
    validation = shown.user_attrs.get("validation")
    if trial.state is TrialState.COMPLETE:
        expected = known.get(EXPECTED)
        value = expected.get(str(trial.number)) if isinstance(expected, dict) else None
        value = value if isinstance(value, float) else trial.value  # the zero-shot baseline has no other than its own
        shown.value = None if value is None else round(value, _DIGITS)
        if trial.intermediate_values and validation is not None:
            shown.intermediate_values = {**trial.intermediate_values, RUNGS: validation}
    return shown


def _parameters(trial: FrozenTrial, known: Mapping[str, Json]) -> tuple[dict[str, str], dict[str, BaseDistribution]]:
    """Candidate and method by name; the settings of a method are attributes, for their ranges differ by candidate."""
    names, methods = known.get(CANDIDATES), known.get("methods")
    params: dict[str, str] = {}
    distributions: dict[str, BaseDistribution] = {}
    if isinstance(names, list) and "candidate" in trial.params:
        params["candidate"] = str(names[int(trial.params["candidate"])])
        distributions["candidate"] = CategoricalDistribution([str(each) for each in names])
    if isinstance(methods, list) and "method" in trial.params:
        params["method"] = label_of(str(trial.params["method"]))
        distributions["method"] = CategoricalDistribution([label_of(str(each)) for each in methods])
    return params, distributions


def _attributes(trial: FrozenTrial) -> Iterable[tuple[str, str | float]]:
    """What the tables show, in their order; what is not known is left out."""
    attrs = trial.user_attrs
    predicted, outcome = attrs.get(PREDICTION, {}), dict(attrs.get(OUTCOME, {}))
    known = {
        "predicted rank": predicted.get("rank"),
        "P(best)": predicted.get("p_best"),
        "forecast": predicted.get("forecast"),
        "validation": outcome.pop("validation", None),
        "cost": outcome.pop("cost", None),
        "why": attrs.get("why"),
        "fold": attrs.get("fold") if _trains_tower(trial) else None,
        "goes on with": attrs.get("continues"),
        **outcome,
    }
    return ((name, _round(value)) for name, value in known.items() if value is not None)


def _trains_tower(trial: FrozenTrial) -> bool:
    return any(each.name == trial.params.get("method") and each.trains is Trains.TOWER for each in METHODS)


def _round(value: str | float) -> str | float:
    return float(f"{value:.4g}") if isinstance(value, float) else value
