"""Laplace noise, what it dominates, and pure DP: against enumeration and high precision."""

import math

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting import discrete_laplace_epsilon, laplace_rho, pure_rho
from privkernels.privacy.accounting.laplace import (
    laplace_delta,
    laplace_epsilon,
    laplace_renyi,
    pure_delta,
    pure_epsilon,
    pure_renyi,
)
from tests.support import privacy_loss

EPSILONS = st.floats(-9, 2).map(lambda x: 10**x)
EXCESSES = st.floats(-12, 9).map(lambda x: 10**x)


def value(curve, epsilon, excess):
    return float(curve(epsilon, np.array([excess]))[0])


@given(EPSILONS, EXCESSES)
def test_renyi_of_laplace_is_rounded_up_and_by_little(epsilon, excess):
    with mpmath.workdps(60):
        e, r = mpmath.mpf(epsilon), mpmath.mpf(excess)
        a = r + 1
        truth = float(mpmath.log((a * mpmath.exp(r * e) + r * mpmath.exp(-a * e)) / (2 * a - 1)) / r)
    assert truth * (1 - 1e-15) <= value(laplace_renyi, epsilon, excess) <= truth * (1 + 1e-8)
    assert value(laplace_renyi, epsilon, excess) <= (1 + excess) * laplace_rho(epsilon) * (1 + 1e-12)


@given(EPSILONS, EXCESSES)
def test_renyi_of_pure_dp_is_rounded_up_and_by_little(epsilon, excess):
    with mpmath.workdps(60):
        e, r = mpmath.mpf(epsilon), mpmath.mpf(excess)
        truth = float(mpmath.log(mpmath.cosh((r + 0.5) * e) / mpmath.cosh(e / 2)) / r)
    assert truth * (1 - 1e-15) <= value(pure_renyi, epsilon, excess) <= truth * (1 + 1e-11)
    assert value(pure_renyi, epsilon, excess) <= (1 + excess) * pure_rho(epsilon) * (1 + 1e-12)


@given(st.floats(1e-3, 50))
def test_rho_is_the_divergence_at_order_1_and_no_smaller_one_holds(epsilon):
    assert laplace_rho(epsilon) == pytest.approx(epsilon + math.expm1(-epsilon), rel=1e-9)
    assert pure_rho(epsilon) == pytest.approx(epsilon * math.tanh(epsilon / 2), rel=1e-11)
    assert value(laplace_renyi, epsilon, 1e-9) >= laplace_rho(epsilon) * (1 - 1e-6)
    assert value(pure_renyi, epsilon, 1e-9) >= pure_rho(epsilon) * (1 - 1e-6)
    assert laplace_rho(epsilon) < pure_rho(epsilon) < epsilon**2 / 2


def test_laplace_delta_equals_the_integral_of_the_densities():
    z = np.linspace(-40, 45, 2_000_001)
    for epsilon, at in [(0.5, 0.0), (1.0, 0.3), (4.0, 2.0)]:
        density = (np.exp(-np.abs(z)) - math.exp(at) * np.exp(-np.abs(z - epsilon))) / 2
        integral = np.trapezoid(np.maximum(density, 0), z)
        assert laplace_delta(epsilon, at) == pytest.approx(integral, rel=1e-5)


@given(EPSILONS, st.floats(-15, -0.31).map(lambda x: 10**x))
def test_epsilons_are_inverses_of_deltas(epsilon, delta):
    for forward, backward in [(laplace_delta, laplace_epsilon), (pure_delta, pure_epsilon)]:
        at = backward(epsilon, delta)
        assert 0 <= at <= epsilon
        assert forward(epsilon, at) <= delta * (1 + 1e-9)
        if at > 0 and delta > 1e-9:
            assert forward(epsilon, at * (1 - 1e-6)) > delta * (1 - 1e-9)


def test_randomised_response_attains_the_curves_of_pure_dp():
    for epsilon in (0.3, 1.0, 3.0):
        p = np.array([math.exp(epsilon), 1]) / (1 + math.exp(epsilon))
        for at in np.linspace(0, epsilon, 7):
            assert pure_delta(epsilon, at) == pytest.approx(privacy_loss.hockey_stick(p, p[::-1], at), abs=1e-15)
        for alpha in (1.1, 2, 7):
            assert value(pure_renyi, epsilon, alpha - 1) == pytest.approx(
                privacy_loss.renyi(p, p[::-1], alpha), rel=1e-9
            )


