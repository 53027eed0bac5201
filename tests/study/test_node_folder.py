"""Folders of searches on a node: shared while a process uses them, gone after the last one was killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vlmsel_auto.study.node_folder import node_folder

USING = """
import sys
from vlmsel_auto.study.node_folder import node_folder
folder = node_folder(sys.argv[1])
(folder / "model").write_text("weights")
print(folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@contextmanager
def worker(search: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    with subprocess.Popen(
        [sys.executable, "-c", USING, search], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_it_goes_with_the_last_process_that_used_it_and_not_before() -> None:
    with worker("one") as (first, folder), worker("one") as (second, same):
        assert folder == same
        assert folder.stat().st_mode & 0o777 == 0o700
        first.send_signal(signal.SIGKILL)
        first.wait()
        node_folder("two")
        assert (folder / "model").read_text() == "weights"  # another process works there
        second.send_signal(signal.SIGKILL)
        second.wait()
        mine = node_folder("three")
        assert not folder.exists()
        assert sorted(mine.parent.glob("*one*")) == []
    assert node_folder("two").is_dir()  # this process's own


def test_the_same_search_comes_again_after_its_folder_was_swept() -> None:
    with worker("again") as (first, folder):
        first.send_signal(signal.SIGKILL)
        first.wait()
    node_folder("sweeper")
    assert not folder.exists()
    with worker("again") as (_, anew):
        assert anew == folder
        assert (anew / "model").exists()
        node_folder("another sweeper")
        assert (anew / "model").exists()


def test_links_and_what_has_no_lock_stay(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "vlmsel-node-link").symlink_to(elsewhere)
    (tmp_path / "vlmsel-node-link.lock").touch()
    (tmp_path / "vlmsel-node-old").mkdir()
    node_folder("now")
    assert os.path.lexists(tmp_path / "vlmsel-node-link")
    assert elsewhere.is_dir()
    assert (tmp_path / "vlmsel-node-old").is_dir()
