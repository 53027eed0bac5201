"""What every command shares: exit codes, one JSON object on standard output, a log for the unexpected."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
import logging
import logging.handlers
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

import typer

from vlmsel_auto.errors import ConductanceError, InputError, MissingDependency, TrialUnavailable, VlmselError

if TYPE_CHECKING:
    from vlmsel_auto.cache import Json
    from vlmsel_auto.records import Budget
    from vlmsel_auto.reporting.progress import PlainSink, RichSink

EXIT_UNEXPECTED = 1
EXIT_INPUT = 2
EXIT_ALL_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141  # as of a program that SIGPIPE ended

_LOG_BYTES = 1_000_000


@dataclass(kw_only=True, slots=True)
class Answer:
    """How a command is to answer, and what it leaves behind: the object for ``--json`` and the exit code."""

    as_json: bool = False  # standard output is kept for the object
    quiet: bool = False
    json: Json = None
    code: int = 0


def say(text: str) -> None:
    """One line on standard error."""
    typer.echo(text, err=True)


@contextlib.contextmanager
def guarded(answer: Answer, *, debug: bool = False, resumes: bool = False) -> Iterator[Answer]:
    """Run a command's body: map errors to exit codes and, with ``as_json``, keep standard output for one JSON object.

    ``resumes``: a command that keeps what it finished, and may promise that after an interruption.

    Raises:
        typer.Exit: always with the code, unless it is 0.
    """
    from vlmsel_auto.process import is_disk_error, terminable  # imports filelock

    as_json = answer.as_json
    with _logged() as log:
        try:
            with _stdout_to_stderr() if as_json else contextlib.nullcontext(), terminable():
                yield answer
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            kept = "finished work is kept, the same command goes on from there"
            say(f"interrupted: {kept if resumes else 'the same command begins anew'}")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except Exception as caught:  # the boundary: a person gets one line and the log the rest
            error = _of_the_disk(caught) if is_disk_error(caught) else caught
            expected = isinstance(error, (InputError, ConductanceError, TrialUnavailable, MissingDependency))
            if debug:
                traceback.print_exc(file=sys.stderr)
            elif not expected:
                logging.getLogger(__name__).exception("unexpected")
                details = f"details: {log.baseFilename}, or run again" if log.kept else "for details run again"
                say(f"error: {_one_line(error)} ({details} with --debug)")
            else:
                say(f"error: {_one_line(error)}")
            raise typer.Exit(EXIT_INPUT if expected else EXIT_UNEXPECTED) from None
    if as_json:
        try:
            typer.echo(_one_object(answer.json))
        except OSError as error:
            if not is_disk_error(error):  # a reader that went away
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered would fail again at exit
            say(f"error: {_one_line(_of_the_disk(error))}")
            raise typer.Exit(EXIT_INPUT) from None
    if answer.code:
        raise typer.Exit(answer.code)


def make_sink(*, quiet: bool, budget: Budget | None = None) -> PlainSink | RichSink:
    """The live screen on a terminal, plain lines elsewhere and with NO_COLOR, TERM=dumb or ``quiet``; to be opened."""
    from vlmsel_auto.reporting.progress import PlainSink, RichSink

    lively = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return PlainSink(quiet=quiet, budget=budget) if quiet or not lively else RichSink(budget=budget)


def _of_the_disk(error: Exception) -> InputError:
    """What a person can do about a file or folder that is not theirs, or a disk that is full."""
    return InputError(f"a file cannot be read or written: give rights, free space or name another, but got {error}")


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, VlmselError) else f"{type(error).__name__}: {text}"


def _one_object(value: Json) -> str:
    """JSON text; a file name that is no UTF-8 is escaped, and comes back as `os.fsdecode` gave it.

    JSON is UTF-8: where standard output has another encoding, all that is not ASCII is escaped.
    """
    from vlmsel_auto.recordjson import encode  # imports numpy

    found = encode(value)  # without NaN
    text = json.dumps(found, ensure_ascii=not _is_utf8(sys.stdout), allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(found, allow_nan=False)
    return text


def open_streams() -> None:
    """Open standard streams that the caller closed, as ``>&-`` and some daemons do, to nowhere.

    The next file that is opened would take their number, and what libraries write there would be written into it.
    What the encoding of standard output lacks is escaped there, as on standard error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper) and not _is_utf8(sys.stdout):
        sys.stdout.reconfigure(errors="backslashreplace")


def _is_utf8(stream: TextIO) -> bool:
    return codecs.lookup(stream.encoding or "utf-8").name == "utf-8"


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send whatever a library or a child process writes to standard output to standard error instead."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # descriptors closed by the caller: nothing can be written there either
        kept = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if kept >= 0:
            os.dup2(kept, 1)
            os.close(kept)


@contextlib.contextmanager
def reserved_stdout() -> Iterator[BinaryIO]:
    """Standard output as a binary stream of the block alone; what others write goes to standard error.

    A reader that has read enough (``| head``) ends the command without a word.
    """
    stream = os.fdopen(os.dup(1), "wb")
    try:
        with _stdout_to_stderr():
            yield stream
            stream.flush()
    except BrokenPipeError:
        raise typer.Exit(EXIT_PIPE) from None
    finally:
        with contextlib.suppress(BrokenPipeError):
            stream.close()


class _LazyFile(logging.handlers.RotatingFileHandler):
    """A log file whose folder is made only when there is something to write.

    One that cannot be written (a home that is read-only, a full disk) does not disturb the run: ``kept`` is False then.
    """

    kept = True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        except OSError:
            self.handleError(record)
        else:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        del record
        self.kept = False

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take
            super().close()


@contextlib.contextmanager
def _logged() -> Iterator[_LazyFile]:
    """Keep warnings and log records of libraries off the terminal and in one file; yield what writes it."""
    from vlmsel_auto.cache import default_cache_dir

    try:
        path = default_cache_dir() / "logs" / "vlmsel-auto.log"
    except InputError:  # no home; what needs one says so
        path = Path(os.devnull) / "no-home.log"
    handler = _LazyFile(path, maxBytes=_LOG_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.setLevel(logging.WARNING)
    shown = warnings.showwarning
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)
    try:
        yield handler
    finally:
        logging.captureWarnings(capture=False)
        warnings.showwarning = shown
        logging.getLogger().removeHandler(handler)
        handler.close()
