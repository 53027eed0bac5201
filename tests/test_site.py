"""The site builds without a warning; `make docs` also runs the examples."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_every_link_within_it_leads_somewhere(tmp_path):
    pytest.importorskip("sphinx", reason="the extra docs is not installed")
    build = ("-W", "--keep-going", "-q", "-b", "dummy", "-D", "plot_gallery=0", "docs", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *build],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    described = (ROOT / "docs" / "reference" / "generated" / "vlmsel_auto.TrialResult.rst").read_text()
    assert "TrialResult" in described
