"""Candidates from a hub: a real HTTP server on loopback that speaks huggingface_hub's protocol."""

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants, file_download
from safetensors.torch import save_file

from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.events import Event, Notice
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.hub import hub_file

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@dataclass
class Hub:
    """Files by "org/name/file"; remembers what was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken: bool = False
    asked: list[str] = field(default_factory=list)
    url: str = ""
    commit: str = COMMIT

    def add(self, repository: str, name: str, data: bytes) -> None:
        self.files[f"{repository}/{name}"] = data


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def _answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            repository, _, rest = self.path.lstrip("/").partition("/resolve/main/")
            if hub.broken:
                self._answer(500)
            elif repository in hub.gated:
                self._answer(403, headers={"X-Error-Code": "GatedRepo"})
            elif not rest or not any(name.startswith(f"{repository}/") for name in hub.files):
                self._answer(404, headers={"X-Error-Code": "RepoNotFound"})
            elif f"{repository}/{rest}" not in hub.files:
                self._answer(404, headers={"X-Error-Code": "EntryNotFound"})
            else:
                data = hub.files[f"{repository}/{rest}"]
                etag = hashlib.sha256(data).hexdigest()
                self._answer(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": hub.commit})

        do_HEAD = do_GET  # noqa: N815 - http.server's name

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(found))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    _use(monkeypatch, found.url, tmp_path)
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


def _use(monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> None:
    # huggingface_hub reads its environment once, at import; test_environment_names_the_hub covers that way
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(
        file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False
    )  # where releases below 1.0 look
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def _weights(config: dict[str, object], folder: Path, *, seed: int = 0) -> tuple[bytes, dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    cfg = json.loads(json.dumps(config))
    cfg.pop("custom_text", None)
    model = open_clip.CustomTextCLIP(**cfg) if config.get("custom_text") else open_clip.CLIP(**cfg)
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    return (folder / "weights.safetensors").read_bytes(), state


def _add_tiny(hub: Hub, folder: Path, repository: str = "local/tiny", **config: object) -> dict[str, torch.Tensor]:
    model_cfg = {**TINY, **config}
    data, state = _weights(model_cfg, folder)
    record = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}
    hub.add(repository, "open_clip_config.json", json.dumps(record).encode())
    hub.add(repository, "open_clip_model.safetensors", data)
    return state


def test_a_hub_repository_downloads_and_loads(hub: Hub, tmp_path: Path) -> None:
    state = _add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")
    assert (candidate.id, candidate.view.size, candidate.family) == ("hf-hub:local/tiny", 32, "vit")
    events: list[Event] = []
    model = zoo.load(candidate, sink=events.append)
    assert torch.equal(model.model.state_dict()["visual.proj"], state["visual.proj"])
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert [event.text for event in events if isinstance(event, Notice)] == [
        f"Downloading open_clip_model.safetensors of local/tiny from {hub.url}"
    ]
    features = model.text_features(["cat", "dog"], ["a {}."])
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-6)


def test_cached_files_serve_when_the_hub_is_gone(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _add_tiny(hub, tmp_path)
    first = zoo.load(candidates.resolve("hf-hub:local/tiny")[0])
    _use(monkeypatch, f"http://127.0.0.1:{_free_port()}", tmp_path)
    start = time.monotonic()
    again = zoo.load(candidates.resolve("hf-hub:local/tiny")[0])
    assert time.monotonic() - start < 5
    images = torch.zeros(1, 3, 32, 32)
    assert torch.equal(first.embed(images), again.embed(images))


def test_the_cache_of_huggingface_hub_takes_the_downloads(hub: Hub, tmp_path: Path) -> None:
    _add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")
    zoo.load(candidate)
    assert list((tmp_path / "cache").rglob("open_clip_model.safetensors"))


def test_a_repositorys_own_vocabulary_comes_along(hub: Hub, tmp_path: Path) -> None:
    text = {**TINY["text_cfg"], "vocab_size": 515, "tokenizer_kwargs": {"bpe_path": "words/merges.gz"}}
    _add_tiny(hub, tmp_path, text_cfg=text)
    hub.add("local/tiny", "words/merges.gz", gzip.compress(b"header\nc a"))
    model = zoo.load(candidates.resolve("hf-hub:local/tiny")[0])
    assert model.tokenizer is not None
    # 512 bytes, one merge, start and end; "a</w>" keeps "c a" from merging at the end of a word
    assert model.tokenizer(["cab"])[0, [0, 1, 3]].tolist() == [513, 512, 514]
    assert model.vocabulary is not None
    assert model.text_features(["cat"], ["{}"]).shape == (1, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_cfg": {**TINY["text_cfg"], "tokenizer_kwargs": {"bpe_path": "../../stolen"}}}, "lie in the repository"),
        (
            {"text_cfg": {**TINY["text_cfg"], "tokenizer_kwargs": {"bpe_path": "/etc/hostname"}}},
            "lie in the repository",
        ),
        ({"vision_cfg": {**TINY["vision_cfg"], "timm_model_name": "hf-hub:a/b"}}, "built-in tower"),
    ],
)
def test_a_repository_cannot_point_elsewhere(
    hub: Hub, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    _add_tiny(hub, tmp_path)
    hub.add("local/tiny", "open_clip_config.json", json.dumps({"model_cfg": {**TINY, **changes}}).encode())
    with pytest.raises(CandidateError, match=message):
        zoo.load(candidates.resolve("hf-hub:local/tiny")[0])


def test_a_repository_that_moved_on_is_fetched_as_one_revision(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")  # caches the configuration of the first revision
    before = candidates.fingerprint(candidate)
    hub.commit = "f" * 40
    assert zoo.load(candidate).embed(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
    assert candidates.fingerprint(candidate) != before


@pytest.fixture
def tagged(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A tiny architecture registered with open_clip, with pretraining tags that point to the hub."""
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "ViT-Nano.json").write_text(json.dumps(TINY))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [*open_clip.factory._MODEL_CONFIG_PATHS])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", dict(open_clip.factory._MODEL_CONFIGS))
    open_clip.add_model_config(configs)
    common = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear", "resize_mode": "squash"}
    tags = {
        "folder": {**common, "hf_hub": "local/nano/"},
        "quick": {**common, "hf_hub": "local/nano/", "quick_gelu": True},
        "named": {**common, "hf_hub": "local/nano/nano.bin"},
        "absent": {**common, "hf_hub": "local/nano/absent.bin"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-Nano", tags)
    data, state = _weights(TINY, tmp_path)
    hub.add("local/nano", "open_clip_model.safetensors", data)
    torch.save(state, tmp_path / "nano.bin")
    hub.add("local/nano", "nano.bin", (tmp_path / "nano.bin").read_bytes())
    return state


@pytest.mark.parametrize("tag", ["folder", "quick", "named"])
def test_an_architecture_with_a_tag_loads(tagged: dict[str, torch.Tensor], tag: str) -> None:
    (candidate,) = candidates.resolve(f"ViT-Nano/{tag}")
    assert (candidate.view.resize_mode, candidate.view.interpolation) == ("squash", "bilinear")
    model = zoo.load(candidate)
    assert all(torch.equal(value, tagged[key]) for key, value in model.model.state_dict().items())
    assert model.mean == (0.5, 0.5, 0.5)


def test_quick_gelu_follows_the_tag(tagged: dict[str, torch.Tensor]) -> None:
    plain, quick = (zoo.load(candidates.resolve(f"ViT-Nano/{tag}")[0]) for tag in ("folder", "quick"))
    kinds = [{type(module).__name__ for module in model.visual.modules()} for model in (plain, quick)]
    assert "GELU" in kinds[0]
    assert "QuickGELU" not in kinds[0]
    assert "QuickGELU" in kinds[1]
    assert quick.model_cfg["quick_gelu"] is True
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    assert not torch.allclose(plain.embed(images), quick.embed(images))


def test_a_pickle_that_runs_code_is_refused(tagged: dict[str, torch.Tensor], hub: Hub, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harmed"),)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.bin")
    hub.add("local/nano", "nano.bin", (tmp_path / "evil.bin").read_bytes())
    with pytest.raises(TrialUnavailable, match="ViT-Nano/named"):
        zoo.load(candidates.resolve("ViT-Nano/named")[0])
    assert not (tmp_path / "harmed").exists()


def test_a_missing_weight_file_is_one_clear_error(tagged: dict[str, torch.Tensor]) -> None:
    with pytest.raises(
        TrialUnavailable, match=r"lacks every file of \['absent.safetensors', 'absent.bin'\].*local/nano"
    ):
        zoo.load(candidates.resolve("ViT-Nano/absent")[0])


def test_weights_of_another_shape_are_refused(tagged: dict[str, torch.Tensor], hub: Hub, tmp_path: Path) -> None:
    data, _ = _weights({**TINY, "embed_dim": 12}, tmp_path)
    hub.add("local/nano", "open_clip_model.safetensors", data)
    with pytest.raises(TrialUnavailable, match=r"ViT-Nano/folder.*size mismatch"):
        zoo.load(candidates.resolve("ViT-Nano/folder")[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("repository", "no such repository"),
        ("gated", "token with access"),
        ("broken", "got 500"),
        ("name", "named ORG/NAME"),
    ],
)
def test_what_the_hub_refuses_is_said_once(hub: Hub, tmp_path: Path, change: str, message: str) -> None:
    _add_tiny(hub, tmp_path)
    repository = {"repository": "local/other", "name": "a/b/c"}.get(change, "local/tiny")
    hub.gated |= {"local/tiny"} if change == "gated" else set()
    hub.broken = change == "broken"
    start = time.monotonic()
    with pytest.raises(CandidateError, match=message):
        candidates.resolve(f"hf-hub:{repository}")
    assert time.monotonic() - start < 5
    # the library itself asks once a day which agents there are
    assert len([each for each in hub.asked if "agent-harnesses" not in each]) <= 1


def test_a_repository_without_open_clip_format_is_refused(hub: Hub) -> None:
    hub.add("local/tiny", "open_clip_config.json", b'{"vision_cfg": {}}')
    with pytest.raises(CandidateError, match="not in open_clip's format"):
        candidates.resolve("hf-hub:local/tiny")


def test_an_unreachable_hub_is_told_quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{_free_port()}"
    _use(monkeypatch, url, tmp_path)
    start = time.monotonic()
    with pytest.raises(TrialUnavailable, match=f"Cannot reach the hub.*{url}"):
        zoo.load(candidates.resolve("ViT-B-32/laion2b_s34b_b79k")[0])
    assert time.monotonic() - start < 5


def test_offline_mode_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(monkeypatch, "http://127.0.0.1:9", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with (
        ThreadPoolExecutor(1) as fresh,  # releases below 1.0 keep the session that a thread once made
        pytest.raises(TrialUnavailable, match="HF_HUB_OFFLINE is set"),
    ):
        fresh.submit(hub_file, "local/tiny", ("open_clip_config.json",)).result()


def test_the_first_of_the_names_wins(hub: Hub) -> None:
    hub.add("local/tiny", "b.bin", b"bee")
    hub.add("local/tiny", "c.bin", b"sea")
    assert hub_file("local/tiny", ("a.bin", "b.bin", "c.bin")).read_bytes() == b"bee"


def test_environment_names_the_hub(hub: Hub, tmp_path: Path) -> None:
    _add_tiny(hub, tmp_path)
    code = (
        "from vlmsel_auto.models import candidates, zoo\n"
        "model = zoo.load(candidates.resolve('hf-hub:local/tiny')[0])\n"
        "print(model.logit_scale)\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(1 / 0.07, rel=1e-5)
    assert list((tmp_path / "home").rglob("open_clip_model.safetensors"))


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
