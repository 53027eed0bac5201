"""One bad input: how it is made on disk, the command that meets it, and what a user may hold against what comes out."""

import csv
import ctypes
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from helpers.pictures import encoded, picture
from vlmsel_auto.cli.app import app
from vlmsel_auto.records import BadFile
from vlmsel_auto.reporting.report import load as load_report
from vlmsel_auto.tasks.task import load_task

MEMBER: Final = "ViT-Mi-16-64.all-m"  # the quickest of the mini zoo
FULL: Final = ("--method", "zero_shot", "--max-trials", "1", "--no-learn", "--workdir", "work")
SEARCH: Final = ("search", "task", "-c", MEMBER, *FULL)
LOAD: Final = ()  # no command: what every command does first
DONE, REFUSED = 0, 2  # exit statuses; see `vlmsel-auto --help`


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad input."""

    room: str
    name: str
    make: Callable[[Path], object]  # puts everything into an empty folder, in which the command then runs
    arguments: tuple[str, ...] = SEARCH
    code: int = DONE
    says: str = ""  # regular expression: in the error, or in what is listed and noted
    quiet: bool = False  # nothing is listed: the input is odd, and used as it is
    writes: tuple[str, ...] = ("work",)  # what may be new beside the input
    secret: str = ""  # may stand nowhere

    @property
    def id(self) -> str:
        return f"{self.room}: {self.name}"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the command left behind."""

    code: int
    out: str
    err: str
    raised: BaseException | None
    told: tuple[str, ...]  # files that were left out or converted, candidates that failed, notes: a line each
    before: dict[str, str] = field(repr=False)  # of each path: kind, mode and content
    after: dict[str, str] = field(repr=False)


def refused(case: Case) -> Case:
    return replace(case, code=REFUSED, writes=())


def good_task(place: Path, *, classes: tuple[str, ...] = ("cat", "dog"), count: int = 4) -> Path:
    """A sound task folder; cases spoil it."""
    root = place / "task"
    for k, name in enumerate(classes):
        fill(root / name, count=count, first=100 * k)
    return root


