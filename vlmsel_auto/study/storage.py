"""A copy of a search's finished trials in an Optuna storage, in a reader's terms; nothing is resumed from it.

A search's own study holds indices of candidates and points of the unit cube; the copy holds names and real settings.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Final

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, make_url
from sqlalchemy.pool import NullPool

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Notice, Sink
from vlmsel_auto.planning.curves import RUNGS
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.study.optuna_study import OUTCOME, PREDICTION
from vlmsel_auto.tuning.methods import METHODS, label_of

_LAST_WORDS: Final = 5.0  # seconds that the end of a study waits for a thread that writes


def without_password(address: str) -> str:
    """The address of a storage as it may be shown; InputError where it is none."""
    url = _url(address)._replace(password=None)
    return url.difference_update_query([name for name in url.query if "pass" in name.lower()]).render_as_string()


def _url(address: str) -> URL:
    try:
        return make_url(address)
    except Exception:  # noqa: BLE001 - it quotes what was given
        form = "postgresql://USER@HOST/DATABASE, sqlite:///FILE or journal:///FILE"
        raise InputError(f"--storage must be {form}, but got {len(address)} characters that are no address") from None


def open_storage(address: str) -> optuna.storages.BaseStorage:
    """The storage with Optuna's tables; InputError, which holds no password, where it cannot be used."""
    url = _url(address)
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg", query={"connect_timeout": "10", **url.query})
    try:
        if url.drivername == "journal":
            return optuna.storages.JournalStorage(JournalFileBackend(url.database or ""))
        return optuna.storages.RDBStorage(url.render_as_string(hide_password=False), {"poolclass": NullPool})
    except Exception as error:  # noqa: BLE001 - each driver has its own
        do = "start its server, mend the address, install its driver (vlmsel-auto[postgresql]) or leave --storage out"
        raise InputError(f"the storage cannot be used: {do}, but got {_problem(address, error)}") from None


def _problem(address: str, error: BaseException) -> str:
    while error.__cause__ is not None:  # Optuna and SQLAlchemy wrap what the server or its driver said
        error = error.__cause__
    text, url = " ".join(str(error).split()), _url(address)
    for secret in (url.password, *(url.query[name] for name in url.query if "pass" in name.lower())):
        text = text.replace(str(secret), "***") if secret else text
    return f"{without_password(address)} ({text})"


class StudyCopy:
    """Threads write the finished trials that the storage lacks, so that no trial waits for it."""

    def __init__(self, study: optuna.Study, *, address: str, workdir: Path, sink: Sink) -> None:
        self._name = study.user_attrs.get("copy") or f"{workdir.absolute().name}-{secrets.token_hex(4)}"
        study.set_user_attr("copy", self._name)
        self._study, self._address, self._sink = study, address, sink
        about = study.user_attrs
        self._candidates, self._methods = list(about["candidates"]), [label_of(name) for name in about["methods"]]
        self._copy: optuna.Study | None = None
        self._thread, self._problem, self._told = Thread(), "", ""
        self.update()

    def update(self) -> None:
        """Have what is new written, unless a thread is at it; say that the storage went away."""
        if self._problem and not self._told:
            self._sink(Notice(text=f"trials are not copied until this is mended: {self._problem}", level="warning"))
        self._told = self._problem
        if not self._thread.is_alive():
            trials = [each for each in self._study.get_trials(deepcopy=False) if each.state.is_finished()]
            self._thread = Thread(target=self._write, args=(trials,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Have the rest written."""
        for _ in range(2):  # a thread may be at earlier trials
            self._thread.join(_LAST_WORDS)
            self.update()
        self._thread.join(_LAST_WORDS)

    def _readable(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial with names; real settings are attributes, for their ranges differ by candidate."""
        shown = copy.copy(trial)
        shown.params = {}
        if "candidate" in trial.params:
            shown.params["candidate"] = self._candidates[int(trial.params["candidate"])]
        if "method" in trial.params:
            shown.params["method"] = label_of(str(trial.params["method"]))
        choices = {"candidate": self._candidates, "method": self._methods}
        shown.distributions = {name: CategoricalDistribution(choices[name]) for name in shown.params}
        shown.user_attrs = {name: value for name, value in _attributes(trial).items() if value is not None}
        if trial.state is TrialState.COMPLETE and trial.value is not None and trial.intermediate_values:
            shown.intermediate_values = {**trial.intermediate_values, RUNGS: trial.value}
        return shown

    def _write(self, trials: Sequence[FrozenTrial]) -> None:
        try:
            self._copy = self._copy or optuna.create_study(
                storage=open_storage(self._address), study_name=self._name, direction="maximize", load_if_exists=True
            )
            there = {each.user_attrs.get("number") for each in self._copy.get_trials(deepcopy=False)}
            for each in (one for one in trials if one.number not in there):
                self._copy.add_trial(self._readable(each))
            self._problem = ""
        except Exception as error:  # noqa: BLE001 - the search goes on whatever the storage does
            self._problem = str(error) if isinstance(error, InputError) else _problem(self._address, error)


def _attributes(trial: FrozenTrial) -> dict[str, Json]:
    """What tables show beside a trial's value and parameters, in their order."""
    attrs = trial.user_attrs
    predicted, outcome = attrs.get(PREDICTION, {}), attrs.get(OUTCOME, {})
    towers = {each.name for each in METHODS if each.trains is Trains.TOWER}
    return {
        "number": trial.number,
        "predicted rank": predicted.get("rank"),
        "P(best)": predicted.get("p_best"),
        "forecast": predicted.get("forecast"),
        "why": attrs.get("why"),
        "fold": attrs.get("fold") if trial.params.get("method") in towers else None,
        "goes on with": attrs.get("continues"),
        **outcome,
    }
