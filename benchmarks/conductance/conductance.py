"""QUESTION: How exact and fast is our conductance of all blocks beside Captum's, at equal error?

PAGE: docs/results/conductance.md
RESULT: benchmarks/results/conductance.json, benchmarks/results/conductance-quick.json

Everything runs side by side in one process, on the same images, tower, scalar and number of threads.

- Error: mean over images and blocks of sum |C - C*| / sum |C*| against a reference C* (conductance_cases.reference).
- Ours: fewest points whose error is at most the wanted one; ``auto`` is what the engine takes when it is told the error
  and has to find the points itself. Captum: its default method (gausslegendre). Steps for the wanted error follow from
  its error at 64 steps and its convergence, measured up to 512 steps on two of the images (``captum_law``: steps times
  error, constant where the 1/steps law holds) and continued as 1/steps. At the first wanted error of the mini zoo
  Captum is run with those steps, once, for its error; its time is that run's or that of 64 steps scaled to them (it is
  linear in steps: see ``growth``), whichever is less.
- Large towers have random weights and rough paths: there the wanted error is the one that Captum reaches with 64
  steps. Captum runs through 4 evenly spread blocks; its time is scaled to all of them.
- Floor: a bare forward + backward loop over the same images and points, at the fastest of several batch sizes and of
  both orders of pixels (channels first, channels last).
  ``fraction_of_floor`` is floor time / our time; above 1 we are faster, since nothing before the first block is
  differentiated. Large towers get one image in that comparison, and what a call needs once (two rows that tell memory
  and shapes) weighs heavily: ``throughput`` compares both on 8 images at the same points.
- Peak: growth of the resident memory's high-water mark (Linux) or CUDA's own count.

    python -m benchmarks.conductance.conductance --quick            mini zoo, under a minute on two cores
    python -m benchmarks.conductance.conductance --write FILE.json  all towers
    python -m benchmarks.conductance.conductance --device cuda      names the card in its JSON
"""

from __future__ import annotations

import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.common import command_line
from benchmarks.conductance.conductance_cases import (
    LARGE,
    MINI,
    Case,
    captum,
    error_of,
    floor,
    make_case,
    ours,
    peak_bytes,
    reference,
    with_images,
)
from vlmsel_auto.conductance.layer import conductance
from vlmsel_auto.models.device import pick_device
from vlmsel_auto.records import FloatArray

POINTS = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 17, 21, 25, 29, 33, 37, 41, 45, 49, 57, 65, 81, 97, 113, 129, 257)
CHECK = 64
MANY = 8  # images of a large tower's throughput
LAW = (16, 32, 64, 128, 256, 512)
Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
_CLOCK = [time.perf_counter]


def seconds_of(works: Sequence[Callable[[], object]], device: torch.device, repeats: int) -> list[float]:
    """Least seconds of each, in turns, so that a busy spell of the machine meets all of them."""
    best = [float("inf")] * len(works)
    for _ in range(repeats):
        for index, work in enumerate(works):
            _wait(device)
            began = _CLOCK[0]()
            work()
            _wait(device)
            best[index] = min(best[index], _CLOCK[0]() - began)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(case: Case, wanted: Sequence[float | None], *, repeats: int, law: Sequence[int]) -> dict[str, Json]:
    """Time of both at equal error; ``wanted`` None: the error that Captum reaches with CHECK steps."""
    device = case.images.device
    exact = reference(case)
    assert exact.neurons is not None  # noqa: S101 - asked for
    true = [exact.neurons[position] for position in case.compared]
    share = len(case.blocks) / len(case.compared)
    checked, first = _timed_captum(case, CHECK, true, repeats if case.name in MINI else 1)
    per_step = share * first / (CHECK + 1)
    errors = {steps: error_of(captum(case, steps, count=2), [t[:2] for t in true]) for steps in law}
    found: list[Json] = []
    for index, target in enumerate(wanted):
        limit = checked if target is None else target
        steps = CHECK if target is None else steps_for(limit, checked, errors)
        line = _at(case, limit, true, repeats)
        measured = index == 0 and len(law) > 1 and target is not None
        error, seconds = _timed_captum(case, steps, true, 1) if measured else (None, float("inf"))
        seconds = min(seconds, per_step * (steps + 1))
        line |= {"captum_steps": steps, "captum_error": error, "captum_seconds": seconds, "captum_measured": measured}
        line["speedup_equal_error"] = seconds / float(str(line["seconds"]))
        found.append(line)
    first_line = found[0]
    assert isinstance(first_line, dict)  # noqa: S101 - made above
    points = int(str(first_line["points"]))
    many: Json = None
    if case.name in LARGE:
        many = _against_floor(with_images(case, MANY), points, repeats)
    return {
        "integrator": str(case.integrator),
        "blocks": len(case.blocks),
        "images": len(case.images),
        "reference_points": int(exact.points.max()),
        "reference_error": float(exact.error.mean()),
        "captum_blocks_run": len(case.compared),
        "captum_error_at_64": checked,
        "captum_law": {str(s): s * e for s, e in errors.items()},
        "captum_seconds_per_step": per_step,
        "peak_bytes_ours": peak_bytes(lambda: ours(case, points), device),
        "peak_bytes_captum": peak_bytes(lambda: captum(case, CHECK, blocks=1), device),
        "peak_bytes_floor": peak_bytes(lambda: floor(case, points, 52), device),
        "at_equal_error": found,
        "throughput": many,
    }


