"""Reading an open_clip model folder without trusting it: what is checked before any weight is loaded.

Such a folder (``local-dir:`` in open_clip) holds ``open_clip_config.json`` and one weight file. open_clip itself
returns a randomly initialised model when the weights are missing, resolves no path against the folder and passes the
configuration's tokenizer arguments on, ``trust_remote_code`` among them; this module closes all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from vlmsel_auto.cache import Json
from vlmsel_auto.errors import CandidateError, InputError
from vlmsel_auto.recordjson import parse_json
from vlmsel_auto.records import ImageView

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"  # as exports name them
VOCABULARY = "bpe.txt.gz"
# transformers needs one of the first row and takes what there is of the second; merges belong to vocab.json
TOKENIZER = ("tokenizer.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "vocab.json")
TOKENIZER_SETTINGS = (
    "config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
)  # fmt: skip
_MAX_CONFIG_BYTES = 1 << 20
# open_clip's own order of preference (factory._find_checkpoint_in_dir), safetensors before pickles
_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelDir:
    """A checked model folder."""

    path: Path
    config_path: Path
    weights: Path
    vocabulary: Path | None  # the folder's own byte-pair vocabulary
    model_cfg: Mapping[str, Json]
    preprocess_cfg: Mapping[str, Json]

    @property
    def text_cfg(self) -> Mapping[str, Json]:
        """The configuration of the text tower."""
        return _table(self.model_cfg, "text_cfg", self.config_path)


def read_model_dir(path: Path) -> ModelDir:
    """Read and check the folder ``path``; no weight is loaded.

    Raises:
        CandidateError: the folder, its configuration or its weights are missing, or a path leaves the folder.
    """
    if not path.is_dir():
        raise CandidateError(f"A model folder is needed, with {CONFIG} and weights in it, but got {str(path)!r}")
    config_path = path / CONFIG
    within(path, CONFIG)
    model_cfg, preprocess = read_config(config_path)
    text = _table(model_cfg, "text_cfg", config_path)
    if not isinstance(kwargs := text.get("tokenizer_kwargs") or {}, dict):
        raise CandidateError(f"tokenizer_kwargs in {str(config_path)!r} must be an object, but got {kwargs!r}")
    vision = _table(model_cfg, "vision_cfg", config_path)
    if ":" in str(vision.get("timm_model_name") or ""):
        # timm would fetch or read another model's configuration through hf-hub: or local-dir:
        raise CandidateError(
            f"timm_model_name in {str(config_path)!r} must name a built-in tower, but got {vision['timm_model_name']!r}"
        )
    return ModelDir(
        path=path,
        config_path=config_path,
        weights=_weights(path),
        vocabulary=_vocabulary(path, text),
        model_cfg=model_cfg,
        preprocess_cfg=preprocess,
    )


def view_of(preprocess: Mapping[str, Json], *, size: Json, name: str) -> ImageView:
    """Return the image geometry that open_clip's ``preprocess_cfg`` asks for; missing keys take open_clip's defaults.

    ``size`` is the side of the tower's square input in pixels, or a list of two equal sides; ``name`` is for the error.

    Raises:
        CandidateError: the tower's input is not square, or a mode is unknown.
    """
    sides = size if isinstance(size, list) else [size, size]
    mode = preprocess.get("resize_mode") or "shortest"
    interpolation = preprocess.get("interpolation") or "bicubic"
    fill = preprocess.get("fill_color") or 0
    if len(sides) != 2 or sides[0] != sides[1] or not isinstance(sides[0], int) or sides[0] < 1:  # noqa: PLR2004 - two sides
        raise CandidateError(f"Candidate {name!r} needs images of a square size in whole pixels, but got {size!r}")
    if mode not in ("shortest", "squash", "longest"):  # no sets: it may be a list
        raise CandidateError(f"Candidate {name!r} needs resize_mode shortest, squash or longest, but got {mode!r}")
    if interpolation not in ("bicubic", "bilinear"):
        raise CandidateError(f"Candidate {name!r} needs interpolation bicubic or bilinear, but got {interpolation!r}")
    if not isinstance(fill, int) or not 0 <= fill <= 255:  # noqa: PLR2004 - a byte
        raise CandidateError(f"Candidate {name!r} needs a fill_color in 0..255, but got {fill!r}")
    return ImageView(
        size=sides[0],
        resize_mode=cast("Literal['shortest', 'squash', 'longest']", mode),
        interpolation=cast("Literal['bicubic', 'bilinear']", interpolation),
        fill_color=fill,
    )


def family_of(model_cfg: Mapping[str, Json]) -> str:
    """Name the kind of visual tower in an open_clip ``model_cfg``: "vit", "resnet", "convnext", ..."""
    vision = model_cfg.get("vision_cfg")
    if not isinstance(vision, dict):
        return "unknown"
    timm = vision.get("timm_model_name")
    if not isinstance(timm, str):
        return "resnet" if isinstance(vision.get("layers"), list) else "vit"
    known = ("convnext", "efficientnet", "vitamin", "swin", "fastvit", "mobileclip", "resnet", "eva", "vit")
    return next((kind for kind in known if kind in timm.lower()), timm.split("_")[0])


def read_config(path: Path) -> tuple[Mapping[str, Json], Mapping[str, Json]]:
    """Return (model_cfg, preprocess_cfg) of a configuration in open_clip's format.

    Raises:
        CandidateError: it is missing, too large, or not in that format.
    """
    if not path.is_file():
        raise CandidateError(
            f"The model folder has no {CONFIG}; only open_clip's format is read, but got {str(path.parent)!r}"
        )
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise CandidateError(f"{CONFIG} is larger than 1 MiB, which no configuration is, but got {str(path)!r}")
    try:
        config = parse_json(path.read_bytes())
    except (OSError, InputError) as error:
        raise CandidateError(f"Cannot read the model configuration ({error}), but got {str(path)!r}") from error
    if not isinstance(config, dict):
        raise CandidateError(f"The model configuration must be a JSON object, but got {str(path)!r}")
    preprocess = config.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        raise CandidateError(f"preprocess_cfg in {str(path)!r} must be an object, but got {preprocess!r}")
    return _table(config, "model_cfg", path), preprocess


def _table(config: Mapping[str, Json], key: str, path: Path) -> dict[str, Json]:
    value = config.get(key)
    if not isinstance(value, dict):
        raise CandidateError(f"{str(path)!r} needs an object {key!r}, as open_clip writes it, but got {value!r}")
    return value


def _weights(folder: Path) -> Path:
    # open_clip globs the same three suffixes and picks in this order; a classifier head is no checkpoint
    named = [each for each in folder.iterdir() if each.name.endswith(_WEIGHT_SUFFIXES)]
    found = [each for each in named if each.is_file() and each.name != "head.safetensors"]
    if not found:
        raise CandidateError(
            f"The model folder has no weights (*.safetensors, *.bin, *.pth); open_clip would start from random ones, "
            f"but got {str(folder)!r}"
        )
    chosen = min(found, key=_preference)
    if (theirs := min(named, key=_preference)) != chosen:  # it takes heads and folders, too
        raise CandidateError(
            f"The model folder {str(folder)!r} leaves open which file holds the weights: name it {_PREFERRED[0]}, but "
            f"got {chosen.name!r} beside {theirs.name!r}"
        )
    return _inside(folder, chosen.name)


def _preference(weights: Path) -> tuple[int, bool, str]:
    """Sorts files as open_clip prefers them."""
    place = _PREFERRED.index(weights.name) if weights.name in _PREFERRED else len(_PREFERRED)
    return place, weights.suffix != ".safetensors", weights.name


def _vocabulary(folder: Path, text: Mapping[str, Json]) -> Path | None:
    named = cast("Mapping[str, Json]", text.get("tokenizer_kwargs") or {}).get("bpe_path")
    if named is not None:
        if not isinstance(named, str):
            raise CandidateError(f"bpe_path in {str(folder / CONFIG)!r} must be a file name, but got {named!r}")
        return _inside(folder, named)
    return _inside(folder, VOCABULARY) if (folder / VOCABULARY).is_file() else None


def within(folder: Path, name: str) -> Path:
    """Path of ``name`` in ``folder``; symbolic links may lead elsewhere in the folder, or to the hub cache's blobs.

    Raises:
        CandidateError: it lies elsewhere.
    """
    root = folder.resolve()
    path = (root / name).resolve()
    allowed = [root]
    if root.parent.name == "snapshots":  # huggingface_hub keeps snapshots/REVISION/FILE -> ../../blobs/HASH
        allowed.append(root.parent.parent / "blobs")
    if not any(path.is_relative_to(each) for each in allowed):
        raise CandidateError(f"A file of the model folder {str(folder)!r} must lie inside it, but got {name!r}")
    return root / name  # the name in the folder: a link's target in a cache has no suffix


def _inside(folder: Path, name: str) -> Path:
    """`within`, of a file that is there."""
    path = within(folder, name)
    if not path.is_file():
        raise CandidateError(
            f"The model folder {str(folder)!r} lacks a file that its configuration names, but got {name!r}"
        )
    return path
