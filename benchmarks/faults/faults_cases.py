"""Damage, memory, bad candidates and deadly trials; see faults.py."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.faults_kills import clean
from benchmarks.faults.faults_world import CANDIDATES, Reference, Run, World, found_in

Record = dict[str, object]
KINDS = {
    "settings": "search.json", "candidates": "candidates.json", "ranking": "ranking.json",
    "result": "trials/0001/result.json", "weights": "trials/0001/weights.safetensors",
    "model": "model/open_clip_model.safetensors", "head": "model/head.safetensors", "report": "report/report.json",
    "library": "../*-home/library.safetensors",
}  # fmt: skip
_UNSAID = {"model", "head", "report"}  # every run writes these anew


def flipped(world: World, *, kind: str, reference: Reference) -> Record:
    """A bit of one kind of file flips after a search; the same command must say so and come to the same end."""
    workdir = world.root / "flipped"
    clean(workdir)
    wanted = reference()  # whose files are the ones to damage
    for suffix in ("", "-home"):
        source = world.root / f"reference{suffix}"
        if source.exists():
            shutil.copytree(source, world.root / f"flipped{suffix}")
    files = sorted(workdir.glob(KINDS[kind]))
    if kind == "library":
        files = [world.root / "flipped-home" / "library.safetensors"]
    draw = random.Random(kind)  # noqa: S311 - places, not secrets
    for file in files:
        _flip(file, draw=draw)
    run = world.run(workdir)
    said = [line for line in run.lines if "damaged" in line or "made again" in line]
    log = world.root / "flipped-home" / "cache" / "logs" / "vlmsel-auto.log"
    if log.exists():
        said += [line for line in log.read_text("utf-8").splitlines() if "damaged" in line]
    if kind == "library":  # nobody can make it again: refused, and left as it is
        wrong = [] if run.code == 2 else [f"exit status {run.code}: {run.lines[-1:]}"]
    else:
        wrong = [f"exit status {run.code}: {run.lines[-1:]}"] if run.code else []
        wrong = wrong or found_in(workdir, world.task).differs(wanted)
    if not said and kind not in _UNSAID:
        wrong.append("nothing was said")
    clean(workdir)
    return {"wrong": wrong, "files": len(files), "said": said[:1]}


def _flip(file: Path, *, draw: random.Random) -> None:
    text = bytearray(file.read_bytes())
    text[draw.randrange(len(text))] ^= 1 << draw.randrange(8)
    file.write_bytes(bytes(text))


def damaged_candidates(world: World) -> Record:
    """Weights with NaN, of wrong shapes and cut off stand beside a sound candidate."""
    from safetensors.torch import load_file, save_file

    import vlmsel_auto

    made = Path(vlmsel_auto.__file__).parent / "minizoo" / CANDIDATES[0]
    names = ("nan", "shape", "cut")
    for name in names:
        folder = world.root / name
        shutil.copytree(made, folder)
        file = folder / "open_clip_model.safetensors"
        if name == "cut":
            file.write_bytes(file.read_bytes()[:-1000])
            continue
        tensors = load_file(file)
        first = max((each for each in tensors if each.startswith("visual.")), key=lambda each: tensors[each].numel())
        tensors[first] = tensors[first] * float("nan") if name == "nan" else tensors[first].flatten()[:-1].clone()
        save_file(tensors, file)
    workdir = world.root / "candidates"
    bad = [f"local-dir:{world.root / name}" for name in names]
    run = world.run(workdir, candidates=[CANDIDATES[1], *bad])
    if run.code:
        return {"wrong": [f"exit status {run.code}: {run.lines[-1:]}"]}
    report = json.loads((workdir / "report" / "report.json").read_text("utf-8"))
    failures = report["ranking"]["failures"]
    wrong = [f"{name} was not left out" for name in names if not any(name in key for key in failures)]
    if report["best"]["candidate"] != CANDIDATES[1]:
        wrong.append(f"best is {report['best']['candidate']}")
    clean(workdir)
    return {"wrong": wrong, "said": sorted(str(each)[:160] for each in failures.values())}


_DEADLY = """
import os, signal, sys
from vlmsel_auto.tuning.runner import TrialRunner
real = TrialRunner.run
def deadly(runner, trial, **words):
    if trial.spec.candidate == "EffNet-Mi-64.all-m" and trial.spec.method == "probe":
        os.kill(os.getpid(), signal.SIGKILL)
    return real(runner, trial, **words)