@pytest.mark.parametrize("steps", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("shift", [1, 2, 7])
def test_discrete_laplace_is_dominated_and_at_one_step_tightly(steps, shift):
    size = int(60 * steps) + 10
    p, q = privacy_loss.discrete_laplace(steps, 0, size), privacy_loss.discrete_laplace(steps, shift, size)
    epsilon = discrete_laplace_epsilon(shift, steps)
    for at in np.linspace(0, epsilon, 40):
        assert privacy_loss.hockey_stick(p, q, at) <= laplace_delta(epsilon, at) + 1e-12
    if shift == 1:
        assert privacy_loss.hockey_stick(p, q, 0.0) == pytest.approx(laplace_delta(epsilon, 0.0), rel=1e-9)
    # Continuous noise of the same scale does not dominate: the correction is needed.
    assert privacy_loss.hockey_stick(p, q, 0.0) > laplace_delta(shift / steps, 0.0) or shift % 2 == 0


@pytest.mark.parametrize("shifts", [(1, 1), (2, 1), (1, 1, 1), (3, 2)])
def test_vectors_of_discrete_laplace_noise_are_dominated(shifts):
    steps, size = 1.5, 60
    pairs = [
        (privacy_loss.discrete_laplace(steps, 0, size), privacy_loss.discrete_laplace(steps, shift, size))
        for shift in shifts
    ]
    p, q = privacy_loss.product(pairs)
    epsilon = discrete_laplace_epsilon(sum(shifts), steps)
    for at in np.linspace(0, epsilon, 12):
        assert privacy_loss.hockey_stick(p, q, at) <= laplace_delta(epsilon, at) + 1e-12


def test_discrete_laplace_arguments():
    assert discrete_laplace_epsilon(0, 3.0) == 0
    assert discrete_laplace_epsilon(5, 1e9) == pytest.approx(5e-9, rel=1e-6)
    assert discrete_laplace_epsilon(1, 1e-3) == pytest.approx(2000 - 2 * math.log(2), rel=1e-12)
    for wrong in (-1, 1.5, True):
        with pytest.raises(InvalidArgumentError, match="l1_steps"):
            discrete_laplace_epsilon(wrong, 1.0)
    with pytest.raises(InvalidArgumentError, match="steps"):
        discrete_laplace_epsilon(1, 0.0)


def test_permute_and_flip_is_dominated_by_laplace_and_close_to_it():
    """Theorem 8, Corollary: random and extreme neighbouring scores of range epsilon, every hockey stick."""
    rng = np.random.default_rng(1)
    closest = 0.0
    for trial in range(600):
        size = int(rng.integers(2, 7))
        epsilon = rng.uniform(0.1, 4)
        scores = rng.uniform(-1, 1, size) * rng.choice([0.1, 1, 5])
        moves = rng.uniform(0, 1, size) if trial % 2 else rng.integers(0, 2, size)
        p = privacy_loss.permute_and_flip(scores)
        q = privacy_loss.permute_and_flip(scores + epsilon * moves)
        assert p.sum() == pytest.approx(1, abs=1e-9)
        for at in np.linspace(0, epsilon, 6)[:-1]:
            leak = privacy_loss.hockey_stick(p, q, at)
            assert leak <= laplace_delta(epsilon, at) + 1e-9
            closest = max(closest, leak / laplace_delta(epsilon, at))
    assert closest > 0.9


def test_permute_and_flip_is_not_bounded_range():
    """The counterexample that keeps it out of BoundedRangeEvent: scores [0, 0] and [1, -1], range 2."""
    p, q = privacy_loss.permute_and_flip(np.zeros(2)), privacy_loss.permute_and_flip(np.array([1.0, -1.0]))
    losses = np.log(p / q)
    assert losses.max() - losses.min() == pytest.approx(2.62, abs=0.01)
    assert privacy_loss.renyi(p, q, 2.0) == pytest.approx(1.377, abs=1e-3)  # eta^2 / 8 would allow 1
    assert privacy_loss.renyi(p, q, 2.0) <= value(laplace_renyi, 2.0, 1.0)
