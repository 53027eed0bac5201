"""Kills of a search and of its workers, other signals and disks, each against a running search; see faults.py."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil

from benchmarks.faults.faults_world import Reference, Run, Strike, Watch, World, found_in, kill

WORKERS = ("--workers", "2")
ROUNDS = (("look", "trial"), ("trial", "checkpoint"), ("trial", "export"))
ENGINES = {"processes": WORKERS, "ray": ("--ray", "local")}
_PATIENCE = 60.0  # seconds for workers to notice that they are alone
_PAUSE = 6.0  # seconds between kills: a trial whose worker is killed twice has failed, as it should
_STRUCK = {
    "screenings: started": 0.6,
    "profiles: started": 4.0,
    "trial 1 started": 1.5,
}  # what is said, seconds from then


def killed_coordinator(world: World, *, seed: int, reference: Reference) -> Record:
    """One search with two workers whose coordinator is killed twice: nothing lost or doubled, nobody left behind."""
    workdir = world.root / f"workers-{seed}"
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    wrong: list[str] = []
    struck: list[str] = []
    alone: list[float] = []
    finished: dict[str, bytes] = {}
    for stage in ROUNDS[seed]:
        run = world.run(workdir, strike=moment(stage, draw), more=WORKERS)
        if run.code == -signal.SIGKILL:
            struck.append(stage)
        begun = time.monotonic()
        while (left := _alive(world, workdir)) and time.monotonic() < begun + _PATIENCE:
            time.sleep(0.1)
        alone.append(round(time.monotonic() - begun, 1))
        wrong += [f"{len(left)} processes are left after a kill in {stage}"] if left else []
        finished |= _results(workdir)
    last = world.run(workdir, more=WORKERS)
    wrong += [f"exit status {last.code}: {last.lines[-1:]}"] if last.code else []
    if not last.code:
        wrong += found_in(workdir, world.task).differs(reference())
        there = _results(workdir)
        wrong += [f"{name} is lost or another" for name, text in finished.items() if there.get(name) != text]
    clean(workdir)
    return {"kills": struck, "wrong": wrong, "finished_before": len(finished), "seconds_until_alone": alone}


def killed_workers(world: World, *, engine: str, seed: int, reference: Reference) -> Record:
    """One search whose workers are killed, in the screenings, the profiles and a trial. It ends by itself."""
    workdir = world.root / f"{engine}-{seed}"
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    struck: list[str] = []

    def strike(watch: Watch) -> bool:
        for text, lasts in _STRUCK.items():
            if not watch.wait(partial(watch.said, text)):
                return False
            time.sleep(draw.uniform(0.0, lasts))
            if _kill_one(watch, draw):
                struck.append(text)
                time.sleep(_PAUSE)
        return True

    run = world.run(workdir, strike=strike, more=ENGINES[engine])
    wrong = [f"exit status {run.code}: {run.lines[-1:]}"] if run.code else []
    wrong = wrong or found_in(workdir, world.task).differs(reference(), other_turns=True)
    clean(workdir)
    return {"kills": struck, "wrong": wrong, "said": [line for line in run.lines if "died" in line]}


def _kill_one(watch: Watch, draw: random.Random) -> bool:
    """Kill a worker, one that is at work where that can be told; whether there was one."""
    found = []
    for each in psutil.Process(watch.process.pid).children(recursive=True):
        try:
            line = " ".join(each.cmdline())
        except psutil.Error:  # it has just ended
            continue
        if "ray::work" in line or "popen_loky_posix" in line:
            found.append(each)
    if found:
        draw.choice(found).kill()
    return bool(found)


def _results(workdir: Path) -> dict[str, bytes]:
    """The results on file by their trial's folder."""
    return {file.parent.name: file.read_bytes() for file in workdir.glob("trials/*/result.json")}


def _alive(world: World, workdir: Path) -> list[int]:
    """Processes that the search began, known by the environment that they inherited."""
    ours = f"VLMSEL_CACHE={world.environment(workdir)['VLMSEL_CACHE']}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "environ").read_bytes().split(b"\0")
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if ours in words and state != "Z":
            found.append(int(place.name))
    return found


Record = dict[str, object]
STAGES = ("load", "look", "conductance", "trial", "checkpoint", "export", "report")
_SAID = {"look": "screenings: started", "conductance": "profiles: started", "export": "trials: finished",
         "report": "report: finished"}  # fmt: skip
_LASTS = {"load": 5.0, "look": 0.6, "conductance": 4.0, "trial": 1.5, "export": 0.2, "report": 1.5}  # seconds, about
_ROUNDS = ({"load", "look", "conductance"}, {"trial", "checkpoint"}, {"export", "report"})  # one kill of each a search


