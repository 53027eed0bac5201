"""From a ranking to trials: an order, soft pruning, audits, and after every trial the step that promises most.

Pure: nothing here trains, reads or writes. A low candidate is postponed, not lost. It returns when its upper bound
beats the leader's lower bound, or when the leaders stall; a few postponed candidates are tuned on purpose (audits), so
that what pruning cost is measured and not assumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmsel_auto.records import Candidate, FloatArray, Interval, Method, Ranking, TrialOrigin, TrialState
from vlmsel_auto.trials.belief import (
    Belief,
    Observation,
    Posterior,
    belief_of,
    expected_improvement,
    posterior,
    probability_best,
)
from vlmsel_auto.trials.space import Point

__all__ = [
    "History",
    "Left",
    "Plan",
    "PlanLine",
    "Step",
    "Tried",
    "handicap",
    "make_plan",
    "next_step",
    "observe",
    "postponed_now",
    "updated_ranking",
]

_METHODS: tuple[Method, ...] = ("probe", "finetune")
_GAINS = (0.0, 0.03)  # fine-tuning over probing, before either was seen on this task
_BOUND = 1.64  # standard deviations of the bounds
_PATIENCE = 5  # trials without a better result after which the leaders count as stalled
_EXHAUSTED = 16  # likewise, after which a search without news ends
_STALLED_PERFECT = 8  # likewise, when every validation image is right
_MIN_GAIN = 1e-4  # a better result is better by this much
_LOCAL_SD = 0.02  # spread of the metric over hyperparameters of one candidate
_LOCAL_LOSS = 0.01  # a move away from the best point loses this much on average
_STEP = 0.17  # of a local move, in the unit cube
_TUNE_COST = 20.0  # of a fine-tuning trial against a probe, before either was timed
_PROBE_SHARE = 3  # at most one trial in so many goes to the first probes, when trials are counted
_COVERED = 0.95  # the active candidates hold this much probability of the best
_FEW, _MANY = 3, 8  # bounds on the number of active candidates when the caller sets none
_HANDICAP = 0.02  # of the metric
_TOP = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanLine:
    """What the plan has for one candidate."""

    candidate: str
    rank: int  # predicted, 1 is the best
    probability_best: float
    share: float  # of the trials, as planned before the first
    postponed: bool
    audit: bool  # postponed, but tuned on purpose
    cost: float  # relative cost of a fine-tuning trial, 1 is the median candidate


@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """The plan before the first trial, by predicted rank; and the belief that it came from."""

    lines: tuple[PlanLine, ...]
    methods: tuple[Method, ...]
    belief: Belief
    seed: int

    @property
    def order(self) -> tuple[str, ...]:
        """Candidate ids by predicted rank."""
        return tuple(line.candidate for line in self.lines)

    @property
    def active(self) -> tuple[str, ...]:
        """Candidates that are not postponed, by predicted rank."""
        return tuple(line.candidate for line in self.lines if not line.postponed)

    @property
    def audits(self) -> tuple[str, ...]:
        """Postponed candidates that are tuned on purpose."""
        return tuple(line.candidate for line in self.lines if line.audit)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """What the plan needs to know of one trial, in the order in which they were begun."""

    candidate: str
    method: Method
    origin: TrialOrigin
    state: TrialState
    validation: float | None
    seconds: float
    point: Point


History = Sequence[Tried]


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is left of the budget; None: unlimited."""

    trials: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The next trial. ``point`` None: the sampler of the study chooses the hyperparameters."""

    candidate: str
    method: Method
    point: Point | None
    origin: TrialOrigin
    why: str


def _costs(candidates: Sequence[Candidate]) -> FloatArray:
    """Relative cost (M,) of a pass: by FLOPs, else by parameters, else equal."""
    flops = [each.flops for each in candidates]
    sizes = flops if all(flops) else [each.params for each in candidates]
    if not all(sizes):
        return np.ones(len(candidates))
    costs = np.array([float(size or 1) for size in sizes])
    return costs / float(np.median(costs))


def make_plan(
    ranking: Ranking,
    *,
    candidates: Sequence[Candidate],
    methods: Sequence[Method] = _METHODS,
    top_k: int | None = None,
    audits: int = 2,
    seed: int = 0,
) -> Plan:
    """Order the candidates, postpone the low ones, and draw the audits.

    Args:
        ranking: scores with uncertainty; candidates that it lacks come last, with a wide uncertainty.
        candidates: all of them.
        methods: what may be tried.
        top_k: how many candidates stay active; None lets the probabilities decide (3 to 8).
        audits: how many postponed candidates are tuned on purpose, drawn at random.
        seed: of the draws.

    Raises:
        ValueError: no candidate, no or an unknown method, top_k or audits out of range.
    """
    if not methods or any(method not in _METHODS for method in methods):
        raise ValueError(f"methods must be some of {_METHODS}, but got {tuple(methods)!r}")
    if (top_k is not None and top_k < 1) or audits < 0:
        raise ValueError(f"top_k must be at least 1 and audits at least 0, but got {top_k=} and {audits=}")
    belief = belief_of(ranking, candidates=candidates)
    best = probability_best(belief.mean, belief.cov, seed=seed)
    ranked = {name: place for place, name in enumerate(ranking.order)}
    order = sorted(
        range(len(candidates)), key=lambda m: (ranked.get(candidates[m].id, len(ranked)), -belief.mean[m], m)
    )
    costs = _costs(candidates)
    keep = min(len(order), top_k) if top_k is not None else _enough(best[order])
    below = order[keep:]
    drawn = np.random.default_rng(seed).permutation(len(below))[: min(audits, len(below))]
    audited = {below[index] for index in drawn.tolist()}
    share = best + 1.0 / len(order) ** 2
    share = share / share.sum()
    return Plan(
        lines=tuple(
            PlanLine(
                candidate=candidates[m].id,
                rank=place + 1,
                probability_best=float(best[m]),
                share=float(share[m]),
                postponed=place >= keep,
                audit=m in audited,
                cost=float(costs[m]),
            )
            for place, m in enumerate(order)
        ),
        methods=tuple(method for method in _METHODS if method in methods),
        belief=belief,
        seed=seed,
    )


def _enough(best: FloatArray) -> int:
    """How many of the first candidates hold nearly all of the probability."""
    covered = int(np.searchsorted(np.cumsum(best), _COVERED)) + 1
    return min(len(best), max(_FEW, min(_MANY, covered)))


def observe(plan: Plan, history: History) -> Posterior:
    """The belief after the trials so far; methods in the order of ``plan.methods``."""
    names = {name: index for index, name in enumerate(plan.belief.candidates)}
    best: dict[tuple[int, int], float] = {}
    for trial in history:
        if trial.validation is None or trial.state != "complete":
            continue
        arm = (names[trial.candidate], plan.methods.index(trial.method))
        best[arm] = max(trial.validation, best.get(arm, -1.0))
    gains = tuple(_GAINS[_METHODS.index(method)] for method in plan.methods)
    observations = [Observation(candidate=m, method=j, value=value) for (m, j), value in best.items()]
    return posterior(plan.belief, observations, gains=gains)


def _stalled(history: History) -> int:
    """Trials since the last better result."""
    best, since = -1.0, 0
    for trial in history:
        if trial.validation is not None and trial.state == "complete" and trial.validation > best + _MIN_GAIN:
            best, since = trial.validation, 0
        else:
            since += 1
    return since


def postponed_now(plan: Plan, history: History, *, now: Posterior | None = None) -> tuple[str, ...]:
    """Candidates that are still postponed after these trials, by predicted rank."""
    waiting = [line.candidate for line in plan.lines if line.postponed]
    tuned = [trial for trial in history if trial.state == "complete" and trial.origin != "audit"]
    if not waiting or not tuned:
        return tuple(waiting)
    now = observe(plan, history) if now is None else now
    last = now.mean.shape[1] - 1
    mean, sd = now.mean[:, last], now.sd[:, last]
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    leader = max((index[name] for name in plan.active), key=lambda m: float(mean[m]))
    seen = {trial.candidate for trial in tuned}
    # the bounds mean something once every active candidate has been seen
    compared = all(name in seen for name in plan.active)
    floor = float(mean[leader] - _BOUND * sd[leader])
    back = {
        name
        for name in waiting
        if name in seen or (compared and float(mean[index[name]] + _BOUND * sd[index[name]]) > floor)
    }
    returns = (_stalled(history) // _PATIENCE) if compared else 0
    rest = sorted((name for name in waiting if name not in back), key=lambda name: -float(mean[index[name]]))
    back.update(rest[:returns])
    return tuple(name for name in waiting if name not in back)


def _mean_of(plan: Plan, now: Posterior, arm: _Arm) -> float:
    return float(now.mean[plan.belief.candidates.index(arm.candidate), plan.methods.index(arm.method)])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Arm:
    candidate: str
    method: Method
    tries: int
    gain: float  # expected improvement
    cost: float  # share of what is left


def _price(plan: Plan, history: History, *, left: Left) -> Mapping[tuple[str, Method], float]:
    """Expected cost of one more trial of each arm, as a share of what is left of the budget."""
    line = {each.candidate: each for each in plan.lines}
    speeds: dict[Method, list[float]] = {"probe": [], "finetune": []}
    own: dict[tuple[str, Method], float] = {}
    for trial in history:
        if trial.state == "complete":
            relative = line[trial.candidate].cost if trial.method == "finetune" else 1.0
            speeds[trial.method].append(trial.seconds / relative)
            own[trial.candidate, trial.method] = trial.seconds
    unit: dict[Method, float] = {
        "probe": float(np.median(speeds["probe"])) if speeds["probe"] else 1.0,
        "finetune": 0.0,
    }
    unit["finetune"] = float(np.median(speeds["finetune"])) if speeds["finetune"] else _TUNE_COST * unit["probe"]
    prices = {}
    for name, each in line.items():
        for method in plan.methods:
            relative = each.cost if method == "finetune" else 1.0
            seconds = own.get((name, method), unit[method] * relative)
            price = 0.0
            if left.seconds is not None:
                price += seconds / max(left.seconds, 1e-9)
            if left.trials is not None:
                price += 1.0 / max(left.trials, 1)
            prices[name, method] = price or seconds
    return prices


def _best(history: History) -> float:
    return max((trial.validation for trial in history if trial.validation is not None), default=-1.0)


def _arms(plan: Plan, history: History, *, names: Sequence[str], now: Posterior, left: Left) -> list[_Arm]:
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    best = _best(history)
    prices = _price(plan, history, left=left)
    arms = []
    for name in names:
        for j, method in enumerate(plan.methods):
            mine = [trial for trial in history if trial.candidate == name and trial.method == method]
            reached = max((trial.validation for trial in mine if trial.validation is not None), default=None)
            if reached is None:
                mean, sd = float(now.mean[index[name], j]), float(now.sd[index[name], j])
            else:  # hyperparameters are all that can change
                mean, sd = reached - _LOCAL_LOSS, _LOCAL_SD / (1 + len(mine) / 4) ** 0.5
            gain = float(expected_improvement(np.array([mean]), np.array([sd]), best=best)[0])
            if reached is None:
                gain *= 0.25 ** len(mine)  # it failed or was pruned before
            arms.append(_Arm(candidate=name, method=method, tries=len(mine), gain=gain, cost=prices[name, method]))
    return arms


def _first_probes(plan: Plan, history: History, *, left: Left) -> Step | None:
    if "probe" not in plan.methods:
        return None
    probed = {trial.candidate for trial in history if trial.method == "probe"}
    done = sum(trial.method == "probe" for trial in history)
    allowed = len(plan.active)
    if left.trials is not None and "finetune" in plan.methods:
        allowed = min(allowed, max(1, (left.trials + len(history)) // _PROBE_SHARE))
    for line in plan.lines:
        if done < allowed and not line.postponed and line.candidate not in probed:
            return Step(
                candidate=line.candidate,
                method="probe",
                point=Point(),
                origin="planned",
                why=f"predicted rank {line.rank}",
            )
    return None


def _next_audit(plan: Plan, history: History, *, left: Left) -> Step | None:
    """Audits come after every third trial of the last method, so that they neither lead nor fall off the end."""
    method = plan.methods[-1]
    mine = [trial for trial in history if trial.method == method]
    done = {trial.candidate for trial in mine}
    open_audits = [name for name in plan.audits if name not in done]
    ordinary = sum(trial.origin != "audit" for trial in mine)
    audited = len(mine) - ordinary
    soon = left.trials is not None and left.trials <= len(open_audits)
    if not open_audits or ordinary < 2 or not (ordinary // 3 > audited or soon):  # noqa: PLR2004 - two leaders first
        return None
    return Step(
        candidate=open_audits[0],
        method=method,
        point=Point(),
        origin="audit",
        why="audit: postponed, tuned to measure what postponing costs",
    )


def _point(arm: _Arm, history: History, *, rng: np.random.Generator, seen: int) -> Point | None:
    """Where to go with an arm that has been tried: near its best point, in turn with the study's own sampler."""
    mine = [
        trial
        for trial in history
        if trial.candidate == arm.candidate and trial.method == arm.method and trial.validation is not None
    ]
    if not mine or (seen > 2 * _PATIENCE and arm.tries % 2):
        return None
    best = max(mine, key=lambda trial: trial.validation or 0.0)
    moves = rng.normal(0.0, _STEP, 4)
    return best.point.moved(
        learning_rate=float(moves[0]),
        weight_decay=float(moves[1]),
        augmentation=float(moves[2]),
        epochs=float(moves[3]),
    )


