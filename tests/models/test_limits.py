"""Limits: who fits, who does not and why, what is not known, what is left when nobody fits."""

import math
from dataclasses import replace

import pytest

from vlmsel_auto.errors import CandidateError, InputError
from vlmsel_auto.models.catalogue import UNKNOWN
from vlmsel_auto.models.facts import Facts
from vlmsel_auto.models.limits import Limits, read_limits, unknowns, why_not, within
from vlmsel_auto.models.machine import Machine

FACTS = Facts(
    candidate="ViT-B-32/openai",
    params=151_000_000,
    flops=9e9,
    written=50_000_000,
    download_bytes=605_000_000,
    memory_bytes=1_210_000_000,
    image_size=224,
    repository="timm/vit_base_patch32_clip_224.openai",
    licence="MIT",
    training_data="WIT-400M (not public)",
    training_pairs=400_000_000,
    lacks=(),
)
MACHINE = Machine(
    device="cpu",
    cores=2,
    memory_bytes=8_000_000_000,
    disk_bytes=50_000_000_000,
    flops_per_second=1e11,
    bytes_per_second=5e9,
)  # 100 ms an image


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(), ""),
        (Limits(max_params=151_000_000), ""),
        (Limits(max_params=150_000_000), "151 M parameters exceed --max-params 150 M"),
        (Limits(max_download_bytes=500_000_000), "605 MB to download exceed --max-download 500 MB"),
        (Limits(max_memory_bytes=1_000_000_000), "1.21 GB of memory exceed --max-memory 1.00 GB"),
        (Limits(max_latency=0.1001), ""),
        (Limits(max_latency=0.04), "100 ms an image exceed --max-latency 40 ms"),
        (Limits(image_size=(224, 224)), ""),
        (Limits(image_size=(256, math.inf)), "images of 224 pixels are not within --image-size 256-"),
        (Limits(image_size=(0, 192)), "images of 224 pixels are not within --image-size -192"),
        (Limits(licences=("mit", "Apache-2.0")), ""),
        (Limits(licences=("Apache-2.0",)), "licence MIT is not among --licence Apache-2.0"),
        (
            Limits(max_params=1_000_000, licences=("Apache-2.0",)),
            "151 M parameters exceed --max-params 1.00 M; licence MIT is not among --licence Apache-2.0",
        ),
    ],
)
def test_the_reason_names_limit_and_value(limits, reason):
    assert why_not(FACTS, limits=limits, machine=MACHINE) == reason


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        (replace(MACHINE, memory_bytes=1_000_000_000), "1.21 GB of memory exceed this machine's free memory 1.00 GB"),
        (replace(MACHINE, disk_bytes=0), "605 MB to download exceed the free disk of the hub's cache 0 B"),
        (replace(MACHINE, correction=0.1), ""),
    ],
)
def test_the_machine_is_a_limit_too(machine, reason):
    assert why_not(FACTS, limits=Limits(max_latency=0.2), machine=machine) == reason


def test_without_a_machine_nothing_is_predicted():
    assert why_not(FACTS, limits=Limits(max_latency=1e-9)) == ""


def test_what_is_not_known_passes_with_a_note_but_for_the_licence():
    unknown = replace(FACTS, params=None, flops=None, download_bytes=None, memory_bytes=None, licence=UNKNOWN)
    limits = Limits(max_params=1, max_download_bytes=1, max_latency=0.001)
    assert why_not(unknown, limits=limits, machine=MACHINE) == ""
    notes = unknowns(unknown, limits=limits, machine=MACHINE)
    assert [note.rpartition("so ")[2] for note in notes] == [
        "--max-params does not count",
        "--max-download does not count",
        "--max-latency does not count",
        "this machine's free memory does not count",
        "the free disk of the hub's cache does not count",
    ]
    assert all("unknown" in note for note in notes)
    assert unknowns(FACTS, limits=limits, machine=MACHINE) == ()
    assert why_not(unknown, limits=Limits(licences=("MIT",))) == "licence unknown is not among --licence MIT"


def test_candidates_are_divided_in_their_order():
    small, large = replace(FACTS, candidate="small", params=1), replace(FACTS, candidate="large", params=10**10)
    kept, excluded = within([large, FACTS, small], limits=Limits(max_params=10**9), machine=MACHINE)
    assert [each.candidate for each in kept] == ["ViT-B-32/openai", "small"]
    assert [(each.candidate, each.reason) for each in excluded] == [
        ("large", "10.0 G parameters exceed --max-params 1.00 G")
    ]
    assert within([], limits=Limits()) == ((), ())


def test_limits_that_leave_nobody_say_which_and_who_is_nearest():
    others = [replace(FACTS, candidate=f"large-{size}", params=size * 10**8) for size in (9, 3, 6)]
    foreign = replace(FACTS, candidate="foreign", params=2 * 10**8, licence="apple-amlr")
    limits = Limits(max_params=150_000_000, max_memory_bytes=10**9, licences=("MIT",))
    with pytest.raises(CandidateError) as caught:
        within([*others, foreign], limits=limits, machine=MACHINE)
    text = str(caught.value)
    assert "every one of 4 candidates (--max-params 4, --max-memory 4, --licence 1)" in text
    assert "the nearest is large-3, but got 300 M parameters exceed" in text


def test_limits_are_read_from_text():
    assert read_limits() == Limits()
    assert read_limits(
        max_params="150M", max_download="2GB", max_memory="4GiB", max_latency="40ms", licence="MIT, apache-2.0,"
    ) == Limits(
        max_params=150_000_000,
        max_download_bytes=2_000_000_000,
        max_memory_bytes=4 * 2**30,
        max_latency=0.04,
        licences=("MIT", "apache-2.0"),
    )


@pytest.mark.parametrize(
    ("text", "sides"),
    [("224", (224, 224)), ("224-384", (224, 384)), ("336-", (336, math.inf)), (" -256 ", (0, 256))],
)
def test_image_sizes_are_read(text, sides):
    assert read_limits(image_size=text).image_size == sides


@pytest.mark.parametrize("text", ["", "-", "x", "384-224", "2.5", "224-384-512", "--5"])
def test_what_is_no_image_size_is_refused(text):
    with pytest.raises(InputError, match=r"image size.*but got"):
        read_limits(image_size=text)
