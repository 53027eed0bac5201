"""Names to candidates, without torch."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vlmsel_auto.errors import CandidateError
from vlmsel_auto.events import Event, Notice
from vlmsel_auto.models import candidates
from vlmsel_auto.models.modeldir import read_model_dir
from vlmsel_auto.records import ImageView


@pytest.fixture
def folder(minizoo: Path, tmp_path: Path) -> Path:
    """A user's own model folder."""
    target = tmp_path / "models" / "mine"
    shutil.copytree(minizoo / "RN-Mi-64.all-m", target)
    return target


def test_the_mini_zoo_is_complete_and_its_cards_fit_the_files(minizoo: Path) -> None:
    members = candidates.mini_zoo()
    assert [each.id for each in members] == sorted(folder.name for folder in minizoo.iterdir() if folder.is_dir())
    first = candidates.resolve("ViT-Mi-8-64.all-l")[0]
    assert (first.source, first.arch, first.tag, first.family) == ("mini-zoo", "ViT-Mi-8-64", "all-l", "vit")
    assert first.view == ImageView(size=64, resize_mode="squash", interpolation="bicubic")
    assert {each.family for each in members} == {"vit", "resnet", "convnext", "efficientnet"}
    assert all(each.params and each.flops and each.params < 2_000_000 for each in members)


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from vlmsel_auto.models import candidates\n"
        "candidates.resolve('mini-zoo,ViT-B-32/openai')\n"
        "print(sorted({'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counted_figures_of_an_open_clip_model() -> None:
    (found,) = candidates.resolve("ViT-B-32/laion2b_s34b_b79k")
    assert (found.source, found.arch, found.tag) == ("open_clip", "ViT-B-32", "laion2b_s34b_b79k")
    # mlfoundations/open_clip docs/model_profile.csv: 151.28 M parameters, 8.82 GFLOPs of the visual tower
    assert found.params == pytest.approx(151.28e6, rel=1e-4)
    assert found.flops == pytest.approx(8.82e9, rel=1e-3)
    assert found.view == ImageView(size=224, resize_mode="shortest", interpolation="bicubic")


def test_a_siglip_view_is_squashed() -> None:
    assert candidates.resolve("ViT-B-16-SigLIP-384/webli")[0].view == ImageView(size=384, resize_mode="squash")


def test_lists_keep_the_order_and_drop_what_was_named_twice() -> None:
    events: list[Event] = []
    found = candidates.resolve(["RN-Mi-64.all-m, ViT-Mi-8-64.all-l", "RN-Mi-64.all-m,"], sink=events.append)
    assert [each.id for each in found] == ["RN-Mi-64.all-m", "ViT-Mi-8-64.all-l"]
    assert [type(event) for event in events] == [Notice]
    assert candidates.resolve("ViT-Mi-8-64.all-l,mini-zoo")[0].id == "ViT-Mi-8-64.all-l"
    assert len(candidates.resolve("ViT-Mi-8-64.all-l,mini-zoo")) == len(candidates.mini_zoo())


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("ViT-Mi-8-64.al-l", "ViT-Mi-8-64.all-l"),
        ("vit-mi-8-64.ALL-L", "ViT-Mi-8-64.all-l"),
        ("minizoo", "mini-zoo"),
        ("ViT-B-32", "ViT-B-32/openai"),
        ("ViT-B-32/laion2b", "ViT-B-32/laion2b_s34b_b79k"),
    ],
)
def test_an_unknown_name_gets_the_closest(name: str, close: str) -> None:
    with pytest.raises(CandidateError, match=r"did you mean .*but got") as caught:
        candidates.resolve(name)
    assert close in str(caught.value)


@pytest.mark.parametrize("names", ["", " , ", [], ["", ","]])
def test_no_names_at_all_is_an_error(names: str | list[str]) -> None:
    with pytest.raises(CandidateError, match="At least one candidate"):
        candidates.resolve(names)