def next_step(plan: Plan, history: History, *, left: Left, unavailable: Sequence[str] = ()) -> Step | None:
    """The trial that should come next, or None when nothing promising is left.

    First one probe of every active candidate, by predicted rank; then the arm (candidate, method) with the largest
    expected improvement per share of the remaining budget, defaults first, then points near the best; audits between.
    Deterministic in the plan's seed and the history.

    Args:
        plan: from `make_plan`.
        history: finished trials in order.
        left: what is left of the budget.
        unavailable: candidates that cannot be used, such as those whose weights are missing.
    """
    if (left.trials is not None and left.trials <= 0) or (left.seconds is not None and left.seconds <= 0):
        return None
    usable = [line.candidate for line in plan.lines if line.candidate not in set(unavailable)]
    if not usable:
        return None
    gone = [
        Tried(
            candidate=name, method=method, origin="planned", state="failed", validation=None, seconds=0.0, point=Point()
        )
        for name in unavailable
        for method in plan.methods
    ]
    early = _first_probes(plan, [*history, *gone], left=left) or _next_audit(plan, [*history, *gone], left=left)
    return early or _promising(plan, history, left=left, usable=usable)


def _promising(plan: Plan, history: History, *, left: Left, usable: Sequence[str]) -> Step | None:
    """The arm with the largest expected improvement per cost, or None when nothing is worth a trial."""
    now = observe(plan, history)
    waiting = set(postponed_now(plan, history, now=now))
    names = [name for name in usable if name not in waiting] or list(usable)
    arms = _arms(plan, history, names=names, now=now, left=left)
    fresh = [arm for arm in arms if not arm.tries]
    patience = _STALLED_PERFECT if _best(history) >= 1.0 - _MIN_GAIN else _EXHAUSTED
    if _stalled(history) >= patience and not fresh and len(names) == len(usable):
        return None
    stalled = _stalled(history)
    if fresh and stalled >= _PATIENCE and (stalled - _PATIENCE) % 2 == 0:
        # the leaders have nothing new: every second trial goes to who was not tried, whatever the ranking promised
        arm = max(fresh, key=lambda each: (_mean_of(plan, now, each), -plan.order.index(each.candidate)))
    elif not _best(history) > 0 and fresh:  # nothing measured yet: the plan's own order
        arm = min(fresh, key=lambda each: plan.order.index(each.candidate))
    else:
        arm = max(arms, key=lambda each: (each.gain / each.cost, -each.tries, -plan.order.index(each.candidate)))
    if not arm.tries:
        line = next(each for each in plan.lines if each.candidate == arm.candidate)
        why = f"predicted rank {line.rank}" + (", returned" if line.postponed else "")
        return Step(candidate=arm.candidate, method=arm.method, point=Point(), origin="planned", why=why)
    rng = np.random.default_rng([plan.seed, len(history)])
    point = _point(arm, history, rng=rng, seen=sum(trial.method == arm.method for trial in history))
    why = "near the best point" if point is not None else "sampled"
    return Step(candidate=arm.candidate, method=arm.method, point=point, origin="sampled", why=why)


