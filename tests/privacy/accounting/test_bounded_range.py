"""Bounded range: the class's curves against high precision and against a search over its two-point pairs."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.privacy import BoundedRangeEvent, compose
from privkernels.privacy.accounting import (
    bounded_range_delta,
    bounded_range_epsilon,
    bounded_range_rho,
    composed_delta,
    nonadaptive_bounded_range_delta,
)
from privkernels.privacy.accounting.bounded_range import bounded_range_renyi
from tests.support import privacy_loss

ETAS = st.floats(-9, 2.5).map(lambda x: 10**x)
EXCESSES = st.floats(-12, 12).map(lambda x: 10**x)


def renyi(eta, excess):
    return float(bounded_range_renyi(eta, np.array([excess]))[0])


def precise_renyi(eta, excess):
    """t* + ln[(1 - e^-a eta) / (a (1 - e^-eta))] / (a - 1) at the stationary t*, 80 digits."""
    with mpmath.workdps(80):
        eta, r = mpmath.mpf(eta), mpmath.mpf(excess)
        a = r + 1
        t = mpmath.log(r * -mpmath.expm1(-a * eta) / (a * (mpmath.exp(-eta) - mpmath.exp(-a * eta))))
        return float(t + mpmath.log(mpmath.expm1(-a * eta) / (a * mpmath.expm1(-eta))) / r)


@given(ETAS, EXCESSES)
def test_renyi_is_rounded_up_and_by_little(eta, excess):
    truth = precise_renyi(eta, excess)
    assert truth * (1 - 1e-15) <= renyi(eta, excess) <= max(truth * (1 + 2e-11), 0)


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("alpha", [1.001, 1.5, 2, 5, 20, 100])
def test_renyi_is_that_of_the_worst_two_point_pair(eta, alpha):
    searched = 0.0
    for t in np.linspace(0, eta, 4001)[1:-1]:
        p, q = privacy_loss.two_point(eta, t)
        searched = max(searched, privacy_loss.renyi(p, q, alpha), privacy_loss.renyi(q, p, alpha))
    assert searched == pytest.approx(renyi(eta, alpha - 1), rel=1e-5)
    assert searched <= renyi(eta, alpha - 1) * (1 + 1e-10)


@given(ETAS, EXCESSES)
def test_renyi_is_below_both_of_its_lines(eta, excess):
    """Theorem 5: D_alpha <= rho alpha with the least rho, and that is at most eta^2 / 8."""
    rho = bounded_range_rho(eta)
    assert rho <= eta**2 / 8 * (1 + 1e-15)
    assert renyi(eta, excess) <= rho * (1 + excess) * (1 + 1e-10)
    assert renyi(eta, excess) <= eta


@given(st.floats(1e-3, 300))
def test_rho_is_the_largest_divergence_and_no_smaller_one_holds(eta):
    assert renyi(eta, 1e-9) >= bounded_range_rho(eta) * (1 - 1e-6)
    with mpmath.workdps(50):
        x = mpmath.mpf(eta) / mpmath.expm1(eta)
        assert bounded_range_rho(eta) == pytest.approx(float(x - 1 - mpmath.log(x)), rel=1e-11)


@given(ETAS, st.floats(1.0001, 2), EXCESSES)
def test_curves_grow_with_the_range_and_the_order(eta, factor, excess):
    assert renyi(eta * factor, excess) >= renyi(eta, excess)
    assert renyi(eta, excess * factor) >= renyi(eta, excess) * (1 - 1e-11)
    assert bounded_range_rho(eta * factor) >= bounded_range_rho(eta)


@pytest.mark.parametrize("eta", [0.1, 1.0, 3.0])
def test_delta_is_that_of_the_worst_pair_at_every_epsilon(eta):
    for epsilon in np.linspace(0, eta, 11):
        searched = max(
            privacy_loss.hockey_stick(*privacy_loss.two_point(eta, t), epsilon) for t in np.linspace(0, eta, 4001)
        )
        assert searched == pytest.approx(bounded_range_delta(eta, epsilon), rel=1e-6, abs=1e-15)
    assert bounded_range_delta(eta, 0.0) == pytest.approx(math.tanh(eta / 4))


def test_no_pair_with_more_points_leaks_more():
    """Random laws on five points, tilted by a loss of range eta."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        eta = rng.uniform(0.1, 4)
        q = rng.dirichlet(np.full(5, 0.5)) + 1e-12
        q /= q.sum()
        p = q * np.exp(eta * np.append([0, 1], rng.uniform(0, 1, 3)))
        p /= p.sum()
        epsilon, alpha = rng.uniform(0, eta), 1 + rng.exponential(3)
        assert privacy_loss.hockey_stick(p, q, epsilon) <= bounded_range_delta(eta, epsilon) + 1e-14
        assert privacy_loss.renyi(p, q, alpha) <= renyi(eta, alpha - 1) * (1 + 1e-9)


