"""A search in a process that is forked from this one, which has imported what searches need: seconds are saved."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_IMPORTED = ("cli.app", "pipeline.search", "reporting.views", "study.trial_job", "tuning.finetune", "tuning.probe")


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a search starts."""

    script: Path
    words: Sequence[str]  # of its command line
    environment: Mapping[str, str]
    folder: Path  # that it works in
    log: int  # descriptor that takes standard error
    prepare: Callable[[], None] | None  # called before it begins

    def run(self) -> None:
        """In the new process; standard output goes nowhere."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self.log, 2)
        if self.prepare is not None:
            self.prepare()
        sys.argv = [str(self.script), *self.words]
        runpy.run_path(str(self.script), run_name="__main__")


class Forked:
    """What is asked of a `subprocess.Popen`, of a fork. This process must have no further thread."""

    def __init__(self, start: Start) -> None:
        for name in _IMPORTED:
            importlib.import_module(f"vlmsel_auto.{name}")
        self._process = multiprocessing.get_context("fork").Process(target=start.run)
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Exit status, negative: the signal that ended it; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode` now."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs after so many seconds.
        """
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code
