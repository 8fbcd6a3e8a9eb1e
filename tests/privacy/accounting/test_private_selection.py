"""Private selection: known numbers, exact small mechanisms, and the counterexamples that forbid the easy answer."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    SampledGaussianEvent,
    compose,
)
from privkernels.privacy.accounting import (
    fixed_tries,
    geometric_stopping,
    private_threshold,
    unlimited_public_acceptance,
    zcdp_to_epsilon,
)
from tests.support import privacy_loss


@pytest.mark.parametrize(("tries", "epsilon"), [(1, 8.0), (2, 12.2), (5, 21.8)])
def test_fixed_tries_known_values(tries, epsilon):
    bound = fixed_tries([ConcentratedEvent(rho=1.23)], tries, 1e-5)
    assert bound.epsilon == pytest.approx(epsilon, rel=5e-3)
    assert bound.epsilon == pytest.approx(zcdp_to_epsilon(1.23 * tries, 1e-5))


@pytest.mark.parametrize(("stop", "epsilon"), [(0.1, 13.0), (0.01, 16.5)])
def test_geometric_stopping_known_values(stop, epsilon):
    assert geometric_stopping([ConcentratedEvent(rho=1.23)], stop, 1e-5).epsilon == pytest.approx(epsilon, rel=5e-3)


def test_geometric_stopping_equals_a_search_over_both_orders():
    rho, cost = 0.3, math.log(20)
    first, second = np.meshgrid(*[1 + np.exp(np.linspace(-3, 6, 1500))] * 2)
    divergence = rho * first + 2 * (1 - 1 / second) * rho * second + 2 * cost / second + cost / (first - 1)
    bracket = (math.log(1e5) - np.log(first)) / (first - 1) + np.log1p(-1 / first)
    searched = float((divergence + bracket).min())
    found = geometric_stopping([ConcentratedEvent(rho=rho)], 0.05, 1e-5).epsilon
    assert searched * (1 - 1e-4) < found <= searched * (1 + 1e-9)


def best_of_geometric(law, stop):
    """Law of the best of K ~ Geometric(stop) draws, outcomes in order of preference, the best last."""
    cumulative = np.cumsum(law)
    generating = stop * cumulative / (1 - (1 - stop) * cumulative)  # E[F^K]
    return np.diff(np.append(0.0, generating))


def test_best_of_a_geometric_number_is_covered_and_can_reach_three_epsilon():
    rng = np.random.default_rng(2)
    epsilon, worst = 0.5, 0.0
    for _ in range(500):
        stop = 10 ** rng.uniform(-4, 0)
        q = rng.dirichlet(np.full(4, 0.3)) + 1e-9
        q /= q.sum()
        p = q * np.exp(rng.permutation([-1.0, 1.0, rng.choice([-1.0, 1.0]), 0.0]) * epsilon / 2)
        p /= p.sum()
        base = PureEvent(epsilon=float(np.abs(np.log(p / q)).max()))
        best_p, best_q = best_of_geometric(p, stop), best_of_geometric(q, stop)
        for delta in (1e-2, 1e-4):
            bound = geometric_stopping([base], stop, delta)
            assert privacy_loss.hockey_stick(best_p, best_q, bound.epsilon) <= bound.delta + 1e-15
        worst = max(worst, float(np.abs(np.log(best_p / best_q)).max()) / base.epsilon)
    assert 1.5 < worst <= 3 + 1e-9
    # The worst base: an outcome that is rarer under Q, and better ones that are likelier, all far above stop.
    middle, better = 1e-8, 1e-4
    q = np.array([1 - middle - better, middle, better])
    p = np.array([0.0, middle * math.exp(epsilon), better * math.exp(-epsilon)])
    p[0] = 1 - p[1:].sum()
    losses = np.log(best_of_geometric(p, 1e-9) / best_of_geometric(q, 1e-9))
    assert 2.99 * epsilon < losses[1] <= 3 * epsilon


@given(st.floats(1e-4, 1), st.floats(1e-4, 10), st.floats(1.01, 5))
def test_more_tries_and_more_base_cost_more(stop, rho, factor):
    events = [ConcentratedEvent(rho=rho)]
    bound = geometric_stopping(events, stop, 1e-5)
    assert bound.epsilon >= compose(events, 1e-5).epsilon * (1 - 1e-9)
    assert geometric_stopping(events, stop / factor, 1e-5).epsilon >= bound.epsilon * (1 - 1e-9)
    assert geometric_stopping([ConcentratedEvent(rho=rho * factor)], stop, 1e-5).epsilon >= bound.epsilon * (1 - 1e-9)


def test_pure_bases_have_pure_answers():
    event = PureEvent(epsilon=0.01, count=3)
    assert geometric_stopping([event], 1e-9, 1e-9).epsilon == pytest.approx(0.09)
    assert geometric_stopping([event], 1e-9, 1e-9).delta == 0
    assert private_threshold([event, LaplaceEvent(epsilon=0.5)]).epsilon == pytest.approx(1.06)
    assert private_threshold([event]).delta == 0


def test_acceptance_by_a_public_set_keeps_the_range_of_the_exponential_mechanism():
    """Every subset of outcomes of random draws: conditioned, the loss stays within eta."""
    rng = np.random.default_rng(3)
    worst = 0.0
    for _ in range(300):
        eta = rng.uniform(0.1, 3)
        q = rng.dirichlet(np.ones(6))
        p = q * np.exp(eta * np.append([0, 1], rng.uniform(0, 1, 4)))
        p /= p.sum()
        for subset in range(1, 64):
            chosen = np.array([bool(subset >> i & 1) for i in range(6)])
            ratio = np.log((p[chosen] / p[chosen].sum()) / (q[chosen] / q[chosen].sum()))
            worst = max(worst, float(np.abs(ratio).max()) / eta)
    assert 0.9 < worst <= 1 + 1e-9
    draws = [BoundedRangeEvent(eta=0.1, count=400)]
    assert unlimited_public_acceptance(draws).epsilon == pytest.approx(40)
    assert unlimited_public_acceptance(draws, adaptive=True).epsilon == pytest.approx(80)
    with_score = unlimited_public_acceptance([*draws, LaplaceEvent(epsilon=0.5)])
    assert with_score.epsilon == pytest.approx(41)
    assert with_score.epsilon < private_threshold([*draws, LaplaceEvent(epsilon=0.5)]).epsilon


def test_a_general_pure_base_doubles_when_conditioned():
    """Losses +eps and -eps on two rare accepted outcomes: conditioned, one outcome's ratio nears e^(2 eps)."""
    epsilon, rare = 1.0, 1e-8
    q = np.array([rare * 1e-8, rare, 1.0])
    p = np.array([q[0] * math.exp(epsilon), q[1] * math.exp(-epsilon), 1.0])
    p[2], q[2] = 1 - p[:2].sum(), 1 - q[:2].sum()
    ratio = math.log((p[0] / p[:2].sum()) / (q[0] / q[:2].sum()))
    assert 1.9999999 < ratio <= 2
    assert ratio <= unlimited_public_acceptance([PureEvent(epsilon=epsilon)]).epsilon == 2


