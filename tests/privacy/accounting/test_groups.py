"""Records in several members: the quantile of a binomial number, and group privacy of events."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy import BoundedRangeEvent, ConcentratedEvent, GaussianEvent, LaplaceEvent, compose
from privkernels.privacy.accounting import composed_delta, inclusion_quantile, inclusion_tail


@pytest.mark.parametrize(("rate", "overlap"), [(0.02, 8), (0.632, 46)])
def test_known_quantiles_of_fifty_members(rate, overlap):
    assert inclusion_quantile(50, rate, 1e-6) == overlap


@given(st.integers(1, 200), st.floats(0, 1), st.floats(1e-12, 0.5))
def test_quantile_is_the_least_that_holds(members, rate, delta):
    overlap = inclusion_quantile(members, rate, delta)
    exact = [math.comb(members, s) * rate**s * (1 - rate) ** (members - s) for s in range(members + 1)]
    assert math.fsum(exact[overlap + 1 :]) <= delta
    if overlap > 0:
        assert math.fsum(exact[overlap:]) > delta * (1 - 1e-6)


def test_extreme_rates():
    assert inclusion_quantile(10, 0.0, 1e-9) == 0
    assert inclusion_quantile(10, 1.0, 1e-9) == 10
    assert inclusion_tail(10, 0.5, 10) == 0
    assert inclusion_tail(10, 0.5, 9) == pytest.approx(2**-10)


def test_random_inclusion_covers_an_exact_mixture():
    """A record in s of 6 members with s ~ Bin(6, 0.1), then Gaussian noise: the mixture over s, by quadrature."""
    members, rate, delta = 6, 0.1, 1e-4
    overlap = inclusion_quantile(members, rate, delta / 2)
    one = GaussianEvent(mu=0.4)
    bound = compose([one.scaled(overlap)], delta / 2)
    z = np.linspace(-12, 15, 200_001)
    share = [math.comb(members, s) * rate**s * (1 - rate) ** (members - s) for s in range(members + 1)]
    leak = 0.0
    for s in range(members + 1):  # the subsets are what they are for both neighbours, so the worst adds up
        density = np.exp(-((z - 0.4 * s) ** 2) / 2) - math.exp(bound.epsilon) * np.exp(-(z**2) / 2)
        leak += share[s] * float(np.trapezoid(np.maximum(density, 0), z)) / math.sqrt(2 * math.pi)
    assert leak <= bound.delta + inclusion_tail(members, rate, overlap)
    assert inclusion_tail(members, rate, overlap) > 0


@pytest.mark.parametrize(
    "event", [GaussianEvent(mu=0.5), LaplaceEvent(epsilon=0.5), BoundedRangeEvent(eta=0.5), ConcentratedEvent(rho=0.1)]
)
def test_a_group_costs_no_less_than_its_steps_allow(event):
    """Group privacy by hand: (eps, delta) per unit gives (2 eps, delta (1 + e^eps)) for two."""
    for epsilon in (0.1, 0.3, 0.6):
        one = composed_delta([event], epsilon).delta
        two = composed_delta([event.scaled(2)], 2 * epsilon).delta
        assert two <= one * (1 + math.exp(epsilon)) * (1 + 1e-9)
        assert two >= composed_delta([event], 2 * epsilon).delta


def test_bad_arguments():
    for members in (0, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="members"):
            inclusion_tail(members, 0.5, 1)
    for rate in (-0.1, 1.1, math.nan, None, True):
        with pytest.raises(InvalidArgumentError, match="rate"):
            inclusion_quantile(10, rate, 0.1)
    with pytest.raises(InvalidBudgetError, match="delta"):
        inclusion_quantile(10, 0.5, 0.0)