TrialRunner.run = deadly
"""
_SHORT = """
import resource, vlmsel_auto.tuning.finetune as finetune
real = finetune.train
def short(work, head, *, way):
    kept = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(open("/proc/self/statm").read().split()[0])
    if work.spec.candidate == "EffNet-Mi-64.all-m":
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**20, kept[1]))
    try:
        return real(work, head, way=way)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, kept)
finetune.train = short
"""


def _script(world: World, workdir: Path, *, before: str) -> Sequence[str]:
    command = world.command(workdir)
    place = command.index("search")
    entry = Path(command[place - 1]).read_text("utf-8").replace("from __future__ import annotations\n", "")
    return [*command[: place - 1], "-c", "import sys\n" + before + entry, *command[place:]]


def killing_trial(world: World) -> Record:
    """A trial that ends its process each time: failed after two tries, and its candidate is set aside."""
    workdir = world.root / "deadly"
    runs: list[Run] = []
    for _ in range(4):
        runs.append(world.run(workdir, script=_script(world, workdir, before=_DEADLY)))
        if runs[-1].code != -signal.SIGKILL:
            break
    if runs[-1].code:
        return {"wrong": [f"exit status {runs[-1].code}: {runs[-1].lines[-1:]}"]}
    found = found_in(workdir, world.task)
    others = {name: kept[0].state for name, kept in found.trials.items() if name[0] == CANDIDATES[0]}
    wrong = [] if len(runs) == 3 else [f"{len(runs)} runs"]
    if others.get((CANDIDATES[0], "probe")) != "failed":
        wrong.append(f"trials of the candidate: {others}")
    if not found.best.startswith(CANDIDATES[1]):
        wrong.append(f"best is {found.best}")
    clean(workdir)
    return {
        "wrong": wrong,
        "kills": 2,
        "trials_of_candidate": [f"{name[1]}: {state}" for name, state in others.items()],
    }


def out_of_memory(world: World) -> Record:
    """Fine-tuning of one candidate gets no more address space: it fails alone, and the other's goes on."""
    workdir = world.root / "memory"
    run = world.run(workdir, script=_script(world, workdir, before=_SHORT))
    if run.code:
        return {"wrong": [f"exit status {run.code}: {run.lines[-1:]}"]}
    trials = found_in(workdir, world.task).trials
    tuned = [trials.get((name, "finetune")) for name in CANDIDATES]
    states = ["missing" if kept is None else kept[0].state for kept in tuned]
    clean(workdir)
    return {"wrong": [] if states == ["failed", "complete"] else [f"fine-tuning: {states}"], "fine-tuning": states}


def coordinator_memory(world: World, *, trials: int) -> Record:
    """Memory of the process that owns the study, over trials that cost nothing, by the study's own code."""
    workdir = world.root / "coordinator"
    script = Path(__file__).with_name("faults_memory.py")
    out = world.root / "coordinator.json"
    command = [sys.executable, "-W", "ignore", str(script), str(world.task), str(workdir), str(trials), str(out)]
    run = world.run(workdir, script=command, limit=3_000)
    if run.code:
        return {"wrong": [f"exit status {run.code}: {run.lines[-3:]}"]}
    megabytes: dict[str, float] = json.loads(out.read_text("utf-8"))
    first, last = (megabytes[str(place)] for place in (100, trials))
    grown = last / first - 1
    clean(workdir)
    return {
        "wrong": [] if grown <= 0.1 else [f"grown by {grown:.1%}"],
        "megabytes": megabytes, "grown": round(grown, 4), "cpu": round(run.cpu, 1),
    }  # fmt: skip