def fill(folder: Path, *, count: int = 4, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        (folder / f"{k}.png").write_bytes(encoded(picture(seed=k)))
    return folder


@contextmanager
def without_rights_of_root() -> Iterator[None]:
    """Modes of files count within this block, also where the tests run as root.

    Root reads everything by two capabilities. They are taken from this thread, whose own threads inherit that, and
    given back.
    """
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, kept = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if libc.capget(header, kept) != 0:
        pytest.skip("the capabilities of this process cannot be read")
    fewer = (ctypes.c_uint32 * 6)(*kept)
    fewer[0] &= ~0b110  # effective: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    if libc.capset(header, fewer) != 0:
        pytest.skip("the capabilities of this process cannot be changed")
    try:
        yield
    finally:
        libc.capset(header, kept)


def meet(case: Case, place: Path) -> Outcome:
    """Make the input in the empty folder ``place`` and run the command there; `LOAD` reads the task folder alone."""
    case.make(place)
    before = snapshot(place)
    with chdir(place), without_rights_of_root():
        if case.arguments == LOAD:
            task = load_task(Path("task"), workdir=Path("work"))
        else:
            done = CliRunner().invoke(app, list(case.arguments))
    after = snapshot(place)
    if case.arguments == LOAD:
        told = (*lines(task.bad_files), *task.notes)
        return Outcome(code=DONE, out="", err="", raised=None, told=told, before=before, after=after)
    raised = None if isinstance(done.exception, SystemExit) else done.exception
    return Outcome(
        code=done.exit_code,
        out=done.stdout,
        err=done.stderr,
        raised=raised,
        told=reported(place),
        before=before,
        after=after,
    )


def reported(place: Path) -> tuple[str, ...]:
    """What the report of a search tells."""
    if not (place / "work/report/report.json").is_file():
        return ()
    report = load_report(place / "work")
    failed = [f"not ranked: {name}: {reason}" for name, reason in report.ranking.failures.items()]
    return (*lines(report.bad_files), *failed, *report.notes)


def lines(bad_files: Iterable[BadFile]) -> list[str]:
    return [f"{'converted' if one.used else 'left out'}: {one.path}: {one.reason}" for one in bad_files]


def snapshot(place: Path) -> dict[str, str]:
    """Every path below ``place`` with kind, mode, time of change and content."""
    found = {}
    for folder, inner, names in os.walk(place):
        for name in (*inner, *names):
            path = Path(folder) / name
            status = path.lstat()
            kept = f"{status.st_mode:o}"
            if stat.S_ISREG(status.st_mode):
                kept += f" {status.st_mtime_ns} {sha256(path.read_bytes()).hexdigest()}"
            found[path.relative_to(place).as_posix()] = kept
    return found


def faults(case: Case, found: Outcome, place: Path) -> list[str]:
    """What a user may hold against an outcome; empty: nothing."""
    shown = found.out + found.err
    wrong = [f"exit status {found.code}, wanted {case.code}"] if found.code != case.code else []
    if found.raised is not None or "Traceback" in shown:
        wrong.append(f"a traceback ({found.raised!r})")
    if case.code == REFUSED:
        wrong += message_faults(found.err)
    if not re.search(case.says, "\n".join((*found.told, in_frames(found.err), found.out if case.code == DONE else ""))):
        wrong.append(f"does not say {case.says!r}, but {found.told or found.err!r}")
    if case.quiet and any(line.startswith(("left out", "converted")) for line in found.told):
        wrong.append(f"lists {found.told}")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", shown):
        wrong.append("steers the terminal")
    if case.secret and case.secret in shown:
        wrong.append("tells a secret")
    return wrong + file_faults(case, found, place)


_EMPTY_STORE = ("work", "work/pixels", "work/pixels/.lock")  # what refused images leave


def file_faults(case: Case, found: Outcome, place: Path) -> list[str]:
    """What is lost, stands where it must not, runs when it is opened, or keeps a secret."""
    changed = [path for path, kept in found.before.items() if found.after.get(path) != kept]
    wrong = [f"lost or changed {changed}"] if changed else []
    new = [path for path in found.after if path not in found.before]
    outside = [path for path in new if path.partition("/")[0] not in case.writes and path not in _EMPTY_STORE]
    wrong += [f"wrote {outside}"] if outside else []
    for path in filter(Path.is_file, (place / each for each in new)):
        wrong += executable(path)
        if case.secret and case.secret.encode() in path.read_bytes():
            wrong.append(f"keeps a secret in {path}")
    return wrong


def message_faults(err: str) -> list[str]:
    """Whether standard error ends with one line that says what was wrong and what was got.

    A value that an option itself refuses is told by typer, in a frame: the option, the value and the range.
    """
    usage = re.search(r"Invalid value for .*: |No such option: |Missing (argument|option) ", err)
    if usage and "Usage: " in err:
        return []
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    if len(errors) != 1 or not err.rstrip().endswith(errors[0]):
        return [f"not one error line at the end, but {err!r}"]
    wrong = [] if re.search(r", but got \S", errors[0]) else [f"does not say what was got: {errors[0]!r}"]
    return wrong + (["an unexpected error"] if "(details: " in errors[0] else [])


def in_frames(err: str) -> str:
    """Standard error with what typer frames on one line."""
    return re.sub(r"\s*\u2502\n\u2502\s*", " ", err)


def executable(path: Path) -> list[str]:
    """What of a page a browser, or of a table a spreadsheet, would run."""
    if path.suffix == ".html":
        page = _Active()
        page.feed(path.read_text("utf-8"))
        return page.found
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            return [f"a formula: {cell!r}" for row in csv.reader(stream) for cell in row if is_formula(cell)]
    return []


def is_formula(cell: str) -> bool:
    """Whether a spreadsheet computes a cell; a negative number is what it says."""
    return cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not re.fullmatch(r"[+-]?\d+(\.\d+)?", cell)


class _Active(HTMLParser):
    """Elements and attributes that do something; the page of a report has none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "iframe", "object", "embed", "form", "base", "link"}:
            self.found.append(f"<{tag}>")
        for name, value in attrs:
            target = (value or "").strip().lower()
            if name.startswith("on") or (
                name in {"href", "src", "xlink:href"} and not target.startswith(("#", "data:image/"))
            ):
                self.found.append(f"<{tag} {name}={value!r}>")
