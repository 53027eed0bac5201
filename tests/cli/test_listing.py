"""`vlmsel-auto zoo`: the order of loading, limits, the table and the JSON."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from vlmsel_auto.cli.app import app
from vlmsel_auto.cli.listing import list_candidates, listing_json, print_listing
from vlmsel_auto.errors import CandidateError
from vlmsel_auto.library import published
from vlmsel_auto.library.published import expected_figures
from vlmsel_auto.models import candidates
from vlmsel_auto.models.limits import Limits
from vlmsel_auto.models.machine import Machine
from vlmsel_auto.planning.next_screening import next_screening
from vlmsel_auto.planning.screening_prior import learn_prior

MACHINE = Machine(
    device="cpu",
    cores=2,
    memory_bytes=16_000_000_000,
    disk_bytes=50_000_000_000,
    flops_per_second=1e11,
    bytes_per_second=5e9,
)


def run(*arguments):
    return CliRunner().invoke(app, ["zoo", *arguments])


def listing(names="tiny", *, limits=Limits(), machine=MACHINE, bandwidth=1e7):  # noqa: B008 - frozen
    return list_candidates(candidates.resolve(names), limits=limits, machine=machine, bandwidth=bandwidth)


def ids(found):
    return [line.candidate.id for line in found.lines]


def known(found):
    """What is known before any screening."""
    return learn_prior(expected_figures([line.candidate for line in found.lines]))


def test_the_first_is_the_next_screening_and_nobody_is_lost():
    found = listing()
    assert sorted(ids(found)) == sorted(each.id for each in candidates.resolve("tiny"))
    assert next_screening(known(found), [], costs=np.array([line.seconds for line in found.lines])) == 0
    assert found.why.startswith(f"first: {ids(found)[0]}, since it promises most for its time (published accuracy ")


def test_costs_move_the_order():
    slow, free = (
        listing("laptop", bandwidth=1e6),
        listing("laptop", bandwidth=1e15, machine=replace(MACHINE, correction=1e-9)),
    )
    assert slow.lines[0].facts.params < free.lines[0].facts.params
    first = slow.lines[0]
    assert first.seconds == pytest.approx(first.facts.download_bytes / 1e6 + 160 * first.latency)
    assert next_screening(known(free), []) == 0  # as without any costs


def test_published_accuracies_are_those_of_the_table():
    (line,) = listing("ViT-L-14/openai").lines
    row = published.zero_shot(["ViT-L-14/openai"])[0]
    assert line.facts.mean_accuracy == pytest.approx(row.mean())
    assert line.facts.imagenet == pytest.approx(0.7554, abs=1e-3)  # 75.5 % in the table
    (line,) = listing("PE-Core-T-16-384/meta").lines
    assert (line.facts.mean_accuracy, line.facts.imagenet) == (None, None)


def test_without_published_figures_the_cheapest_is_first():
    found = listing("mini-zoo")
    screenings = [line.seconds for line in found.lines]
    assert screenings == sorted(screenings)
    assert "nothing is published" in found.why
    assert "on this disk" in found.why


def test_what_is_excluded_is_told_with_its_reason():
    found = listing(limits=Limits(licences=("Apache-2.0",)))
    assert set(ids(found)) == {"PE-Core-T-16-384/meta", "PE-Core-S-16-384/meta"}
    assert len(found.lines) + len(found.excluded) == len(candidates.resolve("tiny"))
    assert {each.reason.split()[0] for each in found.excluded} == {"licence"}
    with pytest.raises(CandidateError, match="--max-params"):
        listing(limits=Limits(max_params=5))


def test_a_table_fits_its_window_and_says_why_at_the_end(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("vlmsel_auto.cli.answers._PIPE_WIDTH", 100)
    print_listing(listing(limits=Limits(licences=("MIT",))))
    narrow = capsys.readouterr().out.splitlines()
    assert max(map(len, narrow)) <= 100
    assert "trained on" not in narrow[0]
    assert "ImageNet" in narrow[0]
    assert " ".join(narrow).count("apple-amlr") > 1
    assert "first: " in " ".join(narrow[-2:])
    monkeypatch.setattr("vlmsel_auto.cli.answers._PIPE_WIDTH", 160)
    print_listing(listing("RN50/openai"))
    head, row, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "candidate", "params", "FLOPs", "download", "memory", "latency", "image", "licence", "trained", "on", "mean",
        "ImageNet",
    ]  # fmt: skip
    assert row.split()[:6] == ["1", "RN50/openai", "102", "M", "12.2", "G"]
    assert "WIT-400M" in row


def test_json_has_numbers_and_reasons():
    found = json.loads(json.dumps(listing_json(listing("mini-zoo", limits=Limits(max_params=1_000_000)))))
    assert list(found) == ["candidates", "excluded", "machine", "why"]
    first = found["candidates"][0]
    assert {
        "id",
        "source",
        "family",
        "params",
        "flops",
        "image_size",
        "licence",
        "latency",
        "screening_seconds",
    } <= set(first)
    assert first["download_bytes"] == 0
    assert len(found["candidates"]) + len(found["excluded"]) == len(candidates.mini_zoo())
    assert "exceed --max-params" in found["excluded"][0]["reason"]
    assert found["machine"]["cores"] == 2


# the command


def test_the_command_lists_a_preset_and_limits_it():
    result = run("-c", "tiny", "--match", "ViT-B-32/", "--licence", "MIT", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    names = [each["id"] for each in found["candidates"]]
    assert "ViT-B-32/openai" in names
    assert all(name.startswith("ViT-B-32/") for name in names)
    assert all(each["source"] == "open_clip" and each["image_size"] == 224 for each in found["candidates"])
    assert all(each["latency"] > 0 for each in found["candidates"])


def test_the_mini_zoo_is_the_default_and_can_be_named_beside_a_preset():
    table = run("--match", "convnext").stdout.splitlines()
    assert sum("ConvNeXt" in line and not line.startswith("first:") for line in table) == 2
    found = json.loads(run("-c", "tiny", "-c", "mini-zoo", "--json").stdout)["candidates"]
    assert {each["source"] for each in found} == {"mini-zoo", "open_clip"}
    assert "no candidate matches" in run("--match", "nothing of the kind").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-params", "many"),
        ("--max-latency", "-3"),
        ("--image-size", "big"),
        ("--bandwidth", "0"),
        ("-c", "ViT-Mi-16-64.all-n"),
    ],
)
def test_a_mistake_is_one_line_and_told_before_torch_is_loaded(arguments):
    code = f"""
import sys
from vlmsel_auto.cli.app import main
sys.argv = ["vlmsel-auto", "zoo", *{arguments!r}]
try:
    main()
except SystemExit as end:
    assert end.code == 2, end.code
print([name for name in ("torch", "open_clip", "huggingface_hub") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert len(ran.stderr.splitlines()) == 1
    assert "but got" in ran.stderr


def test_limits_that_leave_nobody_end_with_2():
    result = run("-c", "tiny", "--max-download", "1MB")
    assert result.exit_code == 2
    assert "--max-download 57" in result.stderr
