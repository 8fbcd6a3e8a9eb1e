"""Rényi divergences of Poisson-sampled Gaussian steps: against 50-digit sums and integrals, and dp-accounting."""

import math

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting import rdp
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants.analysis import rdp as opacus_rdp

from privkernels.privacy import SampledGaussianEvent, compose
from privkernels.privacy.accounting import composed_delta
from privkernels.privacy.accounting.renyi import renyi_to_epsilon
from privkernels.privacy.accounting.sampled_gaussian import sampled_gaussian_renyi

RATES = st.floats(-12, -0.01).map(lambda x: 10**x)
NOISES = st.floats(-0.5, 8).map(lambda x: 10**x)


def ours(rate, noise, order):
    return float(sampled_gaussian_renyi(rate, noise, np.array([order - 1.0]))[0])


def by_sum(rate, noise, order):
    """The divergence at a whole order (Mironov, Talwar, Zhang 2019), exactly."""
    with mpmath.workdps(60):
        q, s = mpmath.mpf(rate), mpmath.mpf(noise)
        rise = mpmath.fsum(
            mpmath.binomial(order, k) * (1 - q) ** (order - k) * q**k * mpmath.expm1((k * k - k) / (2 * s * s))
            for k in range(2, order + 1)
        )
        return mpmath.log1p(rise) / (order - 1)


def by_integral(rate, noise, order):
    """The divergence at any order, by its definition."""
    with mpmath.workdps(40):
        q, s, a = (mpmath.mpf(x) for x in (rate, noise, order))

        def integrand(y):
            u = q * mpmath.expm1((y - 1 / (2 * s)) / s)
            return mpmath.npdf(y) * ((1 + u) ** a - 1 - a * u)

        points = sorted({-14.0, *(float(k / (2 * s)) + d for k in (0, 1, 2, 2 * a) for d in (-8, -4, -2, 0, 2, 4, 14))})
        return mpmath.log1p(mpmath.quad(integrand, points)) / (a - 1)


@settings(max_examples=40)
@given(RATES, NOISES, st.one_of(st.integers(2, 64), st.sampled_from([300, 1000])))
def test_whole_orders_are_above_the_sum_and_by_little(rate, noise, order):
    exact, found = by_sum(rate, noise, order), ours(rate, noise, order)
    assert found >= exact
    # Above 64 most orders lie on a chord between two others.
    assert found <= exact * (1 + (1e-8 if order <= 64 else 0.02)) + 1e-320
    assert found <= order / (2 * noise**2) * (1 + 1e-12)


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (1e-4, 1.0), (0.5, 0.5), (1e-8, 10.0), (0.01, 0.05)])
@pytest.mark.parametrize("order", [1.001, 1.3, 1.95, 2.5, 6.25])
def test_broken_orders_are_above_the_integral_and_by_little(rate, noise, order):
    exact = by_integral(rate, noise, order)
    assert 1 <= mpmath.mpf(ours(rate, noise, order)) / exact <= 1 + (5e-3 if noise >= 0.3 else 0.02)


@settings(max_examples=25)
@given(RATES, NOISES)
def test_the_divergence_grows_with_the_order_and_the_rate(rate, noise):
    excess = np.geomspace(1e-10, 1e5, 400)
    curve = sampled_gaussian_renyi(rate, noise, excess)
    assert (np.diff(curve) >= -2e-9 * curve[1:]).all()
    assert (sampled_gaussian_renyi(math.sqrt(rate), noise, excess) >= curve * (1 - 2e-9)).all()


@pytest.mark.parametrize(("rate", "noise"), [(0.01, 1.0), (0.1, 2.0), (1e-3, 0.7), (0.3, 10.0)])
def test_agrees_with_opacus_and_dp_accounting_where_they_have_digits(rate, noise):
    orders = [1.1, 1.5, 2, 3, 4.5, 8, 10.5, 32, 64]
    accountant = rdp.RdpAccountant(orders, dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)))
    opacus = opacus_rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=orders)
    for order, looser, theirs in zip(orders, accountant.rdp, opacus, strict=True):
        assert ours(rate, noise, order) == pytest.approx(theirs, rel=1e-6)
        # dp-accounting takes chords between whole orders.
        assert ours(rate, noise, order) <= looser * (1 + 1e-8)


def test_many_steps_of_much_noise_are_not_free():
    """10^16 steps of noise 10^7 at rate 0.01: dp-accounting's divergences round to 0 there, the exact ones do not."""
    event = SampledGaussianEvent(noise_multiplier=1e7, rate=0.01, count=10**16)
    bound = compose([event], 1e-6)
    exact = min(
        float(event.count * by_sum(0.01, 1e7, a) + (math.log(1e6) - math.log(a)) / (a - 1) + math.log1p(-1 / a))
        for a in range(40, 52)
    )
    assert bound.epsilon == pytest.approx(exact, rel=1e-4)
    assert composed_delta([event], bound.epsilon).delta <= 1e-6 * (1 + 1e-6)
    assert sampled_gaussian_renyi(1e-300, 1.0, np.array([1.0, 7.0])).min() > 0


def test_limits_of_the_parameters():
    excess = np.array([0.1, 1.0, 9.0])
    assert (sampled_gaussian_renyi(0.0, 1.0, excess) == 0).all()
    np.testing.assert_allclose(sampled_gaussian_renyi(1.0, 2.0, excess), (1 + excess) / 8, rtol=1e-12)
    np.testing.assert_allclose(sampled_gaussian_renyi(1 - 1e-9, 2.0, excess), (1 + excess) / 8, rtol=1e-6)
    assert (sampled_gaussian_renyi(0.5, 1e-200, excess) == math.inf).all()
    assert (sampled_gaussian_renyi(0.5, 1e-3, excess) > 1e4).all()
    assert (sampled_gaussian_renyi(0.5, 1e200, excess) > 0).all()


def test_orders_below_2_are_used_where_noise_is_small():
    """One order of 2 or more for all would be far above: most of a step's loss is rare and huge."""
    curve = renyi_to_epsilon(lambda excess: 1000 * sampled_gaussian_renyi(1e-4, 0.25, excess), 1e-5)
    whole = min(
        float(1000 * by_sum(1e-4, 0.25, a)) + (math.log(1e5) - math.log(a)) / (a - 1) + math.log1p(-1 / a)
        for a in range(2, 12)
    )
    assert curve.order < 2
    assert curve.value < 0.9 * whole
