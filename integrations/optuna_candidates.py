"""Candidates as values of one parameter of an Optuna study, by index or name."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import HyperbandPruner
from optuna.study import Study
from optuna.trial import FrozenTrial

from .candidate_prior import CandidatePrior

_NAMES = "vlmsel:candidates"  # user attribute of a study that suggests candidates by index


def name_in(prior: CandidatePrior, trial: FrozenTrial) -> str | None:
    """The candidate of a trial; None: none of the prior's."""
    return _name(prior, trial.params.get(prior.parameter))


def value_of(prior: CandidatePrior, name: str, distribution: BaseDistribution) -> str | int:
    """What the study calls a candidate: its name where the study has names, else its index."""
    named = isinstance(distribution, CategoricalDistribution) and name in distribution.choices
    return name if named else prior.names.index(name)


def allowed_names(study: Study, prior: CandidatePrior, distribution: BaseDistribution) -> list[str]:
    """Candidates that the study may choose.

    Raises:
        ValueError: the parameter is of a kind that cannot name candidates, or names none of the prior's; or it is an
            index that means other candidates in the study.
    """
    if isinstance(distribution, CategoricalDistribution):
        values: Iterable[object] = distribution.choices
    elif isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        _keep_names(study, prior)
    else:
        raise ValueError(  # noqa: TRY004 - a distribution of the wrong kind is a wrong value here
            f"The parameter {prior.parameter!r} must be an integer index or categorical names, but got {distribution!r}"
        )
    allowed = [name for name in (_name(prior, value) for value in values) if name is not None]
    if not allowed:
        raise ValueError(f"No choice of {prior.parameter!r} is a candidate of the prior, but got {distribution!r}")
    return allowed


def _name(prior: CandidatePrior, value: object) -> str | None:
    if isinstance(value, str):
        return value if value in prior.names else None
    index = int(value) if isinstance(value, (int, float)) else -1
    return prior.names[index] if 0 <= index < len(prior.names) else None


def _keep_names(study: Study, prior: CandidatePrior) -> None:
    """Write down, once, which candidates the study's indices mean; more may come behind them.

    Raises:
        ValueError: the prior counts its candidates in another order than those that made the study's trials.
    """
    if isinstance(study.pruner, HyperbandPruner):
        return  # samplers are shown a part of the study, which has no attributes
    kept, names = list(study.user_attrs.get(_NAMES, ())), list(prior.names)
    both = min(len(kept), len(names))
    if kept[:both] != names[:both]:
        raise ValueError(
            f"The prior must count its candidates as the study's trials do, new ones last: make it with "
            f"`candidates` in the order of study.user_attrs[{_NAMES!r}], {kept!r}, but got {names!r}"
        )
    if len(kept) < len(names):
        study.set_user_attr(_NAMES, names)
