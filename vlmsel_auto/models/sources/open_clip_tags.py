"""open_clip's published models: ``ARCH/TAG``, an architecture and the tag of its pretraining."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from vlmsel_auto.cache import Json, digest
from vlmsel_auto.models import catalogue
from vlmsel_auto.models.hubfiles import HubFile, text_files, weights_file
from vlmsel_auto.models.modeldir import view_of
from vlmsel_auto.models.sources.source import CandidateSource, Stated, described
from vlmsel_auto.records import Candidate

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened

_NAME: Final = "open_clip"


def _resolve(name: str) -> Candidate | None:
    arch, slash, tag = name.rpartition("/")
    return published(arch, tag) if slash else None


def published(arch: str, tag: str) -> Candidate | None:
    """Return open_clip's pretrained model ``ARCH/TAG``, or None if there is none of that name."""
    name, known, preprocess = f"{arch}/{tag}", catalogue.architecture(arch), catalogue.pretrained(arch).get(tag)
    if not known or preprocess is None:  # a newer open_clip has it, or the caller registered it
        may_have = "open_clip" in sys.modules or not catalogue.is_of_installed()
        model_cfg, tags = catalogue.installed().get(arch, ({}, {})) if may_have else ({}, {})
        return described(model_cfg, tags[tag], name=name, source=_NAME, arch=arch, tag=tag) if tag in tags else None
    params, flops = known["params"], known["visual_flops"]
    return Candidate(
        id=name,
        source=_NAME,
        arch=arch,
        tag=tag,
        view=view_of(preprocess, size=known["image_size"], name=name),
        params=params if isinstance(params, int) else None,
        flops=float(flops) if isinstance(flops, int | float) else None,
        family=str(known["family"]),
    )


def _names() -> Iterator[str]:
    return (f"{arch}/{tag}" for arch, tags in catalogue.tags().items() for tag in tags)


def _facts(candidate: Candidate) -> Stated:
    counted = catalogue.architecture(candidate.arch)
    written, peak = counted.get("visual_written"), counted.get("visual_peak")
    place = str(catalogue.pretrained(candidate.arch).get(candidate.tag, {}).get("hf_hub") or "")
    repository = "/".join(place.split("/")[:2])  # what follows is a file
    data = catalogue.training_data_of(candidate.tag)
    return Stated(
        written=written if isinstance(written, int) else None,
        peak=peak if isinstance(peak, int) else 0,
        repository=repository,
        licence=catalogue.licence_of(repository),
        training_data=str(data.get("data", catalogue.UNKNOWN)),
        training_pairs=float(data["pairs"]) if "pairs" in data else None,
        text_cfg=counted,
    )


def _fingerprint(candidate: Candidate) -> str:
    return digest(_NAME, candidate.arch, candidate.tag)  # published weights do not change


def _files(candidate: Candidate) -> tuple[HubFile, ...]:
    text_cfg, place = places(candidate.arch, candidate.tag)
    return (*text_files(text_cfg), weights_file(place)) if place else ()


def _load(candidate: Candidate) -> Opened:
    from vlmsel_auto.models import hub
    from vlmsel_auto.models.loaders import load_tag

    found = _files(candidate)
    return load_tag(candidate, hub.in_cache(found[-1]) if found else None)


def places(arch: str, tag: str) -> tuple[Mapping[str, Json], str]:
    """The ``text_cfg`` of ``ARCH/TAG`` and where its weights lie: ``ORG/NAME/`` or ``ORG/NAME/FILE``; else empty."""
    text_cfg, place = catalogue.architecture(arch), catalogue.pretrained(arch).get(tag)
    if place is None or not catalogue.is_of_installed():  # another open_clip may take them from elsewhere
        model_cfg, tags = catalogue.installed().get(arch, ({}, {}))
        if tag not in tags:
            return {}, ""
        named, place = model_cfg.get("text_cfg"), tags[tag]
        text_cfg = named if isinstance(named, dict) else {}
    return text_cfg, str(place.get("hf_hub") or "")


SOURCE: Final = CandidateSource(
    name=_NAME, resolve=_resolve, facts=_facts, fingerprint=_fingerprint, load=_load, files=_files, names=_names
)
