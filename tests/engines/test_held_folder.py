"""Folders that processes hold: shared while they live, gone after the last one ended or was killed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmsel_auto.engines.held_folder import _remove, hold, release
from vlmsel_auto.engines.local import LocalEngine

Holder = tuple[subprocess.Popen[str], Path]

WORKER = """
import sys
from vlmsel_auto.engines.held_folder import hold
folder = hold(sys.argv[1])
(folder / "model").write_text("weights")
print(folder, flush=True)
sys.stdin.read()
"""
COORDINATOR = """
import sys
from vlmsel_auto.engines.local import LocalEngine
engine = LocalEngine(1)
engine.share(list(range(1000)))
print(engine._folder, flush=True)
sys.stdin.read()
"""
NOBODY = 65534


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def running(script: str, *words: str) -> Iterator[Holder]:
    with subprocess.Popen(
        [sys.executable, "-c", script, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def sweep() -> None:
    release(hold("sweeper"))


def test_it_goes_with_the_last_process_that_held_it_and_not_before(temporary: Path) -> None:
    with running(WORKER, "one") as (first, folder), running(WORKER, "one") as (second, same):
        assert folder == same
        assert folder.stat().st_mode & 0o777 == 0o700
        kill(first)
        mine = hold("two")
        assert (folder / "model").read_text() == "weights"  # another process works there
        assert hold("one") == folder
        release(folder)
        assert (folder / "model").exists()  # likewise
        kill(second)
        sweep()
        assert not folder.exists()
    assert mine.is_dir()  # this process's own
    release(mine)
    assert list(temporary.iterdir()) == []  # nor is a lock left


def test_the_same_name_comes_again_after_its_folder_was_swept() -> None:
    with running(WORKER, "again") as (first, folder):
        kill(first)
    sweep()
    assert not folder.exists()
    with running(WORKER, "again") as (_, anew):
        assert anew == folder
        sweep()
        assert (anew / "model").exists()


def test_what_a_killed_coordinator_left_is_removed_by_the_next_engine_and_what_is_used_stays(temporary: Path) -> None:
    with running(COORDINATOR) as (process, folder):
        assert [each.stat().st_size > 0 for each in folder.iterdir()] == [True]  # what it shared
        with LocalEngine(1) as engine:
            assert folder.is_dir()
            kill(process)
            assert engine.share(1).get() == 1
            with LocalEngine(1) as second:  # two in one process
                assert not folder.exists()
                assert engine.share(2).get() == 2
            second.close()  # once more
            assert engine.share(3).get() == 3
    assert list(temporary.iterdir()) == []


def test_links_and_what_has_no_lock_stay(temporary: Path) -> None:
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    with running(WORKER, "now") as (process, folder):
        kill(process)
    (link := temporary / f"{folder.name}0").symlink_to(elsewhere, target_is_directory=True)
    (temporary / f"{link.name}.lock").touch()
    (strange := temporary / f"{folder.name}1").mkdir()
    sweep()
    assert not folder.exists()
    assert link.is_symlink()
    assert elsewhere.is_dir()
    assert strange.is_dir()


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a folder away")
def test_what_is_another_users_stays() -> None:
    with running(WORKER, "theirs") as (process, folder):
        kill(process)
    lock = folder.with_name(f"{folder.name}.lock")
    for each in (folder, lock):
        os.chown(each, NOBODY, NOBODY)
        sweep()
        assert folder.is_dir()
        os.chown(each, os.geteuid(), os.getegid())
    sweep()
    assert not folder.exists()
    assert not lock.exists()


def test_two_that_sweep_at_once_remove_nothing_of_who_comes_after_the_first(temporary: Path) -> None:
    with running(WORKER, "same") as (process, folder):
        kill(process)
    lock = folder.with_name(f"{folder.name}.lock")
    late = os.open(lock, os.O_RDWR)  # by one that is then overtaken
    sweep()
    hold("same")
    _remove(folder, late)
    os.close(late)
    assert folder.is_dir()
    assert lock.exists()
    release(folder)
    assert list(temporary.iterdir()) == []
