"""A `CandidateSearch` or `PastSearch` as the searcher of somebody's OWN Ray Tune run. Extra ``ray-tune``.

Use:

searcher = AskTellSearcher(CandidateSearch(prior), metric="accuracy", mode="max", seed=0)
tuner = tune.Tuner(
    train,
    param_space={"learning_rate": tune.loguniform(1e-4, 1e-1)},  # what the search does not choose
    tune_config=tune.TuneConfig(search_alg=searcher, num_samples=20, max_concurrent_trials=2),
    run_config=tune.RunConfig(stop=SearchStopper(searcher)),
)
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
from ray import cloudpickle
from ray.tune import Stopper
from ray.tune.search import Searcher
from ray.tune.search.sample import Domain

from .ask_tell import AskTell, Mode, Value

__all__ = ["AskTellSearcher", "SearchStopper"]

_LIVE: WeakValueDictionary[str, AskTellSearcher] = WeakValueDictionary()  # Tune restores a stopper with a mere copy


class AskTellSearcher(Searcher):
    """Lets a search choose, draws from the domains of ``param_space`` what it leaves open, and tells it the last value.

    A trial that `SearchStopper` ended counts as tried, without a value. Tune saves this with its run, and a restored
    run goes on with it.

    Args:
        search: its mode must be Tune's.
        metric: name of the reported value; None: that of the `TuneConfig`.
        mode: likewise.
        seed: of the draws.

    Raises:
        ValueError: the search has another mode.
    """

    def __init__(
        self, search: AskTell, *, metric: str | None = None, mode: Mode | None = None, seed: int | None = None
    ) -> None:
        super().__init__(metric=metric, mode=mode)
        self.search = search
        self.pruned: set[str] = set()  # trials that the search itself ended
        self._domains: dict[str, Domain] = {}
        self._random = np.random.default_rng(seed)
        self._running: dict[str, dict[str, Value]] = {}
        self._asked: dict[str, int] = {}  # latest step that the search was asked about
        self._check(mode)
        self.key = uuid4().hex  # the same in whatever is restored from this
        _LIVE[self.key] = self

    def set_search_properties(
        self, metric: str | None, mode: str | None, config: Mapping[str, object], **spec: object
    ) -> bool:
        """Tune's own call: what to optimise, and the domains of what the search leaves open.

        Raises:
            ValueError: nested or grid parameters, or a mode that is not the search's.
        """
        del spec  # of newer versions of Tune; nothing here depends on it
        nested = [name for name, value in config.items() if isinstance(value, dict)]
        if nested:
            raise ValueError(f"param_space must hold plain values and domains, no grids or groups, but got {nested!r}")
        self._metric, self._mode = metric or self._metric, mode or self._mode
        self._check(self._mode)
        self._domains = {name: value for name, value in config.items() if isinstance(value, Domain)}
        return True

    def suggest(self, trial_id: str) -> dict[str, object] | str:  # type: ignore[override]  # as Ray documents it
        """The parameters that the search asks for, and draws for the rest."""
        params = self.search.ask()
        if params is None:
            return str(Searcher.FINISHED)
        self._running[trial_id] = params
        rest = {name: each for name, each in self._domains.items() if name not in params}
        drawn = {name: each.sample(random_state=self._random) for name, each in rest.items()}
        return {**drawn, **params}

    def on_trial_complete(
        self,
        trial_id: str,
        result: Mapping[str, object] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Ray's signature
    ) -> None:
        """Tell the search how a trial ended."""
        params = self._running.pop(trial_id, None)
        if params is None:
            return
        if error or result is None:
            self.search.fail(params)
        else:
            value = None if trial_id in self.pruned else result.get(self._metric or "")
            self.search.tell(params, float(value) if isinstance(value, Real) else None)

    def should_prune(self, trial_id: str, result: Mapping[str, object]) -> bool:
        """Whether the search would end this trial at its latest result, of which Tune tells the last one twice."""
        value, step = result.get(self._metric or ""), result.get("training_iteration")
        params = self._running.get(trial_id)
        if params is None or not isinstance(value, Real) or not isinstance(step, int):
            return False
        last, self._asked[trial_id] = self._asked.get(trial_id, step - 1), step
        if step > last and self.search.should_prune(params, step=step, value=float(value)):
            self.pruned.add(trial_id)
        return trial_id in self.pruned

    def save(self, checkpoint_path: str) -> None:
        """Keep all that this knows, domains that the search leaves open included, in Ray's own format."""
        Path(checkpoint_path).write_bytes(cloudpickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """Know what a saved one did; what ran then counts as running. As any file of Tune's, it must be one's own."""
        self.__dict__.update(cloudpickle.loads(Path(checkpoint_path).read_bytes()))
        _LIVE[self.key] = self

    def _check(self, mode: str | None) -> None:
        if mode is not None and mode != self.search.mode:
            raise ValueError(f"the search must have Tune's mode, {mode!r}, but got {self.search.mode!r}")


class SearchStopper(Stopper):
    """Ends trials that the search would prune, and the run when no further trial promises anything."""

    def __init__(self, searcher: AskTellSearcher) -> None:
        self._searcher = searcher

    def __call__(self, trial_id: str, result: Mapping[str, object]) -> bool:
        """Whether the trial ends here."""
        return self._live().should_prune(trial_id, result)

    def stop_all(self) -> bool:
        """Whether the run ends here."""
        return self._live().search.should_stop()

    def _live(self) -> AskTellSearcher:
        return _LIVE.get(self._searcher.key, self._searcher)
