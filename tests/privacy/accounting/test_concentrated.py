"""Composition: against numbers derived by hand, a brute-force search, and exact small mechanisms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidBudgetError
from privkernels.privacy import BoundedRangeEvent, compose, zcdp_to_epsilon
from privkernels.privacy.accounting import check_delta, check_epsilon


@pytest.mark.parametrize(
    ("count", "eta", "epsilon"),
    [
        (7_850, 1.0, 1190.5),
        (7_850, 0.1, 29.7),
        (7_850, 0.01, 1.89),
        (314_394, 0.1, 524.7),
        (1_199_882, 1.0, 152_608),
        (1_199_882, 0.1, 1_759),
        (1_199_882, 0.01, 39.8),
    ],
)
def test_known_compositions_at_delta_1e_5(count, eta, epsilon):
    assert zcdp_to_epsilon(count * eta**2 / 8, 1e-5) == pytest.approx(epsilon, rel=5e-3)


@given(st.floats(1e-8, 1e4), st.floats(1e-12, 0.5))
def test_conversion_equals_a_dense_search_over_alpha(rho, delta):
    excess = np.exp(np.linspace(-25, 25, 200_001))
    alpha = 1 + excess
    terms = rho * alpha + (math.log(1 / delta) - np.log(alpha)) / excess - np.log1p(1 / excess)
    searched = max(0.0, float(terms.min()))
    assert zcdp_to_epsilon(rho, delta) <= searched * (1 + 1e-6) + 1e-9
    assert zcdp_to_epsilon(rho, delta) >= searched * (1 - 1e-6) - 1e-7


@given(st.floats(1e-6, 100), st.floats(1e-10, 0.1))
def test_conversion_is_never_above_the_classic_one(rho, delta):
    assert zcdp_to_epsilon(rho, delta) <= rho + 2 * math.sqrt(rho * math.log(1 / delta)) + 1e-9


def test_conversion_covers_the_gaussian_mechanism():
    """rho-zCDP holds for Gaussian noise with rho = mu^2 / 2; its exact delta must not be above delta."""

    def cdf(x):
        return 0.5 * math.erfc(-x / math.sqrt(2))

    for mu, delta in itertools.product((0.1, 0.5, 1.0, 3.0), (1e-3, 1e-5, 1e-8)):
        epsilon = zcdp_to_epsilon(mu**2 / 2, delta)
        exact = cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * cdf(-mu / 2 - epsilon / mu)
        assert exact <= delta
        assert exact >= delta / 100  # and the conversion is not absurdly loose


def _delta_of(epsilon: float, losses: np.ndarray, probabilities: np.ndarray) -> float:
    return float((probabilities * np.maximum(0, 1 - np.exp(epsilon - losses))).sum())


def compose_bounded_range(eta, count, delta):
    return compose([BoundedRangeEvent(eta=eta, count=count)], delta)


def test_composition_covers_exact_exponential_mechanisms():
    """k draws of a two-point mechanism at the edge of its range, enumerated exactly."""
    eta, count, delta = 0.8, 10, 1e-3
    worst = 0.0
    for share in np.linspace(0.01, 0.99, 99):
        # P' puts `share` on the first point; losses t and t - eta are the extreme bounded-range pair.
        t = -math.log(share + (1 - share) * math.exp(-eta))
        first, second = share * math.exp(t), (1 - share) * math.exp(t - eta)
        losses = np.array([i * t + (count - i) * (t - eta) for i in range(count + 1)])
        weights = np.array([math.comb(count, i) * first**i * second ** (count - i) for i in range(count + 1)])
        assert weights.sum() == pytest.approx(1)
        bound = compose_bounded_range(eta, count, delta)
        worst = max(worst, _delta_of(bound.epsilon, losses, weights))
        assert _delta_of(bound.epsilon, losses, weights) <= delta
    assert worst > 0, "the case is too easy to tell a right bound from a wrong one"
    half = compose_bounded_range(eta / 2, count, delta).epsilon
    t = -math.log(0.5 + 0.5 * math.exp(-eta))
    losses = np.array([i * t + (count - i) * (t - eta) for i in range(count + 1)])
    p = 0.5 * math.exp(t)
    weights = np.array([math.comb(count, i) * p**i * (1 - p) ** (count - i) for i in range(count + 1)])
    assert _delta_of(half, losses, weights) > delta, "a bound for half the range must be rejected"


@given(st.floats(1e-5, 5), st.integers(1, 10**7), st.floats(1e-10, 0.1))
def test_composition_is_the_lesser_bound_and_grows(eta, count, delta):
    bound = compose_bounded_range(eta, count, delta)
    assert bound.epsilon <= count * eta
    assert bound.epsilon <= zcdp_to_epsilon(count * eta**2 / 8, delta) * (1 + 1e-9)
    assert bound.delta in (0.0, delta)
    assert compose_bounded_range(eta * 1.01, count, delta).epsilon >= bound.epsilon
    assert compose_bounded_range(eta, count + 1, delta).epsilon >= bound.epsilon * (1 - 1e-9)
    assert compose_bounded_range(eta, count, delta / 2).epsilon >= bound.epsilon * (1 - 1e-9)


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan, True, "1", None])
def test_epsilon_must_be_positive_and_finite(epsilon):
    with pytest.raises(InvalidBudgetError, match="positive, finite"):
        check_epsilon(epsilon)


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan, "x"])
def test_delta_must_lie_between_0_and_1(delta):
    with pytest.raises(InvalidBudgetError, match="between 0 and 1"):
        check_delta(delta)
    with pytest.raises(InvalidBudgetError):
        zcdp_to_epsilon(1.0, delta)


def test_rho_must_be_finite():
    with pytest.raises(InvalidBudgetError, match="rho"):
        zcdp_to_epsilon(math.inf, 1e-5)
    assert zcdp_to_epsilon(0.0, 1e-5) == 0