def test_a_folder_is_one_candidate_by_whatever_route(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    events: list[Event] = []
    names = [f"local-dir:{folder}", "local-dir:models/mine", "local-dir:./models/../link", "models/mine"]
    (found,) = candidates.resolve(names, sink=events.append)
    assert found.id == f"local-dir:{folder.resolve()}"
    assert (found.source, found.arch, found.family, found.path) == ("local-dir", "mine", "resnet", folder.resolve())
    assert len(events) == 3
    assert candidates.resolve(Path("models/mine")) == (found,)


def test_a_folder_with_a_comma_in_its_name(folder: Path) -> None:
    folder.rename(folder.with_name("a,b"))
    assert candidates.resolve(f"local-dir:{folder.with_name('a,b')}")[0].arch == "a,b"


def _edit(folder: Path, **changes: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        table, _, inner = key.partition("__")
        if inner:
            config["model_cfg"][table][inner] = value
        else:
            config[table] = value
    path.write_text(json.dumps(config))


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").rename(folder / "head.safetensors")
    with pytest.raises(CandidateError, match=r"no weights.*random"):
        candidates.resolve(f"local-dir:{folder}")


def test_an_unusable_folder_stops_nothing_while_others_can_be_used(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    found, unusable = candidates.resolve_usable(["RN-Mi-64.all-m", f"local-dir:{folder}"])
    assert [each.id for each in found] == ["RN-Mi-64.all-m"]
    assert [each.id for each in unusable] == [f"local-dir:{folder}"]
    assert "no weights" in unusable[0].reason
    with pytest.raises(CandidateError, match="no weights"):
        candidates.resolve_usable(f"local-dir:{folder}")
    with pytest.raises(CandidateError, match="A model folder is needed"):  # a slip of the pen is told at once
        candidates.resolve_usable(["RN-Mi-64.all-m", f"local-dir:{folder}x"])
    with pytest.raises(CandidateError, match="Unknown candidate"):
        candidates.resolve_usable(["RN-Mi-64.all-m", "RN-Mi-64.all-x"])


def test_a_folder_without_configuration_is_refused(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(CandidateError, match=r"has no open_clip_config\.json"):
        candidates.resolve(f"local-dir:{folder}")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"model_cfg": []}', "[" * 100_000, '{"model_cfg": {"text_cfg": {}}}']
)
def test_a_damaged_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(CandidateError, match=r"open_clip_config\.json"):
        candidates.resolve(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text_cfg__tokenizer_kwargs": {"bpe_path": "../../secret.gz"}}, "must lie inside"),
        ({"text_cfg__tokenizer_kwargs": {"bpe_path": "/etc/hostname"}}, "must lie inside"),
        ({"text_cfg__tokenizer_kwargs": {"bpe_path": "absent.gz"}}, "lacks a file"),
        ({"text_cfg__tokenizer_kwargs": {"bpe_path": 7}}, "must be a file name"),
        ({"vision_cfg__timm_model_name": "hf-hub:someone/model"}, "built-in tower"),
        ({"vision_cfg__image_size": [32, 64]}, "square"),
        ({"vision_cfg__image_size": "64"}, "square"),
        ({"preprocess_cfg": {"resize_mode": "stretch"}}, "resize_mode"),
        ({"preprocess_cfg": {"interpolation": "nearest"}}, "interpolation"),
        ({"preprocess_cfg": {"fill_color": 300}}, "fill_color"),
        ({"preprocess_cfg": []}, "must be an object|square|but got"),
    ],
)
def test_a_folder_that_cannot_be_trusted_or_read_is_refused(
    folder: Path, changes: dict[str, object], message: str
) -> None:
    _edit(folder, **changes)
    if changes == {"preprocess_cfg": []}:
        assert candidates.resolve(f"local-dir:{folder}")[0].view.resize_mode == "shortest"  # open_clip's default
        return
    with pytest.raises(CandidateError, match=message):
        candidates.resolve(f"local-dir:{folder}")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_config.json"])
def test_no_file_may_be_a_link_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "outside.safetensors")
    (folder / name).symlink_to(tmp_path / "outside.safetensors")
    with pytest.raises(CandidateError, match="must lie inside"):
        candidates.resolve(f"local-dir:{folder}")


def test_the_hub_cache_with_its_links_is_a_folder_too(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "snapshots" / "abc", tmp_path / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for index, path in enumerate(sorted(folder.iterdir())):
        shutil.move(path, blobs / str(index))
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / str(index), snapshot))
    assert read_model_dir(snapshot).weights.name == "open_clip_model.safetensors"


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=40), st.sampled_from(["", "local-dir:", "local-dir:~", "a/"]))
@example("\x00", "local-dir:")
@example("\x00", "")
@example("x" * 300, "local-dir:")
@example("x" * 300, "")
def test_no_text_gives_anything_but_a_candidate_error(text: str, start: str) -> None:
    with pytest.raises(CandidateError):
        candidates.resolve(f"{start}{text}")
