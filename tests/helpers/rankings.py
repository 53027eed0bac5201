"""Rankings by hand."""

from collections.abc import Mapping

from vlmsel_auto.records import Basis, Interval, RankedCandidate, Ranking


def ranking_of(
    scores: Mapping[str, float], *, task: str = "t", sd: float = 1.0, basis: Basis = Basis.IMAGES, chances: bool = False
) -> Ranking:
    """Candidates by their scores, the best first; ``chances``: the scores are also the chances to be the best."""
    lines = tuple(
        RankedCandidate(
            candidate=name,
            score=float(score),
            sd=sd,
            prior=None,
            evidence=None,
            p_best=score if chances else 0.0,
            p_top5=1.0 if chances else 0.0,
            rank_interval=Interval(low=1, high=len(scores)),
            basis=basis,
        )
        for name, score in sorted(scores.items(), key=lambda one: -one[1])
    )
    return Ranking(task=task, ranked=lines)
