"""Rounding is from above: at extreme sizes and counts, beside exact values, and never by an exception or a NaN."""

import itertools
import logging
import math
import sys
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.privacy import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
    compose,
)
from privkernels.privacy.accounting import (
    bounded_range_delta,
    bounded_range_rho,
    composed_delta,
    discrete_laplace_epsilon,
    inclusion_quantile,
    laplace_rho,
    loss_distribution,
    pure_rho,
    zcdp_to_delta,
)
from privkernels.privacy.accounting.budget import sum_up, variation_cost
from privkernels.privacy.accounting.gaussian import gaussian_epsilon
from privkernels.privacy.accounting.renyi import renyi_to_delta
from tests.support.exact_composition import laplace_composition_delta

KINDS = [
    (GaussianEvent, "mu"),
    (LaplaceEvent, "epsilon"),
    (BoundedRangeEvent, "eta"),
    (PureEvent, "epsilon"),
    (ConcentratedEvent, "rho"),
]


def test_losses_of_very_many_operations_are_not_composed_numerically():
    """The transforms lose digits in proportion to the count: two million gave a third of the true delta."""
    events, epsilon = [LaplaceEvent(epsilon=0.5 / math.sqrt(2e6), count=2_000_000)], 3.125
    exact = laplace_composition_delta(events[0].epsilon, events[0].count, epsilon)
    assert exact == pytest.approx(7.24e-11, rel=1e-3)
    assert composed_delta(events, epsilon, numerical=True).delta >= exact
    assert "Rényi" in compose(events, 1e-6, numerical=True).accountant


@pytest.mark.parametrize(("count", "size"), [(30_000, 1.0), (300_000, 0.3)])
def test_losses_of_many_operations_are_composed_from_above(count, size):
    event = LaplaceEvent(epsilon=size / math.sqrt(count), count=count)
    loss = loss_distribution.composed_loss([event], 6 * size + size**2)
    for deviations in (3, 6, 6.5):
        at = size**2 / 2 + deviations * size
        exact = laplace_composition_delta(event.epsilon, count, at)
        assert exact <= loss.delta(at) <= exact * 1.05 + 1.1 * loss_distribution.numerical_error([event])
    for delta in (1e-8, 1e-5):
        assert laplace_composition_delta(event.epsilon, count, loss.epsilon(delta)) <= delta
    assert loss.epsilon(9e-11) == math.inf
    assert loss_distribution.numerical_error([replace(event, count=10**6)]) == 1e-9


def test_delta_at_a_smaller_epsilon_is_within_what_was_asked_for():
    """The share of delta was found for basic composition, which needs none of it; the thorough bound does."""
    event = LaplaceEvent(epsilon=300.0, count=2, total_variation=6.6259e-271)
    bound = compose([event], 5e-10, numerical=True)
    assert bound.delta <= 5e-10
    assert composed_delta([event], bound.epsilon, numerical=True).delta <= bound.delta * (1 + 1e-9)


@pytest.mark.parametrize("numerical", [False, True])
def test_nothing_is_composed_numerically_without_an_exception(numerical):
    never = SampledGaussianEvent(noise_multiplier=1.0, rate=0.0)
    for events in ([], [BoundedRangeEvent(eta=0.0)], [never], [never.replaced()]):
        assert compose(events, 1e-6, numerical=numerical).epsilon == 0
        assert composed_delta(events, 0.0, numerical=numerical).delta == 0
    only_delta = [ApproximateEvent(epsilon=0.0, delta=1e-7)]
    assert compose(only_delta, 1e-6, numerical=numerical).delta == 1e-7
    assert composed_delta(only_delta, 0.0, numerical=numerical).delta == 1e-7


@pytest.mark.parametrize("numerical", [False, True])
@pytest.mark.parametrize("size", [5e-324, 1e-200, 1e-9, 1e6, 1e200, sys.float_info.max])
def test_extreme_sizes_give_a_bound(size, numerical):
    one = [kind(**{name: size}) for kind, name in KINDS]
    sampled = [
        SampledGaussianEvent(noise_multiplier=size, rate=0.01, relation=r, count=c) for r in Relation for c in (1, 9)
    ]
    many = [replace(event, count=2**40) for event in one]
    mixed = [[*pair] for pair in itertools.combinations(one, 2)]
    for events in [*([event] for event in one + many + sampled), *mixed]:
        bound = compose(events, 1e-6, numerical=numerical)
        assert bound.epsilon >= 0
        assert bound.delta in (0.0, 1e-6)
        assert math.isinf(bound.epsilon) == bound.accountant.startswith("no bound")
        for epsilon in (0.0, 1.0, 1e300):
            assert 0 <= composed_delta(events, epsilon, numerical=numerical).delta <= 1
    assert compose([PureEvent(epsilon=size)], 1e-6, numerical=numerical).epsilon <= size


def test_replace_one_sampling_says_why_there_is_no_bound():
    event = SampledGaussianEvent(noise_multiplier=1.0, rate=0.01, relation="replace-one")
    for events, delta in (([event], 1e-11), ([event.times(10**7)], 1e-6)):
        bound = compose(events, delta)
        assert (bound.epsilon, bound.delta) == (math.inf, delta)
        assert "privacy loss distributions only" in bound.accountant
    assert composed_delta([event.times(10**7)], 1.0).delta == 1.0
    assert "dp-accounting's pair" in compose([event], 1e-6).accountant


