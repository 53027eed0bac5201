"""Model folders that are damaged, of another model, or hostile."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from helpers.bad_input.case import FULL, MEMBER, Case, good_task, refused
from vlmsel_auto.models.candidates import mini_zoo

OTHER = "RN-Mi-64.all-m"
WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"


def member(name: str) -> Path:
    return next(one.path for one in mini_zoo() if one.id == name and one.path is not None)


def model(place: Path) -> Path:
    """A sound model folder beside a sound task; cases spoil it."""
    good_task(place)
    return Path(shutil.copytree(member(MEMBER), place / "model"))


def exported(place: Path, *, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    """A model folder as a search leaves it."""
    from vlmsel_auto.models import zoo
    from vlmsel_auto.models.candidates import resolve
    from vlmsel_auto.models.exporting import Classifier, export

    loaded = zoo.load(resolve(MEMBER)[0])
    templates = ("a photo of a {}.",)
    classifier = Classifier(
        head=loaded.text_features(classes, templates).numpy(),
        bias=np.zeros(len(classes)),
        scale=loaded.logit_scale,
        classes=classes,
        prompts=classes,
        templates=templates,
    )
    return export(loaded, classifier, directory=place)


class Harmful:
    """What runs when it is read."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch harmed",)


def cut_off(place: Path) -> None:
    weights = model(place) / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100_000])


def header_alone(place: Path) -> None:
    (model(place) / WEIGHTS).write_bytes(b"\xff" * 8)


def of_another_architecture(place: Path) -> None:
    shutil.copy(member(OTHER) / WEIGHTS, model(place) / WEIGHTS)


def pickle_with_code(place: Path) -> None:
    folder = model(place)
    (folder / WEIGHTS).unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))


def checkpoint_with_code(place: Path) -> None:
    import torch

    folder = model(place)
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": Harmful()}, folder / "open_clip_pytorch_model.bin")


def not_finite(place: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = model(place) / WEIGHTS
    arrays = load_file(weights)
    arrays["logit_scale"] = np.full_like(arrays["logit_scale"], np.nan)
    save_file(arrays, weights)


def without(place: Path, *, file: str) -> None:
    (model(place) / file).unlink()


def config(place: Path, *, data: bytes) -> None:
    (model(place) / CONFIG).write_bytes(data)


def edited(place: Path, *, table: str, key: str, value: object) -> None:
    path = model(place) / CONFIG
    told = json.loads(path.read_text())
    told["model_cfg"][table][key] = value
    path.write_text(json.dumps(told))


WRONG: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    ("weights that are cut off", cut_off, "replace the files or leave it out"),
    ("weights of eight bytes", header_alone, "replace the files or leave it out"),
    ("weights of another architecture", of_another_architecture, "replace the files or leave it out"),
    ("pickle with code in it", pickle_with_code, "only tensors are read, no code"),
    ("checkpoint with code in it", checkpoint_with_code, "only tensors are read, no code"),
    ("weights with NaN", not_finite, "damaged.*logit_scale"),
    ("no weights", partial(without, file=WEIGHTS), "no weights"),
    ("no configuration", partial(without, file=CONFIG), "has no open_clip_config.json"),
    ("configuration that is not JSON", partial(config, data=b"{"), "Cannot read the model configuration"),
    ("configuration of the wrong kind", partial(config, data=b"[1]"), "must be a JSON object"),
    ("configuration of brackets", partial(config, data=b"[" * 100_000), "Cannot read the model configuration"),
    (
        "text tower from the hub",
        partial(edited, table="text_cfg", key="hf_model_name", value="stranger/remote"),
        "not in the cache.*'stranger/remote'",
    ),
    (
        "tower from the hub",
        partial(edited, table="vision_cfg", key="timm_model_name", value="hf-hub:a/b"),
        "built-in tower",
    ),
    (
        "vocabulary out of the folder",
        partial(edited, table="text_cfg", key="tokenizer_kwargs", value={"bpe_path": "../../etc/passwd"}),
        "must lie inside it",
    ),
    (
        "width of another model",
        partial(edited, table="text_cfg", key="width", value=7),
        "replace the files or leave it out",
    ),
    (
        "layers of the wrong type",
        partial(edited, table="vision_cfg", key="layers", value="many"),
        "replace the files or leave it out",
    ),
)
CASES = (
    *(
        refused(
            Case(room="weights", name=name, make=make, arguments=("rank", "task", "-c", "local-dir:model"), says=says)
        )
        for name, make, says in WRONG
    ),
    Case(
        room="weights",
        name="a damaged model beside a sound one",
        make=cut_off,
        arguments=("search", "task", "-c", f"local-dir:model,{MEMBER}", *FULL),
        says="not ranked: local-dir:.*model: .*replace the files",
    ),
)
