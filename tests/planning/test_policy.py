from dataclasses import replace

import numpy as np
import pytest

from helpers.planning_world import CANDIDATES, SCORES, plan, ranking, tried
from vlmsel_auto.planning.next_trial import next_trial
from vlmsel_auto.planning.policy import POLICY
from vlmsel_auto.planning.trial_posterior import Observation, slopes_of, trial_posterior, trial_prior
from vlmsel_auto.planning.trials import Left


def test_slopes_hold_the_order_and_its_reverse() -> None:
    slopes = slopes_of(POLICY)
    half = len(slopes) // 2
    assert np.median(slopes[:half]) == pytest.approx(POLICY.typical_spread)
    assert np.array_equal(slopes[half:], -slopes[:half])


def test_a_policy_reaches_what_it_governs() -> None:
    trusting = replace(POLICY, reversed_order=1e-9)
    belief = trial_prior(ranking(SCORES), candidates=CANDIDATES)
    reverse = [Observation(candidate=m, method=0, value=0.4 + 0.08 * m) for m in range(3)]
    turned = trial_posterior(belief, reverse).mean[:, 0]
    kept = trial_posterior(belief, reverse, policy=trusting).mean[:, 0]
    assert turned[-1] > turned[0]
    assert kept[-1] < turned[-1]
    history = [tried(f"m{m}", 0.5, method) for m in range(8) for method in ("probe", "finetune")]
    for policy, ends in ((POLICY, False), (replace(POLICY, least_gain=0.1), True), (replace(POLICY, price=10.0), True)):
        assert (next_trial(plan(top_k=8, policy=policy), history, left=Left()) is None) == ends
