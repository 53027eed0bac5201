import dataclasses
import multiprocessing
import os
import signal
from pathlib import Path

import torch

from vlmsel_auto.events import Notice, StageProgress, StageStarted
from vlmsel_auto.measuring.pool import results_of, run_jobs


@dataclasses.dataclass(frozen=True)
class Deadly:
    """A job of the pool's tests: writes its mark, or kills the process it runs in."""

    name: str
    folder: Path
    deadly: bool = False

    @property
    def label(self) -> str:
        return self.name

    def kept(self) -> str | None:
        return self.name if (self.folder / self.name).exists() else None

    def run(self) -> None:
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        (self.folder / self.name).touch()


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


def test_results_that_are_there_are_not_made_again_and_failures_are_told(tmp_path):
    (tmp_path / "a").touch()

    class Failing(Deadly):
        def run(self) -> None:
            if self.name == "c":
                raise OSError("no luck")
            super().run()

    jobs, heard = [Failing(name=name, folder=tmp_path) for name in "abc"], []
    found, failures = results_of(jobs, unit="marks", workers=1, sink=heard.append)
    assert (found, failures) == ({0: "a", 1: "b"}, {2: "OSError: no luck"})
    assert [one.text for one in heard if isinstance(one, StageStarted)] == ["1 of 3 marks are known"]
    assert [one.text for one in heard if isinstance(one, Notice)] == ["c failed: OSError: no luck"]
    assert [one.done for one in heard if isinstance(one, StageProgress)] == [2, 3]
