"""One file of a model hub: whether it is in the cache, what the hub says of it, its download, or one clear reason.

The cache is huggingface_hub's own and so are place, token, mirror and transfer (``HF_HOME``, ``HF_HUB_CACHE``,
``HF_TOKEN``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HUB_DOWNLOAD_TIMEOUT``). Its `hf_hub_download` alone is not
enough: it deletes what came of a file when a download ends early, and checks the size but not the SHA-256. So the file
that grows is ours, and huggingface_hub enters the finished one.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, cast

from huggingface_hub import (
    HfFileSystem,
    constants,
    get_hf_file_metadata,
    get_session,
    get_token,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers, tqdm

from vlmsel_auto.cache import file_digest
from vlmsel_auto.errors import TrialUnavailable
from vlmsel_auto.models.hub_reasons import endpoint, explain, hide_secrets_in_logs, said
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.process import is_disk_error, locked, nearest_there

_SHA256 = re.compile(r"[0-9a-f]{64}")  # the ETag of a file in Git LFS; that of a small file is its Git digest
_ETAG = re.compile(r"[\w.+=-]+")
_TOKEN = re.compile(r"[!-~]+")
_PART = 1 << 17  # bytes that a question for a part of a file brings beyond it

hide_secrets_in_logs()


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
    def incomplete(self) -> Path:
        """Where they are until all have come."""
        return self.blob.with_name(f"{self.etag}.incomplete")

    @property
    def remaining(self) -> int | None:
        """Bytes still to be downloaded; None if the hub does not say."""
        if self.blob.exists():
            return 0
        return None if self.size is None else max(0, self.size - _bytes(self.incomplete))


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
        paths = (try_to_load_from_cache(file.repository, name) for name in file.names)
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


def find(file: HubFile) -> RemoteFile | None:
    """Ask the hub for a file; None if it is optional and the repository has none of its names.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, or the repository has none of the names.
    """
    _check_token()
    with _explained(file):
        asked = (_ask(replace(file, names=(name,))) for name in file.names)
        found = next((each for each in asked if each is not None), None)
    if found is not None:
        return found
    if not file.optional:
        raise TrialUnavailable(
            f"The hub repository lacks every file of {list(file.names)!r}, but got {file.repository!r} on {endpoint()}"
        )
    for name in file.names:
        with suppress(Exception):  # it notes in the cache that there is none: transformers, offline, asks for that
            hf_hub_download(file.repository, name)
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
                _receive(file, arrived=arrived, stop=stop)
        hf_hub_download(file.asked.repository, file.name)  # finds the bytes and gives them their name


def bring(file: HubFile) -> None:
    """Download a small file unless it is in the cache, or optional and not there.

    Raises:
        TrialUnavailable: it cannot be had.
    """
    if cached(file) is None and (found := find(file)) is not None:
        download(found, arrived=lambda _: None, stop=threading.Event())


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetFiles:
    """The files of a data set on the hub; only what is read of them is downloaded, and nothing is kept."""

    root: str
    files: HfFileSystem

    def text(self, name: str) -> str:
        """The text of a small file; empty where there is none."""
        try:
            return bytes(self.files.cat_file(f"{self.root}/{name}")).decode("utf-8-sig", errors="replace")
        except FileNotFoundError:
            return ""

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file in ``folder``, by path."""
        found = cast("list[dict[str, str | int]]", self.files.ls(f"{self.root}/{folder}", detail=True))
        return {str(one["name"]): int(one["size"]) for one in found if one["type"] == "file"}

    def open(self, path: str) -> IO[bytes]:
        """A file of `sizes`, to be read from any byte on."""
        opened: IO[bytes] = self.files.open(path, "rb", block_size=_PART)
        return opened