@given(ETAS, st.floats(-15, -0.31).map(lambda x: 10**x))
def test_epsilon_is_the_inverse_of_delta(eta, delta):
    epsilon = bounded_range_epsilon(eta, delta)
    assert 0 <= epsilon <= eta
    assert bounded_range_delta(eta, epsilon) <= delta * (1 + 1e-6)
    if epsilon > 0 and delta > 1e-9:
        assert bounded_range_delta(eta, epsilon * (1 - 1e-6)) > delta * (1 - 1e-6)


def test_the_recursion_for_adaptive_draws_knows_one_draw_and_beats_fixed_draws():
    """Adaptive draws leak strictly more than the best fixed ones: the fixed optimum must not be used as a bound."""
    assert privacy_loss.adaptive_bounded_range(1.0, 1, 0.4) == pytest.approx(bounded_range_delta(1.0, 0.4), rel=1e-4)
    more = 0
    for epsilon in (0.1, 0.2, 0.3, 0.4):
        fixed = nonadaptive_bounded_range_delta(1.0, 2, epsilon)
        adaptive = privacy_loss.adaptive_bounded_range(1.0, 2, epsilon)
        assert adaptive >= fixed * (1 - 1e-3)
        more += adaptive > fixed * 1.001
    assert more >= 2


@pytest.mark.parametrize(("eta", "count"), [(1.0, 2), (0.3, 2), (3.0, 2), (1.0, 3)])
@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
@pytest.mark.parametrize("numerical", [False, True])
def test_composition_covers_the_worst_adaptive_draws(eta, count, share, numerical):
    epsilon = share * eta * count
    truth = privacy_loss.adaptive_bounded_range(eta, count, epsilon)
    events = [BoundedRangeEvent(eta=eta, count=count)]
    assert composed_delta(events, epsilon, numerical=numerical).delta >= truth
    assert compose(events, truth, numerical=numerical).epsilon >= epsilon * (1 - 1e-9)
    if numerical and share < 0.5:
        assert composed_delta(events, epsilon, numerical=True).delta <= 1.5 * truth  # nor is it far above


def test_fixed_draws_equal_enumeration():
    for epsilon in (0.0, 0.5, 1.5):
        searched = max(
            privacy_loss.hockey_stick(*privacy_loss.product([privacy_loss.two_point(0.8, t)] * 3), epsilon)
            for t in np.linspace(0, 0.8, 801)
        )
        assert nonadaptive_bounded_range_delta(0.8, 3, epsilon) == pytest.approx(searched, rel=1e-4)


@pytest.mark.parametrize(
    ("eta", "count", "epsilon"),
    [(1.0, 1, 0.9985), (1.0, 8, 6.618), (0.5, 16, 4.901), (0.1, 100, 2.400), (0.1, 1000, 8.836), (2.0, 8, 14.112)],
)
def test_known_values_at_delta_1e_6(eta, count, epsilon):
    assert compose([BoundedRangeEvent(eta=eta, count=count)], 1e-6).epsilon == pytest.approx(epsilon, abs=6e-4)


@pytest.mark.parametrize(
    ("eta", "count", "epsilon"), [(1.0, 8, 6.608), (0.5, 16, 4.717), (0.1, 100, 2.246), (2.0, 8, 14.111)]
)
def test_known_lower_references_at_delta_1e_6(eta, count, epsilon):
    assert nonadaptive_bounded_range_delta(eta, count, epsilon * 1.001) < 1e-6
    assert nonadaptive_bounded_range_delta(eta, count, epsilon * 0.999) > 1e-6
    assert compose([BoundedRangeEvent(eta=eta, count=count)], 1e-6).epsilon > epsilon


@pytest.mark.parametrize(("eta", "bound", "reached"), [(1.0, 1190.5, 1154.1), (0.1, 29.7, 28.0), (0.01, 1.89, 1.74)])
def test_the_bound_lies_between_zcdp_and_what_fixed_draws_reach(eta, bound, reached):
    """7850 draws, one for each parameter of a logistic regression on MNIST, at delta = 1e-5."""
    epsilon = compose([BoundedRangeEvent(eta=eta, count=7850)], 1e-5).epsilon
    assert reached < epsilon < bound * 1.003
    assert nonadaptive_bounded_range_delta(eta, 7850, reached * 0.99) > 1e-5 > 0
    assert nonadaptive_bounded_range_delta(eta, 7850, reached * 1.01) < 1e-5
