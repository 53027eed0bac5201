"""An Optuna study told to a `CandidateSearch`, and candidates as values of the study's parameter."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from .ask_tell import Mode, Value
from .candidate_search import CandidatePrior, CandidateSearch

NAMES_ATTRIBUTE = "vlmsel:candidates"  # of a study that suggests candidates by index
_STEP_ERROR = 1e-8  # of a step, as Optuna has it


def mode_of(study: Study) -> Mode:
    """Of the study's first objective."""
    return "max" if study.directions[0] == StudyDirection.MAXIMIZE else "min"


def value_in(trial: FrozenTrial) -> float | None:
    """The first objective's value of a trial that ended and kept to its constraints; None otherwise."""
    feasible = all(value <= 0 for value in trial.constraints.values()) if trial.constraints else True
    return trial.values[0] if trial.state == TrialState.COMPLETE and trial.values and feasible else None


def search_of(study: Study, prior: CandidatePrior, *, but: FrozenTrial | None = None) -> CandidateSearch:
    """A search that was told every trial of the study ``but`` this one, in order; those in its queue are not begun."""
    search = CandidateSearch(prior, mode=mode_of(study))
    for trial in study.get_trials(deepcopy=False):
        name = name_in(prior, trial)
        if name is None or trial.state == TrialState.WAITING or (but is not None and trial.number == but.number):
            continue
        params = {prior.parameter: name}
        search.begin(params)
        if trial.state == TrialState.FAIL:
            search.fail(params)
        elif trial.state.is_finished():
            search.tell(params, value_in(trial))
    return search


def name_in(prior: CandidatePrior, trial: FrozenTrial) -> str | None:
    """The candidate of a trial; None: none of the prior's."""
    return _name(prior, trial.params.get(prior.parameter))


def value_of(prior: CandidatePrior, name: str, distribution: BaseDistribution) -> str | int:
    """What the study calls a candidate: its name where the study has names, else its index."""
    named = isinstance(distribution, CategoricalDistribution) and name in distribution.choices
    return name if named else prior.names.index(name)


def holds(distribution: BaseDistribution, value: Value) -> bool:
    """Whether a parameter may have ``value``: a choice, or a number of the range and of its steps."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, str) or not isinstance(distribution, (IntDistribution, FloatDistribution)):
        return False
    steps = 0.0 if distribution.step is None else (value - distribution.low) / distribution.step
    return distribution.low <= value <= distribution.high and abs(steps - round(steps)) < _STEP_ERROR


def keep_names(study: Study, prior: CandidatePrior) -> None:
    """Write down, once, which candidates the study's indices mean; more may come behind them.

    Raises:
        ValueError: the prior counts its candidates in another order than those that made the study's trials.
    """
    if isinstance(study.pruner, HyperbandPruner):
        return  # samplers are shown a part of the study, which has no attributes
    kept, names = list(study.user_attrs.get(NAMES_ATTRIBUTE, ())), list(prior.names)
    both = min(len(kept), len(names))
    if kept[:both] != names[:both]:
        raise ValueError(
            f"The prior must count its candidates as the study's trials do, new ones last: make it with "
            f"`candidates` in the order of study.user_attrs[{NAMES_ATTRIBUTE!r}], {kept!r}, but got {names!r}"
        )
    if len(kept) < len(names):
        study.set_user_attr(NAMES_ATTRIBUTE, names)


def kinds_of(study: Study, names: Collection[str]) -> dict[str, BaseDistribution]:
    """The latest distribution of each of these parameters; none of what no trial had."""
    found: dict[str, BaseDistribution] = {}
    for trial in reversed(study.get_trials(deepcopy=False)):
        if len(found) == len(names):
            break
        found = {name: kind for name, kind in trial.distributions.items() if name in names} | found
    return found


def sets_first(study: Study, prior: CandidatePrior, trial: FrozenTrial, *, name: str, kind: BaseDistribution) -> bool:
    """Whether the prior sets this parameter, no other trial told of it, and the candidate had no trial."""
    if name not in prior.settings or not holds(kind, prior.settings[name]):
        return False
    if any(name in each.distributions for each in study.get_trials(deepcopy=False) if each.number != trial.number):
        return False
    search, chosen = search_of(study, prior, but=trial), name_in(prior, trial)
    return all(search.is_new(each) for each in (prior.names if chosen is None else [chosen]))


def allowed_names(study: Study, prior: CandidatePrior, distribution: BaseDistribution) -> list[str]:
    """Candidates that the study may choose.

    Raises:
        ValueError: the parameter is of a kind that cannot name candidates, or names none of the prior's; or it is an
            index that means other candidates in the study (`keep_names`).
    """
    if isinstance(distribution, CategoricalDistribution):
        values: Iterable[object] = distribution.choices
    elif isinstance(distribution, IntDistribution):
        values = range(distribution.low, distribution.high + 1, distribution.step)
        keep_names(study, prior)
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
