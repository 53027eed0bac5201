"""The study of a search in optuna-dashboard, read while the search writes it. Nothing is changed.

What a study holds is made for the search: indices of candidates, points of the unit cube, and metrics of trials that
were not measured on the same images. `JournalView` shows it in a reader's terms: names, real settings, and as a trial's
value what the report chooses by, so that the best trial there is the report's.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.planning.curves import RUNGS
from vlmsel_auto.planning.method import Trains
from vlmsel_auto.study.journal import JOURNAL
from vlmsel_auto.study.optuna_study import CANDIDATES, EXPECTED, OUTCOME, PREDICTION
from vlmsel_auto.tuning.methods import METHODS, label_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from optuna.study._frozen import FrozenStudy

HOST: Final = "127.0.0.1"
_DIGITS: Final = 6  # of values: fewer could make ties of trials that differ
_NOTE: Final = f"""\
**Value**: what a trial is expected to reach on new images. It weighs the trial's validation with the ranking, with the
trials of kindred candidates and with how sure the classifier is, and the report chooses by it. The best trial here is
therefore the report's, unless a limit or lost weights keep that one out; the highest *validation*, which stands beside
it, may be luck on few images. Values move as long as the search runs: reload the page. Trial 0, the untrained floor, is
shown at its validation; the report chooses it only where no other trial was completed.

**Validation** of a head is by cross-validation over all labelled images; that of a fine-tuned tower is on the part of
them that *fold* names, and parts differ in difficulty.

**Intermediate values** are the validation of a tower after each of {RUNGS} quarters of its epochs.

**Predicted rank** is the candidate's in the ranking before the first trial; **P(best)** and **forecast** are what was
believed when the trial was queued; **cost** is in seconds, with those of the trials that it continues and without the
final fit on all labels.
"""


class JournalView(JournalStorage):
    """A search's journal as a reader understands it; notes are kept in memory, and nothing else can be changed."""

    def __init__(self, journal: Path) -> None:
        super().__init__(JournalFileBackend(str(journal)))
        self._notes: dict[str, Any] = {}

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:  # Optuna's JSON type is private
        """Keep a note for this reader alone."""
        del study_id
        self._notes[key] = value

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Those of the journal, and this reader's notes."""
        return {**super().get_study_system_attrs(study_id), **self._notes}

    def get_all_studies(self) -> list[FrozenStudy]:
        """The search's study, without what only the search needs to know."""
        studies = super().get_all_studies()
        for study in studies:
            study.system_attrs = {**study.system_attrs, **self._notes}
            kept = {"methods": study.user_attrs.get("methods"), "task": study.user_attrs.get("task")}
            study.user_attrs = {**kept, "candidates": len(study.user_attrs.get(CANDIDATES, ()))}
        return studies

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """One trial in a reader's terms."""
        return self._shown(super().get_trial(trial_id), self._known(0))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None  # noqa: FBT001, FBT002 - Optuna's signature
    ) -> list[FrozenTrial]:  # fmt: skip
        """All trials in a reader's terms."""
        known = self._known(study_id)
        return [self._shown(each, known) for each in super().get_all_trials(study_id, deepcopy=deepcopy, states=states)]

    def _known(self, study_id: int) -> Mapping[str, Json]:
        return self.get_study_user_attrs(study_id)

    def _shown(self, trial: FrozenTrial, known: Mapping[str, Json]) -> FrozenTrial:
        shown = copy.copy(trial)
        shown.user_attrs = dict(_attributes(trial))
        shown.params, shown.distributions = _parameters(trial, known)
        validation = shown.user_attrs.get("validation")
        if trial.state is TrialState.COMPLETE:
            expected = known.get(EXPECTED)
            value = expected.get(str(trial.number)) if isinstance(expected, dict) else None
            value = value if isinstance(value, float) else trial.value  # the floor has no other than its own
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


def open_view(workdir: Path) -> JournalView:
    """The study in a work directory, as the dashboard shows it.

    Raises:
        InputError: there is none.
    """
    journal = workdir / JOURNAL
    if not journal.is_file():
        raise InputError(
            f"a dashboard needs the work directory of a search that has begun its trials, but got {str(workdir)!r} "
            f"without {JOURNAL}"
        )
    return JournalView(journal)


def serve(workdir: Path, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve the dashboard on loopback until interrupted.

    Args:
        workdir: of a search.
        port: 0 takes a free one.
        ready: called with the page's address once it can be opened.

    Raises:
        InputError: no study, or a port that is taken.
        MissingDependency: optuna-dashboard is not installed.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise MissingDependency(
            "the dashboard needs optuna-dashboard; install it with: pip install 'vlmsel-auto[dashboard]'"
        ) from error
    view = open_view(workdir)
    (study,) = view.get_all_studies()
    shown = optuna.load_study(study_name=study.study_name, storage=view)
    optuna_dashboard.save_note(shown, _NOTE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shown.set_metric_names(["expected"])
    app = _read_only(optuna_dashboard.wsgi(view))
    try:
        server = make_server(HOST, port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise InputError(f"the dashboard needs a free port, choose another --port, but got {port} ({error})") from error
    with server:
        ready(f"http://{HOST}:{server.server_port}/dashboard/studies/{study._study_id}")  # noqa: SLF001 - its public API has no id
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _read_only(app: WSGIApplication) -> WSGIApplication:
    """Pass on what reads; the study belongs to the search."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "the study belongs to the search: it can only be read here"}']
        return app(environ, start_response)

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests go to the log, not to the terminal."""
        logging.getLogger(__name__).debug(format, *args)
