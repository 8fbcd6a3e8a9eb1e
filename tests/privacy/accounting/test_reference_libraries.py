"""dp-accounting and Opacus: agreement where they are right, and the truth beside them where they are not.

A defect is stated for the release in which it was seen. The truth is computed here by quadrature or in closed form,
and our number is compared with that in every release.
"""

import math
from importlib.metadata import version

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld, rdp
from opacus.accountants import PRVAccountant
from opacus.accountants.analysis import gdp as opacus_gdp
from opacus.accountants.analysis import rdp as opacus_rdp

from privkernels.privacy import (
    BoundedRangeEvent,
    ConcentratedEvent,
    GaussianEvent,
    LaplaceEvent,
    SampledGaussianEvent,
    compose,
    zcdp_to_epsilon,
)
from privkernels.privacy.accounting import composed_delta, gaussian_delta, gaussian_epsilon, gaussian_noise_std

RELATIONS = dp_accounting.NeighboringRelation
in_dp_accounting_0_6_0 = pytest.mark.skipif(
    version("dp-accounting") != "0.6.0", reason="states a defect of dp-accounting 0.6.0"
)
in_opacus_1_6_0 = pytest.mark.skipif(version("opacus") != "1.6.0", reason="states a defect of Opacus 1.6.0")


def google(accountant, event, delta, count=1):
    accountant.compose(event, count)
    return accountant.get_epsilon(delta)


def sampled_delta(noise, rate, epsilon):
    """Exact delta of one Poisson-sampled Gaussian step, a record removed, by quadrature."""
    z = np.linspace(-12 * noise, 12 * noise + 1, 400_001)
    without, with_record = (np.exp(-((z - m) ** 2) / (2 * noise**2)) for m in (0, 1))
    density = (1 - rate - math.exp(epsilon)) * without + rate * with_record
    return float(np.trapezoid(np.maximum(density, 0), z)) / (noise * math.sqrt(2 * math.pi))


@pytest.mark.parametrize("noise", [0.5, 1.0, 4.0, 20.0])
def test_gaussian_agrees_with_dp_accounting(noise):
    ours = compose([GaussianEvent(mu=1 / noise)], 1e-6).epsilon
    assert ours == pytest.approx(dp_accounting.get_epsilon_gaussian(noise, 1e-6), rel=1e-6)
    assert gaussian_noise_std(ours, 1e-6, 1.0) == pytest.approx(noise, rel=1e-6)
    assert ours == pytest.approx(
        google(pld.PLDAccountant(RELATIONS.ADD_OR_REMOVE_ONE), dp_accounting.GaussianDpEvent(noise), 1e-6), rel=1e-3
    )
    replaced = google(pld.PLDAccountant(RELATIONS.REPLACE_ONE), dp_accounting.GaussianDpEvent(noise), 1e-6)
    added = GaussianEvent(mu=1 / noise, relation="add-or-remove-one")
    assert compose([added.replaced()], 1e-6).epsilon == pytest.approx(replaced, rel=1e-3)


@pytest.mark.parametrize(("scale", "count"), [(2.0, 1), (2.0, 8), (10.0, 100)])
def test_laplace_agrees_with_dp_accounting(scale, count):
    event = dp_accounting.LaplaceDpEvent(scale)
    by_orders = google(rdp.RdpAccountant(), event, 1e-6, count)
    by_losses = google(pld.PLDAccountant(RELATIONS.ADD_OR_REMOVE_ONE), event, 1e-6, count)
    ours = LaplaceEvent(epsilon=1 / scale, count=count)
    assert compose([ours], 1e-6).epsilon <= by_orders * (1 + 1e-3)
    assert compose([ours], 1e-6, numerical=True).epsilon == pytest.approx(by_losses, rel=1e-3)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 1000), (2.0, 0.05, 100), (0.8, 0.001, 5000)])
def test_sampled_gaussian_agrees_with_dp_accounting_and_opacus(noise, rate, steps):
    event = SampledGaussianEvent(noise_multiplier=noise, rate=rate, count=steps)
    orders = [1 + x / 10 for x in range(1, 100)] + list(range(12, 64))
    curve = opacus_rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    by_orders = opacus_rdp.get_privacy_spent(orders=orders, rdp=curve, delta=1e-5)[0]
    assert compose([event], 1e-5).epsilon == pytest.approx(by_orders, rel=2e-3)
    sampled = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    by_losses = google(pld.PLDAccountant(RELATIONS.ADD_OR_REMOVE_ONE), sampled, 1e-5, steps)
    numerical = compose([event], 1e-5, numerical=True).epsilon
    assert numerical == pytest.approx(by_losses, rel=1e-3)
    prv = PRVAccountant()
    prv.history = [(noise, rate, steps)]
    assert numerical == pytest.approx(prv.get_epsilon(1e-5), rel=2e-2)
    replaced = compose([event.replaced()], 1e-5).epsilon
    assert replaced == pytest.approx(google(pld.PLDAccountant(RELATIONS.REPLACE_ONE), sampled, 1e-5, steps), rel=1e-3)
    assert replaced > numerical


