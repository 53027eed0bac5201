"""README.md of an exported model: what it is, how good, where from, under which licence, how to use and to cite it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Final

from vlmsel_auto.models.catalogue import UNKNOWN
from vlmsel_auto.models.facts import Facts
from vlmsel_auto.models.modeldir import CONFIG, WEIGHTS
from vlmsel_auto.models.selective import WANTED, find_level
from vlmsel_auto.models.sources.timm_towers import TOWER_CONFIG, TOWER_WEIGHTS
from vlmsel_auto.records import AnswerLevel, FinalScore, Metric
from vlmsel_auto.units import metric_text, percent, share_interval

_PAIRS: Final = 5  # confused classes that a card names
_HEAD: Final = """\
# {name}

An image classifier over {count} classes, made by vlmsel_auto {version}: {what}.

Classes: {classes}
"""
_USE: Final = """
## Use with vlmsel_auto

    vlmsel-auto predict {name} IMAGE_OR_FOLDER ...

    from pathlib import Path
    from vlmsel_auto import predict
    predictions = predict(Path("{name}"), [Path("image.png")])

Without torch: `vlmsel-auto export {name} --onnx {name}.onnx` writes one file for onnxruntime.

{plain}
## Files

| file | what |
|---|---|
| {config} | architecture and preprocessing, as {library} reads them |
| {weights} | weights, float32 |
| head.safetensors | weight (K, D), bias (K,), scale (1,): softmax(scale * normalise(embedding) @ weight.T + bias) |
| classes.json | classes in the order of the head's rows, their prompts and templates, and how the model came about |
"""
_OPEN_CLIP: Final = """\
## Use with plain open_clip

    import json
    import open_clip, torch
    from PIL import Image, ImageOps
    from safetensors.torch import load_file

    model, preprocess = open_clip.create_model_from_pretrained("local-dir:{name}")
    model.eval()
    head = load_file("{name}/head.safetensors")
    classes = json.load(open("{name}/classes.json"))["classes"]
    image = ImageOps.exif_transpose(Image.open("image.png"))  # cameras note which side is up; open_clip passes it over
    with torch.no_grad():
        x = model.encode_image(preprocess(image).unsqueeze(0), normalize=True)
        probabilities = (head["scale"] * x @ head["weight"].T + head["bias"]).softmax(-1)

Here transparency must be laid on white, and 16 bits scaled to 8, before `preprocess`, as predict does.
{tokenizer}
"""
_TIMM: Final = """\
## Use with plain timm

    import json
    import timm, torch
    from PIL import Image, ImageOps
    from safetensors.torch import load_file

    model = timm.create_model("local-dir:{name}", pretrained=True).eval()
    preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    head = load_file("{name}/head.safetensors")
    classes = json.load(open("{name}/classes.json"))["classes"]
    image = ImageOps.exif_transpose(Image.open("image.png")).convert("RGB")
    with torch.no_grad():
        x = torch.nn.functional.normalize(model(preprocess(image).unsqueeze(0)), dim=-1)
        probabilities = (head["scale"] * x @ head["weight"].T + head["bias"]).softmax(-1)

Here transparency must be laid on white, and 16 bits scaled to 8, before `preprocess`, as predict does.
"""
_OWN_VOCABULARY: Final = """
The text tower has a vocabulary of its own, which open_clip does not look for in the folder:

    tokenizer = open_clip.SimpleTokenizer(bpe_path="{name}/bpe.txt.gz", context_length={context})
"""
_ENSEMBLE: Final = """
## Use

    vlmsel-auto predict {name} IMAGE_OR_FOLDER ...
    vlmsel-auto export {name} --onnx {name}.onnx

Each `member-N` is a model of its own, with a card. `ensemble.json` holds the weights of their log-probabilities:

{members}
"""
_CITE: Final = """
## How to cite

    @software{{vlmsel_auto,
      title = {{vlmsel\\_auto}},
      author = {{The vlmsel\\_auto authors}},
      version = {{{version}}}
    }}

