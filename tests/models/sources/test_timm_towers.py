"""Visual towers without texts: timm's published ones from a hub, and folders."""

import json
import pickle

import pytest
import timm
import torch

from helpers.loopback_hub import Fault, loopback_hub
from helpers.timm_towers import PUBLISHED, add_published, write_tower
from vlmsel_auto.errors import CandidateError, TrialUnavailable
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import resolve, resolve_usable
from vlmsel_auto.models.facts import facts_of

IMAGES = torch.linspace(-1, 1, 2 * 3 * 160 * 160).reshape(2, 3, 160, 160)


def test_a_published_tower_is_what_timm_makes_of_the_same_weights(tmp_path):
    with loopback_hub(tmp_path) as hub:
        made = add_published(hub, tmp_path)
        (one,) = resolve(PUBLISHED)
        model = zoo.load(one)
    made.reset_classifier(0)
    torch.testing.assert_close(model.embed(IMAGES), made(IMAGES))
    assert (one.view.size, one.has_text, model.tokenizer) == (160, False, None)
    assert one.params == sum(each.numel() for each in made.parameters())
    assert (model.mean, model.std) == ((0.5,) * 3, (0.5,) * 3)
    known = facts_of(one)
    assert (known.repository, known.licence) == ("timm/test_vit.r160_in1k", "apache-2.0")


def test_a_folder_is_named_with_the_prefix_or_without(tmp_path):
    made = write_tower(tmp_path / "mine")
    for name in (f"timm:{tmp_path / 'mine'}", str(tmp_path / "mine")):
        (one,) = resolve(name)
        assert (one.source, one.path, one.has_text) == ("timm", tmp_path / "mine", False)
        images = IMAGES[:, :, :64, :64]
        torch.testing.assert_close(zoo.load(one).embed(images), made(images))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm:vit_smal_patch14_dinov2.lvd142m", "did you mean timm:vit_small_patch14_dinov2.lvd142m"),
        ("timm:no such folder", "no such tower, and there is no such folder"),
    ],
)
def test_a_name_that_timm_does_not_know_is_told(name, said):
    with pytest.raises(CandidateError, match=f"{said}.*but got"):
        resolve(name)


def test_a_tower_without_weights_on_the_hub_is_told(monkeypatch):
    bare = timm.models.PretrainedCfg(architecture="resnet18", input_size=(3, 64, 64))
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda *_, **__: bare)
    with pytest.raises(CandidateError, match="no pretrained weights of the tower on the hub"):
        resolve("timm:resnet18")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"architecture": "hf-hub:some/other"}, "built-in tower"),
        ({"architecture": "nothing"}, "timm cannot build the tower"),
        ({"model_args": {"checkpoint_path": "evil.bin"}}, "must be numbers"),
        ({"pretrained_cfg": None}, "needs an object pretrained_cfg"),
        ({"pretrained_cfg": {"input_size": [3, 64, 32]}}, "square"),
    ],
)
def test_a_folder_that_cannot_be_used_says_why(tmp_path, config, said):
    write_tower(tmp_path / "mine", **config)
    with pytest.raises(CandidateError, match=said):
        resolve_usable(f"timm:{tmp_path / 'mine'}")


def test_a_folder_without_weights_says_so(tmp_path):
    write_tower(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").unlink()
    with pytest.raises(CandidateError, match=r"has no model\.safetensors"):
        resolve(f"timm:{tmp_path / 'mine'}")


def test_weights_that_lack_a_part_are_refused_instead_of_drawn(tmp_path):
    made = write_tower(tmp_path / "mine")
    state = made.state_dict()
    del state["norm.bias"]
    (tmp_path / "mine" / "model.safetensors").unlink()
    torch.save(state, tmp_path / "mine" / "pytorch_model.bin")
    with pytest.raises(TrialUnavailable, match=r"Missing key.*norm\.bias"):
        zoo.load(resolve(f"timm:{tmp_path / 'mine'}")[0])


class _Evil:
    def __reduce__(self):
        return (print, ("ran",))


def test_no_code_of_a_pickle_runs(tmp_path, capsys):
    write_tower(tmp_path / "mine")
    (tmp_path / "mine" / "model.safetensors").unlink()
    (tmp_path / "mine" / "pytorch_model.bin").write_bytes(pickle.dumps({"norm.bias": _Evil()}))
    with pytest.raises(TrialUnavailable, match="Cannot load candidate"):
        zoo.load(resolve(f"timm:{tmp_path / 'mine'}")[0])
    assert "ran" not in capsys.readouterr().out


def test_a_gated_repository_is_told(tmp_path):
    with loopback_hub(tmp_path) as hub:
        add_published(hub, tmp_path)
        hub.faults["timm/test_vit.r160_in1k"] = Fault(status=403, code="GatedRepo")
        with pytest.raises(TrialUnavailable, match=r"gated|licence|access"):
            zoo.load(resolve(PUBLISHED)[0])


def test_an_export_is_read_by_plain_timm(tmp_path):
    import numpy as np

    from vlmsel_auto.models.exported import load_exported
    from vlmsel_auto.models.exporting import Classifier, export

    made = write_tower(tmp_path / "mine")
    model = zoo.load(resolve(str(tmp_path / "mine"))[0])
    head = Classifier(
        head=np.ones((2, 32), dtype=np.float32), bias=np.zeros(2, dtype=np.float32), scale=1.0, classes=("a", "b"),
        prompts=("a", "b"), templates=("{}",),
    )  # fmt: skip
    folder = export(model, head, directory=tmp_path / "out")
    plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = IMAGES[:, :, :64, :64]
    torch.testing.assert_close(plain(images), made(images))
    assert load_exported(folder).members[0].view == model.candidate.view
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["crop_pct"] == 1.0
    assert "plain timm" in (folder / "README.md").read_text()
