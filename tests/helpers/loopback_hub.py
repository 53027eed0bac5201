"""A model hub on loopback: a real HTTP server that speaks huggingface_hub's protocol, with faults by repository.

Large files answer as the real hub's do: a redirect with the SHA-256 as ``X-Linked-Etag`` to another host that takes no
token. Small files carry their Git digest. Ranges are served.
"""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MINI_ZOO = Path(__file__).parents[2] / "vlmsel_auto" / "minizoo"
_LARGE = (".safetensors", ".bin", ".pth", ".tar")
_BLOCK = 1 << 18


@dataclass(kw_only=True)
class Fault:
    """What goes wrong with a repository. Give one of the first group; ``times`` ends it after so many answers."""

    status: int = 0  # answered to every request, with X-Error-Code ``code`` if given
    silent_after: int | None = None  # bytes of a connection, then nothing more for ``silence`` seconds
    cut_after: int | None = None  # bytes of a connection, then it is closed
    wrong: bool = False  # the last byte is another one
    slow: float = 0.0  # seconds before every block of ``block`` bytes

    code: str = ""
    retry_after: int | None = None
    times: int | None = None
    silence: float = 30.0
    block: int = _BLOCK
    names: tuple[str, ...] = ()  # files that it holds for; none: all


@dataclass
class LoopbackHub:
    """Files by "org/name/file", bytes or a path; remembers what was asked and by whom."""

    files: dict[str, bytes | Path] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # "HEAD /org/name/resolve/main/file"
    ranges: list[str] = field(default_factory=list)
    tokens: list[tuple[str, str]] = field(default_factory=list)  # (host, Authorization) of every request
    commit: str = COMMIT
    url: str = ""
    cache: Path = Path()
    closing: threading.Event = field(default_factory=threading.Event)
    _digests: dict[str, tuple[object, str]] = field(default_factory=dict)

    def add(self, repository: str, name: str, data: bytes | Path) -> None:
        """Serve a file."""
        self.files[f"{repository}/{name}"] = data

    def remove(self, repository: str) -> None:
        """Serve a repository no more."""
        self.files = {key: data for key, data in self.files.items() if not key.startswith(f"{repository}/")}

    def add_mini_zoo(self, member: str, repository: str = "") -> str:
        """Serve a member of the mini zoo as a repository in open_clip's format; returns its candidate's name."""
        repository = repository or f"mini/{member}"
        config = json.loads((MINI_ZOO / member / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": "bpe.txt.gz"}
        self.add(repository, "open_clip_config.json", json.dumps(config).encode())
        for name in ("bpe.txt.gz", "open_clip_model.safetensors"):
            self.add(repository, name, MINI_ZOO / member / name)
        return f"hf-hub:{repository}"

    def environment(self, **more: str) -> dict[str, str]:
        """Variables with which another process uses this hub and its cache."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return {**kept, "HF_ENDPOINT": self.url, "HF_HOME": str(self.cache.parent), **more}

    def count(self, method: str, repository: str = "") -> int:
        """Requests by a method for files of a repository (all by default)."""
        return sum(each.startswith(f"{method} /{repository}") and "/resolve/" in each for each in self.asked)

    def digest(self, key: str) -> str:
        """SHA-256 of a large file, Git digest of a small one."""
        data = self.files[key]
        if key not in self._digests or self._digests[key][0] is not data:
            large = key.endswith(_LARGE)
            hasher = hashlib.sha256() if large else hashlib.sha1(usedforsecurity=False)
            if not large:
                hasher.update(b"blob %d\0" % self.size(key))
            for block in self.blocks(key, 0, self.size(key)):
                hasher.update(block)
            self._digests[key] = (data, hasher.hexdigest())
        return self._digests[key][1]

    def size(self, key: str) -> int:
        """Bytes of a file."""
        data = self.files[key]
        return len(data) if isinstance(data, bytes) else data.stat().st_size

    def blocks(self, key: str, start: int, stop: int, block: int = _BLOCK) -> Iterator[bytes]:
        """Yield the bytes of a file from ``start`` to ``stop``."""
        data = self.files[key]
        if isinstance(data, bytes):
            for offset in range(start, stop, block):
                yield data[offset : min(offset + block, stop)]
            return
        with data.open("rb") as file:
            file.seek(start)
            for offset in range(start, stop, block):
                yield file.read(min(block, stop - offset))


@contextlib.contextmanager
def loopback_hub(folder: Path) -> Iterator[LoopbackHub]:
    """Run a hub whose clients, this process among them, keep their cache in ``folder``.

    Another process uses it with `LoopbackHub.environment`.
    """
    hub = LoopbackHub(cache=folder / "hub")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with using(hub.url, hub.cache):
            yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def using(url: str, cache: Path, **settings: object) -> Iterator[None]:
    """Point huggingface_hub, which reads its environment once at import, to another hub and cache."""
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    values = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_OFFLINE": False,
        "HF_HUB_CACHE": str(cache),
        "HF_TOKEN_PATH": str(cache / "no-token"),
        **settings,
    }
    with patch.multiple(constants, **values):
        yield


def _handler(hub: LoopbackHub) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"hub": hub})


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client went away between two requests
            super().handle()

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.hub
        hub.asked.append(f"{self.command} {self.path}")
        hub.tokens.append((self.headers["Host"], self.headers.get("Authorization", "")))
        path = self.path.partition("?")[0]
        repository, _, name = path.removeprefix("/cdn").lstrip("/").partition("/resolve/main/")
        key = f"{repository}/{name}"
        listed = re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)(?:/revision/main)?(/tree/main(?:/.*)?)?", path)
        if listed:
            repository, key = listed[1], ""
        fault = _current(hub, repository, name)
        if fault is not None and fault.status:
            _use_up(fault)
            wait = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self._answer(fault.status, wait | ({"X-Error-Code": fault.code} if fault.code else {}))
        elif not (name or listed) or not any(each.startswith(f"{repository}/") for each in hub.files):
            self._answer(404, {"X-Error-Code": "RepoNotFound"})
        elif listed:
            self._list(repository, listed[2])
        elif key not in hub.files:
            self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": hub.commit})
        elif key.endswith(_LARGE) and not path.startswith("/cdn/"):
            self._send_on(key)
        else:
            self._send(key, fault or Fault())

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def _answer(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in {"Content-Length": "0", **headers}.items():
            self.send_header(header, value)
        self.end_headers()

    def _list(self, repository: str, tree: str | None) -> None:
        """Tell of a data set, or of what lies in one of its folders."""
        folder = (tree or "").removeprefix("/tree/main").strip("/")
        start = f"{repository}/{folder}".rstrip("/") + "/"
        entries = {
            place: {"type": "directory" if rest else "file", "path": place, "oid": "0" * 40}
            | ({} if rest else {"size": self.hub.size(key)})
            for key in self.hub.files
            if key.startswith(start)
            for name, _, rest in [key.removeprefix(start).partition("/")]
            for place in [f"{folder}/{name}".strip("/")]
        }
        named = {"id": repository.removeprefix("datasets/"), "sha": self.hub.commit, "siblings": [], "tags": []}
        body = json.dumps(named if tree is None else list(entries.values())).encode()
        self._answer(200, {"Content-Length": str(len(body)), "Content-Type": "application/json"})
        self.wfile.write(body)

    def _send_on(self, key: str) -> None:
        place = f"http://localhost:{self.server.server_address[1]}/cdn{self.path}?signature=of-the-url"
        linked = {"X-Linked-Etag": f'"{self.hub.digest(key)}"', "X-Linked-Size": str(self.hub.size(key))}
        self._answer(302, {"X-Repo-Commit": self.hub.commit, "Location": place, **linked})

    def _send(self, key: str, fault: Fault) -> None:
        size = self.hub.size(key)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, size) if asked and asked[2] else size
        headers = {"ETag": f'"{self.hub.digest(key)}"', "X-Repo-Commit": self.hub.commit}
        if asked:
            self.hub.ranges.append(self.headers["Range"])
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._answer(206 if asked else 200, {"Content-Length": str(stop - start), **headers})
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # the client went away
                self._body(key, start, stop, fault)

    def _body(self, key: str, start: int, size: int, fault: Fault) -> None:
        limits = [start + each for each in (fault.cut_after, fault.silent_after) if each is not None]
        stop = min([size, *limits])
        for block in self.hub.blocks(key, start, stop, fault.block):
            start += len(block)
            self.hub.closing.wait(fault.slow)
            self.wfile.write(block if not fault.wrong or start < size else block[:-1] + bytes([block[-1] ^ 1]))
        if stop < size:
            _use_up(fault)
            self.wfile.flush()
            if fault.silent_after is not None:
                self.hub.closing.wait(fault.silence)
            self.close_connection = True


def _current(hub: LoopbackHub, repository: str, name: str) -> Fault | None:
    fault = hub.faults.get(repository)
    holds = fault is not None and fault.times != 0 and (not fault.names or name in fault.names)
    return fault if holds else None


def _use_up(fault: Fault) -> None:
    if fault.times:
        fault.times -= 1
