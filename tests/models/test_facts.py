"""What is known of a candidate before it is loaded."""

import json
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from vlmsel_auto.models import candidates, catalogue, hubfiles
from vlmsel_auto.models.catalogue import UNKNOWN, package_file
from vlmsel_auto.models.facts import EMBED_BATCH, facts_of

PUBLISHERS = json.loads((package_file("data") / "openclip_publishers.json").read_text())
NAMES = [f"{arch}/{tag}" for arch, tags in catalogue.tags().items() for tag in tags]


def facts(name):
    return facts_of(candidates.resolve(name)[0])


def test_an_open_clip_model():
    found = facts("ViT-B-32/laion2b_s34b_b79k")
    assert (found.params, found.flops, found.image_size) == (151_277_313, 8_817_623_040, 224)
    assert found.download_bytes == 4 * found.params
    assert found.memory_bytes == 8 * found.params  # while it is loaded there are two copies
    assert found.repository == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert (found.licence, found.training_data, found.lacks) == ("MIT", "LAION-2B (English)", ())
    assert (found.mean_accuracy, found.imagenet) == (None, None)


def test_memory_is_that_of_a_batch_where_a_batch_takes_more_than_weights():
    found, peak = facts("MobileCLIP2-S0/dfndr2b"), catalogue.architecture("MobileCLIP2-S0")["visual_peak"]
    assert EMBED_BATCH * peak > 4 * found.params
    assert found.memory_bytes == 4 * found.params + EMBED_BATCH * peak


@pytest.mark.parametrize(
    ("name", "licence", "data"),
    [
        ("ViT-L-14/openai", "MIT", "WIT-400M (not public)"),
        ("ViT-B-16/dfn2b", "apple-amlr", "DFN-2B"),
        ("ViT-B-32-quickgelu/metaclip_400m", "CC-BY-NC-4.0", "MetaCLIP 400M (CommonCrawl)"),
        ("ViT-SO400M-14-SigLIP-384/webli", "Apache-2.0", "WebLI (not public)"),
        ("EVA02-B-16/merged2b_s8b_b131k", "MIT", "Merged-2B (LAION-2B and COYO-700M)"),
        ("ViTamin-S/datacomp1b", "MIT", "DataComp-1B"),
        ("ViT-B-16/datacomp_l_s1b_b8k", "MIT", "DataComp large"),
        ("nllb-clip-base/v1", "CC-BY-NC-4.0", "LAION-COCO-NLLB"),
        ("PE-Core-T-16-384/meta", "Apache-2.0", "image-text pairs and videos (not public)"),
    ],
)
def test_licence_and_training_data(name, licence, data):
    assert (facts(name).licence, facts(name).training_data) == (licence, data)


def test_amounts_of_training_data_are_stated_or_unknown():
    assert facts("ViT-B-32/openai").training_pairs == 4e8
    assert facts("ViT-L-14/datacomp_xl_s13b_b90k").training_pairs == 1.4e9
    assert facts("ViT-B-16-SigLIP2/webli").training_pairs == 1e10
    assert facts("ViT-B-16/commonpool_l_clip_s1b_b8k").training_pairs is None  # a part of unstated size
    assert facts("ViT-Mi-8-64.all-l").training_pairs is None


def test_every_tag_has_a_licence_and_every_row_a_source_and_a_use():
    assert [name for name in NAMES if facts(name).licence == UNKNOWN] == []
    repositories, tags = {facts(name).repository for name in NAMES}, {name.rpartition("/")[2] for name in NAMES}
    for rows, key, used in (("licences", "repositories", repositories), ("training_data", "tags", tags)):
        assert all(row["source"] for row in PUBLISHERS[rows])
        assert [row[key] for row in PUBLISHERS[rows] if not any(fnmatchcase(name, row[key]) for name in used)] == []


def test_what_needs_a_package_says_so(monkeypatch):
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: None)
    assert facts("ViT-B-16-SigLIP2/webli").lacks == ("transformers",)
    assert facts("ViT-B-32/openai").lacks == ()
    monkeypatch.setattr(hubfiles, "find_spec", lambda name: find_spec("math"))
    assert facts("ViT-B-16-SigLIP2/webli").lacks == ()


def test_a_mini_zoo_member_is_on_this_disk():
    found = facts("ViT-Mi-8-64.all-l")
    assert (found.download_bytes, found.repository, found.licence) == (0, "", "Apache-2.0")
    assert found.params < found.memory_bytes < 1e8
    assert found.written > 64 * 64 * 3 * 4


def test_a_folder_is_counted_by_its_header(minizoo, tmp_path):
    folder = tmp_path / "mine"
    shutil.copytree(minizoo / "RN-Mi-64.all-m", folder)
    found = facts(f"local-dir:{folder}")
    state = load_file(folder / "open_clip_model.safetensors")
    assert found.params == sum(each.numel() for each in state.values())
    assert (found.download_bytes, found.memory_bytes) == (0, 8 * found.params)
    assert (found.flops, found.written, found.licence, found.training_data) == (None, None, UNKNOWN, UNKNOWN)
    (folder / "open_clip_model.safetensors").unlink()
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    found = facts(f"local-dir:{folder}")
    assert (found.params, found.memory_bytes, found.download_bytes) == (None, None, 0)


def test_published_accuracies_are_the_callers():
    found = facts_of(candidates.resolve("ViT-B-32/openai")[0], mean_accuracy=0.5, imagenet=0.63)
    assert (found.mean_accuracy, found.imagenet) == (0.5, 0.63)


def test_no_torch_is_imported():
    code = (
        "import sys; from vlmsel_auto.models import candidates, facts\n"
        "facts.facts_of(candidates.resolve('tiny')[0])\n"
        "print(sorted({'torch', 'open_clip', 'huggingface_hub'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