def handicap(plan: Plan, candidate: str, *, size: float = _HANDICAP) -> float:
    """What a candidate must show beyond the others not to be pruned: 0 for the predicted best, up to ``size``."""
    line = next(each for each in plan.lines if each.candidate == candidate)
    top = max(each.probability_best for each in plan.lines)
    return size * (1.0 - line.probability_best / top)


def updated_ranking(plan: Plan, ranking: Ranking, history: History) -> Ranking:
    """The ranking after the trials so far: candidates by their posterior under the last method of the plan.

    Scores and standard deviations are again in standard units: metric over the task's spread, centred.
    """
    now = observe(plan, history)
    mean, cov = now.mean[:, -1], now.cov[-1]
    draws = np.random.default_rng(plan.seed).multivariate_normal(mean, cov, size=1_024, check_valid="ignore")
    places = (-draws).argsort(axis=1).argsort(axis=1) + 1
    low, high = np.quantile(places, [0.025, 0.975], axis=0)
    scores = (mean - mean.mean()) / now.spread
    sd = now.sd[:, -1] / now.spread
    lines = {line.candidate: line for line in ranking.ranked}
    index = {name: place for place, name in enumerate(plan.belief.candidates)}
    ranked = [
        replace(
            line,
            score=float(scores[index[name]]),
            sd=float(sd[index[name]]),
            p_best=float((places[:, index[name]] == 1).mean()),
            p_top5=float((places[:, index[name]] <= _TOP).mean()),
            rank_interval=Interval(low=float(low[index[name]]), high=float(high[index[name]])),
        )
        for name, line in lines.items()
        if name in index
    ]
    return replace(ranking, ranked=tuple(sorted(ranked, key=lambda line: -line.score)))
