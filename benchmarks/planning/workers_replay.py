"""A search with several workers on recorded trials: time is counted, not waited for.

The planner is the search's own, with trials that run (`planning.running`) and pruning at the rungs (`planning.rungs`).
One trial in 20 takes three times as long. In one of 20 the worker dies in the middle of an epoch: that is begun again,
10 seconds later. Both strike the same runs, however many workers there are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

import numpy as np

from benchmarks.planning.choice import Arm
from benchmarks.planning.workers_worlds import Run, World, is_tower
from vlmsel_auto.planning.curves import RUNGS, Curve, rung_of
from vlmsel_auto.planning.history import expectations
from vlmsel_auto.planning.next_trial import NextTrial, next_trial
from vlmsel_auto.planning.plan import Plan, make_plan
from vlmsel_auto.planning.rungs import goes_on_at
from vlmsel_auto.planning.running import Running, imagine
from vlmsel_auto.planning.tried import Left, Tried
from vlmsel_auto.records import TrialState

STRAGGLERS, SLOW = 0.05, 3.0
DEATHS, NOTICED = 0.05, 10.0  # seconds until a dead worker is replaced
POINT = 0.01


@dataclass(frozen=True, kw_only=True)
class Replay:
    """One simulated search."""

    seconds: float  # until a finished trial was within a point of the best run
    reached: bool
    busy: float  # share of the workers' time until then
    trials: int
    regret: float  # of the trial chosen at the end, in points
    queue: dict[
        int, float
    ]  # by workers: the seconds that this search's own order would have taken, nothing being known


@dataclass(kw_only=True)
class _Going:
    """A trial that was begun."""

    step: NextTrial
    run: Run
    seconds: tuple[float, ...]  # of its epochs as they turn out
    began: float
    done: int = 0


@dataclass(kw_only=True)
class _Search:
    world: World
    plan: Plan
    workers: int
    seed: int
    history: list[Tried] = field(default_factory=list)
    running: dict[int, _Going] = field(default_factory=dict)
    events: list[tuple[float, int]] = field(default_factory=list)
    begun: list[_Going] = field(default_factory=list)  # by number
    turns: dict[Arm, int] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    now: float = 0.0

    def fill(self) -> None:
        """Give every worker a trial, as long as one is worth it."""
        while len(self.running) < self.workers:
            known = [
                Running(number=number, trial=each.step, curve=self._curve(each))
                for number, each in self.running.items()
            ]
            gone = [one.id for one in self.world.candidates if not self.world.has(one.id)]
            history = imagine(self.plan, self.history, known)
            step = next_trial(self.plan, history, left=Left(workers=self.workers), unavailable=gone)
            if step is None or len(gone) == len(self.world.candidates):
                return
            self._begin(step)

    def _begin(self, step: NextTrial) -> None:
        run = self.world.take((step.candidate, step.method))
        going = _Going(step=step, run=run, seconds=self._luck(step, run), began=self.now)
        number = len(self.begun)
        self.begun.append(going)
        self.running[number] = going
        heapq.heappush(self.events, (self.now + going.seconds[0], number))

    def _luck(self, step: NextTrial, run: Run) -> tuple[float, ...]:
        arm = step.candidate, step.method
        turn = self.turns[arm] = self.turns.get(arm, -1) + 1
        rng = np.random.default_rng([self.seed, turn, *"/".join(arm).encode()])
        slow, dies, place, part = rng.random(4).tolist()
        seconds = [each * (SLOW if slow < STRAGGLERS else 1.0) for each in run.seconds]
        if dies < DEATHS:
            seconds[int(place * len(seconds))] *= 1 + part
            seconds[int(place * len(seconds))] += NOTICED
        return tuple(seconds)

    def _curve(self, going: _Going) -> Curve | None:
        if not going.done or not is_tower(self.world, going.step.method):
            return None
        return Curve(values=going.run.metrics[: going.done], epochs=len(going.run.metrics))

    def advance(self) -> Run | None:
        """Go to the next end of an epoch; the run that is finished by it."""
        self.now, number = heapq.heappop(self.events)
        going = self.running[number]
        going.done += 1
        epochs, value = len(going.run.metrics), going.run.metrics[going.done - 1]
        rung = rung_of(going.done, epochs=epochs)
        state = TrialState.FAILED if going.run.failed else TrialState.COMPLETE
        if going.done < epochs:
            due = rung_of(going.done - 1, epochs=epochs) < rung < RUNGS
            if not due or goes_on_at(self.plan, self.history, going.step, rung=rung, validation=value):
                heapq.heappush(self.events, (self.now + going.seconds[going.done], number))
                return None
            state = TrialState.PRUNED
        del self.running[number]
        self.ended[number] = self.now
        self.history.append(
            Tried(
                candidate=going.step.candidate,
                method=going.step.method,
                origin=going.step.origin,
                state=state,
                validation=value if state is TrialState.COMPLETE else None,
                seconds=self.now - going.began,
                point={"learning_rate": number / 1000} if going.step.point is None else going.step.point,
                number=number,
                curve=self._curve(going),
                share=going.done / epochs,
            )
        )
        return going.run if state is TrialState.COMPLETE else None

    def spent(self, until: float) -> float:
        """Seconds of all workers."""
        ends = [self.ended.get(number, until) for number in range(len(self.begun))]
        return sum(max(0.0, min(end, until) - each.began) for each, end in zip(self.begun, ends, strict=True))

    def queued(self, workers: int) -> float:
        """When the last of the trials would have ended, begun in this order by so many workers."""
        free = [0.0] * workers
        ends: list[float] = []
        for number, each in enumerate(self.begun):
            ends.append(heapq.heappop(free) + self.ended.get(number, self.now) - each.began)
            heapq.heappush(free, ends[-1])
        return ends[-1]


def replay(world: World, *, workers: int, seed: int, others: tuple[int, ...] = ()) -> Replay:
    """Search with so many workers.

    Args:
        world: as if nothing of it were taken yet.
        workers: trials at once.
        seed: of plan and luck.
        others: numbers of workers for `Replay.queue`.
    """
    plan = make_plan(
        world.ranking, candidates=world.candidates, methods=world.methods, seed=seed,
        validation_images=world.images, policy=world.policy,
    )  # fmt: skip
    search = _Search(world=world, plan=plan, workers=workers, seed=seed)
    reached: float | None = None
    queue: dict[int, float] = {}
    search.fill()
    while search.running:
        run = search.advance()
        if reached is None and run is not None and world.best - run.truth <= POINT + 1e-9:
            reached = search.now
            queue = {number: search.queued(number) for number in others}
            if world.endless:
                break
        search.fill()
    until = search.now if reached is None else reached
    expected = expectations(plan, search.history)
    chosen = max(expected, key=lambda number: expected[number], default=None)
    return Replay(
        seconds=until,
        reached=reached is not None,
        busy=search.spent(until) / (workers * until),
        trials=len(search.history),
        regret=100 * (world.best - (0.0 if chosen is None else search.begun[chosen].run.truth)),
        queue=queue or {number: search.queued(number) for number in others},
    )
