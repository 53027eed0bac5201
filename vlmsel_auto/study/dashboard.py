"""The study of a search in optuna-dashboard, on this machine only, read while the search writes it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna

from vlmsel_auto.errors import InputError, MissingDependency
from vlmsel_auto.planning.curves import RUNGS
from vlmsel_auto.study.optuna_study import STUDY
from vlmsel_auto.study.study_view import StudyView

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HOST: Final = "127.0.0.1"
_NOTE: Final = f"""\
**Value**: what a trial is expected to reach on new images. It weighs the trial's validation with the ranking, with the
trials of kindred candidates and with how sure the classifier is, and the report chooses by it. The best trial here is
therefore the report's, unless a limit or lost weights keep that one out; the highest *validation*, which stands beside
it, may be luck on few images. Values move as long as the search runs: reload the page. Trial 0, the zero-shot
baseline, is shown at its validation; the report chooses it only where no other trial was completed.

**Validation** of a head is by cross-validation over all labelled images; that of a fine-tuned tower is on the one that
*fold* names, and folds differ in difficulty.

**Intermediate values** are the validation of a tower after each of {RUNGS} quarters of its epochs.

**Predicted rank** is the candidate's in the ranking before the first trial; **P(best)** and **forecast** are what was
believed when the trial was queued; **cost** is in seconds, with those of the trials that it continues.
"""


def serve(view: StudyView, *, port: int, ready: Callable[[str], None]) -> None:
    """Serve the dashboard on loopback until interrupted.

    Args:
        view: of the search.
        port: 0 takes a free one.
        ready: called with the address of the study's page, once it can be opened.

    Raises:
        InputError: a port that is taken.
        MissingDependency: optuna-dashboard is not installed.
    """
    try:
        import optuna_dashboard
    except ImportError as error:
        raise MissingDependency(
            "the dashboard needs optuna-dashboard; install it with: pip install 'vlmsel-auto[dashboard]'"
        ) from error
    shown = optuna.load_study(study_name=STUDY, storage=view)
    optuna_dashboard.save_note(shown, _NOTE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        shown.set_metric_names(["expected"])
    app = _read_only(optuna_dashboard.wsgi(view))
    try:
        server = make_server(HOST, port, app, server_class=_DashboardServer, handler_class=_DashboardHandler)
    except OSError as error:
        raise InputError(f"the dashboard needs a free port, choose another --port, but got {port} ({error})") from error
    with server:
        ready(f"http://{HOST}:{server.server_port}/dashboard/studies/{shown._study_id}")  # noqa: SLF001 - there is no public id
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _read_only(app: WSGIApplication) -> WSGIApplication:
    """Pass on what reads; the study belongs to the search. What goes wrong is logged, not shown in the terminal."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            start_response("403 Forbidden", [("Content-Type", "application/json")])
            return [b'{"reason": "the study belongs to the search: it can only be read here"}']
        errors = environ["wsgi.errors"] = io.StringIO()
        answer = app(environ, start_response)
        if errors.getvalue():
            logging.getLogger(__name__).debug("%s", errors.getvalue())
        return answer

    return guarded


class _DashboardServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _DashboardHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Requests go to the log, not to the terminal."""
        logging.getLogger(__name__).debug(format, *args)
