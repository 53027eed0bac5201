"""What a user would write without us, as rows of `final_accuracy`.

Twenty lines: embed the labelled images by all candidates, fit logistic regression (C = 10) on unit-norm embeddings,
choose the candidate by 4-fold cross-validated log loss. On the way the best zero-shot classifier is found too. Fifty
lines: go on and fine-tune the five best from their fitted heads on all labelled images with one fixed setting and no
validation (25 epochs, AdamW, one-cycle to 3e-4 and 9e-4, weight decay .05, batches of 32, label smoothing .05, shifts
by a tenth with reflected borders), and average their probabilities. The long lines do so with the ten best and 50
epochs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from torch import nn
from torch.nn import functional

from vlmsel_auto.models import zoo
from vlmsel_auto.models.candidates import mini_zoo
from vlmsel_auto.models.embedding import embed_images
from vlmsel_auto.models.loadedmodel import LoadedModel
from vlmsel_auto.records import Candidate, FloatArray, IntArray, Task

_FOLDS = 4
_MEMBERS = 5
LONG = (10, 50)  # candidates and epochs of the long lines


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Fixed settings of a bare training loop."""

    epochs: int = 25
    rate: float = 3e-4  # the head learns three times as fast
    batch: int = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What such a script could give after some seconds."""

    seconds: float  # since it began
    test: float  # accuracy in [0, 1]


@dataclass(frozen=True, kw_only=True, slots=True)
class PlainLines:
    """Outcome of both scripts on one target."""

    twenty: Step
    first_tuned: Step  # the leading candidate fine-tuned, alone
    zero_shot: Step  # of the candidate whose zero-shot classifier gets most labelled images right
    best_head: float  # accuracy of the best of the fitted heads on test, in hindsight
    fifty: tuple[Step, ...]  # mean of the first one, two ... fine-tuned candidates
    long: tuple[Step, ...] = ()  # likewise, of the long lines
    towers: tuple[float, ...] = ()  # accuracy of each tower of the fifty lines alone

    def fifty_after(self, seconds: float) -> float | None:
        """Accuracy of the fifty lines cut off after ``seconds``; None: they have nothing yet."""
        return next((step.test for step in reversed(self.fifty) if step.seconds <= seconds), None)

    def long_after(self, seconds: float) -> float | None:
        """Likewise of the long lines."""
        return next((step.test for step in reversed(self.long) if step.seconds <= seconds), None)

    def better_by(self, seconds: float) -> float | None:
        """Accuracy of the best of the scripts cut off after ``seconds``; None: none has anything yet."""
        twenty = self.twenty.test if self.twenty.seconds <= seconds else None
        scripts = (twenty, self.fifty_after(seconds), self.long_after(seconds))
        return max((each for each in scripts if each is not None), default=None)


def plain_lines(
    task: Task, *, candidates: Sequence[Candidate] | None = None, tuned: int = _MEMBERS, limit: float = math.inf
) -> PlainLines:
    """Run the scripts; the labelled images are train and val together.

    Args:
        task: the target; needs a test split.
        candidates: whom the scripts choose from; None: the mini zoo.
        tuned: candidates that the fifty lines fine-tune; 0: the twenty lines only.
        limit: seconds after which a script begins no further candidate.
    """
    begun = time.monotonic()
    train, test = np.sort(np.concatenate([task.train, task.val])), np.sort(task.test)
    labels, truth = task.labels[train], task.labels[test]
    heads: list[tuple[float, float, Candidate, LogisticRegression]] = []
    untrained: list[tuple[float, float]] = []  # accuracy of zero-shot classifiers on labelled and on test images
    for candidate in mini_zoo() if candidates is None else candidates:
        model = zoo.load(candidate)
        every = embed_images(model, task, np.concatenate([train, test]))[0].astype(np.float64)
        every /= np.linalg.norm(every, axis=1, keepdims=True)
        known, shown = every[: len(train)], every[len(train) :]
        folds = StratifiedKFold(max(2, min(_FOLDS, int(np.bincount(labels).min()))), shuffle=True, random_state=0)
        head = LogisticRegression(C=10, max_iter=1_000)
        held_out = cross_val_predict(head, known, labels, cv=folds, method="predict_proba")
        loss = -float(np.log(np.maximum(held_out[np.arange(len(train)), labels], 1e-9)).mean())
        text = model.text_features(task.prompts, task.templates).detach().float().cpu().numpy()
        right = [float(((part @ text.T).argmax(axis=1) == y).mean()) for part, y in ((known, labels), (shown, truth))]
        untrained.append((right[0], right[1]))
        heads.append((loss, float(head.fit(known, labels).score(shown, truth)), candidate, head))
    heads.sort(key=lambda each: each[0])
    twenty = Step(seconds=time.monotonic() - begun, test=heads[0][1])
    leaders = [(candidate, head) for _, _, candidate, head in heads]
    fifty, alone = _averaged(task, leaders[:tuned], train=train, test=test, recipe=Recipe(), begun=begun, limit=limit)
    count, epochs = LONG if tuned else (0, 1)
    again = time.monotonic() - twenty.seconds  # the heads are the same
    long, _ = _averaged(
        task, leaders[:count], train=train, test=test, recipe=Recipe(epochs=epochs), begun=again, limit=limit
    )
    return PlainLines(
        twenty=twenty,
        first_tuned=fifty[0] if fifty else twenty,
        zero_shot=Step(seconds=twenty.seconds, test=max(untrained)[1]),
        best_head=max(each[1] for each in heads),
        fifty=tuple(fifty),
        long=tuple(long),
        towers=tuple(alone),
    )


def _averaged(
    task: Task,
    leaders: Sequence[tuple[Candidate, LogisticRegression]],
    *,
    train: IntArray,
    test: IntArray,
    recipe: Recipe,
    begun: float,
    limit: float,
) -> tuple[list[Step], list[float]]:
    """Tune one after the other and average the probabilities; what each tower reaches alone."""
    truth, steps, alone = task.labels[test], [], []
    total = np.zeros((len(test), task.n_classes))
    for place, (candidate, head) in enumerate(leaders):
        if time.monotonic() - begun > limit:
            break
        weight, bias = head_of(head)
        tuned_one = begin(candidate, weight=weight, bias=bias)
        fine_tune(task, tuned_one, train=train, recipe=recipe, seed=place)
        said = softmax(tuned_one.logits(task, test).astype(np.float64), axis=1)
        total = total + said
        alone.append(float((said.argmax(axis=1) == truth).mean()))
        steps.append(Step(seconds=time.monotonic() - begun, test=float((total.argmax(axis=1) == truth).mean())))
    return steps, alone


def head_of(fitted: LogisticRegression) -> tuple[FloatArray, FloatArray]:
    """Weights (K, D) and bias (K,); scikit-learn gives one row for two classes."""
    weight, bias = fitted.coef_, fitted.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


@dataclass(frozen=True, kw_only=True, eq=False)
class Tuned:
    """A tower and its head."""

    model: LoadedModel
    head: nn.Linear

    def logits(self, task: Task, rows: IntArray) -> NDArray[np.float32]:
        """(n, K) of some images."""
        pixels = torch.from_numpy(np.array(task.pixels.read(self.model.candidate.view, rows)))
        with torch.inference_mode():
            parts = [self.head(_embed(self.model, part)) for part in pixels.split(64)]  # type: ignore[no-untyped-call] # torch leaves it untyped
        return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def begin(candidate: Candidate, *, weight: FloatArray, bias: FloatArray) -> Tuned:
    """The pretrained tower with this head."""
    head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
    return Tuned(model=zoo.load(candidate), head=head)


def fine_tune(task: Task, tuned: Tuned, *, train: IntArray, recipe: Recipe, seed: int) -> None:
    """Train tower and head in place on the images ``train``; batch norms keep the statistics of pretraining."""
    torch.manual_seed(seed)
    images = torch.from_numpy(np.array(task.pixels.read(tuned.model.candidate.view, train)))
    labels = torch.from_numpy(task.labels[train].astype(np.int64))
    rates = [recipe.rate, 3 * recipe.rate]
    trained = [tuned.model.visual.requires_grad_(True), tuned.head]
    groups = [{"params": list(each.parameters()), "lr": rate} for each, rate in zip(trained, rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    total = recipe.epochs * math.ceil(len(train) / recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rates, total_steps=total)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(train)).split(recipe.batch):  # type: ignore[no-untyped-call] # likewise
            logits = tuned.head(_embed(tuned.model, _shifted(images[rows])))
            loss = functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # likewise
            optimizer.step()
            schedule.step()


def _embed(model: LoadedModel, pixels: torch.Tensor) -> torch.Tensor:
    """Unit-norm embeddings (n, D) of uint8 (n, S, S, 3)."""
    return functional.normalize(model.embed(model.normalise(pixels)).float(), dim=-1)


def _shifted(pixels: torch.Tensor) -> torch.Tensor:
    """Shift each image by up to a tenth of its side, borders reflected."""
    side = pixels.shape[1]
    by = max(1, side // 10)
    wide = functional.pad(pixels.permute(0, 3, 1, 2).float(), (by, by, by, by), mode="reflect")
    places = torch.randint(0, 2 * by + 1, (len(pixels), 2)).tolist()
    parts = [each[:, top : top + side, left : left + side] for each, (top, left) in zip(wide, places, strict=True)]
    return torch.stack(parts).to(torch.uint8).permute(0, 2, 3, 1)
