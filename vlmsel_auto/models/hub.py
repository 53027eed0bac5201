"""One file of a model hub: whether it is in the cache, what the hub says of it, its download, or one clear reason.

The cache is huggingface_hub's own and so are place, token and mirror (``HF_HOME``, ``HF_HUB_CACHE``, ``HF_TOKEN``,
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HUB_DOWNLOAD_TIMEOUT``). Its downloads are not used, because they start again
after a break, check the size alone and retry an unreachable hub for half a minute; the layout of the cache is
documented, and huggingface_hub itself enters the finished file. Archives of which only parts are wanted are read from
any byte on, without downloading them.
"""

from __future__ import annotations

import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.hub_reasons import endpoint, explain, said, wait_asked_for
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.transfer import BrokenOff, Chunks, Stopped, incomplete_bytes, receive
from vlmsel_auto.process import locked, nearest_there

_Answer = TypeVar("_Answer")

_LONGEST_WAIT = 60.0  # seconds that a hub may ask for (Retry-After) before a candidate is given up
_SHA256 = re.compile(r"[0-9a-f]{64}")  # the ETag of a file in Git LFS; that of a small file is its Git digest
_ETAG = re.compile(r"[\w.+=-]+")
_TOKEN = re.compile(r"[!-~]+")
_PARTIAL = 206  # HTTP status


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """What the hub says of a file."""

    asked: HubFile  # by the one name that the repository has
    etag: str
    size: int | None  # bytes

    @property
    def name(self) -> str:
        """Path in the repository."""
        return self.asked.names[0]

    @property
    def blob(self) -> Path:
        """Where huggingface_hub's cache keeps its bytes."""
        return cache_dir() / _folder(self.asked) / "blobs" / self.etag

    @property
    def remaining(self) -> int | None:
        """Bytes still to be downloaded; None if the hub does not say."""
        if self.blob.exists():
            return 0
        return None if self.size is None else max(0, self.size - incomplete_bytes(self.blob))


def is_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers one request within ``timeout`` seconds; False when ``HF_HUB_OFFLINE`` is set."""
    if constants.HF_HUB_OFFLINE:
        return False
    status: list[int] = []

    def ask() -> None:
        try:
            status.append(get_session().head(constants.ENDPOINT, timeout=timeout).status_code)
        except Exception:  # noqa: BLE001 - refused, no such host, timeout, TLS: not reachable
            return

    asking = threading.Thread(target=ask, daemon=True)  # a name server that hangs is under no timeout
    asking.start()
    asking.join(timeout)
    return bool(status) and status[0] < 500  # noqa: PLR2004 - server errors


@contextmanager
def hub_offline(wanted: bool = True) -> Iterator[None]:  # noqa: FBT001, FBT002 - reads as a sentence
    """Within, no hub is asked, as if ``HF_HUB_OFFLINE`` were set; nothing where it is not ``wanted``."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or wanted
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def cache_dir() -> Path:
    """Folder of huggingface_hub's cache, as its environment variables say."""
    return Path(constants.HF_HUB_CACHE)


def cached(file: HubFile) -> Path | None:
    """Return the path of the first of the file's names that is in the cache; asks no network.

    Raises:
        TrialUnavailable: the repository's name is none.
    """
    with _explained(file):
        paths = (try_to_load_from_cache(file.repository, name, repo_type=file.kind) for name in file.names)
        return next((Path(path) for path in paths if isinstance(path, str)), None)


def in_cache(file: HubFile) -> Path:
    """Return the path of a file that was downloaded.

    Raises:
        TrialUnavailable: it is not there any more.
    """
    found = cached(file)
    if found is None:
        raise TrialUnavailable(f"A file vanished from the cache after its download, but got {file}")
    return found


def find(file: HubFile, *, stop: threading.Event | None = None) -> RemoteFile | None:
    """Ask the hub for a file; None if it is optional and the repository has none of its names.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, or the repository has none of the names.
    """
    token = get_token()
    if token and not _TOKEN.fullmatch(token):  # the HTTP client would refuse it, and show it
        raise TrialUnavailable("A token is made of visible ASCII characters: correct HF_TOKEN, but got one with others")
    with _explained(file):
        asked = (_ask(replace(file, names=(name,)), stop=stop or threading.Event()) for name in file.names)
        found = next((each for each in asked if each is not None), None)
    if found is not None:
        return found
    if not file.optional:
        raise TrialUnavailable(
            f"The hub repository lacks every file of {list(file.names)!r}, but got {file.repository!r} on {endpoint()}"
        )
    for name in file.names:
        with suppress(Exception):  # it notes in the cache that there is none: transformers, offline, asks for that
            hf_hub_download(file.repository, name, repo_type=file.kind)
    return None


