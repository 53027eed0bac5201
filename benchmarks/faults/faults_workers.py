"""Kills where looks and trials run in worker processes, of the coordinator and of the workers; see faults.py."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from pathlib import Path

import psutil

from benchmarks.faults.faults_kills import clean, moment
from benchmarks.faults.faults_world import Reference, Watch, World, found_in

Record = dict[str, object]
WORKERS = ("--workers", "2")
ROUNDS = (("look", "trial"), ("trial", "checkpoint"), ("trial", "export"))
ENGINES = {"processes": WORKERS, "ray": ("--ray", "local")}
_PATIENCE = 60.0  # seconds for workers to notice that they are alone
_PAUSE = 6.0  # seconds between kills: a trial whose worker is killed twice has failed, as it should
_STRUCK = {"looks: started": 0.6, "profiles: started": 4.0, "trial 1 started": 1.5}  # what is said, seconds from then


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
    """One search whose workers are killed: one in the looks, one in the profiles, one in a trial. It ends by itself."""
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
