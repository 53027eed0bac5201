"""A page on loopback where a person sees a picture and presses a key for its class.

Only this machine can open it: it listens on 127.0.0.1, its address holds a random token, and requests for another host
name are refused (DNS rebinding). It shows nothing but the sample's images, drawn anew as JPEG, and loads nothing from
elsewhere. Every key is written to labels.csv before it is answered.
"""

from __future__ import annotations

import io
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import ImageError, TaskError
from vlmsel_auto.pipeline.label_session import LabelSession, ToLabel
from vlmsel_auto.reporting.formatting import clean
from vlmsel_auto.reporting.sentences import gain_text, warned_text
from vlmsel_auto.tasks.decode import decode_image
from vlmsel_auto.tasks.file_names import inside
from vlmsel_auto.units import percent

KEYS: Final = "1234567890qwertyuiopasdfghjklzxcvbnm"  # of the classes, in order
_AHEAD: Final = 3  # images that are ready while the belief is renewed
_PATIENCE: Final = 0.4  # seconds that an answer waits for the renewed belief
_SIDE: Final = 1_200  # pixels, at most
_MOST_BODY: Final = 65_536  # bytes of a request
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class LabelPage:
    """The state behind the page: one image at a time, the next ones ready."""

    def __init__(self, session: LabelSession) -> None:
        """Ask for the first image."""
        self._session = session
        self._place = {path: place for place, path in enumerate(session.task.paths)}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="belief")
        self._lock = threading.Lock()
        self._back: str | None = None  # an image whose label was taken back comes first
        self._queue: tuple[ToLabel, ...] = ()
        self._standing = ""
        self._renewal: Future[None] | None = None
        self._renew(patience=None)

    def close(self) -> None:
        """End the worker."""
        self._worker.shutdown(cancel_futures=True)

    def state(self) -> dict[str, Json]:
        """What the page shows; ``image`` is null where every image has a label."""
        with self._lock:
            return self._state()

    def answer(self, place: int, label: str) -> dict[str, Json]:
        """Keep a label.

        Raises:
            TaskError: no such image or class, or it cannot be saved.
        """
        with self._lock:
            self._session.tell(self.path(place), label)
            self._back = None
            self._renew(patience=_PATIENCE)
            return self._state()

    def skip(self, place: int) -> dict[str, Json]:
        """Do not ask for an image again.

        Raises:
            TaskError: no such image.
        """
        with self._lock:
            self._session.skip(self.path(place))
            self._back = None
            self._renew(patience=_PATIENCE)
            return self._state()

    def undo(self) -> dict[str, Json]:
        """Take the last label back and show its image again.

        Raises:
            TaskError: it cannot be saved.
        """
        with self._lock:
            self._back = self._session.undo() or self._back
            self._renew(patience=_PATIENCE)
            return self._state()

    def path(self, place: int) -> str:
        """The image at a place of the sample.

        Raises:
            TaskError: there is none.
        """
        paths = self._session.task.paths
        if not 0 <= place < len(paths):
            raise TaskError(f"an image must be one of {len(paths)}, but got number {place}")
        return paths[place]

    def picture(self, place: int) -> bytes:
        """The image as JPEG, upright, at most 1,200 pixels a side.

        Raises:
            TaskError: there is no such image, or it leads out of the folder by now.
            ImageError: it cannot be decoded.
        """
        root = self._session.task.root
        file = root / self.path(place)
        if not inside(file, root):
            raise TaskError(f"an image must lie in the task folder, but got {str(file)!r}")
        image = decode_image(file, least=_SIDE).image
        image.thumbnail((_SIDE, _SIDE))
        stream = io.BytesIO()
        image.save(stream, format="JPEG", quality=90)
        return stream.getvalue()

    def html(self, nonce: str) -> str:
        """The page."""
        environment = Environment(
            loader=PackageLoader("vlmsel_auto.reporting", "templates"), autoescape=True, undefined=StrictUndefined
        )
        return environment.get_template("label.html.j2").render(
            nonce=nonce, task=clean(self._session.task.name), classes=self._session.task.classes, keys=KEYS
        )

    def _renew(self, *, patience: float | None) -> None:
        """Begin to ask anew; the page waits a little for it, or goes on with what was ready."""
        if self._renewal is not None:
            self._renewal.cancel()  # not yet begun: the new one knows more
        self._renewal = self._worker.submit(self._think)
        wait([self._renewal], timeout=patience)
        if self._renewal.done() or not self._ready():
            self._renewal.result()

    def _ready(self) -> list[ToLabel]:
        closed = self._session.closed
        return [one for one in self._queue if one.path not in closed]

    def _think(self) -> None:
        found = self._session.suggest(_AHEAD)
        now = self._session.scores()
        name, chance = next(iter(now.p_best.items()))
        self._standing = (
            f"{clean(name)} leads: best with probability {percent(chance, digits=0)}, "
            f"{warned_text(now.accuracy[name])}; {gain_text(now.loss[name])}"
        )
        self._queue = found

    def _state(self) -> dict[str, Json]:
        session, ready = self._session, self._ready()
        path = self._back if self._back is not None else ready[0].path if ready else None
        one = next((each for each in self._queue if each.path == path), None)
        image: dict[str, Json] | None = None
        if path is not None:
            image = {
                "place": self._place[path],
                "name": clean(path),
                "suggested": None if one is None else one.suggested,
                "why": "" if one is None else f"{one.suggested} {percent(one.probability, digits=0)}; {one.why}",
            }
        return {
            "image": image,
            "given": session.answered,
            "labels": len(session.labels),
            "images": len(session.task.paths),
            "standing": self._standing,
        }


