"""The Gaussian mechanism against high precision, quadrature, tables and its own inverses."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy.accounting import (
    classic_gaussian_epsilon,
    classic_zcdp_epsilon,
    compose_mu,
    discrete_gaussian_mu,
    discrete_gaussian_rho,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_mu,
    gaussian_noise_std,
    zcdp_to_epsilon,
)
from tests.support import privacy_loss

MUS = st.floats(-8, 4).map(lambda x: 10**x)
DELTAS = st.floats(-300, math.log10(0.5)).map(lambda x: 10**x)


def precise_log_delta(mu, epsilon):
    with mpmath.workdps(400):
        mu, epsilon = mpmath.mpf(mu), mpmath.mpf(epsilon)
        value = mpmath.ncdf(mu / 2 - epsilon / mu) - mpmath.exp(epsilon) * mpmath.ncdf(-mu / 2 - epsilon / mu)
        return float(mpmath.log(value))


@given(MUS, st.floats(-36, 3))
def test_log_delta_has_all_digits_in_every_regime(mu, quantile):
    epsilon = max(0.0, mu * mu / 2 - mu * quantile)
    # epsilon / mu - mu / 2 loses digits at large mu, as if epsilon had been off in its last one.
    assert gaussian_log_delta(mu, epsilon) == pytest.approx(precise_log_delta(mu, epsilon), abs=1e-10, rel=1e-12)


def test_delta_equals_the_integral_of_the_densities():
    for mu, epsilon in [(0.1, 0.05), (1.0, 0.0), (1.0, 2.0), (3.0, 5.0)]:
        z = np.linspace(-15, 15 + mu, 2_000_001)
        density = np.exp(-((z - mu) ** 2) / 2) - math.exp(epsilon) * np.exp(-(z**2) / 2)
        integral = np.trapezoid(np.maximum(density, 0), z) / math.sqrt(2 * math.pi)
        assert gaussian_delta(mu, epsilon) == pytest.approx(integral, rel=1e-6)


@given(MUS, DELTAS)
def test_epsilon_is_enough_and_not_too_much(mu, delta):
    epsilon = gaussian_epsilon(mu, delta)
    assert math.isfinite(epsilon)
    assert gaussian_log_delta(mu, epsilon) <= math.log(delta)
    if epsilon > 1e-9 * mu:
        assert gaussian_log_delta(mu, epsilon * (1 - 1e-9)) > math.log(delta)


@given(st.one_of(st.just(0.0), st.floats(-8, 5).map(lambda x: 10**x)), DELTAS)
def test_mu_is_private_enough_and_the_largest(epsilon, delta):
    mu = gaussian_mu(epsilon, delta)
    assert mu > 0
    assert gaussian_log_delta(mu, epsilon) <= math.log(delta)
    assert gaussian_log_delta(mu * (1 + 1e-9), epsilon) > math.log(delta)


@given(MUS, st.floats(1e-300, 0.4), st.floats(1.001, 3))
def test_more_signal_or_less_delta_costs_more(mu, delta, factor):
    assert gaussian_epsilon(mu * factor, delta) >= gaussian_epsilon(mu, delta)
    assert gaussian_epsilon(mu, delta) >= gaussian_epsilon(mu, delta * factor if delta * factor < 1 else 0.9)


@pytest.mark.parametrize(
    ("sigma", "classic", "classic_zcdp", "cks", "exact"),
    [
        (0.23, 13.35, 17.92, 16.74, 15.51),
        (0.5, 6.14, 7.07, 6.31, 5.77),
        (1, 3.07, 3.29, 2.79, 2.53),
        (2, 1.54, 1.58, 1.27, 1.14),
        (3.1, 0.991, 1.005, 0.780, 0.697),
        (10, 0.307, 0.306, 0.213, 0.187),
    ],
)
def test_four_formulae_for_one_mechanism(sigma, classic, classic_zcdp, cks, exact):
    """Sensitivity 1/sqrt 2 at delta = 1e-4: the same noise, and the exact number is below every valid formula."""
    mu = math.sqrt(0.5) / sigma
    old = classic_gaussian_epsilon(mu, 1e-4)
    assert old.value == pytest.approx(classic, rel=5e-3)
    assert old.value == pytest.approx(math.sqrt(2 * math.log(12500)) * mu, rel=1e-12)
    assert old.proven is (sigma > 3.08)
    assert classic_zcdp_epsilon(mu**2 / 2, 1e-4).value == pytest.approx(classic_zcdp, rel=5e-3)
    assert zcdp_to_epsilon(mu**2 / 2, 1e-4) == pytest.approx(cks, rel=5e-3)
    assert gaussian_epsilon(mu, 1e-4) == pytest.approx(exact, rel=5e-3)
    if old.proven:
        assert gaussian_epsilon(mu, 1e-4) < old.value


def test_the_classic_formula_is_false_where_it_was_not_proven():
    mu = math.sqrt(0.5) / 0.23
    claimed = classic_gaussian_epsilon(mu, 1e-4)
    assert not claimed.proven
    assert gaussian_delta(mu, claimed.value) == pytest.approx(1.2e-3, rel=0.05)  # twelve times the delta that it claims


def test_noise_for_a_budget():
    std = gaussian_noise_std(1.0, 1e-5, 3.0)
    assert gaussian_delta(3.0 / std, 1.0) <= 1e-5
    assert gaussian_delta(3.0 / (0.999 * std), 1.0) > 1e-5
    with pytest.raises(InvalidArgumentError, match="sensitivity"):
        gaussian_noise_std(1.0, 1e-5, 0.0)


def test_composition_is_the_root_of_the_sum_of_squares():
    assert compose_mu([3.0, 4.0]) == 5.0
    assert compose_mu([]) == 0.0
    assert compose_mu([1e-200, 1e-200]) == pytest.approx(math.sqrt(2) * 1e-200)


@pytest.mark.parametrize("wrong", [-1.0, math.inf, math.nan, True, "1", None])
def test_bad_input_is_named(wrong):
    with pytest.raises(InvalidBudgetError, match="mu"):
        gaussian_delta(wrong, 1.0)
    with pytest.raises(InvalidBudgetError, match="epsilon"):
        gaussian_delta(1.0, wrong)
    with pytest.raises(InvalidBudgetError, match="delta"):
        gaussian_epsilon(1.0, wrong)


def test_no_signal_costs_nothing():
    assert gaussian_delta(0.0, 0.0) == 0
    assert gaussian_epsilon(0.0, 1e-10) == 0


@pytest.mark.parametrize(("mu", "epsilon"), [(1.0, 40.0), (1.0, 38.0), (1e-300, 1e300), (1e-8, 1.0), (3.0, 120.0)])
def test_delta_of_noise_is_never_0(mu, epsilon):
    """Also where it is less than the smallest float, or next to it, where rounding to nearest may be down."""
    with mpmath.workdps(2000):
        log_delta = mpmath.mpf(gaussian_log_delta(mu, epsilon)) if mu > 1e-100 else mpmath.mpf("-inf")
        assert gaussian_delta(mu, epsilon) >= mpmath.exp(log_delta)
    assert gaussian_delta(mu, epsilon) > 0


@pytest.mark.parametrize(("steps", "tau"), [(1.0, 0.5), (2.0, 0.6), (3.0, 0.8)])
def test_discrete_gaussian_is_a_rounding_of_a_continuous_one(steps, tau):
    """Theorem 11: the law of the rounding, by quadrature, is within the stated log-ratio, and needs most of it."""
    x = np.arange(-40, 41)
    y = np.linspace(-12 * steps, 12 * steps, 20_001)
    inner_std = math.sqrt(steps**2 - tau**2)
    density = np.exp(-(y**2) / (2 * inner_std**2)) / (inner_std * math.sqrt(2 * math.pi))
    rounding = np.exp(-((x[:, None] - y[None, :]) ** 2) / (2 * tau**2))
    law = np.trapezoid(rounding / rounding.sum(0) * density, y)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    theta = 2 * sum(math.exp(-2 * math.pi**2 * tau**2 * k**2) for k in range(1, 6))
    near = np.abs(x) <= 5 * steps
    log_ratio = np.abs(np.log(law[near] / privacy_loss.discrete_gaussian(steps, 0, 40)[near])).max()
    assert log_ratio <= 2 * math.atanh(theta)
    if tau <= 0.6:
        assert log_ratio > 1e-4 * theta  # the two laws do differ: the test sees what it bounds


@pytest.mark.parametrize("steps", [2.0, 3.0, 10.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
def test_discrete_gaussian_is_dominated(steps, shift):
    mu, variation = discrete_gaussian_mu(shift, steps, 1)
    assert mu > shift / steps
    assert 0 < variation < 1e-18
    size = int(15 * steps)
    p, q = privacy_loss.discrete_gaussian(steps, 0, size), privacy_loss.discrete_gaussian(steps, shift, size)
    for epsilon in np.linspace(0, 6, 25):
        delta = privacy_loss.hockey_stick(p, q, epsilon)
        assert delta <= gaussian_delta(mu, epsilon) + (1 + math.exp(epsilon)) * variation + 1e-15
    if steps > 2:
        assert privacy_loss.hockey_stick(p, q, 0.1) > gaussian_delta(0.8 * mu, 0.1)
    for alpha in (1.1, 2.0, 5.0):
        assert privacy_loss.renyi(p, q, alpha) <= alpha * discrete_gaussian_rho(shift, steps) * (1 + 1e-9)


def test_too_coarse_a_lattice_is_refused():
    with pytest.raises(InvalidArgumentError, match="ConcentratedEvent"):
        discrete_gaussian_mu(1, 1.5, 10)
    fine = discrete_gaussian_mu(1000.0, 1e6, 10**9)[0]
    assert fine == pytest.approx(1e-3, rel=1e-9)
    assert discrete_gaussian_mu(1, 10, 10**6)[0] > discrete_gaussian_mu(1, 10, 10)[0]
