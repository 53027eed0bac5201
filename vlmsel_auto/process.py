"""Process and system: a lock, signals that end a program as KeyboardInterrupt, errors of disk and memory, memory."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import importlib
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from filelock import FileLock, Timeout

from vlmsel_auto.errors import InputError, WorkdirError

if TYPE_CHECKING:
    import torch

_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES})
_ENDING: Final = tuple(  # beside SIGINT; Windows has no SIGHUP
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_OUT_OF_MEMORY: Final = (
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "defaultcpuallocator",
    "could not create a primitive",  # oneDNN, when its buffers cannot be allocated
    "could not create a memory object",
    "bad_alloc",
)


def is_disk_error(error: BaseException) -> bool:
    """Whether a file could not be written for want of space, of rights or of a sound disk: the next will fail too."""
    return isinstance(error, OSError) and error.errno in _DISK


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or on the CPU. torch has a class for some devices; the others only say so."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in _OUT_OF_MEMORY)


def release_memory(device: torch.device | None = None) -> None:
    """Give the memory of what is no longer used back to the system, that of an accelerator ``device`` too.

    Lightning's objects hold each other in cycles, glibc keeps most of a deleted model's memory, torch what it cached.
    """
    gc.collect()
    if device is not None and device.type in {"cuda", "mps"}:
        import torch

        (torch.cuda if device.type == "cuda" else torch.mps).empty_cache()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def older_objects_left_alone() -> Iterator[None]:
    """Collections of garbage within skip the objects that exist now, which are many: all that was imported.

    With torch and its kin loaded a collection of all takes .26 s, and each model that is let go costs one: a sixth of
    a demo. Where objects are frozen already, by a block around or as servers do before they fork, they stay so.
    """
    if gc.get_freeze_count():  # takes 20 ms: it counts them all
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def collections_paused() -> Iterator[None]:
    """No collections of garbage within: importing torch and open_clip leaves none, and looking for it takes time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def import_apart(name: str) -> None:
    """Import a module in a thread of its own, above which there is no frame of a caller.

    Optuna keeps the errors of its optional imports, with them every frame above, and so whatever these hold, for good.
    A module that cannot be imported is left to the import that follows.
    """

    def load() -> None:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)

    thread = threading.Thread(target=load)
    thread.start()
    thread.join()


def nearest_there(path: Path) -> Path:
    """The path, or the nearest folder above it that is there; what may not be asked for is not."""
    # os.path's own: Path's raises where a folder above may not be entered, as another user's home
    return next(each for each in (path, *path.absolute().parents) if os.path.exists(each))  # noqa: PTH110


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell in one line that ``folder`` cannot be written any more.

    Raises:
        WorkdirError: a write within the block failed for a reason of the disk.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise WorkdirError(
            f"cannot write below {folder}: free space or give rights, then the same command goes on, but got {error}"
        ) from error


@contextmanager
def locked(path: Path, *, wait: float = 0.0, error: type[InputError] = WorkdirError) -> Iterator[None]:
    """Hold the file ``path`` as a lock; the system releases it when the process dies, however it dies.

    Args:
        path: the lock; its folder is made if missing.
        wait: seconds to wait while another process holds it; infinity waits for as long as it takes.
        error: raised when the wait is over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=wait if math.isfinite(wait) else -1)
    except Timeout:
        waited = f" after {wait:.0f} s" if wait else ""
        raise error(
            f"Another process is at work in this folder: wait for it or choose another, but got {path.parent}{waited}"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise KeyboardInterrupt


@contextmanager
def handlers_kept() -> Iterator[None]:
    """What handles the signals that end a program does so again afterwards. Without effect outside the main thread."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *_ENDING)} if main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:  # None: set by a program that embeds Python, which cannot be set from here
                signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that closes, raise KeyboardInterrupt, as Ctrl+C does.

    A signal that is ignored stays so, as nohup wants it. Without effect outside the main thread.
    """
    with handlers_kept():
        for number in _ENDING if threading.current_thread() is threading.main_thread() else ():
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _stop)
        yield
