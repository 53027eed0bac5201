"""Candidates named, downloaded and loaded from a hub on loopback."""

import gc
import gzip
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file

from helpers.loopback_hub import Fault, LoopbackHub, loopback_hub, using
from helpers.tiny_models import TINY, add_tags, add_tiny, weights
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.events import DownloadProgress, Event
from vlmsel_auto.models import candidates, zoo
from vlmsel_auto.models.hub import find
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.sources.table import fingerprint


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    with loopback_hub(tmp_path) as found:
        yield found


def test_a_hub_repository_downloads_and_loads(hub: LoopbackHub, tmp_path: Path) -> None:
    state = add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")
    assert (candidate.id, candidate.view.size, candidate.family) == ("hf-hub:local/tiny", 32, "vit")
    events: list[Event] = []
    model = zoo.load(candidate, sink=events.append)
    assert torch.equal(model.model.state_dict()["visual.proj"], state["visual.proj"])
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert all(isinstance(event, DownloadProgress) for event in events)
    size = hub.size("local/tiny/open_clip_model.safetensors")
    assert (events[0].done, events[-1].done, events[-1].total, events[-1].ended) == (0, size, size, True)
    assert [event.ended for event in events].count(True) == 1
    features = model.text_features(["cat", "dog"], ["a {}."])
    assert torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-6)


def test_cached_files_serve_when_the_hub_is_gone(hub: LoopbackHub, tmp_path: Path) -> None:
    add_tiny(hub, tmp_path)
    first = zoo.load(candidates.resolve("hf-hub:local/tiny")[0])
    asked = len(hub.asked)
    with using(hub.url, hub.cache, HF_HUB_OFFLINE=True):
        again = zoo.load(candidates.resolve("hf-hub:local/tiny")[0])
    assert len(hub.asked) == asked
    images = torch.zeros(1, 3, 32, 32)
    assert torch.equal(first.embed(images), again.embed(images))


def test_the_cache_of_huggingface_hub_takes_the_downloads(hub: LoopbackHub, tmp_path: Path) -> None:
    add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")
    zoo.load(candidate)
    assert list((tmp_path / "hub").rglob("open_clip_model.safetensors"))


def test_a_repositorys_own_vocabulary_comes_along(hub: LoopbackHub, tmp_path: Path) -> None:
    text = {**TINY["text_cfg"], "vocab_size": 515, "tokenizer_kwargs": {"bpe_path": "words/merges.gz"}}
    add_tiny(hub, tmp_path, text_cfg=text)
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
    hub: LoopbackHub, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    add_tiny(hub, tmp_path)
    hub.add("local/tiny", "open_clip_config.json", json.dumps({"model_cfg": {**TINY, **changes}}).encode())
    with pytest.raises(CandidateError, match=message):
        zoo.load(candidates.resolve("hf-hub:local/tiny")[0])


def test_a_repository_that_moved_on_is_fetched_as_one_revision(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_tiny(hub, tmp_path)
    (candidate,) = candidates.resolve("hf-hub:local/tiny")  # caches the configuration of the first revision
    before = fingerprint(candidate)
    hub.commit = "f" * 40
    assert zoo.load(candidate).embed(torch.zeros(1, 3, 32, 32)).shape == (1, 16)
    assert fingerprint(candidate) != before


@pytest.fixture
def tagged(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    return add_tags(hub, tmp_path, monkeypatch)


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


def test_a_pickle_that_runs_code_is_refused(tagged: dict[str, torch.Tensor], hub: LoopbackHub, tmp_path: Path) -> None:
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


def test_weights_of_another_shape_are_refused(
    tagged: dict[str, torch.Tensor], hub: LoopbackHub, tmp_path: Path
) -> None:
    data, _ = weights({**TINY, "embed_dim": 12}, tmp_path)
    hub.add("local/nano", "open_clip_model.safetensors", data)
    with pytest.raises(TrialUnavailable, match=r"ViT-Nano/folder.*size mismatch"):
        zoo.load(candidates.resolve("ViT-Nano/folder")[0])


FAULTS = {"gated": Fault(status=403, code="GatedRepo"), "broken": Fault(status=500)}


@pytest.mark.parametrize("damage", ["shape", "values"])
def test_a_load_that_fails_keeps_no_model(
    tagged: dict[str, torch.Tensor], hub: LoopbackHub, tmp_path: Path, damage: str
) -> None:
    if damage == "shape":
        data, _ = weights({**TINY, "embed_dim": 12}, tmp_path)
    else:
        save_file({**tagged, "visual.proj": tagged["visual.proj"] * np.nan}, tmp_path / "damaged.safetensors")
        data = (tmp_path / "damaged.safetensors").read_bytes()
    hub.add("local/nano", "open_clip_model.safetensors", data)
    before = {id(each) for each in gc.get_objects() if type(each) is open_clip.CLIP}
    with pytest.raises(TrialUnavailable) as kept:
        zoo.load(candidates.resolve("ViT-Nano/folder")[0])
    assert [each for each in gc.get_objects() if type(each) is open_clip.CLIP and id(each) not in before] == []
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("repository", "no such repository"),
        ("gated", "token with access"),
        ("broken", "got 500"),
        ("name", "named ORG/NAME"),
    ],
)
def test_what_the_hub_refuses_is_said_once(hub: LoopbackHub, tmp_path: Path, change: str, message: str) -> None:
    add_tiny(hub, tmp_path)
    repository = {"repository": "local/other", "name": "a/b/c"}.get(change, "local/tiny")
    if change in FAULTS:
        hub.faults["local/tiny"] = FAULTS[change]
    start = time.monotonic()
    with pytest.raises(CandidateError, match=message):
        candidates.resolve(f"hf-hub:{repository}")
    assert time.monotonic() - start < 5
    # the library itself asks once a day which agents there are
    assert len([each for each in hub.asked if "agent-harnesses" not in each]) <= 1


def test_a_repository_without_open_clip_format_is_refused(hub: LoopbackHub) -> None:
    hub.add("local/tiny", "open_clip_config.json", b'{"vision_cfg": {}}')
    with pytest.raises(CandidateError, match="needs an object 'model_cfg', as open_clip writes it"):
        candidates.resolve("hf-hub:local/tiny")


def test_an_unreachable_hub_is_told_quickly(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{_free_port()}"
    start = time.monotonic()
    with (
        using(url, tmp_path),
        pytest.raises(TrialUnavailable, match=f"Cannot reach the hub.*{url}"),
    ):
        zoo.load(candidates.resolve("ViT-B-32/laion2b_s34b_b79k")[0])
    assert time.monotonic() - start < 5


def test_offline_mode_is_told(hub: LoopbackHub) -> None:
    with using(hub.url, hub.cache, HF_HUB_OFFLINE=True), pytest.raises(TrialUnavailable, match="HF_HUB_OFFLINE is set"):
        find(HubFile(repository="local/tiny", names=("open_clip_config.json",)))
    assert hub.asked == []


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