class _Server(ThreadingHTTPServer):
    """Threads end with the program; a browser that goes away in the middle of an answer is no error."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of errors but those of a lost connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Requests of one page."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, page: LabelPage, token: str) -> None:
        self._page, self._token = page, token
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """The terminal is for the person."""

    def do_GET(self) -> None:
        """The page, what it shows, or an image."""
        match self._route():
            case [""]:
                nonce = secrets.token_urlsafe(16)
                policy = (
                    f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
                    f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                )
                self._send(self._page.html(nonce).encode(), "text/html; charset=utf-8", policy=policy)
            case ["state"]:
                self._send_json(self._page.state())
            case ["image", number] if number.isascii() and number.isdigit():
                try:
                    self._send(self._page.picture(int(number)), "image/jpeg")
                except (TaskError, ImageError) as error:
                    self._refuse(HTTPStatus.NOT_FOUND, str(error))
            case _:
                self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")

    def do_POST(self) -> None:
        """An answer, a skipped image, or a step back."""
        asked = self._route()
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _MOST_BODY:
            self.close_connection = True
            self._refuse(HTTPStatus.BAD_REQUEST, "the request has no length, or is too long")
            return
        try:
            said = json.loads(self.rfile.read(int(length)) or b"{}")
        except ValueError:
            said = None
        try:
            match asked, said:
                case ["answer"], {"image": int(place), "label": str(label)}:
                    self._send_json(self._page.answer(place, label))
                case ["skip"], {"image": int(place)}:
                    self._send_json(self._page.skip(place))
                case ["undo"], {}:
                    self._send_json(self._page.undo())
                case _:
                    self._refuse(HTTPStatus.NOT_FOUND, "there is nothing here")
        except TaskError as error:
            self._refuse(HTTPStatus.CONFLICT, str(error))

    def _route(self) -> list[str]:
        """What follows the token; nothing for those who do not know it, or who call this machine by another name."""
        names = {f"{name}:{self.connection.getsockname()[1]}" for name in ("127.0.0.1", "localhost")}
        parts = self.path.split("/")
        known = len(parts) > 2 and secrets.compare_digest(parts[1].encode(), self._token.encode())  # noqa: PLR2004
        return parts[2:] if known and self.headers.get("Host") in names else []

    def _send_json(self, value: Json) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._send(json.dumps({"error": why}).encode(), "application/json", status=status)

    def _send(self, body: bytes, kind: str, *, status: HTTPStatus = HTTPStatus.OK, policy: str = "") -> None:
        self.send_response(status)
        headers = _HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in (headers | ({"Content-Security-Policy": policy} if policy else {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(session: LabelSession, *, port: int = 0) -> Iterator[str]:
    """Serve the page of a session until the block ends; yields its address. Port 0: any that is free.

    Raises:
        TaskError: the port cannot be used.
    """
    token = secrets.token_urlsafe(24)
    page = LabelPage(session)
    try:
        server = _Server(("127.0.0.1", port), partial(_Handler, page=page, token=token))
    except OSError as error:
        page.close()
        raise TaskError(f"the page needs a free port ({error.strerror}), but got {port}") from error
    serve = partial(server.serve_forever, poll_interval=0.05)  # seconds until it sees that it shall end
    thread = threading.Thread(target=serve, name="label page", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/{token}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        page.close()
