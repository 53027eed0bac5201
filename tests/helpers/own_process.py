"""Python in a process of its own, where warnings are no errors."""

import os
import subprocess
import sys
from pathlib import Path


def run_python(*words: str | Path, cwd: Path | None = None) -> str:
    """What it wrote to standard output; it must end well."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
