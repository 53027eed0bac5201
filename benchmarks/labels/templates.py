"""What the choice of prompt templates without labels is worth: the mini zoo on tasks that are left out in turn.

    python -m benchmarks.labels.templates TASKS --write benchmarks/results/templates.json
    python -m benchmarks.labels.templates TASKS --quick

Images, ranking and pool as in `without_labels`; what changes is the templates that class names are spoken in. Rows: the
plain one; averages of the whole bank and of open_clip's seven for ImageNet; the choice that ships (the best agreement
of all candidates among templates that lie nearer to these images than to other pictures), by eight candidates (three
draws) and by 100 images; either of its halves alone; the largest margin of predictions; the best of the bank on test,
in hindsight; the task's own. "Others'": the bank is the own templates of all other tasks, which nobody chose with these
tasks in view. Beside each row stands the difference to the plain template with 95 % intervals over tasks, and on how
many tasks the pool is above a single candidate: the one that is best on the test images, in the row's templates and in
the plain one, and the one that labels of all unlabelled images would choose.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray

from benchmarks.common import change
from benchmarks.labels.without_labels import (
    SAME_IMAGES,
    Scene,
    accuracy_of_each,
    command_line,
    ranked,
    scene,
    task_paths,
)
from vlmsel_auto.cache import Store
from vlmsel_auto.library.places import default_library
from vlmsel_auto.library.records import Library
from vlmsel_auto.measuring.wording import Wording, mean_text, wording
from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.pipeline.without_labels import shares_of_leaders
from vlmsel_auto.ranking.evidence.consensus import likeness
from vlmsel_auto.ranking.evidence.zeroshot import top2_margin
from vlmsel_auto.ranking.scaling import unit_rows
from vlmsel_auto.ranking.templates import Heard, agreed_templates, agreement, choose_by_agreement, nearness, voters
from vlmsel_auto.records import Candidate
from vlmsel_auto.tasks.task import load_task
from vlmsel_auto.tasks.templates import BANK

_SEVEN = tuple(template("{}") for template in open_clip.SIMPLE_IMAGENET_TEMPLATES)
_DRAWS, _FEW = 3, 8
SHIPS = "chosen (ships)"
_BEST = 3  # templates that the other rules average


@dataclass(frozen=True, kw_only=True, eq=False)
class Spoken:
    """One task, and its class names in templates."""

    seen: Scene
    own: tuple[str, ...]
    words: Sequence[Wording]  # by candidate, of all templates that any row uses
    templates: tuple[str, ...]

    def captions(self, templates: Sequence[str]) -> list[NDArray[np.float32]]:
        """Class names (T, K, D) by candidate, in some of the templates."""
        at = [self.templates.index(one) for one in templates]
        return [one.captions[at] for one in self.words]

    def heard(self, templates: Sequence[str], *, count: int | None = None) -> list[Heard]:
        """What candidates make of the unlabelled images, or of so many, and of the templates."""
        rows = np.sort(np.random.default_rng(5).permutation(len(self.seen.unlabelled))[:count])
        return [
            Heard(
                images=unit_rows(seen.images[rows].astype(np.float64)),
                elsewhere=said.elsewhere.astype(np.float64),
                captions=captions,
            )
            for seen, said, captions in zip(self.seen.seen, self.words, self.captions(templates), strict=True)
        ]


def accuracies(
    one: Spoken, templates: Sequence[str], *, library: Library, candidates: Sequence[Candidate]
) -> tuple[float, float, float, float]:
    """Test accuracy of the model that ranks first, of the pool, and of two candidates that labels choose.

    Those are the best by the test images themselves, and the best by the labels of all unlabelled ones.
    """
    texts = [mean_text(captions) for captions in one.captions(templates)]
    spoken = replace(one.seen, seen=[replace(seen, text=text) for seen, text in zip(one.seen.seen, texts, strict=True)])
    ranking, targets = ranked(spoken, library, candidates)
    place = {candidate.id: m for m, candidate in enumerate(candidates)}
    views = spoken.views()
    cosines = [x @ w.T for x, w in zip(views.test, views.texts, strict=True)]
    pool = np.zeros_like(cosines[0])
    for share in shares_of_leaders(ranking, targets, size=5, fits=lambda _: True):
        m = place[share.candidate]
        seen = views.unlabelled[m] @ views.texts[m].T
        pool += share.weight * cosines[m] / max(float(np.std(seen - seen.mean(axis=0))), 1e-12)
    right = accuracy_of_each(views.test, views.texts, one.seen.test)
    pooled = float(np.mean(pool.argmax(axis=1) == one.seen.test))
    learned = accuracy_of_each(views.unlabelled, views.texts, one.seen.unlabelled)
    return float(right[place[ranking.order[0]]]), pooled, float(right.max()), float(right[learned.argmax()])


def chosen(heard: Sequence[Heard], bank: Sequence[str]) -> list[str]:
    """What ships."""
    return [bank[place] for place in choose_by_agreement(heard).places]


def by_agreement_alone(heard: Sequence[Heard], bank: Sequence[str]) -> list[str]:
    """The same without asking what the texts are near to."""
    plain = [one.images @ one.captions[0].T for one in heard]
    weights = voters(np.array([top2_margin(one) for one in plain]), likeness(plain))
    found = []
    for place in range(len(bank)):
        named = np.stack([(one.images @ one.captions[place].T).argmax(axis=1) for one in heard])
        found.append(agreement(named, weights, n_classes=plain[0].shape[1]))
    return [bank[place] for place in agreed_templates(found)]


def by_nearness_alone(heard: Sequence[Heard], bank: Sequence[str]) -> list[str]:
    """The templates whose texts are nearest to the images, compared with other pictures."""
    return [bank[place] for place in np.argsort(-np.mean([nearness(one) for one in heard], axis=0))[:_BEST]]


def by_margin(heard: Sequence[Heard], bank: Sequence[str]) -> list[str]:
    """The templates in which candidates decide most clearly, over the spread of their cosines."""
    scores = np.zeros(len(bank))
    for one in heard:
        cosines = [one.images @ each.T for each in one.captions]
        spread = np.mean([np.std(each - each.mean(axis=0)) for each in cosines])
        scores += np.array([top2_margin(each) for each in cosines]) / spread
    return [bank[place] for place in np.argsort(-scores)[:_BEST]]


def in_hindsight(one: Spoken, bank: Sequence[str]) -> list[str]:
    """The template in which candidates are right most often on test."""
    n = len(one.seen.unlabelled)
    tests = [unit_rows(seen.images[n:].astype(np.float64)) for seen in one.seen.seen]
    right = np.zeros(len(bank))
    for x, captions in zip(tests, one.captions(bank), strict=True):
        right += [np.mean((x @ each.T).argmax(axis=1) == one.seen.test) for each in captions]
    return [bank[int(np.argmax(right))]]


def rows_of(one: Spoken, everyone: Sequence[Spoken]) -> dict[str, list[list[str]]]:
    """Templates by row; several lists are draws, whose accuracies are averaged."""
    near = {one.seen.name, SAME_IMAGES.get(one.seen.name)}
    strange = [each.own for each in everyone if each.seen.name not in near]
    foreign = tuple(dict.fromkeys([BANK[0], *(template for own in strange for template in own)]))
    heard, others = one.heard(BANK), one.heard(foreign)
    rng = np.random.default_rng(7)
    eight = [rng.permutation(len(heard))[:_FEW] for _ in range(_DRAWS)]
    return {
        "plain": [[BANK[0]]],
        "mean of the bank": [list(BANK)],
        "mean of open_clip's seven": [list(_SEVEN)],
        SHIPS: [chosen(heard, BANK)],
        "chosen by 100 images": [chosen(one.heard(BANK, count=100), BANK)],
        "chosen by eight candidates": [chosen([heard[m] for m in np.sort(few)], BANK) for few in eight],
        "agreement alone": [by_agreement_alone(heard, BANK)],
        "nearness alone": [by_nearness_alone(heard, BANK)],
        "margin": [by_margin(heard, BANK)],
        "chosen of others'": [chosen(others, foreign)],
        "agreement alone, others'": [by_agreement_alone(others, foreign)],
        "nearness alone, others'": [by_nearness_alone(others, foreign)],
        "best in hindsight": [in_hindsight(one, BANK)],
        "own": [list(one.own)],
    }


def load(
    path: Path, models: Sequence[LoadedModel], *, cache: Path, templates: Sequence[str], own: tuple[str, ...]
) -> Spoken:
    """Embed a task's images and its class names, or find them in ``cache``."""
    task, store = load_task(path, workdir=cache), Store(cache / "targets")

    def words(model: LoadedModel) -> Wording:
        return wording(model.candidate, task.prompts, templates, load=lambda: model, store=store)

    seen = scene(path, [each.candidate for each in models], cache=cache, templates=None)
    return Spoken(seen=seen, own=own, words=[words(each) for each in models], templates=tuple(templates))


