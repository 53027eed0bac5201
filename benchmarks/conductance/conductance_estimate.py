"""QUESTION: Is the error of conductance that the engine reports honest, and what do points and bfloat16 do?

PAGE: docs/results/conductance.md
RESULT: benchmarks/results/conductance-estimate.json

Every member of the mini zoo, photographs, the engine free to choose its points for a wanted error. True: mean over
blocks of sum |C - C*| / sum |C*| of each image against C* in float64 (conductance_cases.reference).

    python -m benchmarks.conductance.conductance_estimate --quick            three members, under a minute on two cores
    python -m benchmarks.conductance.conductance_estimate --write FILE.json  all of them
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch

from benchmarks.common import command_line, write_json
from benchmarks.conductance.conductance_cases import MINI, ZOO, Case, make_case, reference
from vlmsel_auto.conductance.layer import Conductance, Precision, conductance
from vlmsel_auto.conductance.quadrature import (
    Rule,
    chebyshev_points,
    differentiation_matrix,
    lagrange_mass,
    make_rule,
    trapezoid_matrix,
)
from vlmsel_auto.records import FloatArray

WANTED = (0.05, 0.01, 0.001)
WITHOUT_KINKS = "RN50"  # random weights without biases: linear but for its head
Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"


def found(case: Case, error: float) -> Conductance:
    """What the engine gives when it chooses the points itself."""
    return conductance(case.visual, case.images, scalar=case.scalar, error=error, max_points=257, neurons=True)


def true_errors(result: Conductance, exact: Conductance) -> FloatArray:
    """Error of each image (n,), mean over blocks."""
    assert result.neurons is not None  # noqa: S101 - asked for
    assert exact.neurons is not None  # noqa: S101 - likewise
    pairs = list(zip(result.neurons, exact.neurons, strict=True))
    return np.array(
        [np.mean([np.abs(a[i] - b[i]).sum() / np.abs(b[i]).sum() for a, b in pairs]) for i in range(len(result.error))]
    )


def line(results: Sequence[Conductance], trues: Sequence[FloatArray], wanted: float) -> dict[str, Json]:
    """Figures over all images of ``results``."""
    true, estimate = np.concatenate(trues), np.concatenate([r.error for r in results])
    ratio = true / estimate
    return {
        "images": len(true),
        "mean_points": float(np.concatenate([r.points for r in results]).mean()),
        "estimate_at_most_wanted": float((estimate <= wanted).mean()),
        "true_at_most_wanted": float((true <= wanted).mean()),
        "true_at_most_estimate": float((true <= estimate).mean()),
        "true_over_estimate": {
            name: float(np.quantile(ratio, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("worst", 1.0))
        },
        "true_over_wanted": {
            name: float(np.quantile(true / wanted, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("worst", 1.0))
        },
    }


def half(case: Case) -> dict[str, Json]:
    """Difference of bfloat16 passes at the same points, a neuron and a block's activity, where the class agrees."""
    points = int(found(case, 0.01).points.max())
    precisions: tuple[Precision, ...] = ("model", "bfloat16")
    full, rough = (
        conductance(case.visual, case.images, scalar=case.scalar, points=points, precision=p, neurons=True)
        for p in precisions
    )
    same = rough.target == full.target  # where rounding changes the predicted class, F is another function
    return {
        "points": points,
        "error": float(true_errors(rough, full)[same].mean()),
        "activity": float(np.abs(rough.activity / full.activity - 1)[same].mean()),
        "images_of_another_class": int((~same).sum()),
    }


def stretching(case: Case, exact: Conductance) -> dict[str, Json]:
    """Error at 9 points of the stretched path and of plain Chebyshev-Lobatto points."""
    nodes = chebyshev_points(8)
    plain = Rule(kind="spectral", points=nodes, matrix=lagrange_mass(nodes) @ differentiation_matrix(nodes))
    return _errors_of(case, exact, {"stretched": make_rule("spectral", 8), "plain": plain})


def grading(case: Case, exact: Conductance) -> dict[str, Json]:
    """Error at 65 points of the graded trapezoid, and of one at equidistant points and at squares of such."""
    even = np.linspace(0.0, 1.0, 65)
    own = {
        name: Rule(kind="trapezoid", points=at, matrix=trapezoid_matrix(65))
        for name, at in (("equidistant", even), ("squares", even**2))
    }
    return _errors_of(case, exact, {"graded": make_rule("trapezoid", 64), **own})


def _errors_of(case: Case, exact: Conductance, rules: Mapping[str, Rule]) -> dict[str, Json]:
    errors: dict[str, Json] = {}
    for name, rule in rules.items():
        result = conductance(
            case.visual, case.images, scalar=case.scalar, integrator=rule, blocks=case.blocks, neurons=True
        )
        errors[name] = float(true_errors(result, exact).mean())
    return errors


def main() -> None:
    """Measure and print; the last line is one JSON object."""
    parser = command_line(__doc__, quick="three members, two images")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # timm speaks of its own deprecations
    names = MINI if options.quick else tuple(sorted(p.name for p in ZOO.iterdir() if p.is_dir()))
    kept: dict[tuple[str, float], tuple[list[Conductance], list[FloatArray]]] = {}
    bfloat16: dict[str, Json] = {}
    stretched: dict[str, Json] = {}
    graded: dict[str, Json] = {}
    for name in names:
        case = make_case(name, 2 if options.quick else 6, torch.device("cpu"))
        exact = reference(case)
        for wanted in WANTED[: 3 if case.smooth else 2]:
            result = found(case, wanted)
            results, trues = kept.setdefault((str(case.integrator), wanted), ([], []))
            results.append(result)
            trues.append(true_errors(result, exact))
            print(name, wanted, result.points.tolist(), result.error.round(5), trues[-1].round(5), flush=True)
        bfloat16[name] = half(case)
        if case.smooth:
            stretched[name] = stretching(case, exact)
        else:
            graded[name] = grading(case, exact)
    if not options.quick:
        case = make_case(WITHOUT_KINKS, 1, torch.device("cpu"))
        graded[f"{WITHOUT_KINKS}, random weights"] = grading(case, reference(case))
    report: dict[str, Json] = {
        "benchmark": "conductance_estimate",
        "quick": options.quick,
        "towers": len(names),
        "estimates": {f"{kind} {wanted}": line(*both, wanted) for (kind, wanted), both in kept.items()},
        "bfloat16": bfloat16,
        "error_at_9_points": stretched,
        "error_at_65_points": graded,
    }
    write_json(options.write, report)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