def _timed_captum(case: Case, steps: int, true: Sequence[FloatArray], repeats: int) -> tuple[float, float]:
    kept: list[list[FloatArray]] = []
    (seconds,) = seconds_of([lambda: kept.append(captum(case, steps))], case.images.device, repeats)
    return error_of(kept[-1], true), seconds


def steps_for(limit: float, checked: float, errors: Mapping[int, float]) -> int:
    """Captum's steps for ``limit`` from its error at CHECK steps and its measured convergence ``errors``."""
    if len(errors) < 2:
        return round(CHECK * checked / limit)
    steps = np.array(sorted(errors))
    logs = np.log([errors[s] / errors[CHECK] * checked for s in steps.tolist()])
    if limit < np.exp(logs[-1]):
        return round(float(steps[-1] * np.exp(logs[-1]) / limit))
    return round(float(np.exp(np.interp(-np.log(limit), -logs, np.log(steps)))))


def _at(case: Case, limit: float, true: Sequence[FloatArray], repeats: int) -> dict[str, Json]:
    """Ours and the floor at the fewest points that reach ``limit``, and ours when it looks for the points itself."""
    device = case.images.device
    errors = _fewest(case, limit, true)
    points = max(errors)

    def free() -> object:
        return conductance(
            case.visual, case.images, scalar=case.scalar, error=limit, max_points=257, blocks=case.blocks
        )

    kept = conductance(
        case.visual, case.images, scalar=case.scalar, error=limit, max_points=257, blocks=case.blocks, neurons=True
    )
    assert kept.neurons is not None  # noqa: S101 - asked for
    (auto,) = seconds_of([free], device, repeats) if case.name in MINI else [float("nan")]
    return {
        "error_wanted": limit,
        "error": errors[points],
        "points": points,
        "error_by_points": {str(tried): error for tried, error in errors.items()},
        **_against_floor(case, points, 2 * repeats if case.name in MINI else repeats),
        "auto_points": float(kept.points.mean()),
        "auto_error": error_of([kept.neurons[i] for i in case.compared], true),
        "auto_estimate": float(kept.error.mean()),
        "auto_seconds": None if np.isnan(auto) else auto,
    }


def _against_floor(case: Case, points: int, repeats: int) -> dict[str, Json]:
    """Seconds of ours and of the floor at ``points``."""
    rows = len(case.images) * points
    most = rows if case.name in MINI else min(rows, 52)  # 52 rows of RN50 take 5 GB
    batches = sorted({r for r in (26, 52, 104, 208) if r < most} | {most})
    works: list[Callable[[], object]] = [lambda: ours(case, points)]
    works += [
        lambda r=r, o=o: floor(case, points, r, o)  # type: ignore[misc] # binds r and o now
        for r in batches
        for o in (torch.contiguous_format, torch.channels_last)
    ]
    ours(case, points)
    mine, *floors = seconds_of(works, case.images.device, repeats)
    return {
        "images": len(case.images),
        "seconds": mine,
        "floor_seconds": min(floors),
        "floor_seconds_channels_first": min(floors[::2]),
        "floor_seconds_channels_last": min(floors[1::2]),
        "fraction_of_floor": min(floors) / mine,
    }


def _fewest(case: Case, limit: float, true: Sequence[FloatArray]) -> dict[int, float]:
    """Errors by points, up to the fewest points that reach ``limit``."""
    errors: dict[int, float] = {}
    for points in POINTS:
        found = ours(case, points, neurons=True).neurons
        assert found is not None  # noqa: S101 - asked for
        errors[points] = error_of([found[i] for i in case.compared], true)
        if errors[points] <= limit:
            break
    return errors