def test_two_adaptive_draws_exceed_the_sum_of_their_ranges():
    """Why ``adaptive`` exists: the second draw's interval of losses may depend on the first outcome."""
    eta = 1.0
    first_p, first_q = privacy_loss.two_point(eta, 0.5)
    low, high = privacy_loss.two_point(eta, 1e-6), privacy_loss.two_point(eta, eta - 1e-6)
    p = np.concatenate([first_p[0] * high[0], first_p[1] * low[0]])
    q = np.concatenate([first_q[0] * high[1], first_q[1] * low[1]])
    losses = np.log(p / q)
    assert losses.max() - losses.min() > 2 * eta + 0.9
    assert (
        losses.max() - losses.min()
        <= unlimited_public_acceptance([BoundedRangeEvent(eta=eta, count=2)], adaptive=True).epsilon
    )


def test_a_composed_number_does_not_survive_conditioning():
    """400 draws of range 0.1: epsilon = 4.7 at 1e-5 before, a sure log-ratio of 20 on a rare accepted outcome."""
    events = [BoundedRangeEvent(eta=0.1, count=400)]
    assert compose(events, 1e-5).epsilon == pytest.approx(4.7, abs=0.1)
    p, q = privacy_loss.two_point(0.1, 0.05)
    # The accepted set: all 400 draws on the first outcome, or all on the second.
    log_p, log_q = 400 * np.log(p), 400 * np.log(q)
    accepted_p = log_p - np.logaddexp(*log_p)
    accepted_q = log_q - np.logaddexp(*log_q)
    divergence = float(np.exp(accepted_p) @ (accepted_p - accepted_q))
    assert np.abs(accepted_p - accepted_q).max() == pytest.approx(20, abs=0.1)
    assert divergence == pytest.approx(20, abs=0.1)
    assert divergence > 400 * 0.1**2 / 8
    assert unlimited_public_acceptance(events).epsilon >= np.abs(accepted_p - accepted_q).max()


@pytest.mark.parametrize("refuse", [unlimited_public_acceptance, private_threshold])
@pytest.mark.parametrize(
    "event",
    [
        GaussianEvent(mu=1.0),
        ConcentratedEvent(rho=1.0),
        ApproximateEvent(epsilon=1.0, delta=1e-9),
        BoundedRangeEvent(eta=1.0, total_variation=1e-15),
    ],
)
def test_what_cannot_be_conditioned_is_refused(refuse, event):
    with pytest.raises(InvalidArgumentError, match="bound the number of tries"):
        refuse([event])


def test_total_variation_of_a_random_number_of_tries():
    bound = geometric_stopping([BoundedRangeEvent(eta=1.0, count=8, total_variation=1e-12)], 0.1, 1e-5)
    events = [BoundedRangeEvent(eta=1.0, count=8)]
    assert bound.epsilon > geometric_stopping(events, 0.1, 1e-5).epsilon
    left = 1e-5 - (1 + math.exp(bound.epsilon)) * 8e-12 / 0.1
    assert 5e-6 < left < 9.9e-6
    assert bound.epsilon == pytest.approx(geometric_stopping(events, 0.1, left).epsilon, rel=1e-6)


def test_bad_arguments():
    events = [PureEvent(epsilon=1.0)]
    for wrong in (0, -0.1, 1.1, math.nan, True, None):
        with pytest.raises(InvalidArgumentError, match="stop"):
            geometric_stopping(events, wrong, 1e-5)
    with pytest.raises(InvalidBudgetError):
        geometric_stopping(events, 0.5, 0.0)
    for wrong in (0, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="tries"):
            fixed_tries(events, wrong, 1e-5)
    for event in (
        ApproximateEvent(epsilon=1.0, delta=1e-9),
        SampledGaussianEvent(noise_multiplier=1.0, rate=0.1, relation="replace-one"),
    ):
        with pytest.raises(InvalidArgumentError, match="fixed_tries"):
            geometric_stopping([event], 0.5, 1e-5)