def download(file: RemoteFile, *, arrived: Callable[[int], None], stop: threading.Event) -> None:
    """Download a file into the cache; of a download that broke off only the rest.

    Args:
        file: from `find`.
        arrived: called with the number of the file's bytes that are on disk, often.
        stop: once set, the download ends within its next bytes and can be resumed.

    Raises:
        TrialUnavailable: the download broke off, is damaged, was stopped, or the disk is full.
    """
    lock = cache_dir() / ".locks" / _folder(file.asked) / f"{file.etag}.lock"  # huggingface_hub takes it too
    with _explained(file.asked):
        with locked(lock, wait=math.inf):
            if not file.blob.exists():
                receive(
                    file.blob,
                    open_at=lambda offset: _opened(file, offset, stop=stop),
                    size=file.size,
                    sha256=file.etag if _SHA256.fullmatch(file.etag) else None,
                    arrived=arrived,
                    stop=stop,
                )
        # finds the bytes and gives them their name
        hf_hub_download(file.asked.repository, file.name, repo_type=file.asked.kind)


def bring(file: HubFile) -> None:
    """Download a small file unless it is in the cache, or optional and not there.

    Raises:
        TrialUnavailable: it cannot be had.
    """
    if cached(file) is None and (found := find(file)) is not None:
        download(found, arrived=lambda _: None, stop=threading.Event())


def read_text(file: HubFile) -> str | None:
    """The text of a small file, from the cache or downloaded into it; None: optional and not there.

    Raises:
        TrialUnavailable: it cannot be had, or is no UTF-8 text.
    """
    bring(file)
    path = cached(file)
    with _explained(file):
        return None if path is None else path.read_text("utf-8-sig")


@contextmanager
def read_from(file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield the offset where the bytes begin, and the bytes as they come; leaving the block ends the transfer.

    They begin at ``offset``, or at 0 where a mirror sends whole files only. Nothing is kept.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, or the connection broke off; also from the bytes.
    """

    def explained(chunks: Iterator[bytes]) -> Iterator[bytes]:
        with _explained(file.asked):
            yield from chunks

    with ExitStack() as stack:
        with _explained(file.asked):
            start, chunks = stack.enter_context(_opened(file, offset, stop=threading.Event()))
        yield start, explained(chunks)


def check_space(wanted: int, *, what: str) -> None:
    """Refuse a download of ``wanted`` bytes that the cache's disk has no room for; ``what`` is for the error.

    Raises:
        TrialUnavailable: fewer bytes are free.
    """
    folder = cache_dir()
    free = shutil.disk_usage(nearest_there(folder)).free
    if wanted > free:
        raise TrialUnavailable(
            f"The download of {what} needs {wanted / 1e9:.2f} GB on the disk of {str(folder)!r}: free some or set "
            f"HF_HUB_CACHE to another disk, but got {free / 1e9:.2f} GB free"
        )


def _folder(file: HubFile) -> str:
    return repo_folder_name(repo_id=file.repository, repo_type=file.kind)


def _url(file: HubFile) -> str:
    return hf_hub_url(file.repository, file.names[0], repo_type=file.kind)


def _ask(file: HubFile, *, stop: threading.Event) -> RemoteFile | None:
    """What the hub says of a file of one name; None: the repository lacks it."""

    def send() -> RemoteFile:
        answer = get_hf_file_metadata(_url(file), timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if answer.etag is None or not _ETAG.fullmatch(answer.etag):  # it becomes a file name
            raise BrokenOff(f"an answer without a usable ETag, {answer.etag!r}; is this a hub?")
        return RemoteFile(asked=file, etag=answer.etag, size=answer.size)

    try:
        return _patiently(send, stop=stop)
    except EntryNotFoundError:
        return None


def _patiently(request: Callable[[], _Answer], *, stop: threading.Event) -> _Answer:
    """Send a request, and once more after the time that a busy hub asks for."""
    try:
        return request()
    except HfHubHTTPError as error:
        wait = wait_asked_for(error)
        if wait is None or wait > _LONGEST_WAIT:
            raise
    if stop.wait(wait):
        raise Stopped
    return request()


@contextmanager
def _opened(file: RemoteFile, offset: int, *, stop: threading.Event) -> Iterator[Chunks]:
    """Connect for the bytes of ``file`` from ``offset`` on; the client drops the token when the hub sends it on."""
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    url, timeout = _url(file.asked), constants.HF_HUB_DOWNLOAD_TIMEOUT
    with ExitStack() as stack:

        def send() -> Chunks:
            asked = get_session().stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True)
            response = stack.enter_context(asked)
            hf_raise_for_status(response)
            return offset if response.status_code == _PARTIAL else 0, _unbroken(response.iter_bytes())

        try:
            opened = _patiently(send, stop=stop)
        except (HfHubHTTPError, OfflineModeIsEnabled, Stopped):
            raise
        except Exception as error:
            raise BrokenOff(said(error)) from error
        yield opened


def _unbroken(chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        raise BrokenOff(said(error)) from error


@contextmanager
def _explained(file: HubFile) -> Iterator[None]:
    """Whatever is raised within becomes the one clear reason why the file cannot be had."""
    try:
        yield
    except Exception as error:
        raise TrialUnavailable(explain(error, file, cache=cache_dir())) from error