def moment(stage: str, draw: random.Random) -> Strike:
    """A kill at a moment of a stage."""
    trial, later = draw.randrange(5), draw.uniform(0.0, _LASTS.get(stage, 0.0))
    text = _SAID.get(stage, f"trial {trial} started" if stage == "trial" else "")

    def strike(watch: Watch) -> bool:
        reached = watch.wait(lambda: watch.writes("trials")) if stage == "checkpoint" else True
        if text:
            reached = watch.wait(lambda: watch.said(text))
        time.sleep(later)
        if watch.process.poll() is not None:
            return False
        kill(watch)
        return reached

    return strike


def killed_search(
    world: World, *, seed: int, stages: tuple[str, ...], reference: Reference, cpu: Callable[[], float]
) -> Record:
    """One search that is killed once in each of the stages, and goes on by the same command each time."""
    workdir = world.root / f"kills-{seed}"
    draw = random.Random(seed)  # noqa: S311 - moments, not secrets
    runs: list[Run] = []
    struck: list[str] = []
    for stage in stages:
        run = world.run(workdir, strike=moment(stage, draw))
        runs.append(run)
        if run.code == -signal.SIGKILL:
            struck.append(stage)
    runs.append(world.run(workdir))
    wrong = [f"exit status {runs[-1].code}: {runs[-1].lines[-1:]}"] if runs[-1].code else []
    if not wrong:
        wrong = found_in(workdir, world.task).differs(reference())
    lost = sum(each.cpu for each in runs) - cpu()
    clean(workdir)
    return {"kills": struck, "wrong": wrong, "cpu_lost_a_kill": round(lost / max(1, len(struck)), 2)}


def rounds(searches: int) -> list[tuple[str, ...]]:
    """The stages of each search, so that all come equally often."""
    kinds = [sorted(each, key=STAGES.index) for each in _ROUNDS]
    return [tuple(kind[number % len(kind)] for kind in kinds) for number in range(searches)]


def clean(workdir: Path) -> None:
    """Remove a search and its home."""
    for folder in (workdir, workdir.with_name(f"{workdir.name}-home")):
        shutil.rmtree(folder, ignore_errors=True)


def _in_trial(act: Callable[[Watch], None]) -> Strike:
    def strike(watch: Watch) -> bool:
        reached = watch.wait(lambda: watch.said("epoch 1 of"))
        act(watch)
        return reached

    return strike


def _goes_on(world: World, workdir: Path, reference: Reference) -> list[str]:
    last = world.run(workdir)
    wrong = [f"exit status {last.code}: {last.lines[-1:]}"] if last.code else []
    wrong = wrong or found_in(workdir, world.task).differs(reference())
    clean(workdir)
    return wrong


def signalled(world: World, *, name: str, times: int, reference: Reference) -> Record:
    """A signal that asks for the end: the search ends by itself, with what it has, and goes on later."""
    workdir = world.root / f"{name}-{times}"
    took: list[float] = []

    def act(watch: Watch) -> None:
        begun = time.monotonic()
        for _ in range(times):
            watch.process.send_signal(getattr(signal, name))
            watch.wait(lambda: watch.said("trials: finished"))
        watch.process.wait(timeout=120)
        took.append(round(time.monotonic() - begun, 1))

    run = world.run(workdir, strike=_in_trial(act))
    wrong = [] if run.code in {0, 130} else [f"exit status {run.code}: {run.lines[-1:]}"]
    if any("Traceback" in line for line in run.lines):
        wrong.append("a traceback")
    return {"wrong": wrong + _goes_on(world, workdir, reference), "exit": run.code, "seconds_to_end": took}


def stopped(world: World, *, seconds: float, reference: Reference) -> Record:
    """SIGSTOP and, later, SIGCONT; a second search on the work directory is refused meanwhile."""
    workdir = world.root / "stopped"
    second: list[Run] = []

    def act(watch: Watch) -> None:
        watch.process.send_signal(signal.SIGSTOP)
        second.append(world.run(workdir))
        time.sleep(seconds)
        watch.process.send_signal(signal.SIGCONT)

    run = world.run(workdir, strike=_in_trial(act))
    wrong = [] if run.code == 0 else [f"exit status {run.code}: {run.lines[-1:]}"]
    if second[0].code != 2 or "Another process is at work" not in second[0].lines[-1]:
        wrong.append(f"a second search was not refused: {second[0].lines[-1:]}")
    wrong = wrong or found_in(workdir, world.task).differs(reference())
    clean(workdir)
    return {"wrong": wrong, "seconds": seconds}