@contextmanager
def dataset_files(repository: str) -> Iterator[DatasetFiles]:
    """The files of the data set ``ORG/NAME``, to be read within.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, or has no such data set; also from the files.
    """
    _check_token()
    with _explained(HubFile(repository=repository, names=("its files",))):
        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        files = HfFileSystem(endpoint=constants.ENDPOINT, skip_instance_cache=True)
        yield DatasetFiles(root=f"datasets/{repository}", files=files)


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
    return str(repo_folder_name(repo_id=file.repository, repo_type="model"))


def _check_token() -> None:
    token = get_token()
    if token and not _TOKEN.fullmatch(token):  # the HTTP client would refuse it, and show it
        raise TrialUnavailable("A token is made of visible ASCII characters: correct HF_TOKEN, but got one with others")


def _ask(file: HubFile) -> RemoteFile | None:
    """What the hub says of a file of one name; None: the repository lacks it."""
    url = hf_hub_url(file.repository, file.names[0])
    try:
        answer = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except EntryNotFoundError:
        return None
    if answer.etag is None or not _ETAG.fullmatch(answer.etag):  # it becomes a file name
        raise TrialUnavailable(f"cannot begin: is this a hub? but got no usable ETag, {answer.etag!r},")
    return RemoteFile(asked=file, etag=answer.etag, size=answer.size)


class _Growing(io.BufferedWriter):
    """The file that a transfer appends to; it tells how long it is, and ends the transfer when asked."""

    def __init__(self, path: Path, *, arrived: Callable[[int], None], stop: threading.Event) -> None:
        super().__init__(io.FileIO(path, "ab"))
        self._arrived = arrived
        self._stop = stop

    def write(self, chunk: bytes, /) -> int:  # type: ignore[override]  # huggingface_hub hands over bytes
        if self._stop.is_set():
            raise TrialUnavailable("was stopped: the same command goes on with the rest, but got a stop")
        written = super().write(chunk)
        self._arrived(self.tell())
        return written


def _receive(file: RemoteFile, *, arrived: Callable[[int], None], stop: threading.Event) -> None:
    """Bring the rest of a file and check the whole."""
    partial = file.incomplete
    partial.parent.mkdir(parents=True, exist_ok=True)
    have = _bytes(partial)
    if file.size is None or have < file.size or not partial.exists():
        try:
            with _Growing(partial, arrived=arrived, stop=stop) as growing:
                http_get(
                    hf_hub_url(file.asked.repository, file.name),
                    growing,
                    resume_size=have,
                    headers={**build_hf_headers(), "Accept-Encoding": "identity"},
                    expected_size=file.size,
                    tqdm_class=cast("type[tqdm]", _no_bar),
                )
        except (HfHubHTTPError, OfflineModeIsEnabled, TrialUnavailable):
            raise
        except Exception as error:
            if is_disk_error(error):
                raise
            of = "" if file.size is None else f" of {file.size:,}"
            got = f"{said(error)} after {_bytes(partial):,}{of} bytes"
            raise TrialUnavailable(f"broke off: the same command goes on with the rest, but got {got}") from error
    if file.size is not None and (found := _bytes(partial)) != file.size:
        raise _damaged(partial, f"{found:,} bytes instead of {file.size:,}")
    if _SHA256.fullmatch(file.etag) and (sha256 := file_digest(partial)) != file.etag:
        raise _damaged(partial, f"SHA-256 {sha256} instead of {file.etag}")
    partial.replace(file.blob)


def _damaged(file: Path, got: str) -> TrialUnavailable:
    file.unlink()
    return TrialUnavailable(f"is damaged and was deleted: try again, or another network or mirror, but got {got}")


def _no_bar(**_: object) -> tqdm:
    return tqdm(disable=True)  # type: ignore[no-untyped-call]


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _explained(file: HubFile) -> Iterator[None]:
    """Whatever is raised within becomes the one clear reason why the file cannot be had."""
    try:
        yield
    except Exception as error:
        raise TrialUnavailable(explain(error, file, cache=cache_dir())) from error
