"""Trackers by name, and none."""

import subprocess
import sys

import pytest

from vlmsel_auto.errors import InputError
from vlmsel_auto.events import Notice
from vlmsel_auto.reporting.tracked import names_of, tracked


def test_no_logger_leaves_the_sink_as_it_is(tmp_path):
    heard = []
    with tracked((), folder=tmp_path, about={}, sink=heard.append) as sink:
        sink(Notice(text="one"))
    assert heard == [Notice(text="one")]


def test_an_unknown_name_is_refused_before_anything_is_loaded():
    with pytest.raises(InputError, match="one of tensorboard, csv, mlflow, wandb, but got 'excel'"):
        names_of(["csv", "excel"])
    assert names_of("csv") == ["csv"]
    assert names_of(object()) == []


def test_module_loads_neither_lightning_nor_torch():
    script = "import sys, vlmsel_auto.reporting.tracked; print({'torch', 'lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