def full_disk(world: World, *, kilobytes: int, reference: Reference) -> Record:
    """A file system that is full after so many kilobytes, and is then given more."""
    workdir = world.root / f"disk-{kilobytes}"
    workdir.mkdir()
    if subprocess.run(_mount(workdir, kilobytes), capture_output=True, check=False).returncode:  # noqa: S603
        return {"wrong": [], "skipped": "no file system can be mounted here"}
    try:
        run = world.run(workdir)
        wrong = _refused(run, "cannot write")
        subprocess.run(_mount(workdir, 200_000, again=True), check=True)  # noqa: S603
        last = world.run(workdir)
        wrong += [f"exit status {last.code}: {last.lines[-1:]}"] if last.code else []
        wrong = wrong or found_in(workdir, world.task).differs(reference())
    finally:
        subprocess.run(["/bin/umount", str(workdir)], check=False)  # noqa: S603
        clean(workdir)
    return {"wrong": wrong, "said": run.lines[-1] if run.lines else ""}


def _mount(workdir: Path, kilobytes: int, *, again: bool = False) -> list[str]:
    options = f"size={kilobytes}k" + (",remount" if again else "")
    return ["/bin/mount", "-t", "tmpfs", "-o", options, "tmpfs", str(workdir)]


def _refused(run: Run, text: str) -> list[str]:
    """One line, without a traceback, and the exit status of what the user can mend."""
    last = run.lines[-1] if run.lines else ""
    wrong = [] if run.code == 2 and text in last else [f"exit status {run.code}: {last}"]
    return [*wrong, "a traceback"] if any("Traceback" in line for line in run.lines) else wrong


def file_limit(world: World, *, kilobytes: int, reference: Reference) -> Record:
    """No file may grow beyond so many kilobytes (RLIMIT_FSIZE)."""
    import resource

    workdir = world.root / f"limit-{kilobytes}"
    size = kilobytes * 1024
    run = world.run(workdir, prepare=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    return {
        "wrong": _refused(run, "cannot write") + _goes_on(world, workdir, reference),
        "said": run.lines[-1] if run.lines else "",
    }


def read_only(world: World, *, reference: Reference) -> Record:
    """The work directory loses the right to be written in mid-search; root's power to ignore rights is taken away."""
    workdir = world.root / "read-only"
    script = world.command(workdir)
    if not os.getuid():
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            return {"wrong": [], "skipped": "root ignores rights, and nothing here (setpriv) takes that power from it"}
        script = [setpriv, "--bounding-set=-dac_override,-dac_read_search", *script]

    def act(watch: Watch) -> None:
        _rights(watch.workdir, 0o555)

    run = world.run(workdir, strike=_in_trial(act), script=script)
    wrong = _refused(run, "cannot write")
    _rights(workdir, 0o755)
    return {"wrong": wrong + _goes_on(world, workdir, reference), "said": run.lines[-1] if run.lines else ""}


def _rights(workdir: Path, mode: int) -> None:
    for folder in (workdir, *(each for each in workdir.rglob("*") if each.is_dir())):
        folder.chmod(mode)


def failing_disk(world: World, *, reference: Reference) -> Record:
    """The file system under a search finds an error in itself and turns read-only, also for files that are open."""
    disk, image = world.root / "disk", world.root / "disk.img"
    disk.mkdir()
    with image.open("wb") as stream:
        stream.truncate(200 * 2**20)
    mount = ["/bin/mount", "-o", "loop,errors=remount-ro", str(image), str(disk)]
    try:
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)  # noqa: S603, S607
        subprocess.run(mount, check=True, capture_output=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return {"wrong": [], "skipped": "no file system can be made and mounted here"}
    try:
        number = disk.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve().name
        trigger = Path("/sys/fs/ext4") / device / "trigger_fs_error"
        if not trigger.exists():
            return {"wrong": [], "skipped": "this system has no ext4 that can be made to fail"}
        workdir = disk / "search"
        run = world.run(workdir, strike=_in_trial(lambda _: _write(trigger, "1")))
        wrong = _refused(run, "cannot write")
        subprocess.run(["/bin/umount", str(disk)], check=True)  # noqa: S603
        subprocess.run(mount, check=True)  # noqa: S603
        return {"wrong": wrong + _goes_on(world, workdir, reference), "said": run.lines[-1] if run.lines else ""}
    finally:
        subprocess.run(["/bin/umount", str(disk)], check=False)  # noqa: S603
        image.unlink()


def _write(file: Path, text: str) -> None:
    with contextlib.suppress(OSError):  # the error that was asked for is told here too
        file.write_text(text)
