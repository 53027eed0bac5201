"""QUESTION: How good is a model without any label, on tasks that are left out of the library?

PAGE: docs/results/without-labels.md
RESULT: benchmarks/results/without-labels.json

    python -m benchmarks.labels.without_labels TASKS --write benchmarks/results/without-labels.json
    python -m benchmarks.labels.without_labels TASKS --quick

Each task's training images, at most 1,000 (--images), are taken for unlabelled ones; accuracy is that on its test
images, of which no task has more than 1,000. The ranking is that of `vlmsel_auto.rank` without labels, with the
conductance that the library has of it.
Rows: the best single zero-shot candidate in hindsight, the one that ranks first, the pool that ships, other pools, and
adaptations to the unlabelled images (`without_labels_adapt`). Two ceilings know the labels of the unlabelled images:
the candidate that is best on these, and the pool of the five that are. Beside each row stands the paired difference to
the best in hindsight and to the pool, with 95 % intervals over tasks, and on how many tasks it is above the best in
hindsight.

Settings: the tasks' own templates; one plain template for all; own templates and skewed classes (unlabelled and test
images are thinned out so that the rarest class is a tenth as frequent as the first); a third of the classes alone
(at least two) where there are four or more; 60 unlabelled images; candidates that were not trained on the domain, where
there are six (`fresh_targets`). Embeddings are kept in --cache. --quick takes six tasks and the first setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import change, command_line, folders, print_head, print_row, told_change, write_json
from benchmarks.labels.without_labels_adapt import Views, log_loss, methods, pooled
from benchmarks.tuning.fresh_targets import far_candidates
from vlmsel_auto.cache import Store, default_cache_dir
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import Embeddings, embed
from vlmsel_auto.pipeline.without_labels import shares_of_leaders
from vlmsel_auto.ranking.measurement import Measurement
from vlmsel_auto.ranking.ranking import rank_candidates
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranks import error_correlation
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Ranking
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tasks.templates import DEFAULT_TEMPLATES

UNLABELLED, TESTED = 1_000, 1_000  # images at most
_RAREST = 0.1
_FEW = 60  # unlabelled images of a small folder
_MANY_CLASSES, _LEAST_FAR = 4, 6
_POOLED = 0.05  # accuracy that costs a member of the ceiling's pool a factor of e
SAME_IMAGES = {"mnist": "optical_digits", "optical_digits": "mnist"}  # tasks that are no strangers to each other


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One task as all candidates see it."""

    name: str
    n_classes: int
    seen: Sequence[Embeddings]  # of unlabelled and then test images, by candidate
    unlabelled: IntArray  # (n,) labels, for skewing only
    test: IntArray  # (t,) labels

    def measured(self, library: Library, candidates: Sequence[Candidate]) -> list[Measurement]:
        """What looks at the unlabelled images would find, with the library's conductance of the task."""
        n = len(self.unlabelled)
        return [
            measurement(one, replace(seen, images=seen.images[:n]), library=library, task=self.name)
            for one, seen in zip(candidates, self.seen, strict=True)
        ]

    def views(self) -> Views:
        """Rows of unit length."""
        n = len(self.unlabelled)
        images = [unit_rows(one.images.astype(np.float64)) for one in self.seen]
        return Views(
            unlabelled=[one[:n] for one in images],
            test=[one[n:] for one in images],
            texts=[unit_rows(one.text.astype(np.float64)) for one in self.seen],
        )

    def skewed(self) -> Scene:
        """With classes that are 1 to .1 as frequent, in an order drawn once."""
        rng = np.random.default_rng(3)
        shares = _RAREST ** (np.arange(self.n_classes) / max(self.n_classes - 1, 1))
        shares = shares[rng.permutation(self.n_classes)]
        return self._only(*(np.flatnonzero(rng.random(len(y)) < shares[y]) for y in (self.unlabelled, self.test)))

    def of_few_classes(self) -> Scene:
        """With images of a third of the classes, drawn once; all are named."""
        there = np.random.default_rng(3).permutation(self.n_classes)[: max(2, self.n_classes // 3)]
        return self._only(*(np.flatnonzero(np.isin(y, there)) for y in (self.unlabelled, self.test)))

    def small(self) -> Scene:
        """With few unlabelled images."""
        few = np.random.default_rng(3).permutation(len(self.unlabelled))[:_FEW]
        return self._only(np.sort(few), np.arange(len(self.test)))

    def by(self, places: Sequence[int]) -> Scene:
        """As some of the candidates see it."""
        return replace(self, seen=[self.seen[m] for m in places])

    def _only(self, unlabelled: IntArray, test: IntArray) -> Scene:
        rows = np.concatenate([unlabelled, len(self.unlabelled) + test])
        seen = [replace(one, at=one.at[rows], images=one.images[rows]) for one in self.seen]
        return replace(self, seen=seen, unlabelled=self.unlabelled[unlabelled], test=self.test[test])


def measurement(candidate: Candidate, seen: Embeddings, *, library: Library, task: str) -> Measurement:
    """What a screening would find: embeddings, with the conductance that the library has of the task."""
    found = Measurement(
        candidate=candidate.id,
        features=seen.images.astype(np.float64),
        text_features=seen.text.astype(np.float64),
        baseline=seen.baseline.astype(np.float64),
    )
    known = library.cell(candidate.id, task) if task in library.task_names else None
    if known is None:
        return found
    blocks = library.candidates[library.row(candidate.id)].blocks
    return replace(found, total=known.total, activity=known.activity, blocks=blocks)


def scene(
    path: Path,
    candidates: Sequence[Candidate],
    *,
    cache: Path,
    templates: Sequence[str] | None,
    images: int = UNLABELLED,
) -> Scene:
    """Embed a task, or find it in ``cache``."""
    task = load_task(path, workdir=cache)
    rng, store = np.random.default_rng(1), Store(cache / "targets")
    unlabelled = np.sort(rng.permutation(np.concatenate([task.train, task.val]))[:images])
    test = np.sort(rng.permutation(task.test)[:TESTED])
    at = np.concatenate([unlabelled, test])
    seen = [embed(one, task, at, load=partial(zoo.load, one), store=store) for one in candidates]
    if templates is not None:
        texts = [zoo.load(one).text_features(task.prompts, templates).numpy() for one in candidates]
        seen = [replace(one, text=text) for one, text in zip(seen, texts, strict=True)]
    return Scene(
        name=task.name,
        n_classes=task.n_classes,
        seen=seen,
        unlabelled=task.labels[unlabelled],
        test=task.labels[test],
    )


def others(library: Library, name: str) -> Library:
    """The library without a task and without what shows the same."""
    return library.select_tasks([one for one in library.task_names if one not in {name, SAME_IMAGES.get(name)}])


def ranked(one: Scene, library: Library, candidates: Sequence[Candidate]) -> tuple[Ranking, list[Measurement]]:
    """The ranking without labels, and what it was made from."""
    targets = one.measured(library, candidates)
    ranking = rank_candidates(
        task=one.name,
        targets=targets,
        library=others(library, one.name),
        truth="zero_shot",
        correlation=error_correlation(candidates),
    )
    return ranking, targets


def evaluate(
    one: Scene, library: Library, candidates: Sequence[Candidate]
) -> tuple[dict[str, float], dict[str, float]]:
    """Accuracy of every method on the test images, and log loss of the two that ship."""
    ranking, targets = ranked(one, library, candidates)
    place = {candidate.id: m for m, candidate in enumerate(candidates)}
    views = one.views()
    shares = shares_of_leaders(ranking, targets, size=5, fits=lambda _: True)
    everyone = {place[line.candidate]: line.p_best for line in ranking.ranked if line.p_best > 0}
    found = methods(
        views,
        first=place[ranking.order[0]],
        leaders={place[share.candidate]: share.weight for share in shares},
        everyone=everyone,
    )
    found |= _ceilings(views, one.unlabelled)
    single = accuracy_of_each(views.test, views.texts, one.test)
    accuracies = {name: float(np.mean(logits.argmax(axis=1) == one.test)) for name, logits in found.items()}
    first = one.seen[place[ranking.order[0]]]
    native = first.logit_scale * views.test[place[ranking.order[0]]] @ views.texts[place[ranking.order[0]]].T
    losses = {name: log_loss(found[name], one.test) for name in ("ranked first", "pool")}
    losses["ranked first, its own logit scale"] = log_loss(native, one.test)
    return {"best in hindsight": float(single.max()), **accuracies}, losses


def right_answers(images: Sequence[FloatArray], texts: Sequence[FloatArray], labels: IntArray) -> NDArray[np.bool_]:
    """Whether (M, n) each candidate is right on an image, from rows of unit length of images (n, D), texts (K, D)."""
    return np.stack([(x @ w.T).argmax(axis=1) == labels for x, w in zip(images, texts, strict=True)])


def accuracy_of_each(images: Sequence[FloatArray], texts: Sequence[FloatArray], labels: IntArray) -> FloatArray:
    """Zero-shot accuracies (M,) of the candidates, from the same."""
    return np.asarray(right_answers(images, texts, labels).mean(axis=1), dtype=np.float64)


def _ceilings(views: Views, labels: IntArray) -> dict[str, FloatArray]:
    """Test logits (t, K) of what the labels (n,) of the unlabelled images would choose."""
    right = accuracy_of_each(views.unlabelled, views.texts, labels)
    best = [int(m) for m in np.argsort(-right, kind="stable")[:5]]
    weights = {m: float(np.exp((right[m] - right[best[0]]) / _POOLED)) for m in best}
    return {
        "ceiling: best by all labels": pooled(views, {best[0]: 1.0})[1],
        "ceiling: pool of the five best by all labels": pooled(views, weights)[1],
    }


def table(title: str, rows: Mapping[str, FloatArray]) -> list[dict[str, object]]:
    """Print one setting; ``rows`` are accuracies (tasks,)."""
    best, pool = rows["best in hindsight"], rows["pool"]
    print(f"\n{title}: {len(best)} tasks\n")
    against = {"best in hindsight": best, "pool": pool}
    print_head("model", "accuracy", *(f"minus {each}, points, 95 %" for each in against), "above the best on")
    content: list[dict[str, object]] = []
    for name, values in rows.items():
        gaps = [100 * (values - each) for each in against.values()]
        cells = [change(each, digits=2) for each in gaps]
        above = int((values > best).sum())
        print_row(name, f"{100 * values.mean():.1f}", *(told_change(each, digits=1) for each in gaps), above)
        content.append(
            {"model": name, "accuracy": round(float(values.mean()), 4), "minus_best": cells[0], "minus_pool": cells[1],
             "above_best": above, "tasks": len(best)}
        )  # fmt: skip
    return content


def _far(one: Scene) -> tuple[Scene, tuple[Candidate, ...]] | None:
    """As candidates see the task that were not trained on its domain; None: they are few."""
    far = far_candidates(one.name)
    everyone = mini_zoo()
    return (one.by([everyone.index(each) for each in far]), far) if len(far) >= _LEAST_FAR else None


def main() -> None:
    """Command line."""
    parser = command_line(__doc__, quick="six tasks, own templates")
    parser.add_argument("tasks", type=Path, help="folder of task folders")
    parser.add_argument("--cache", type=Path, default=default_cache_dir() / "without-labels")
    parser.add_argument(
        "--images", type=int, default=UNLABELLED, help="unlabelled ones of a task; default: %(default)s"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    candidates, library = mini_zoo(), default_library()
    paths = [each for each in folders(args.tasks) if each.name in library.task_names][:: 5 if args.quick else 1]
    load = partial(scene, candidates=candidates, cache=args.cache, images=args.images)
    own = [load(each, templates=None) for each in paths]
    settings = {"own templates": [(each, candidates) for each in own]}
    if not args.quick:
        plain = [load(each, templates=DEFAULT_TEMPLATES) for each in paths]
        settings["one plain template"] = [(each, candidates) for each in plain]
        settings["skewed classes"] = [(each.skewed(), candidates) for each in own]
        many = [each for each in own if each.n_classes >= _MANY_CLASSES]
        settings["a third of the classes"] = [(each.of_few_classes(), candidates) for each in many]
        settings["few images"] = [(each.small(), candidates) for each in own]
        settings["far candidates"] = [strangers for each in own if (strangers := _far(each)) is not None]
    content: dict[str, dict[str, object]] = {}
    shipped: dict[str, dict[str, object]] = {}
    for title, scenes in settings.items():
        found = [evaluate(each, library, those) for each, those in scenes]
        rows = {name: np.array([accuracies[name] for accuracies, _ in found]) for name in found[0][0]}
        losses = {name: round(float(np.mean([each[name] for _, each in found])), 3) for name in found[0][1]}
        lines = table(title, rows)
        content[title] = {"rows": lines, "log_loss": losses}
        shipped[title] = {str(line["model"]): line["accuracy"] for line in lines[:3]}
        print("log loss, nats:", json.dumps(losses))
    write_json(args.write, content)
    print(json.dumps({"without_labels": shipped}))


if __name__ == "__main__":
    main()
