"""The site builds without a warning; `make docs` also runs the examples."""

from pathlib import Path

import pytest

from helpers.own_process import run_python

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_every_link_within_it_leads_somewhere(tmp_path):
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    build = ("-W", "--keep-going", "-q", "-b", "dummy", "-D", "plot_gallery=0", "docs", str(tmp_path))
    run_python("-m", "sphinx", *build, cwd=ROOT)
    described = (ROOT / "docs" / "reference" / "generated" / "vlmsel_auto.TrialResult.rst").read_text()
    assert "TrialResult" in described
