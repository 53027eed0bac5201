"""A small search in a process of its own, as a user starts it, and what must be true of it whatever happened to it.

The process may be forked from this one, which has imported what searches need: seconds are saved.
"""

from __future__ import annotations

import collections
import importlib
import json
import multiprocessing
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_IMPORTED = ("cli.app", "pipeline.search", "reporting.html_page", "study.dispatch", "tuning.finetune", "tuning.probe")


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a search starts."""

    script: Path
    words: Sequence[str]  # of its command line
    environment: Mapping[str, str]
    folder: Path  # that it works in
    log: int  # descriptor that takes standard error
    prepare: Callable[[], None] | None  # called before it begins

    def run(self) -> None:
        """In the new process; standard output goes nowhere."""
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(self.log, 2)
        if self.prepare is not None:
            self.prepare()
        sys.argv = [str(self.script), *self.words]
        runpy.run_path(str(self.script), run_name="__main__")


class Forked:
    """What is asked of a `subprocess.Popen`, of a fork. This process must have no further thread."""

    def __init__(self, start: Start) -> None:
        for name in _IMPORTED:
            importlib.import_module(f"vlmsel_auto.{name}")
        self._process = multiprocessing.get_context("fork").Process(target=start.run)
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        """Exit status, negative: the signal that ended it; None: it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """`returncode` now."""
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; gives the exit status.

        Raises:
            subprocess.TimeoutExpired: it runs after so many seconds.
        """
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code


SEARCH = Path(__file__).with_name("faults_search.py")
CANDIDATES = ("EffNet-Mi-64.all-m", "ConvNeXt-Mi-64.all-m")
_TRIALS = 4  # beside the zero-shot baseline: heads and towers of both candidates


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of the command that ended, or was ended."""

    code: int  # exit status; negative: the signal that ended it
    lines: tuple[str, ...]  # of standard error
    cpu: float  # seconds
    reached: bool  # the moment that was waited for came


@dataclass(kw_only=True)
class Watch:
    """What a `strike` may look at: the running search, and what it said so far."""

    process: subprocess.Popen[bytes] | Forked
    workdir: Path
    log: Path
    begun: float = field(default_factory=time.monotonic)

    def said(self, text: str) -> bool:
        """Whether standard error holds the text."""
        return text.encode() in self.log.read_bytes()

    def writes(self, folder: str) -> bool:
        """Whether a file below the work directory's folder is being written just now."""
        return any((self.workdir / folder).glob("**/.part-*"))

    def wait(self, until: Callable[[], bool]) -> bool:
        """Wait for something, or for the end of the search; whether it came."""
        while self.process.poll() is None:
            if until():
                return True
            time.sleep(0.001)
        return False


Strike = Callable[[Watch], bool]  # waits for its moment and does its harm; False: the search ended before


@dataclass(frozen=True, kw_only=True)
class World:
    """A folder of digits and a home of its own.

    Searches start as a user starts them, or are ``forked`` from this process, which spares each its imports.
    """

    root: Path
    forked: bool = False

    @staticmethod
    def made(root: Path, *, forked: bool = False) -> World:
        """Write the images."""
        from vlmsel_auto.tasks.digits import write_digits

        write_digits(root / "images", train_per_class=8, test_per_class=6)
        return World(root=root, forked=forked)

    @property
    def task(self) -> Path:
        """The folder of images."""
        return self.root / "images" / "digits"

    def command(self, workdir: Path, *, candidates: Sequence[str] = CANDIDATES, more: Sequence[str] = ()) -> list[str]:
        """As a user types it."""
        return [
            sys.executable, "-W", "ignore", str(SEARCH), "search", str(self.task), "--candidates",
            ",".join(candidates), "--max-trials", str(_TRIALS), "--price", "0", "--ensemble", "0", "--workdir",
            str(workdir), *more,
        ]  # fmt: skip

    def environment(self, workdir: Path) -> dict[str, str]:
        """One thread, and cache and library of its own, beside the work directory."""
        home = workdir.with_name(f"{workdir.name}-home")
        return {
            **os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "10000", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1",
            "VLMSEL_CACHE": str(home / "cache"), "VLMSEL_LIBRARY": str(home / "library.safetensors"),
            "COVERAGE_PROCESS_START": "",
        }  # fmt: skip

    def run(
        self,
        workdir: Path,
        *,
        strike: Strike | None = None,
        more: Sequence[str] = (),
        candidates: Sequence[str] = CANDIDATES,
        prepare: Callable[[], None] | None = None,
        script: Sequence[str] | None = None,
        limit: float = 3_600.0,
    ) -> Run:
        """Run the command.

        Args:
            workdir: of the search.
            strike: what happens to it meanwhile.
            more: further words of the command.
            candidates: of the search.
            prepare: called in the new process before it begins.
            script: another command.
            limit: seconds after which it is killed.
        """
        with tempfile.NamedTemporaryFile(suffix=".log") as stream:
            command = script or self.command(workdir, candidates=candidates, more=more)
            process: subprocess.Popen[bytes] | Forked
            if self.forked and script is None:
                process = Forked(
                    Start(
                        script=SEARCH, words=command[command.index(str(SEARCH)) + 1 :], folder=workdir.parent,
                        environment=self.environment(workdir), log=stream.fileno(), prepare=prepare,
                    )
                )  # fmt: skip
            else:
                process = subprocess.Popen(  # noqa: S603 - our own command
                    command, env=self.environment(workdir), stdout=subprocess.DEVNULL, stderr=stream,
                    cwd=workdir.parent, preexec_fn=prepare,  # noqa: PLW1509 - limits of resources
                )  # fmt: skip
            watch = Watch(process=process, workdir=workdir, log=Path(stream.name))
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            try:
                reached = strike(watch) if strike is not None else True
                process.wait(timeout=limit)
            finally:
                process.kill()
                code = process.wait()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return Run(
                code=code,
                lines=tuple(Path(stream.name).read_text("utf-8", errors="replace").splitlines()),
                cpu=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
                reached=reached,
            )


