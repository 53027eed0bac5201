import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

import torch

from vlmsel_auto.measuring.pool import run_jobs


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A job of the pool's tests: writes its mark, or kills the process it runs in."""

    name: str
    folder: Path
    deadly: bool = False

    @property
    def key(self) -> tuple[str, ...]:
        return (self.name,)

    def run(self) -> str:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / self.name).touch()
        return ""


def test_a_job_that_kills_its_process_is_the_only_one_lost(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # spawned workers find this module's job by name
    jobs = [Deadly(name=f"{i}", folder=tmp_path, deadly=i == 2) for i in range(5)]
    found = {job.name: reason for job, reason in run_jobs(jobs, workers=2)}
    assert sorted(one.name for one in tmp_path.iterdir()) == ["0", "1", "3", "4"]
    assert "process died" in found.pop("2")
    assert set(found.values()) == {""}
    assert multiprocessing.active_children() == []


def test_one_worker_runs_in_this_process_in_order_with_one_thread(tmp_path):
    threads = torch.get_num_threads()
    jobs = [Deadly(name=name, folder=tmp_path) for name in "bac"]
    assert [(job.name, reason) for job, reason in run_jobs(jobs, workers=1)] == [("b", ""), ("a", ""), ("c", "")]
    assert torch.get_num_threads() == threads
    assert list(run_jobs([], workers=2)) == []