def main() -> None:
    """Command line."""
    args = command_line(__doc__, quick="six tasks").parse_args()
    torch.set_num_threads(1)
    candidates, library = mini_zoo(), default_library()
    models = [zoo.load(one) for one in candidates]
    paths = task_paths(args.tasks, library, quick=args.quick)
    owns = {path: load_task(path, workdir=args.cache).templates for path in paths}
    templates = tuple(dict.fromkeys([*BANK, *_SEVEN, *(each for own in owns.values() for each in own)]))
    everyone = [load(path, models, cache=args.cache, templates=templates, own=own) for path, own in owns.items()]
    found: dict[str, list[tuple[float, float, float, float]]] = {}
    shipped: dict[str, list[str]] = {}
    for one in everyone:
        for row, lists in rows_of(one, everyone).items():
            each = [accuracies(one, words, library=library, candidates=candidates) for words in lists]
            first, pool, best, labelled = np.mean(each, axis=0).tolist()
            found.setdefault(row, []).append((first, pool, best, labelled))
            if row == SHIPS:
                shipped[one.seen.name] = lists[0]
                print(one.seen.name, ", ".join(lists[0]), flush=True)
    rows = table(found)
    if args.write is not None:
        args.write.write_text(json.dumps({"rows": rows, "chosen": shipped}, indent=1) + "\n", "utf-8")
    print(json.dumps({"templates": {str(row["templates"]): row["pool"] for row in rows}}))