Cite the pretrained weights as their publisher asks, too: {origins}.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What a model learned from and what it reached; what is empty is left out of the card."""

    task: str = ""
    digest: str = ""  # SHA-256 over images, labels, split, prompts and templates
    method: str = ""
    metric: Metric = "accuracy"
    validation: float | None = None  # in [0, 1]
    validation_images: int = 0
    on_test: FinalScore | None = None
    confusions: tuple[tuple[str, str, int], ...] = ()  # true class, predicted class, images; the most frequent first
    confused_in: str = "test"  # split of these images
    warning: str = ""  # a sentence that a user must know
    answers: tuple[AnswerLevel, ...] = ()  # as those of `BestModel`


NOTHING_KNOWN: Final = Provenance()


def head(*, name: str, what: str, classes: Sequence[str]) -> str:
    """Title and one sentence."""
    listed = ", ".join(f"`{each}`" for each in classes)
    return _HEAD.format(name=name, count=len(classes), version=version("vlmsel-auto"), what=what, classes=listed)


def evidence(known: Provenance) -> str:
    """Sections on scores, data and confusions."""
    lines: list[str] = []
    metric = metric_text(known.metric)
    if known.on_test is not None:
        test, interval = known.on_test, known.on_test.interval
        between = "" if interval is None else f" (95 % interval {share_interval(interval)})"
        exact = test.calibration_floor
        floor = "" if exact is None else f" (exact probabilities would show {exact:.3f} on so many images)"
        lines += [
            f"- {metric} on {test.images:,} test images: {percent(test.metric)}{between}",
            f"- expected calibration error on them: {test.calibration_error:.3f}{floor}",
        ]
    if known.validation is not None:
        images = f" ({known.validation_images:,} images)" if known.validation_images else ""
        lines.append(f"- {metric} on held-out images, which chose the model{images}: {percent(known.validation)}")
    if known.confusions:
        pairs = [f"`{true}` taken for `{said}` {count} x" for true, said, count in known.confusions[:_PAIRS]]
        lines.append(f"- most confused in {known.confused_in}: {', '.join(pairs)}")
    lines += [
        f"- at least {percent(wanted, digits=0)} right, at a confidence of 90 %, from a probability of "
        f"{level.threshold:.3f} on, which {percent(level.coverage, digits=0)} of the held-out images have"
        for wanted in WANTED
        if (level := find_level(known.answers, wanted)) is not None
    ]
    warned = f"\n## Warning\n\n{known.warning}.\n" if known.warning else ""
    scores = "\n## How good it is\n\n" + "\n".join(lines) + "\n" if lines else ""
    data = [f"- task: `{known.task}`"] if known.task else []
    data += [f"- digest of its images, labels and split (SHA-256): `{known.digest}`"] if known.digest else []
    data += [f"- method: {known.method}"] if known.method else []
    return warned + scores + ("\n## What it learned from\n\n" + "\n".join(data) + "\n" if data else "")


def licence(origins: Sequence[Facts]) -> str:
    """Sections on the licences of the pretrained weights and on how to cite."""
    lines, names = [], []
    for each in dict.fromkeys(origins):
        unknown = "unknown: ask their publisher before you share or sell what is made with them"
        at = f" ({each.repository})" if each.repository else ""
        stated = unknown if each.licence == UNKNOWN else each.licence
        lines.append(f"- `{each.candidate}`{at}: {stated}; pretrained on: {each.training_data}\n")
        names.append(f"`{each.candidate}`")
    cite = _CITE.format(version=version("vlmsel-auto"), origins=", ".join(names))
    return "\n## Licence of the pretrained weights\n\n" + "".join(lines) + cite


def model_card(
    origin: Facts,
    *,
    name: str,
    classes: Sequence[str],
    known: Provenance,
    own_context: int | None = None,
    tower: bool = False,
) -> str:
    """README.md of a model tuned from ``origin``.

    ``own_context``: tokens of a text where it has its own vocabulary; ``tower``: it is a visual tower of timm.
    """
    vocabulary = "" if own_context is None else _OWN_VOCABULARY.format(name=name, context=own_context)
    return (
        head(name=name, what=f"tuned from the pretrained model `{origin.candidate}`", classes=classes)
        + evidence(known)
        + _USE.format(
            name=name,
            plain=(_TIMM if tower else _OPEN_CLIP).format(name=name, tokenizer=vocabulary),
            library="timm" if tower else "open_clip",
            config=TOWER_CONFIG if tower else CONFIG,
            weights=TOWER_WEIGHTS[0] if tower else WEIGHTS,
        )
        + licence([origin])
    )


def ensemble_card(
    *, name: str, classes: Sequence[str], origins: Sequence[Facts], weights: Sequence[float], known: Provenance
) -> str:
    """README.md of an ensemble of members tuned from ``origins``."""
    members = enumerate(zip(origins, weights, strict=True), start=1)
    rows = [f"| member-{place} | `{each.candidate}` | {weight:.3f} |" for place, (each, weight) in members]
    table = "\n".join(["| folder | tuned from | weight |", "|---|---|---|", *rows])
    return (
        head(name=name, what=f"{len(origins)} models, pooled", classes=classes)
        + evidence(known)
        + _ENSEMBLE.format(name=name, members=table)
        + licence(origins)
    )
