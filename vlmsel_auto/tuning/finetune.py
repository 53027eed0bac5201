"""Fine-tuning of a visual tower, or of a part of it, and its head by Lightning's trainer; paused trials go on."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass, replace

import torch

from vlmsel_auto.errors import TrialOutOfMemory
from vlmsel_auto.events import Notice
from vlmsel_auto.models.machine import free_memory
from vlmsel_auto.models.precision import TRIED, tunes_in_bfloat16
from vlmsel_auto.models.threads import measured_threads
from vlmsel_auto.planning.method import Part
from vlmsel_auto.process import is_out_of_memory, release_memory
from vlmsel_auto.tuning import probe, zero_shot
from vlmsel_auto.tuning.checkpoints import Checkpoint
from vlmsel_auto.tuning.collapse import Collapse, CollapseWatch
from vlmsel_auto.tuning.data import ImageSet, Measured, MiniBatches, image_set, measure, score
from vlmsel_auto.tuning.memory import Held, Way, bytes_needed, recompute, ways
from vlmsel_auto.tuning.methods import method_of
from vlmsel_auto.tuning.module import EpochReport, Head, Kept, Tuner
from vlmsel_auto.tuning.paused import Paused, Progress
from vlmsel_auto.tuning.recipes import rate_of, recipe_of
from vlmsel_auto.tuning.trainable import choose, merge
from vlmsel_auto.tuning.trainer import BatchTimes, make_trainer, quiet_lightning
from vlmsel_auto.tuning.work import NOTHING, Deadline, Ending, MethodOutcome, Work
from vlmsel_auto.units import byte_count

_MARGIN = 0.1  # seconds kept for writing the result before a deadline
_USUAL_BATCH = 32
_GENTLER = 2  # times that training begins again
_FEW_STEPS, _MANY_STEPS = 6, 64  # an epoch, at least, with usual and with larger batches


def run(work: Work) -> MethodOutcome:
    """Fit a head on cached features, then train tower and head by the quickest way that memory suffices for.

    A head that does not fit yet would distort the features (Kumar et al., ICLR 2022).

    Raises:
        TrialOutOfMemory: not even one image at a time fits.
        TrialDiverged: the loss became NaN or infinite.
        DeadlineReached: there was no time for anything.
    """
    try:
        return _fitting(work, fitted_head(work))
    finally:
        release_memory(work.device)


def fitted_head(work: Work) -> MethodOutcome:
    """Logistic regression on the training images, with what zero-shot reaches on the validation images, if anything."""
    splits, labels, metric = work.splits, work.task.labels, work.task.metric
    only_given = replace(work, splits=replace(splits, folds=()))  # a tower is scored on images that it never saw
    start = zero_shot.run(only_given) if work.candidate.has_text else NOTHING
    if not work.spec.epochs and work.candidate.has_text:
        return start
    found = work.features()
    train = splits.train
    head = probe.fit(found.of(train).numpy(), labels[train], classes=work.task.n_classes, metric=metric)
    return replace(start, checkpoint=head)


def _fitting(work: Work, head: MethodOutcome) -> MethodOutcome:
    """Train what the method says of the tower, or where memory does not suffice in any way, less of it."""
    paused, full = work.paused, batch_size(len(work.splits.train), work.device)
    named = method_of(work.spec.method).part or recipe_of(work.candidate).trains
    tried = [(part, way) for part in list(Part)[list(Part).index(named) :] for way in ways(full)]
    if paused is not None:  # what did not fit then is not tried again
        at = (paused.progress.part, paused.progress.batch)
        tried = list(itertools.dropwhile(lambda each: (each[0], each[1].batch) != at, tried)) or tried
    told = ""
    for part, way in tried:
        one = work
        if part != named:
            one = _at_rate(work, rate_of(work.candidate, part) / rate_of(work.candidate, named))
            if way == ways(full)[0]:
                text = f"{work.spec.candidate}: for want of memory only this is trained: {part}"
                work.sink(Notice(text=text))
        if paused is not None and (part, way.batch) != at:
            one = replace(one, paused=None)  # other batches make other steps: begin anew
        try:
            return _steadily(one, head, part=part, way=way)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            told = str(error)
        release_memory(work.device)
    raise TrialOutOfMemory(
        f"Fine-tuning {work.spec.candidate} does not fit into the memory of {work.device}: free memory or leave it "
        f"out, but got batches of {full} images down to 1, and of the tower no more than its projection: {told}"
    )


def _at_rate(work: Work, factor: float) -> Work:
    settings = {**work.spec.settings, "learning_rate": factor * work.spec.settings["learning_rate"]}
    return replace(work, spec=replace(work.spec, settings=settings))


def _steadily(work: Work, head: MethodOutcome, *, part: Part, way: Way) -> MethodOutcome:
    """Train; where the first steps unlearn what the head knew, begin again at a third of the rate, and of that."""
    for _ in range(_GENTLER):
        try:
            return train(work, head, part=part, way=way)
        except Collapse as collapse:
            work = replace(_at_rate(work, 1 / 3), paused=None)
            rate = work.spec.settings["learning_rate"]
            text = f"{work.spec.candidate}: {collapse}; training begins again at a third of the rate, {rate:.2g}"
            work.sink(Notice(text=text))
    return train(work, head, part=part, way=way, watched=False)


def batch_size(images: int, device: torch.device) -> int:
    """Batches small enough for many steps, large enough to keep the device busy: a power of two, at least 8.

    Six an epoch or more; more than 32 images only where 64 of these batches make an epoch.
    """
    largest = 128 if device.type == "cuda" else 64
    usual = min(_USUAL_BATCH, _power_of_two(images // _FEW_STEPS))
    return min(largest, max(usual, _power_of_two(images // _MANY_STEPS)))


def _power_of_two(number: int) -> int:
    """The largest that is no larger, and 8 below that."""
    return 1 << max(3, number.bit_length() - 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    """A freshly loaded tower with its head, and the images that it is trained and scored on."""

    work: Work
    tuner: Tuner
    images: ImageSet
    val: ImageSet
    part: Part
    way: Way
    shuffle: torch.Generator
    watched: bool

    def begin(self) -> tuple[Kept, float, float]:
        """What there is so far, the metric of the start, and seconds an image."""
        return self._measure() if self.work.paused is None else self._resume(self.work.paused)

    def _measure(self) -> tuple[Kept, float, float]:
        begun = time.monotonic()
        logits = self.logits(self.val, deadline=self.work.deadline)
        per_image = (time.monotonic() - begun) / len(self.val)
        found = measure(self.work.task.metric, logits=logits, labels=self.val.labels)
        return Kept(measured=found, of_val=logits), found.metric, per_image

    def _resume(self, paused: Paused) -> tuple[Kept, float, float]:
        progress = paused.progress
        measured = Measured(metric=progress.metric, soft=progress.soft, loss=progress.loss, images=len(self.val))
        begun = time.monotonic()
        with torch.inference_mode():
            pixels, _ = self.val.batch(torch.arange(min(len(self.val), 2 * self.way.batch)))
            self.tuner.eval()(pixels)
        per_image = (time.monotonic() - begun) / len(pixels)
        self.tuner.resume(paused)
        self.shuffle.set_state(paused.generators["shuffle"])
        return Kept(measured=measured, curve=list(progress.curve)), progress.start, per_image

    def fit(self, kept: Kept, *, start: float, per_image: float) -> None:
        """Train the epochs that are left; what there is then is in ``kept``, and in the tower."""
        work, tuner, device = self.work, self.tuner, self.tuner.model.device

        def save() -> None:
            if work.keep is not None:
                work.keep(self._snapshot(kept, start=start))

        reserve = per_image * (len(self.val) + len(work.splits.test)) + _MARGIN
        callback = EpochReport(kept=kept, hook=work.hook, deadline=work.deadline, reserve=reserve, save=save)
        few, _ = self.images.batch(torch.arange(min(TRIED, len(self.images))))
        bfloat16 = tunes_in_bfloat16(tuner.model, tuner.model.normalise(few))
        watch = [CollapseWatch(classes=work.task.n_classes)] if self.watched and not kept.curve else []
        epochs = work.spec.epochs - len(kept.curve)
        tuner.train()
        self._check_memory(few, bfloat16=bfloat16)
        with measured_threads(device) as threads:
            trainer = make_trainer(
                epochs=epochs, callbacks=[callback, *watch, BatchTimes(threads)], device=device,
                accumulate=self.way.accumulate, bfloat16=bfloat16, folder=work.workdir,
            )  # fmt: skip
            trainer.fit(
                tuner,
                train_dataloaders=MiniBatches(images=self.images, size=self.way.batch, generator=self.shuffle),
                val_dataloaders=MiniBatches(images=self.val, size=2 * self.way.batch),
            )
        tuner.to(device)  # Lightning moves the module to the CPU when it is done

    def _check_memory(self, few: torch.Tensor, *, bfloat16: bool) -> None:
        """Set how blocks are kept, and refuse a way that the free memory does not suffice for.

        Raises:
            MemoryError: it does not.
        """
        tuner, way, device = self.tuner, self.way, self.tuner.model.device

        def held(*, recomputes: bool) -> Held:
            recompute(tuner.visual, recomputes)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
                return Held.of(tuner, few, module=tuner)

        recomputing = held(recomputes=True) if way.recomputes else None
        plain = held(recomputes=False)
        recompute(tuner.visual, way.recomputes)
        weights = sum(each.numel() for each in tuner.parameters() if each.requires_grad)
        needed = bytes_needed(way, plain=plain, recomputing=recomputing or plain, weights=weights)
        free = free_memory(device)
        if needed > free:
            raise MemoryError(f"{byte_count(needed)} needed, {byte_count(free)} free")
        if way.recomputes:
            images = f"batches of {way.batch} images, {way.batch * way.accumulate} a step"
            text = f"{self.work.spec.candidate} is fine-tuned with less memory: blocks are computed again, {images}"
            self.work.sink(Notice(text=text))

    def _snapshot(self, kept: Kept, *, start: float) -> Paused:
        """The state of the training between two epochs."""
        measured, tuner = kept.measured, self.tuner
        return Paused(
            progress=Progress(
                curve=tuple(kept.curve),
                metric=measured.metric,
                soft=measured.soft,
                loss=measured.loss,
                start=start,
                steps=tuner.steps_done,
                batch=self.way.batch,
                part=self.part,
                seconds=0.0,
            ),
            module=tuner.state_dict(),
            moments=tuner.moments,
            generators={**tuner.generators, "shuffle": self.shuffle.get_state()},
        )

    @torch.inference_mode()
    def logits(self, images: ImageSet, *, deadline: Deadline) -> torch.Tensor:
        """Logits (n, K) of all images, float32, on the CPU."""
        self.tuner.eval()
        outputs = []
        for pixels, _ in MiniBatches(images=images, size=2 * self.way.batch):
            deadline.check()
            outputs.append(self.tuner(pixels).float().cpu())
        return torch.cat(outputs)


def train(work: Work, head: MethodOutcome, *, part: Part, way: Way, watched: bool = True) -> MethodOutcome:
    """Train a freshly loaded model and return what the last epoch left.

    Args:
        work: the trial; ``paused`` needs the same batch. Training stops early enough to measure both other splits.
        head: what the head begins with.
        part: of the tower that is trained.
        way: how batches pass through the tower.
        watched: whether the first steps may end it.

    Raises:
        Collapse: they unlearn what the head knew.
        MemoryError: the free memory does not suffice for it.
    """
    with torch.random.fork_rng(), quiet_lightning():
        torch.manual_seed(work.spec.seed)  # matrices of low rank
        training = _loaded(work, head, part=part, way=way, watched=watched)
        torch.manual_seed(work.spec.seed)  # dropout and the like
        kept, start, per_image = training.begin()
        if len(kept.curve) < work.spec.epochs:
            training.fit(kept, start=start, per_image=per_image)
    return _outcome(training, kept, start=head.start)


def _loaded(work: Work, head: MethodOutcome, *, part: Part, way: Way, watched: bool) -> _Training:
    spec, splits, view = work.spec, work.splits, work.candidate.view
    assert head.checkpoint is not None  # noqa: S101 - both ways to begin have one
    begin = head.checkpoint
    model = work.load(work.candidate)
    images = image_set(work.task, view=view, indices=splits.train, check=work.deadline.check)
    val = image_set(work.task, view=view, indices=splits.val, check=work.deadline.check)
    layer = Head(
        torch.from_numpy(begin.weight).to(model.device),
        torch.from_numpy(begin.bias).to(model.device),
        scale=begin.scale,
    )
    few, _ = images.batch(torch.arange(1))
    trainable = choose(
        model.visual, part, run=lambda: model.embed(model.normalise(few)), shots=len(images) / work.task.n_classes
    )
    steps = spec.epochs * math.ceil(math.ceil(len(images) / way.batch) / way.accumulate)
    return _Training(
        work=work,
        tuner=Tuner(
            model=model, trainable=trainable, head=layer, spec=spec, metric=work.task.metric, steps=steps
        ),
        images=images,
        val=val,
        part=part,
        way=way,
        shuffle=torch.Generator().manual_seed(spec.seed),
        watched=watched,
    )  # fmt: skip


def _outcome(training: _Training, kept: Kept, *, start: float | None) -> MethodOutcome:
    """What the trained tower says of both other splits, unless it was pruned."""
    work, tuner, layer = training.work, training.tuner, training.tuner.head
    merge(tuner.visual)
    of_val, of_test, test = kept.of_val, None, None
    if kept.ending is not Ending.PRUNED:
        if of_val is None:
            of_val = training.logits(training.val, deadline=Deadline())
        if len(work.splits.test):
            shown = image_set(work.task, view=work.candidate.view, indices=work.splits.test)
            of_test = training.logits(shown, deadline=Deadline()).numpy()
            truth = work.task.labels[work.splits.test]
            test = score(work.task.metric, labels=truth, predicted=of_test.argmax(axis=1))
    visual = {name: each.detach().cpu() for name, each in tuner.visual.state_dict().items()}
    return MethodOutcome(
        checkpoint=Checkpoint(
            visual=visual if kept.curve else None,
            weight=layer.weight.detach().cpu().numpy(),
            bias=layer.bias.detach().cpu().numpy(),
            scale=layer.scale,
            held_out_logits=None if of_val is None else of_val.float().cpu().numpy(),
            test_logits=of_test,
        ),
        start=start,
        validation=kept.measured,
        test=test,
        kept=len(kept.curve),
        curve=tuple(kept.curve),
        ending=kept.ending,
        trained=tuner.epochs_done if kept.ending is Ending.DEADLINE else None,
    )
