"""Eight candidates in a known order, their plan, and trials of them."""

import itertools

from helpers.rankings import ranking_of
from vlmsel_auto.planning.method import Method
from vlmsel_auto.planning.plan import Conditions, Plan, make_plan
from vlmsel_auto.planning.space import DEFAULT
from vlmsel_auto.planning.trials import Tried
from vlmsel_auto.records import Basis, Candidate, ImageView, Ranking, TrialOrigin, TrialState
from vlmsel_auto.tuning.methods import FINETUNE, PROBE

N = 8


def candidate(number: int, arch: str | None = None, tag: str | None = None) -> Candidate:
    return Candidate(
        id=f"m{number}",
        source="local-dir",
        arch=arch or f"arch{number}",
        tag=tag or f"tag{number}",
        family=arch or f"family{number}",
        view=ImageView(size=32),
        params=1_000_000,
        flops=1e7 * (1 + number),
    )


def ranking(scores: list[float], sd: float = 0.5) -> Ranking:
    return ranking_of({f"m{number}": score for number, score in enumerate(scores)}, sd=sd, basis=Basis.LIBRARY)


SCORES = [1.5, 1.0, 0.6, 0.2, -0.2, -0.6, -1.0, -1.5]
CANDIDATES = [candidate(number) for number in range(N)]


def plan(
    *,
    top_k: int = 3,
    methods: tuple[Method, ...] = (PROBE, FINETUNE),
    scores: list[float] = SCORES,
    **conditions: object,
) -> Plan:
    """The plan of the candidates; ``conditions`` are fields of `Conditions`."""
    given = Conditions(**{"relative_costs": {FINETUNE.name: 20.0}, **conditions})
    return make_plan(ranking(scores), candidates=CANDIDATES, top_k=top_k, methods=methods, conditions=given)


NUMBERS = itertools.count(100)


def tried(name: str, value: float | None, method: str = "finetune", **other: object) -> Tried:
    fields = {
        "candidate": name,
        "method": method,
        "origin": TrialOrigin.PLANNED,
        "state": TrialState.COMPLETE if value is not None else TrialState.FAILED,
        "validation": value,
        "seconds": 10.0 if method == "finetune" else 1.0,
        "point": DEFAULT,
        "number": next(NUMBERS),
    }
    return Tried(**{**fields, **other})
