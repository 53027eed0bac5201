import os
from pathlib import Path

import pytest
import torch

from helpers.engine_jobs import Marking
from vlmsel_auto.events import Notice, StageProgress, StageStarted
from vlmsel_auto.measuring.kept_jobs import results_of


@pytest.mark.parametrize("workers", [1, 2])
def test_results_that_are_there_are_not_made_again_and_failures_are_told(tmp_path: Path, workers: int) -> None:
    (tmp_path / "a").touch()
    threads, heard = torch.get_num_threads(), []
    jobs = [Marking(name=name, folder=tmp_path, fault="raise" if name == "c" else "") for name in "abc"]
    found, failures = results_of(jobs, unit="marks", workers=workers, sink=heard.append)
    assert (found, failures) == ({0: "a", 1: "b"}, {2: "OSError: no luck"})
    assert [one.text for one in heard if isinstance(one, StageStarted)] == ["1 of 3 marks are known"]
    assert [one.text for one in heard if isinstance(one, Notice)] == ["c failed: OSError: no luck"]
    assert [one.done for one in heard if isinstance(one, StageProgress)] == [2, 3]
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_a_job_that_kills_its_process_is_the_only_one_lost(tmp_path: Path) -> None:
    jobs = [Marking(name=name, folder=tmp_path, fault="die" if name == "2" else "") for name in "01234"]
    found, failures = results_of(jobs, unit="marks", workers=2, sink=lambda _: None)
    assert sorted(found.values()) == ["0", "1", "3", "4"]
    assert list(failures) == [2]
    assert "process died" in failures[2]


def test_one_worker_is_this_process_with_one_thread_in_the_order_of_the_jobs(tmp_path: Path) -> None:
    jobs = [Marking(name=name, folder=tmp_path) for name in "bac"]
    assert results_of(jobs, unit="marks", workers=1, sink=lambda _: None) == ({0: "b", 1: "a", 2: "c"}, {})
    made = sorted(tmp_path.iterdir(), key=lambda one: one.stat().st_mtime_ns)
    assert [one.name for one in made] == ["b", "a", "c"]
    assert {one.read_text() for one in made} == {f"{os.getpid()} 1"}
    assert results_of([], unit="marks", workers=2, sink=lambda _: None) == ({}, {})