def kill(watch: Watch) -> None:
    """As the system does that runs out of memory, or a power cut."""
    watch.process.send_signal(signal.SIGKILL)


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a report says of one trial."""

    state: str
    validation: float | None
    test: float | None
    fold: int = 0  # that it was scored on
    curve: tuple[float, ...] = ()

    def is_as(self, other: Kept, *, other_turns: bool) -> bool:
        """Whether it is the same trial.

        With ``other_turns`` it may be scored on another fold of the labels, or be paused where the other one went on:
        then one curve must begin as the other.
        """
        both = {self.state, other.state} <= {"complete", "pruned"}
        if other_turns and both and self.fold != other.fold:
            return True
        if other_turns and both and self.state != other.state:
            epochs = min(len(self.curve), len(other.curve))
            return epochs > 0 and self.curve[:epochs] == other.curve[:epochs]
        return self == other


Trials = Mapping[tuple[str, str], tuple[Kept, ...]]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a finished search left."""

    trials: Trials  # by candidate and method, in the order of the folds that they are scored on
    twice: tuple[tuple[str, str, int], ...]  # candidate, method and fold of trials that are there more than once
    order: tuple[str, ...]  # predicted
    best: str
    validation: float | None  # of the best
    test: float | None
    plain: float  # test accuracy of the exported model in plain open_clip

    def differs(self, other: Found, *, other_turns: bool = False) -> list[str]:
        """What is not as in another search; nothing: all is.

        With ``other_turns`` trials may have come in another order, as after the death of a worker: trials of the same
        candidates and methods must be there (`Kept.is_as`), and a best one that is as good by its validation.
        """
        wrong = [] if not self.twice else [f"twice: {self.twice}"]
        for each in {**self.trials, **other.trials}:
            mine, theirs = self.trials.get(each, ()), other.trials.get(each, ())
            pairs = zip(mine, theirs, strict=False)
            there = mine and theirs if other_turns else len(mine) == len(theirs)
            if not there or not all(one.is_as(another, other_turns=other_turns) for one, another in pairs):
                wrong.append(f"{each}: {mine} instead of {theirs}")
        as_good = other_turns and (self.validation or 0.0) >= (other.validation or 0.0)
        for name in ("order",) if as_good else ("order", "best", "test"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                wrong.append(f"{name}: {mine} instead of {theirs}")
        if self.test is None or abs(self.plain - self.test) > 1e-9:
            wrong.append(f"plain open_clip scores {self.plain}, the record says {self.test}")
        return wrong


Reference = Callable[[], Found]  # what comes of a search that nothing happens to; made when it is first asked for


def found_in(workdir: Path, task: Path) -> Found:
    """Read what a search left, with open_clip alone for its model."""
    report = json.loads((workdir / "report" / "report.json").read_text("utf-8"))
    paused = {row["continues"] for row in report["trials"]}  # and gone on with: the trial that did so has its curve
    rows = sorted(
        (row["spec"]["candidate"], row["spec"]["method"], row["spec"]["fold"], row["number"], row)
        for row in report["trials"]
        if row["number"] not in paused
    )
    count = collections.Counter(row[:3] for row in rows)
    trials: dict[tuple[str, str], tuple[Kept, ...]] = {}
    for one, method, fold, _, row in rows:
        kept = Kept(
            state=row["state"], validation=row["validation"], test=row["test"], fold=fold, curve=tuple(row["curve"])
        )
        trials[one, method] = (*trials.get((one, method), ()), kept)
    return Found(
        trials=trials,
        twice=tuple(name for name, times in count.items() if times > 1),
        order=tuple(row["candidate"] for row in report["ranking"]["ranked"]),
        best=f"{report['best']['candidate']} {report['best']['method']}",
        validation=report["best"]["validation"],
        test=report["best"]["test"],
        plain=plain_score(workdir / "model", task / "test"),
    )


def plain_score(model_dir: Path, images: Path) -> float:
    """Share of the images that the exported classifier names rightly, as its card shows it to users."""
    import open_clip
    import torch
    from PIL import Image
    from safetensors.torch import load_file

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{model_dir}")
    model.eval()
    head = load_file(model_dir / "head.safetensors")
    classes = json.loads((model_dir / "classes.json").read_text("utf-8"))["classes"]
    files = sorted(images.glob("*/*.png"))
    with torch.no_grad():
        pixels = torch.stack([preprocess(Image.open(file)) for file in files])
        logits = head["scale"] * model.encode_image(pixels, normalize=True) @ head["weight"].T + head["bias"]
    said = [classes[place] for place in logits.argmax(dim=1).tolist()]
    right = [str(one) == file.parent.name for one, file in zip(said, files, strict=True)]
    return sum(right) / len(files)
