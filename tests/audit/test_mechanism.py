"""Lower bounds on a mechanism's epsilon: valid where the truth is known, and near it."""

import math

import numpy as np
import pytest
from scipy import stats

from privkernels.audit import audit_mechanism
from privkernels.errors import InvalidArgumentError, TooFewRecordsError


def response(epsilon, rng):
    """Two-outcome randomised response."""
    keep = math.exp(epsilon) / (1 + math.exp(epsilon))
    return lambda second, count: ((rng.random(count) < keep) ^ second).astype(np.int64)


def laplace(epsilon, rng):
    return lambda second, count: rng.laplace(float(second), 1 / epsilon, count)


def geometric(epsilon, rng):
    q = math.exp(-epsilon)
    return lambda second, count: rng.geometric(1 - q, count) - rng.geometric(1 - q, count) + int(second)


@pytest.mark.parametrize("mechanism", [response, laplace, geometric])
@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_most_of_the_truth_is_found(mechanism, epsilon):
    result = audit_mechanism(mechanism(epsilon, np.random.default_rng(0)), 100_000)
    assert 0.85 * epsilon < result.epsilon_low <= epsilon
    assert result.epsilon_low < result.ceiling
    assert "95% confidence" in str(result)
    first, second = result.probabilities
    assert math.log(first / second) > result.epsilon_low


@pytest.mark.parametrize(
    ("mechanism", "epsilon"), [(response, 1.0), (geometric, 0.5), (laplace, 1.0), (response, 1e-9)]
)
def test_the_bound_is_above_the_truth_in_at_most_its_share_of_runs(mechanism, epsilon):
    """At the boundary of the null: 400 audits of a mechanism whose epsilon is known exactly."""
    rng = np.random.default_rng(1)
    above = sum(audit_mechanism(mechanism(epsilon, rng), 400).epsilon_low > epsilon for _ in range(400))
    # Not significantly more than 5 % (one-sided, error 1e-4).
    assert stats.binomtest(above, 400, 0.05, alternative="greater").pvalue > 1e-4
    assert above <= 40


def test_that_calibration_would_notice_a_bound_without_confidence():
    """The plain ratio of frequencies, on the draws that chose the event, is above the truth most of the time."""
    rng, above = np.random.default_rng(2), 0
    for _ in range(100):
        draw = laplace(1.0, rng)
        first, second = (np.sort(draw(which, 200)) for which in (False, True))
        cuts = np.linspace(-3, 3, 61)
        p, q = (np.searchsorted(x, cuts) + 0.5 for x in (first, second))
        above += np.max(np.abs(np.log(p / q))) > 1.0
    assert stats.binomtest(above, 100, 0.05, alternative="greater").pvalue < 1e-4


def test_delta_is_allowed_for():
    def draw(second, count):
        """Reveals the input with probability 0.05."""
        rng = np.random.default_rng(3 + second)
        return np.where(rng.random(count) < 0.05, 1 + second, 0)

    assert audit_mechanism(draw, 20_000).epsilon_low > 3
    assert audit_mechanism(draw, 20_000, delta=0.06).epsilon_low == 0


def test_outcomes_that_only_one_input_has_reach_the_ceiling():
    result = audit_mechanism(lambda second, count: np.full(count, 0.1 + second), 1000)
    assert result.epsilon_low == result.ceiling > 4


def test_equal_distributions_show_nothing():
    rng = np.random.default_rng(4)
    result = audit_mechanism(lambda second, count: rng.normal(size=count), 20_000)
    assert result.epsilon_low < 0.1


def test_many_outcomes_are_judged_as_ranges():
    result = audit_mechanism(laplace(1.0, np.random.default_rng(5)), 20_000, largest_event=50)
    assert 0.7 < result.epsilon_low <= 1


def test_a_leak_in_the_low_bits_is_seen_too():
    rng = np.random.default_rng(6)
    result = audit_mechanism(lambda second, count: 2 * rng.integers(0, 5000, count) + second, 20_000)
    assert result.epsilon_low > 1.5


def test_bad_arguments():
    good = response(1.0, np.random.default_rng(0))
    with pytest.raises(TooFewRecordsError, match="at least 100"):
        audit_mechanism(good, 99)
    for bad in ({"delta": 1.0}, {"delta": -0.1}, {"confidence": 0.0}, {"confidence": 1.0}):
        with pytest.raises(InvalidArgumentError, match="delta"):
            audit_mechanism(good, 100, **bad)
    for few in (1, 0, -5):
        with pytest.raises(InvalidArgumentError, match="largest_event"):
            audit_mechanism(good, 100, largest_event=few)
    with pytest.raises(InvalidArgumentError, match="1-D"):
        audit_mechanism(lambda second, count: np.zeros((count, 2)), 100)