def test_large_noise_is_composed_on_a_grid_of_its_size():
    """A grid for noise 1 would hide a thousand steps of noise 1000 in one cell."""
    for relation, shift in ((Relation.ADD_OR_REMOVE_ONE, 1), (Relation.REPLACE_ONE, 2)):
        event = SampledGaussianEvent(noise_multiplier=1e3, rate=0.01, count=1000, relation=relation)
        limit = gaussian_epsilon(shift * 0.01 * math.sqrt(1000) / 1e3, 1e-6)  # the central limit, very near here
        assert compose([event], 1e-6, numerical=True).epsilon == pytest.approx(limit, rel=0.02)


def test_delta_is_0_only_where_that_is_known():
    far = [[GaussianEvent(mu=1.0)], [ConcentratedEvent(rho=1e-5)], [GaussianEvent(mu=0.01), LaplaceEvent(epsilon=0.01)]]
    for events in far:
        assert composed_delta(events, 100.0).delta > 0
    assert zcdp_to_delta(1e-5, 10.0) > 0
    assert zcdp_to_delta(0.0, 10.0) == 0
    assert composed_delta([LaplaceEvent(epsilon=1.0, count=3)], 3.0).delta == 0
    # The float 0.1 is above 1/10, so ten of them are above 1.
    assert composed_delta([PureEvent(epsilon=0.1, count=10)], 1.0).delta > 0
    assert bounded_range_delta(1e-200, 0.0) == pytest.approx(2.5e-201)
    for rho in (laplace_rho, pure_rho, bounded_range_rho):
        assert rho(1e-200) > 0
        assert rho(0.0) == 0
        assert rho(1e200) > 1e199


@given(st.lists(st.tuples(st.integers(1, 2**62), st.floats(0, 1e300)), max_size=5))
def test_sums_are_rounded_up(terms):
    exact = sum(Fraction(count) * Fraction(value) for count, value in terms)
    total = sum_up(terms)
    assert total == math.inf or (total >= exact and (total == 0 or math.nextafter(total, 0) < exact))


def test_what_a_total_variation_costs():
    assert variation_cost(1000.0, 0.0) == 0
    assert variation_cost(math.inf, 1e-300) == 1
    # e^1000 10^-310 is far above 1; e^700 10^-310 is not.
    assert composed_delta([PureEvent(epsilon=1000.0, total_variation=1e-310)], 1000.0).delta == 1
    with mpmath.workdps(40):
        for epsilon, variation in ((0.5, 1e-9), (699.0, 1e-310), (701.0, 1e-306), (720.0, 5e-324)):
            exact = (1 + mpmath.exp(mpmath.mpf(epsilon))) * mpmath.mpf(variation)
            assert min(1, exact) <= variation_cost(epsilon, variation) <= min(1, exact * (1 + mpmath.mpf("2e-12")))


@pytest.mark.parametrize("mu", [1e-3, 1.0, 3e3, 8.5e5])
def test_gaussian_delta_is_rounded_up_at_every_size(mu):
    with mpmath.workdps(60):
        for z in np.linspace(0.3, 30, 60):
            epsilon = mu * (mu / 2 + z)
            m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
            first, second = m / 2 - e / m, -m / 2 - e / m
            exact = (mpmath.erfc(-first / mpmath.sqrt(2)) - mpmath.exp(e) * mpmath.erfc(-second / mpmath.sqrt(2))) / 2
            assert composed_delta([GaussianEvent(mu=mu)], epsilon).delta >= exact


def test_renyi_to_delta_is_rounded_up_where_divergence_and_epsilon_cancel():
    for epsilon in np.geomspace(1e8, 1e18, 200).tolist():
        rho = epsilon - math.sqrt(epsilon)
        log_delta, order = renyi_to_delta(lambda x, rho=rho: rho * (1 + x), epsilon)
        with mpmath.workdps(60):
            x, e = mpmath.mpf(order) - 1, mpmath.mpf(epsilon)
            # At the best order the slope is 0, so that the digits that 1 + x has lost do not matter.
            exact = x * (rho * (1 + x) - e) - mpmath.log(x) - (1 + x) * mpmath.log1p(1 / x)
            assert log_delta >= min(0, exact)


def test_discrete_laplace_epsilon_is_rounded_up():
    with mpmath.workdps(50):
        for l1_steps, steps in itertools.product((1, 2, 7), np.geomspace(0.1, 1e5, 500).tolist()):
            rate = 1 / mpmath.mpf(steps)
            assert discrete_laplace_epsilon(l1_steps, steps) >= l1_steps * rate + 2 * mpmath.log(mpmath.cosh(rate / 2))


@given(st.floats(-12, 1).map(lambda x: 10**x))
def test_least_rhos_are_rounded_up(epsilon):
    with mpmath.workdps(80):
        e = mpmath.mpf(epsilon)
        assert pure_rho(epsilon) >= e * mpmath.tanh(e / 2)
        assert laplace_rho(epsilon) >= e + mpmath.expm1(-e)
        x = e / mpmath.expm1(e)
        assert bounded_range_rho(epsilon) >= x - 1 - mpmath.log(x)


def test_the_quantile_of_many_members_takes_few_steps(monkeypatch):
    from privkernels.privacy.accounting import groups

    asked = []
    tail = groups.inclusion_tail
    monkeypatch.setattr(groups, "inclusion_tail", lambda *a: asked.append(a) or tail(*a))
    assert inclusion_quantile(20_000, 0.5, 1e-6) == 10_336
    assert len(asked) < 20


def test_names_say_what_is_exact():
    assert compose([PureEvent(epsilon=1.0)], 1e-6).accountant.startswith("exact")
    assert compose([ApproximateEvent(epsilon=1.0, delta=1e-8)], 1e-6).accountant.startswith("curve of randomised")


def test_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG):
        for relation in Relation:
            event = SampledGaussianEvent(noise_multiplier=1.0, rate=0.01, count=10**6, relation=relation)
            compose([event], 1e-6, numerical=False)
    assert not caplog.records
