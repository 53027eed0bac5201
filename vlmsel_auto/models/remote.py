"""A file of the hub read from any byte on, without downloading it: for archives of which only parts are wanted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from vlmsel_auto.models import hub
from vlmsel_auto.models.hub import HubFile, RemoteFile


@contextmanager
def read_from(file: RemoteFile, offset: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Yield the offset where the bytes begin, and the bytes as they come; leaving the block ends the transfer.

    They begin at ``offset``, or at 0 where a mirror sends whole files only. Nothing is kept.

    Raises:
        TrialUnavailable: the hub cannot be reached or refuses, or the connection broke off; also from the bytes.
    """
    with ExitStack() as stack:
        try:
            start, chunks = stack.enter_context(hub.opened(file, offset, stop=threading.Event()))
        except Exception as error:
            raise hub.unavailable(error, file.asked) from error
        yield start, _explained(chunks, file=file)


def _explained(chunks: Iterator[bytes], *, file: RemoteFile) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        raise hub.unavailable(error, file.asked) from error


def read_text(file: HubFile) -> str | None:
    """The text of a small file, from huggingface_hub's cache or downloaded into it; None: optional and not there.

    Raises:
        TrialUnavailable: it cannot be had, or is no UTF-8 text.
    """
    path = hub.cached(file)
    if path is None:
        found = hub.find(file)
        if found is None:
            return None
        hub.download(found, arrived=lambda _: None, stop=threading.Event())
        path = hub.cached(file)
    try:
        return path.read_text("utf-8-sig") if path is not None else None
    except (OSError, UnicodeDecodeError) as error:
        raise hub.unavailable(error, file) from error