def test_zcdp_agrees_with_dp_accounting_where_its_orders_reach():
    for rho in (1 / 8, 1.0, 10.0):
        theirs = google(rdp.RdpAccountant(), dp_accounting.ZCDpEvent(rho), 1e-6)
        assert compose([ConcentratedEvent(rho=rho)], 1e-6).epsilon == pytest.approx(theirs, rel=2e-3)


def test_replace_one_gaussian_is_the_truth():
    """Adding or removing moves the sum by 1, replacing by 2: noise 4 is mu = 1/2."""
    added = GaussianEvent(mu=1 / 4, relation="add-or-remove-one")
    assert compose([added.replaced()], 1e-6).epsilon == pytest.approx(2.2541, abs=1e-4)
    assert gaussian_delta(0.5, 2.2541) == pytest.approx(1e-6, rel=1e-3)


@in_dp_accounting_0_6_0
def test_dp_accounting_rdp_is_false_for_replace_one():
    theirs = google(
        rdp.RdpAccountant(neighboring_relation=RELATIONS.REPLACE_ONE), dp_accounting.GaussianDpEvent(4), 1e-6
    )
    assert theirs == pytest.approx(1.143, abs=1e-3)
    assert gaussian_delta(0.5, theirs) > 100 * 1e-6  # the true delta of what it calls delta = 1e-6


def test_tiny_rho_needs_large_orders():
    rho, delta = 1e-6, 1e-6
    assert compose([ConcentratedEvent(rho=rho)], delta).epsilon == pytest.approx(0.00450, abs=2e-5)
    order = 1 + 10.0 ** np.arange(0, 8, 0.01)
    terms = rho * order + (math.log(1 / delta) - np.log(order)) / (order - 1) + np.log1p(-1 / order)
    assert zcdp_to_epsilon(rho, delta) == pytest.approx(terms.min(), rel=1e-4)


@in_dp_accounting_0_6_0
def test_dp_accounting_default_orders_are_too_few_for_tiny_rho():
    theirs = google(rdp.RdpAccountant(), dp_accounting.ZCDpEvent(1e-6), 1e-6)
    assert theirs > 1.4 * compose([ConcentratedEvent(rho=1e-6)], 1e-6).epsilon


def test_a_thousand_draws_are_not_charged_as_one():
    """An unreleased ExponentialMechanismDpEvent ignored its count: 0.506 instead of 71.1 for 1000 draws."""
    event = BoundedRangeEvent(eta=0.5)
    thousand = compose([event.times(1000)], 1e-6).epsilon
    assert thousand == pytest.approx(zcdp_to_epsilon(1000 * 0.25 / 8, 1e-6), rel=0.02)
    assert thousand == pytest.approx(compose([event] * 1000, 1e-6).epsilon, rel=1e-9)
    assert thousand > 100 * compose([event], 1e-6).epsilon


@pytest.mark.parametrize(("noise", "rate", "delta"), [(1.0, 0.01, 1e-5), (0.5, 0.01, 1e-6)])
@pytest.mark.parametrize("numerical", [False, True])
def test_few_sampled_steps_are_covered(noise, rate, delta, numerical):
    event = SampledGaussianEvent(noise_multiplier=noise, rate=rate)
    epsilon = compose([event], delta, numerical=numerical).epsilon
    assert sampled_delta(noise, rate, epsilon) <= delta
    for at in (0.1, 0.5):
        assert composed_delta([event], at, numerical=numerical).delta >= sampled_delta(noise, rate, at)


@in_opacus_1_6_0
@pytest.mark.parametrize(("noise", "steps", "delta"), [(1.0, 1, 1e-5), (0.5, 1, 1e-6), (0.5, 100, 1e-6)])
def test_opacus_gdp_is_a_limit_and_false_for_few_steps(noise, steps, delta):
    """Its central-limit epsilon: the true delta of even a single step is above the delta that it is stated for."""
    theirs = opacus_gdp.compute_eps_poisson(steps=steps, noise_multiplier=noise, sample_rate=0.01, delta=delta)
    assert sampled_delta(noise, 0.01, theirs) > 4 * delta
    ours = SampledGaussianEvent(noise_multiplier=noise, rate=0.01, count=steps)
    assert compose([ours], delta, numerical=True).epsilon > 2 * theirs


def test_laplace_for_replace_one_is_scaled_by_two():
    added = LaplaceEvent(epsilon=0.5, relation="add-or-remove-one")
    assert compose([added.replaced()], 1e-9).epsilon == pytest.approx(1.0, abs=1e-6)
    assert gaussian_epsilon(0.5, 1e-6) > gaussian_epsilon(0.25, 1e-6)
