"""What a source of candidates is, and what it tells of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vlmsel_auto.cache import Json
from vlmsel_auto.models.catalogue import UNKNOWN
from vlmsel_auto.models.hubfiles import HubFile
from vlmsel_auto.models.modeldir import family_of, view_of
from vlmsel_auto.records import Candidate

if TYPE_CHECKING:
    from vlmsel_auto.models.loaders import Opened


@dataclass(frozen=True, kw_only=True, slots=True)
class Unusable:
    """A candidate that was named and found, but whose folder cannot be used."""

    id: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stated:
    """What a source tells of a candidate beside its record; what is left out is not known."""

    params: int | None = None  # of both towers
    written: int | None = None  # bytes that the visual tower's operations write for one image, float32
    peak: int = 0  # bytes of activations of one image that are there at once
    repository: str = ""  # on the hub, "ORG/NAME"
    licence: str = UNKNOWN
    training_data: str = UNKNOWN
    training_pairs: float | None = None
    text_cfg: Mapping[str, Json] = field(default_factory=dict)  # as far as it names what transformers makes
    elsewhere: str = ""  # what files that travel call it; empty: its id


@dataclass(frozen=True, kw_only=True, slots=True)
class CandidateSource:
    """One kind of candidates. What raises `CandidateError` says what its user can do."""

    name: str  # `Candidate.source` of its candidates
    resolve: Callable[[str], Candidate | Unusable | None]  # of a name; None: it is none of this source
    facts: Callable[[Candidate], Stated]  # what is known without loading it; asks no network
    fingerprint: Callable[[Candidate], str]  # changes when weights, configuration or tokenizer change
    load: Callable[[Candidate], Opened]  # the model, its files being there
    # what loading reads from the hub, small files first, as far as is known without asking it
    files: Callable[[Candidate], tuple[HubFile, ...]] = lambda _: ()
    names: Callable[[], Iterable[str]] = tuple  # that a slip of the pen may have meant


def described(
    model_cfg: Mapping[str, Json], preprocess: Mapping[str, Json], *, name: str, source: str, arch: str, tag: str = ""
) -> Candidate:
    """The candidate that open_clip's configuration describes, its size not counted.

    Raises:
        CandidateError: its images are not square, or are prepared in an unknown way.
    """
    vision = model_cfg.get("vision_cfg")
    size = vision.get("image_size", 224) if isinstance(vision, dict) else None
    view = view_of(preprocess, size=size, name=name)
    return Candidate(id=name, source=source, arch=arch, tag=tag, view=view, family=family_of(model_cfg))
