"""QUESTION: What do copies, screenings of others and the number of images change in a ranking without labels?

PAGE: docs/results/without-labels.md
RESULT: benchmarks/results/without-labels-signals.json

    python -m benchmarks.labels.without_labels_signals TASKS --write benchmarks/results/without-labels-signals.json

The mini zoo on tasks that are left out of the library in turn; truth is zero-shot accuracy. Four tables:

- images: NDCG@5, tau-b and top-1 loss of the ranking by the number of unlabelled images.
- copies: the ranking with every member named three times, and with ten copies of a poor member, against the ranking of
  the zoo as it is: Kendall's tau of both rankings and of both consensus signals, with and without `likeness`.
- screenings: points lost by the best of those loaded after 3, 5 and 10 loads, when screenings tell nothing of the
  others (as it ships), a consensus calibrated on the other tasks, or the true accuracy.
- images beside figures of other tasks, for candidates that no library knows: NDCG@5, tau-b and top-1 loss by the share
  that unlabelled images have.

Embeddings are those that `without_labels.py` keeps in --cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from benchmarks.common import change
from benchmarks.labels.without_labels import Scene, command_line, others, scene, task_paths
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.planning.outlook import Screening
from vlmsel_auto.planning.scenarios import learn_scenarios
from vlmsel_auto.planning.screening import next_screening
from vlmsel_auto.ranking import ranking as ranking_module
from vlmsel_auto.ranking.agreement import ndcg, tau_b, top_k_loss
from vlmsel_auto.ranking.evidence.consensus import consensus, likeness
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.scaling import standardise
from vlmsel_auto.ranking.signals import CONSENSUS, TOP2_MARGIN, label_free_signals
from vlmsel_auto.ranking.sources import image_signal
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, FloatArray

_IMAGES = (20, 40, 80, 160, 400, 1000)
_LOADS = (3, 5, 10)
_POOR = 3  # place from the end of the member that is copied ten times
_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def _ranked(
    one: Scene, targets: Sequence[Measurement], candidates: Sequence[Candidate], library: Library | None, n: int
) -> tuple[FloatArray, FloatArray]:
    """Scores and consensus of the first n candidates."""
    ranking = rank_candidates(
        task=one.name,
        targets=targets,
        library=library,
        truth="zero_shot",
        correlation=error_correlation(candidates),
    )
    lines = {line.candidate: line for line in ranking.ranked}
    first = [lines[target.candidate] for target in targets[:n]]
    return np.array([each.score for each in first]), np.array([each.signals[CONSENSUS] for each in first])


def numbers(scenes: Sequence[Scene], library: Library, candidates: Sequence[Candidate]) -> dict[str, list[float]]:
    """NDCG@5, tau-b and top-1 loss by the number of images."""
    rows: dict[str, list[float]] = {}
    for images in _IMAGES:
        found = []
        for one in scenes:
            targets = one.measured(library, candidates, images=images)
            score, _ = _ranked(one, targets, candidates, others(library, one.name), len(candidates))
            found.append(_agreement(score, library.zero_shot[:, library.column(one.name)]))
        rows[str(images)] = [round(float(each), 3) for each in np.mean(found, axis=0)]
        print(f"| {images} | {rows[str(images)][0]:.3f} | {rows[str(images)][1]:.3f} | {rows[str(images)][2]:.2f} |")
    return rows


def _agreement(score: FloatArray, truth: FloatArray) -> list[float]:
    return [ndcg(score, truth), tau_b(score, truth), 100 * top_k_loss(score, truth, k=1)]


def copies(scenes: Sequence[Scene], library: Library, candidates: Sequence[Candidate]) -> dict[str, list[float]]:
    """Tau of rankings and of consensus signals, with copies against without."""
    n = len(candidates)
    rows: dict[str, list[float]] = {}

    def strangers(cosines: Sequence[FloatArray]) -> FloatArray:
        return np.eye(len(cosines))

    forms: dict[str, Callable[[Sequence[FloatArray]], FloatArray]] = {"plain votes": strangers, "as it ships": likeness}
    for form, found_alike in forms.items():
        found = []
        with mock.patch.object(ranking_module, "likeness", found_alike):
            for one in scenes:
                targets, sources = one.measured(library, candidates), others(library, one.name)
                score, said = _ranked(one, targets, candidates, sources, n)
                truth = library.zero_shot[:, library.column(one.name)]
                poor = int(np.argsort(truth)[_POOR])
                line = [ndcg(score, truth), tau_b(score, truth)]
                for extra in ([*range(n)] * 2, [poor] * 10):
                    more = [replace(targets[m], candidate=f"{candidates[m].id}, copy {k}") for k, m in enumerate(extra)]
                    every = [*candidates, *(candidates[m] for m in extra)]
                    again, told = _ranked(one, [*targets, *more], every, sources, n)
                    line += [tau_b(score, again), tau_b(said, told)]
                found.append(line)
        rows[form] = [round(float(each), 3) for each in np.mean(found, axis=0)]
        print(f"| {form} | " + " | ".join(f"{each:.3f}" for each in rows[form]) + " |", flush=True)
    return rows


def _calibration(library: Library) -> tuple[float, float, float]:
    """Slope and intercept of zero-shot accuracy on consensus within tasks, and the error that is left."""
    signal = image_signal(library, CONSENSUS, range(len(library.candidates)))
    if signal is None:
        raise ValueError("the library has no predictions to compare, but they are what is calibrated")
    x, y = signal - signal.mean(axis=0), library.zero_shot - library.zero_shot.mean(axis=0)
    slope = float((x * y).sum() / (x**2).sum())
    return slope, float((library.zero_shot - slope * signal).mean()), float(np.std(y - slope * x))


def screenings(
    scenes: Sequence[Scene], library: Library, candidates: Sequence[Candidate]
) -> dict[str, list[list[float]]]:
    """Points lost after some loads by what screenings tell, and minus what is lost where they tell nothing."""
    lost: dict[str, list[FloatArray]] = {"nothing (as it ships)": [], "consensus": [], "true accuracy": []}
    for one in scenes:
        rest = others(library, one.name)
        scenarios, truth = learn_scenarios(rest.zero_shot), library.zero_shot[:, library.column(one.name)]
        slope, level, sd = _calibration(rest)
        shown = [target.embedded() for target in one.measured(library, candidates)]
        views = [each for each in shown if each is not None]
        margins = np.array([label_free_signals(each)[TOP2_MARGIN] for each in views])
        for told, curves in lost.items():
            seen: list[int] = []
            curve = []
            for _ in range(max(_LOADS)):
                made: list[Screening] = []
                if told == "true accuracy":
                    made = [Screening(candidate=m, accuracy=float(truth[m]), sd=0.0) for m in seen]
                elif told == "consensus" and len(seen) > 2:
                    share = consensus(
                        np.stack([views[m].predicted for m in seen]),
                        margins[seen],
                        n_classes=one.n_classes,
                        alike=likeness([views[m].cosine for m in seen]),
                    )
                    said = np.clip(level + slope * share, 0, 1)
                    made = [Screening(candidate=m, accuracy=float(a), sd=sd) for m, a in zip(seen, said, strict=True)]
                least = np.full(len(truth), -1.0)
                least[seen] = np.inf
                place = next_screening(scenarios, made, least=least)
                seen.append(int(least.argmin()) if place is None else place)
                curve.append(100 * (truth.max() - truth[seen].max()))
            curves.append(np.array(curve)[[k - 1 for k in _LOADS]])
    nothing = np.array(lost["nothing (as it ships)"])
    rows: dict[str, list[list[float]]] = {}
    for told, curves in lost.items():
        values, cells = np.array(curves), []
        for k in range(len(_LOADS)):
            gain = change(values[:, k] - nothing[:, k], digits=2)
            cells.append([round(float(values[:, k].mean()), 2), *gain])
        rows[told] = cells
        texts = [f"{mean:.2f} ({more:+.2f} [{low:+.2f}, {high:+.2f}])" for mean, more, low, high in cells]
        print(f"| {told} | " + " | ".join(texts) + " |", flush=True)
    return rows


def beside_figures(
    scenes: Sequence[Scene], library: Library, candidates: Sequence[Candidate]
) -> dict[str, list[float]]:
    """NDCG@5, tau-b and top-1 loss of figures of other tasks mixed with fixed weights of unlabelled images."""
    found: dict[float, list[list[float]]] = {share: [] for share in _SHARES}
    for one in scenes:
        figures = learn_scenarios(others(library, one.name).zero_shot).mean
        images, _ = _ranked(one, one.measured(library, candidates), candidates, None, len(candidates))
        truth = library.zero_shot[:, library.column(one.name)]
        for share in _SHARES:
            score = (1 - share) * standardise(figures) + share * standardise(images)
            found[share].append(_agreement(score, truth))
    rows = {str(share): [round(float(each), 3) for each in np.mean(lines, axis=0)] for share, lines in found.items()}
    for name, (gain, tau, loss) in rows.items():
        print(f"| {name} | {gain:.3f} | {tau:.3f} | {loss:.2f} |")
    return rows


def main() -> None:
    """Command line."""
    args = command_line(__doc__, quick=None).parse_args()
    torch.set_num_threads(1)
    candidates = mini_zoo()
    library = default_library().select([one.id for one in candidates])
    paths = task_paths(args.tasks, library)
    scenes = [scene(each, candidates, cache=args.cache, templates=None) for each in paths]
    print("| images | NDCG@5 | tau-b | top-1 loss |\n|---|---|---|---|")
    content: dict[str, object] = {"images": numbers(scenes, library, candidates)}
    print()
    print(
        "| votes | NDCG@5 | tau-b | three of each: tau of rankings | of consensus | ten of a poor one | of consensus |"
    )
    print("|---|---|---|---|---|---|---|")
    content["copies"] = copies(scenes, library, candidates)
    print(f"\n| a screening tells | {' | '.join(f'{k} loads' for k in _LOADS)} |\n|---|---|---|---|")
    content["screenings"] = screenings(scenes, library, candidates)
    print("\n| share of images | NDCG@5 | tau-b | top-1 loss |\n|---|---|---|---|")
    content["beside_figures"] = beside_figures(scenes, library, candidates)
    if args.write is not None:
        args.write.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    print(json.dumps({"without_labels_signals": content}))


if __name__ == "__main__":
    main()
