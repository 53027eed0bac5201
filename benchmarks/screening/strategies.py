"""Orders of loading for the replay of screening: each yields one model after another and learns what it shows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

from benchmarks.screening.tables import Scene
from vlmsel_auto.planning.next_screening import next_screening
from vlmsel_auto.planning.screening_posterior import DEFAULT, Screening, ScreeningPolicy, screening_posterior
from vlmsel_auto.planning.screening_prior import learn_prior
from vlmsel_auto.planning.trial_posterior import expected_improvement
from vlmsel_auto.records import FloatArray

Strategy: TypeAlias = Callable[[Scene], "Order"]


class Order:
    """A sequence of loads and the choice after each."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.loaded: list[int] = []

    def following(self) -> int:
        """The next model to load; some are left."""
        raise NotImplementedError

    def choice(self) -> int:
        """What would be chosen now: the model with the best screening, unless a strategy knows better."""
        return max(self.loaded, key=lambda model: float(self.scene.seen[model]))

    def load(self) -> int:
        """Load and screen the next model."""
        model = self.following()
        self.loaded.append(model)
        return model


class Fixed(Order):
    """An order that no screening changes."""

    def __init__(self, scene: Scene, order: Sequence[int]) -> None:
        super().__init__(scene)
        self.order = order

    def following(self) -> int:
        """The next of the order."""
        return int(self.order[len(self.loaded)])


def average_ranks(table: FloatArray) -> FloatArray:
    """(M,) minus the mean rank over the data sets of a table (M, J)."""
    ranks: FloatArray = rankdata(table, axis=0).mean(axis=1)
    return ranks


def random_order(scene: Scene) -> Order:
    """Any order."""
    return Fixed(scene, np.random.default_rng([*scene.seed, 1]).permutation(len(scene.truth)).tolist())


def average_rank(scene: Scene) -> Order:
    """Best average rank on the other data sets first."""
    return Fixed(scene, np.argsort(-average_ranks(scene.table), kind="stable").tolist())


def imagenet(scene: Scene) -> Order:
    """Best published accuracy on ImageNet first; average rank where the target is ImageNet or its kin."""
    if scene.imagenet is None:
        return average_rank(scene)
    return Fixed(scene, np.argsort(-scene.imagenet, kind="stable").tolist())


def portfolio(scene: Scene) -> Order:
    """The order whose first k lose least on the other data sets, greedily chosen (Feurer et al. 2022)."""
    loss = scene.table.max(axis=0) - scene.table
    return Fixed(scene, greedy(loss))


def greedy(loss: FloatArray) -> list[int]:
    """Rows of (M, J), one after another, that lower the mean of the column-wise minimum most."""
    left = np.full(loss.shape[1], np.inf)
    order: list[int] = []
    while len(order) < len(loss):
        mean = np.minimum(left, loss).mean(axis=1)
        mean[order] = np.inf
        order.append(int(mean.argmin()))
        left = np.minimum(left, loss[order[-1]])
    return order


class Gaussian(Order):
    """A Gaussian process over models (features: standardised accuracies on the other data sets), expected improvement.

    The first model is the one of the best average rank. Kernel: constant x RBF + white, fitted by marginal likelihood.
    """

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        table = scene.table
        self.features = (table - table.mean(axis=0)) / table.std(axis=0) / np.sqrt(table.shape[1])

    def following(self) -> int:
        """Highest expected improvement."""
        if not self.loaded:
            return int(average_ranks(self.scene.table).argmax())
        found = self.scene.seen[self.loaded]
        kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(1.0, (1e-1, 1e1)) + WhiteKernel(0.1, (1e-3, 1e0))
        process = GaussianProcessRegressor(kernel, normalize_y=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a bound is reached with few screenings
            process.fit(self.features[self.loaded], found)
        mean, sd = process.predict(self.features, return_std=True)
        value = expected_improvement(mean, sd, best=float(found.max()))
        value[self.loaded] = -np.inf
        return int(value.argmax())


class Ours(Order):
    """`vlmsel_auto.planning.next_screening`."""

    def __init__(self, scene: Scene, *, policy: ScreeningPolicy = DEFAULT, costly: bool = False) -> None:
        super().__init__(scene)
        self.prior = learn_prior(scene.table)
        self.policy = policy
        self.costs = scene.expected if costly else None

    @property
    def screenings(self) -> list[Screening]:
        """What was seen."""
        scene = self.scene
        return [Screening(candidate=m, accuracy=float(scene.seen[m]), sd=float(scene.sd[m])) for m in self.loaded]

    def following(self) -> int:
        """The screening that is worth most."""
        model = next_screening(self.prior, self.screenings, costs=self.costs, policy=self.policy)
        if model is None:
            raise IndexError("all models were loaded")
        return model

    def choice(self) -> int:
        """Highest posterior mean among those loaded."""
        mean = screening_posterior(self.prior, self.screenings, policy=self.policy).mean
        return max(self.loaded, key=lambda model: float(mean[model]))


def shuffled(scene: Scene) -> Scene:
    """The other data sets' accuracies under wrong models' names."""
    order = np.random.default_rng([*scene.seed, 2]).permutation(len(scene.truth))
    return replace(scene, table=scene.table[order])


def turned(scene: Scene) -> Scene:
    """The other data sets' accuracies with the order the wrong way round."""
    return replace(scene, table=1 - scene.table)


def holes(scene: Scene) -> Scene:
    """Three of ten published accuracies unknown."""
    hidden = np.random.default_rng([*scene.seed, 3]).random(scene.table.shape) < 0.3
    return replace(scene, table=np.where(hidden, np.nan, scene.table))


STRATEGIES: dict[str, Strategy] = {
    "random": random_order,
    "average_rank": average_rank,
    "imagenet": imagenet,
    "portfolio": portfolio,
    "gp_ei": Gaussian,
    "ours": Ours,
    "ours_no_cover": partial(Ours, policy=ScreeningPolicy(cover_every=0)),
    "ours_shuffled": lambda scene: Ours(shuffled(scene)),
    "ours_reversed": lambda scene: Ours(turned(scene)),
}
VARIANTS = tuple(ScreeningPolicy(cover_every=c, p_reversed=p) for c in (0, 2, 3) for p in (0.005, 0.015, 0.03))