def table(found: Mapping[str, Sequence[tuple[float, float, float, float]]]) -> list[dict[str, object]]:
    """Print the rows, accuracies (tasks, 4) from `accuracies`."""
    print(
        "\n| templates | ranked first | minus plain | pool | minus plain | worst task | tasks better, worse | "
        "best in hindsight | best by labels | pool above the one, in the plain template, above the other |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows: list[dict[str, object]] = []
    plain = 100 * np.array(found["plain"])
    for row, values in found.items():
        table = 100 * np.array(values)
        first, pool, best, labelled = table.mean(axis=0).round(2).tolist()
        above, above_plain = int((table[:, 1] > table[:, 2]).sum()), int((table[:, 1] > plain[:, 2]).sum())
        above_labelled = int((table[:, 1] > table[:, 3]).sum())
        gains = table - plain
        changes = [change(gains[:, k], digits=2) for k in (0, 1)]
        shown = [f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]" for mean, low, high in changes]
        worst, better, worse = float(gains[:, 1].min()), int((gains[:, 1] > 1).sum()), int((gains[:, 1] < -1).sum())
        print(
            f"| {row} | {first:.1f} | {shown[0]} | {pool:.1f} | {shown[1]} | {worst:+.1f} | {better}, {worse} | "
            f"{best:.1f} | {labelled:.1f} | {above}, {above_plain}, {above_labelled} |"
        )
        rows.append(
            {"templates": row, "first": first, "first_minus_plain": changes[0], "pool": pool,
             "pool_minus_plain": changes[1], "worst": round(worst, 2), "better": better, "worse": worse, "best": best,
             "above_best": above, "above_best_in_plain": above_plain, "best_by_labels": labelled,
             "above_best_by_labels": above_labelled}
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    main()
