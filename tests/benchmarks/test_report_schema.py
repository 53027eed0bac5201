"""The published schema is that of the records, and takes what is written."""

import json
import math
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from helpers.report_world import doubted, judged, make_report, make_trial, pictured
from vlmsel_auto.reporting.report import to_json

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "makers" / "report_schema.py"))
SCHEMA = json.loads(SCRIPT["PATH"].read_text("utf-8"))
CHECK = Draft202012Validator(SCHEMA)


def written(**changes):
    return json.loads(to_json(make_report(**changes)))


def test_the_file_is_up_to_date():
    assert SCRIPT["PATH"].read_text("utf-8") == SCRIPT["schema_text"](), "run benchmarks/makers/report_schema.py"
    Draft202012Validator.check_schema(SCHEMA)


def test_reports_are_valid():
    found = pictured(judged()[2], side=16)
    CHECK.validate(written(mistakes=found, label_issues=doubted(found)))
    nan = replace(make_trial(0, "a", validation=0.5), seconds=math.nan)
    CHECK.validate(written(trials=(nan,), best=None))


@pytest.mark.parametrize(
    ("name", "value"), [("trials", [{}]), ("stopped_by", "boredom"), ("seconds", "long"), ("schema", 2)]
)
def test_what_is_no_report_is_refused(name, value):
    assert not CHECK.is_valid({**written(), name: value})
