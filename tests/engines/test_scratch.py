"""The folder of an engine of this machine goes with its process, at the latest when the next engine is opened."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vlmsel_auto.engines.local import LocalEngine
from vlmsel_auto.engines.scratch import Scratch

COORDINATOR = """
import sys, time
from vlmsel_auto.engines.local import LocalEngine
engine = LocalEngine(1)
engine.share(list(range(1000)))
print(engine._scratch.path, flush=True)
time.sleep(600)
"""
NOBODY = 65534


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def coordinator(temporary: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", COORDINATOR]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_coordinator_left_is_removed_and_what_is_used_stays(
    temporary: Path, coordinator: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = coordinator
    assert [each.stat().st_size > 0 for each in folder.iterdir()] == [True]  # what it shared
    strange = temporary / f"{folder.name[:-4]}abcd"  # its process took no lock
    strange.mkdir()
    first = Scratch()
    with LocalEngine(1) as engine:  # two in one process
        assert folder.is_dir()
        process.kill()
        process.wait()
        assert engine.share(1).get() == 1
        assert folder.is_dir()
        second = Scratch()
        assert not folder.exists()
        assert engine.share(2).get() == 2
    assert first.path.is_dir()
    first.close()
    second.close()
    assert list(temporary.iterdir()) == [strange]  # nor is a lock left


@pytest.mark.skipif(os.name == "posix" and os.geteuid() != 0, reason="only root can give a folder away")
def test_what_is_another_users_or_a_link_stays(
    temporary: Path, coordinator: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = coordinator
    process.kill()
    process.wait()
    elsewhere = temporary / "elsewhere"
    elsewhere.mkdir()
    (link := temporary / f"{folder.name}0").symlink_to(elsewhere, target_is_directory=True)
    (temporary / f"{link.name}.lock").touch()
    os.chown(folder, NOBODY, NOBODY)
    Scratch().close()
    assert folder.is_dir()
    assert link.is_symlink()
    os.chown(folder, os.geteuid(), os.getegid())
    Scratch().close()
    assert not folder.exists()
    assert link.is_symlink()