def growth(case: Case, repeats: int) -> dict[str, Json]:
    """Seconds against blocks (always with the first one, so that passes are equal), images, points, Captum's steps."""
    names, n = case.blocks, len(case.images)

    def some(count: int) -> Callable[[], object]:
        chosen = (names[0], *names[len(names) - count + 1 :])
        return lambda: conductance(
            case.visual, case.images, scalar=case.scalar, points=9, integrator=case.integrator, blocks=chosen
        )

    works: dict[tuple[str, int], Callable[[], object]] = {
        **{("blocks", k): some(k) for k in sorted({1, len(names) // 2, len(names)})},
        **{("images", k): (lambda k=k: ours(case, 9, count=k)) for k in sorted({max(1, n // 4), max(1, n // 2), n})},  # type: ignore[misc] # binds k now
        **{("points", p): (lambda p=p: ours(case, p)) for p in (5, 9, 17, 33)},  # type: ignore[misc] # likewise
        **{("captum_steps", s): (lambda s=s: captum(case, s, blocks=1)) for s in (8, 16, 32)},  # type: ignore[misc] # likewise
    }
    seconds = seconds_of(list(works.values()), case.images.device, repeats)
    table: dict[str, Json] = {}
    for (what, size), value in zip(works, seconds, strict=True):
        part = table.setdefault(what, {})
        assert isinstance(part, dict)  # noqa: S101 - made in the line above
        part[str(size)] = value
    return table


def _machine(device: torch.device) -> dict[str, Json]:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": device.type, "name": card, "threads": torch.get_num_threads(), "torch": torch.__version__}


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = command_line(__doc__, quick="two mini-zoo towers, one repeat")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a machine that others use")
    parser.add_argument("--threads", type=int, help="of torch on the CPU")
    parser.add_argument("--towers", nargs="+", choices=MINI + LARGE)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Captum and timm speak of their own deprecations
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.clock == "cpu":
        _CLOCK[0] = time.process_time
    device = pick_device(options.device)
    repeats = 1 if options.quick else 3
    kept = json.loads(options.write.read_text("utf-8")) if options.write is not None and options.write.exists() else {}
    results: dict[str, Json] = kept.get("towers", {})
    grown: dict[str, Json] = kept.get("growth", {})
    for name in options.towers or (MINI[:2] if options.quick else MINI + LARGE):
        mini = name in MINI
        case = make_case(name, 2 if options.quick else 8 if mini else 1, device)
        wanted = (0.01, 0.001) if case.smooth else (0.01,) if mini else (None,)
        results[name] = compare(case, wanted, repeats=repeats, law=LAW if mini and not options.quick else ())
        if name in MINI[:1] or (not options.quick and name == "ViT-B-32"):
            grown[name] = growth(case, 1 if name in LARGE else repeats)
        print(name, json.dumps(results[name]), flush=True)
        report: dict[str, Json] = {
            "benchmark": "conductance",
            "quick": options.quick,
            "clock": options.clock,
            "machine": _machine(device),
            "speedup_equal_error": _column(results, "speedup_equal_error"),
            "fraction_of_floor": _column(results, "fraction_of_floor"),
            f"fraction_of_floor_{MANY}_images": _throughput(results),
            "towers": results,
            "growth": grown,
        }
        if options.write is not None:  # also what is done so far: the rest takes long
            options.write.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(json.dumps(report))


def _throughput(results: dict[str, Json]) -> dict[str, Json]:
    """Fraction of the floor of every large tower on many images."""
    many = {name: result.get("throughput") for name, result in results.items() if isinstance(result, dict)}
    return {name: line["fraction_of_floor"] for name, line in many.items() if isinstance(line, dict)}


def _column(results: dict[str, Json], key: str) -> dict[str, Json]:
    """``key`` of every tower: at the largest wanted error under the tower's name, at others as name@error."""
    column: dict[str, Json] = {}
    for name, result in results.items():
        assert isinstance(result, dict)  # noqa: S101 - made by compare
        lines = result["at_equal_error"]
        assert isinstance(lines, list)  # noqa: S101 - likewise
        for index, line in enumerate(lines):
            assert isinstance(line, dict)  # noqa: S101 - likewise
            column[name if index == 0 else f"{name}@{line['error_wanted']}"] = line[key]
    column["median"] = statistics.median(float(str(v)) for v in column.values())
    return column


if __name__ == "__main__":
    main()
