"""Bad input, case by case: one clear message or a line in the report, the documented exit status, nothing lost."""

import math
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import vlmsel_auto
from helpers.bad_input import commands, declarations, folders, images, names, storage, tables, weights
from helpers.bad_input.case import DONE, FULL, LOAD, MEMBER, REFUSED, Case, Outcome, faults, good_task, meet, snapshot
from vlmsel_auto.cli import support
from vlmsel_auto.errors import InputError
from vlmsel_auto.records import Budget

ROOMS = (images, names, tables, declarations, folders, weights, commands, storage)
CASES = [case for room in ROOMS for case in room.CASES]
DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_bad_input(case: Case, tmp_path):
    assert faults(case, meet(case, tmp_path), tmp_path) == []


@pytest.mark.slow
def test_every_odd_image_at_once_in_a_process_of_its_own(tmp_path):
    root = good_task(tmp_path, count=8)
    for number, case in enumerate(case for case in images.CASES if case.arguments == LOAD):
        if "right" in case.name or "link" in case.name:  # who runs the tests may be root; links stay where they are
            continue
        case.make(tmp_path / str(number))
        for path in (tmp_path / str(number) / "task/cat").glob("[!0-9]*"):
            path.rename(root / "cat" / f"{number} {path.name}")
        shutil.rmtree(tmp_path / str(number))
    case = Case(room="images", name="all", make=lambda _: None, says="bomb")
    before = snapshot(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "vlmsel_auto", "search", "task", "-c", MEMBER, *FULL],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(vlmsel_auto.__file__).parents[1])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    page = (tmp_path / "work/report/report.html").read_text("utf-8")
    found = Outcome(
        code=done.returncode, out=done.stdout, err=done.stderr, raised=None, told=(page,), before=before,
        after=snapshot(tmp_path),
    )  # fmt: skip
    assert faults(case, found, tmp_path) == []
    assert "12 files left out, 4 repaired or converted and used" in re.sub(r"\s+", " ", page)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"budget": 0}, "budget of seconds must be positive.* got 0"),
        ({"budget": -1.5}, "budget of seconds must be positive.* got -1.5"),
        ({"budget": math.nan}, "budget of seconds must be positive.* got nan"),
        ({"budget": math.inf}, "budget of seconds must be positive.* got inf"),
        ({"method": "finetunes"}, "did you mean finetune, but got 'finetunes'".replace(",", r"\?,")),
        ({"method": []}, "at least one method is needed"),
        ({"candidates": "ViT-Mi-16-64.all-n"}, f"did you mean {MEMBER}"),
        ({"candidates": []}, "At least one candidate is needed"),
        ({"price": math.nan}, "price must be points a minute"),
        ({"price": math.inf}, "price must be points a minute"),
        ({"price": -0.1}, "price must be points a minute"),
        ({"ensemble": -1}, "ensemble must be 0 to 10"),
        ({"ensemble": 11}, "ensemble must be 0 to 10"),
        ({"workers": 0}, "workers"),
        ({"workers": 2, "ray": "local"}, "workers"),
        ({"seed": -1}, "seed must be 0 to"),
        ({"seed": 2**32}, "seed must be 0 to"),
        ({"shots": 0}, "shots must be at least 1"),
        ({"images": 0}, "images must be at least 1"),
        ({"device": "gpu"}, "this device cannot be used"),
        ({"classes": ["cat"]}, "two classes or more"),
        ({"storage": "a.db"}, "--storage must be postgresql://"),
        ({"library": Path("none.safetensors")}, "no library at this path"),
        ({"logger": "tensorbord"}, "'tensorbord'"),
        ({"workdir": "task"}, "work directory"),
    ],
)
def test_a_call_that_asks_for_nonsense_writes_nothing(options, says, tmp_path, monkeypatch):
    good_task(tmp_path)
    before = snapshot(tmp_path)
    monkeypatch.chdir(tmp_path)
    sound = {"candidates": MEMBER, "budget": Budget(trials=1), "workdir": "work", "learn": False}
    with pytest.raises(InputError, match=says) as told:
        vlmsel_auto.search("task", **{**sound, **options})
    assert ", but got " in str(told.value)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("ask", [vlmsel_auto.rank, vlmsel_auto.label])
def test_a_sample_of_no_images_is_none_of_the_default_size(ask, tmp_path):
    good_task(tmp_path)
    with pytest.raises(InputError, match=r"images must be at least 1, but got 0"):
        ask(
            tmp_path / "task",
            candidates=MEMBER,
            unlabelled=True,
            classes=["cat", "dog"],
            images=0,
            cache_dir=tmp_path / "c",
        )


def test_the_page_counts_the_cases():
    page = (DOCS / "results" / "reliability.md").read_text("utf-8")
    counts = Counter(case.room for case in CASES)
    told = {name: int(count) for name, count in re.findall(r"^\| ([a-z. ]+) \| (\d+) \|", page, re.MULTILINE)}
    assert {name: told.get(name) for name in counts} == dict(counts)
    assert told["all"] == len(CASES)


def test_exit_statuses_are_those_of_the_page():
    page = (DOCS / "guide" / "errors.md").read_text("utf-8")
    told = {int(code) for code in re.findall(r"^\| (\d+) \| [a-z]", page, re.MULTILINE)}
    assert told == {
        DONE, support.EXIT_UNEXPECTED, support.EXIT_INPUT, support.EXIT_ALL_FAILED, support.EXIT_INTERRUPTED,
    }  # fmt: skip
    assert REFUSED == support.EXIT_INPUT
