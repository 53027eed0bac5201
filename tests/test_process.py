"""Locks, SIGTERM and errors of disk and memory."""

import errno
import gc
import math
import os
import signal
import subprocess
import sys

import pytest

from vlmsel_auto.errors import LibraryError, WorkdirError
from vlmsel_auto.process import (
    collections_paused,
    import_apart,
    is_out_of_memory,
    locked,
    nearest_there,
    older_objects_left_alone,
    terminable,
    writing,
)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("could not create a primitive"),
        RuntimeError("CUDA out of memory."),
        RuntimeError("cuDNN error: Out of memory"),
    ],
)
def test_memory_ran_out(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes cannot be multiplied"), ValueError("out of memory"), OSError()])
def test_other_errors(error):
    assert not is_out_of_memory(error)


def test_a_lock_is_held_by_one_and_told_in_the_wanted_error(tmp_path):
    path = tmp_path / "new" / "x.lock"
    with locked(path):
        with pytest.raises(WorkdirError, match="Another process"), locked(path):
            pass
        with pytest.raises(LibraryError, match="after 0 s"), locked(path, wait=0.05, error=LibraryError):
            pass
    with locked(path, wait=math.inf):
        assert path.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_are_ctrl_c_and_handled_as_before_afterwards(number):
    before = signal.signal(number, signal.SIG_DFL)  # nohup may have the whole session ignore it
    try:
        with pytest.raises(KeyboardInterrupt), terminable():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with terminable():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_full_disk_is_told_in_one_line_and_other_errors_are_not(tmp_path):
    with pytest.raises(WorkdirError, match="cannot write below"), writing(tmp_path):
        raise OSError(errno.ENOSPC, "no space left on device")
    with pytest.raises(FileNotFoundError), writing(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_the_nearest_place_that_is_there(tmp_path):
    assert nearest_there(tmp_path) == tmp_path
    assert nearest_there(tmp_path / "a" / "b") == tmp_path
    assert nearest_there(tmp_path / ("x" * 300) / "b") == tmp_path  # raises when asked for, as in another's home


def test_collections_pause_and_begin_again_where_they_were_on():
    with collections_paused():
        assert not gc.isenabled()
        with collections_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_older_objects_are_left_alone_for_a_while_and_what_others_froze_stays_so():
    frozen = gc.get_freeze_count()
    assert frozen  # tests/conftest.py
    with older_objects_left_alone():
        pass
    assert gc.get_freeze_count() == frozen
    gc.unfreeze()
    try:
        with older_objects_left_alone():
            with older_objects_left_alone():
                pass
            assert gc.get_freeze_count()
        assert gc.get_freeze_count() == 0
    finally:
        gc.freeze()


_HELD = """
import gc, weakref
from vlmsel_auto.process import import_apart
class Images: pass
def fit(images):
    import_apart("optuna")
    import optuna
    return weakref.ref(images)
found = fit(Images())
gc.collect()
print(found() is None)
"""


def test_what_is_imported_apart_holds_no_frame_of_the_caller():
    for script, freed in ((_HELD, "True"), (_HELD.replace('    import_apart("optuna")\n', ""), "False")):
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
        assert ran.stdout.strip() == freed  # "False": Optuna needs it no longer, should it ever free its errors
    import_apart("no_such_module")  # the import that follows says it
