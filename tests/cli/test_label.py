"""The command that says what to label, and the page that it serves until it is interrupted."""

import json
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from typer.testing import CliRunner

from helpers.labelling import write_heap
from vlmsel_auto.cli.app import app

OPTIONS = ("--classes", "circle, square, triangle", "--candidates", "ViT-Mi-16-64.all-m", "--device", "cpu")


@pytest.fixture
def heap(tmp_path):
    return write_heap(tmp_path / "heap", count=12)


def options(heap, tmp_path):
    return ["label", str(heap), *OPTIONS, "--cache-dir", str(tmp_path / "cache"), "--workdir", str(tmp_path / "work")]


def test_one_object_and_a_file(heap, tmp_path):
    done = CliRunner().invoke(app, [*options(heap, tmp_path), "-n", "3", "--for", "tuning", "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["to_label"]) == 3
    assert found["scores"]["known"] == 0
    assert found["scores"]["p_best"] == pytest.approx({"ViT-Mi-16-64.all-m": 1.0})
    assert found["scores"]["loss"] == {"ViT-Mi-16-64.all-m": 0.0}
    assert found["path"] == str(tmp_path / "work" / "to_label.csv")
    plain = CliRunner().invoke(app, [*options(heap, tmp_path), "-n", "3"])
    assert plain.exit_code == 0, plain.stderr
    assert "zero-shot, by 0 labels; further labels can hardly gain anything" in plain.stdout  # of one candidate
    assert "written to " in plain.stdout


def test_what_cannot_be_labelled(heap, tmp_path):
    done = CliRunner().invoke(app, ["label", str(heap)])
    assert done.exit_code == 2
    assert "--classes" in done.stderr
    done = CliRunner().invoke(app, [*options(heap, tmp_path), "--for", "fun"])
    assert done.exit_code == 2


def test_a_page_that_could_not_write_is_refused_at_once(heap, tmp_path):
    (heap / "labels.csv").symlink_to(tmp_path / "elsewhere.csv")
    done = CliRunner().invoke(app, [*options(heap, tmp_path), "--page"])
    assert done.exit_code == 2
    assert "labels are written inside the task folder only" in done.stderr


def test_the_cache_may_lie_in_the_folder(heap, tmp_path):
    command = ["rank", str(heap), *OPTIONS, "--cache-dir", str(heap / "cc")]
    for _ in range(2):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.stderr


def test_the_page_is_served_until_it_is_interrupted(heap, tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "vlmsel_auto", *options(heap, tmp_path), "--page"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = next(found.group() for line in running.stderr if (found := re.search(r"http://127\S+", line)))
        with urllib.request.urlopen(address + "state", timeout=60) as reply:  # noqa: S310 - our own
            place = json.load(reply)["image"]["place"]
        body = json.dumps({"image": place, "label": "circle"}).encode()
        with urllib.request.urlopen(address + "answer", data=body, timeout=60) as reply:  # noqa: S310
            assert json.load(reply)["given"] == 1
        running.send_signal(signal.SIGTERM)
        shown, told = running.communicate(timeout=120)
    finally:
        running.kill()
    assert running.returncode == 0, told
    assert f"labels given here are kept in {heap / 'labels.csv'}: 1" in told
    assert "zero-shot, by 1 label" in shown
    assert (heap / "labels.csv").read_text().splitlines()[0] == "path,label"
