"""zCDP and its conversions: against numbers derived by hand, a dense search, and each other."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidBudgetError
from privkernels.privacy.accounting import (
    check_delta,
    check_epsilon,
    classic_zcdp_epsilon,
    epsilon_to_zcdp,
    gaussian_delta,
    zcdp_to_delta,
    zcdp_to_epsilon,
)

RHOS = st.floats(-10, 5).map(lambda x: 10**x)
DELTAS = st.floats(-30, math.log10(0.5)).map(lambda x: 10**x)


@pytest.mark.parametrize(
    ("count", "eta", "epsilon"),
    [
        (7_850, 1.0, 1190.5),
        (7_850, 0.1, 29.7),
        (7_850, 0.01, 1.89),
        (314_394, 1.0, 40_639),
        (314_394, 0.1, 524.7),
        (314_394, 0.01, 16.3),
        (1_199_882, 1.0, 152_608),
        (1_199_882, 0.1, 1_759),
        (1_199_882, 0.01, 39.8),
    ],
)
def test_known_compositions_at_delta_1e_5(count, eta, epsilon):
    assert zcdp_to_epsilon(count * eta**2 / 8, 1e-5) == pytest.approx(epsilon, rel=3e-3)


@pytest.mark.parametrize(("rho", "epsilon"), [(1.23, 8.0), (2.46, 12.2), (6.15, 21.8)])
def test_known_conversions_at_delta_1e_5(rho, epsilon):
    assert zcdp_to_epsilon(rho, 1e-5) == pytest.approx(epsilon, rel=5e-3)


@given(RHOS, DELTAS)
def test_conversion_equals_a_dense_search_over_alpha(rho, delta):
    excess = np.exp(np.linspace(-25, 25, 50_001))
    alpha = 1 + excess
    terms = rho * alpha + (math.log(1 / delta) - np.log(alpha)) / excess - np.log1p(1 / excess)
    searched = max(0.0, float(terms.min()))
    assert zcdp_to_epsilon(rho, delta) <= searched * (1 + 1e-9) + 1e-15
    assert zcdp_to_epsilon(rho, delta) >= searched * (1 - 1e-6) - 1e-9


@given(RHOS, DELTAS)
def test_conversion_is_never_above_the_classic_one(rho, delta):
    classic = classic_zcdp_epsilon(rho, delta)
    assert classic.proven
    assert zcdp_to_epsilon(rho, delta) <= classic.value * (1 + 1e-9)


@given(RHOS, DELTAS, st.floats(1.0001, 10))
def test_conversion_grows_with_rho_and_falls_with_delta(rho, delta, factor):
    assert zcdp_to_epsilon(rho * factor, delta) >= zcdp_to_epsilon(rho, delta) * (1 - 1e-9)
    assert zcdp_to_epsilon(rho, delta / factor) >= zcdp_to_epsilon(rho, delta) * (1 - 1e-9)


@given(RHOS, DELTAS)
def test_the_two_conversions_are_inverses(rho, delta):
    epsilon = zcdp_to_epsilon(rho, delta)
    if 0 < epsilon < 1e6:
        assert zcdp_to_delta(rho, epsilon) == pytest.approx(delta, rel=1e-4)


@given(st.floats(-6, 3).map(lambda x: 10**x), DELTAS)
def test_rho_of_a_budget_keeps_and_uses_it(epsilon, delta):
    rho = epsilon_to_zcdp(epsilon, delta)
    assert rho > 0
    assert zcdp_to_epsilon(rho, delta) <= epsilon
    assert zcdp_to_epsilon(rho * (1 + 1e-6), delta) > epsilon * (1 - 1e-9)


def test_conversion_covers_the_gaussian_mechanism():
    """rho-zCDP holds for Gaussian noise with rho = mu^2 / 2; its exact delta must not be above delta."""
    for mu, delta in itertools.product((0.1, 0.5, 1.0, 3.0), (1e-3, 1e-5, 1e-8)):
        exact = gaussian_delta(mu, zcdp_to_epsilon(mu**2 / 2, delta))
        assert delta / 100 <= exact <= delta  # and the conversion is not absurdly loose
        assert gaussian_delta(mu, 2.0) <= zcdp_to_delta(mu**2 / 2, 2.0)


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan, True, "1", None])
def test_epsilon_must_be_positive_and_finite(epsilon):
    with pytest.raises(InvalidBudgetError, match="positive, finite"):
        check_epsilon(epsilon)
    with pytest.raises(InvalidBudgetError, match="positive, finite"):
        epsilon_to_zcdp(epsilon, 1e-5)


@pytest.mark.parametrize("delta", [0, 1, -0.1, math.nan, "x"])
def test_delta_must_lie_between_0_and_1(delta):
    with pytest.raises(InvalidBudgetError, match="between 0 and 1"):
        check_delta(delta)
    with pytest.raises(InvalidBudgetError):
        zcdp_to_epsilon(1.0, delta)


@pytest.mark.parametrize("rho", [math.inf, -1.0, math.nan, True, None])
def test_rho_must_be_finite(rho):
    with pytest.raises(InvalidBudgetError, match="rho"):
        zcdp_to_epsilon(rho, 1e-5)
    with pytest.raises(InvalidBudgetError, match="rho"):
        zcdp_to_delta(rho, 1.0)


def test_no_rho_costs_nothing():
    assert zcdp_to_epsilon(0.0, 1e-5) == 0
    assert zcdp_to_delta(0.0, 1.0) == 0
