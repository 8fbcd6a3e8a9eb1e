"""Laplace noise, what it dominates, and pure differential privacy.

The Laplace pair, Laplace(0, 1) against Laplace(eps, 1), dominates every mechanism whose outcomes for two neighbours
are joined by a path of laws, |y - y'|-DP between any two of its points (docs/accounting.md, Theorem 8): vectors of
Laplace noise of L1 sensitivity eps, permute-and-flip, and discrete Laplace noise with a slightly larger eps.
Where no more than eps-DP is known, randomised response dominates (Theorem 9).
"""

from __future__ import annotations

import math

import numpy as np

from privkernels.privacy.accounting.budget import check_amount, check_count, check_delta, check_positive
from privkernels.privacy.accounting.renyi import SLACK, SMALLEST, Array, half_square


def laplace_delta(epsilon: float, at: float) -> float:
    """delta of the Laplace pair of parameter ``epsilon`` at ``at`` (both 0 or more): 1 - e^((at - epsilon)/2), or 0."""
    epsilon, at = check_amount("epsilon", epsilon), check_amount("at", at)
    return 0.0 if at >= epsilon else -math.expm1((at - epsilon) / 2)


def laplace_epsilon(epsilon: float, delta: float) -> float:
    """The inverse of :func:`laplace_delta`: what one use costs at ``delta``, rounded up."""
    epsilon, delta = check_amount("epsilon", epsilon), check_delta(delta)
    return max(0.0, min(epsilon, epsilon + 2 * math.log1p(-delta) + SLACK * epsilon))


def laplace_rho(epsilon: float) -> float:
    """epsilon + e^-epsilon - 1: the least rho for which the Laplace pair is rho-zCDP (Theorem 8)."""
    epsilon = check_amount("epsilon", epsilon)
    if epsilon == 0:
        return 0.0
    if epsilon < 0.1:
        value = epsilon * epsilon * math.fsum((-epsilon) ** n / math.factorial(n + 2) for n in range(12))
    else:
        value = epsilon + math.expm1(-epsilon)
    return min(value * (1 + SLACK) + SMALLEST, half_square(epsilon))


def laplace_renyi(epsilon: float, excess: Array) -> Array:
    """Rényi divergence of order alpha = 1 + ``excess`` of the Laplace pair (Mironov 2017, Prop. 6), rounded up.

    ln[(alpha e^((alpha-1) eps) + (alpha-1) e^(-alpha eps)) / (2 alpha - 1)] / (alpha - 1). Where alpha eps < 10^-4,
    alpha laplace_rho(eps), which is above it by less than a part in 10^8.
    """
    alpha = 1 + excess
    with np.errstate(over="ignore", invalid="ignore"):
        power = excess * epsilon
        rise = (alpha * np.expm1(power) + excess * np.expm1(-alpha * epsilon)) / (alpha + excess)
        logs = np.logaddexp(np.log(alpha) + power, np.log(excess) - alpha * epsilon) - np.log(alpha + excess)
        direct = np.where(power < 0.5, np.log1p(rise), logs) / excess
    linear = alpha * laplace_rho(epsilon)
    exact = np.where(alpha * epsilon < 1e-4, linear, direct * (1 + 10 * SLACK))
    return np.minimum(np.minimum(exact, linear), epsilon)


def discrete_laplace_epsilon(l1_steps: int, steps: float) -> float:
    """Parameter of the Laplace pair that dominates discrete Laplace noise: l1_steps / steps + 2 ln cosh(1 / (2 steps)).

    docs/accounting.md, Theorem 10; tight for ``l1_steps`` = 1. The pure epsilon alone is l1_steps / steps.

    Args:
        l1_steps: L1 sensitivity of the integer vector, in steps of the lattice; 0 or more.
        steps: scale of the noise in steps, P(x) ~ exp(-|x| / steps) on the integers.

    Raises:
        InvalidArgumentError: ``l1_steps`` is not a whole number of 0 or more, or ``steps`` is not positive.
    """
    l1_steps, steps = check_count("l1_steps", l1_steps, low=0), check_positive("steps", steps)
    if l1_steps == 0:
        return 0.0
    rate = 1 / steps
    # ln cosh(x) = x - ln 2 + ln(1 + e^-2x); for small x by its bound x^2 / 2, off by less than x^4 / 12.
    log_cosh = rate**2 / 8 if rate < 1e-3 else rate / 2 - math.log(2) + math.log1p(math.exp(-rate))
    return (l1_steps * rate + 2 * log_cosh) * (1 + 4e-16) + 4e-16


def pure_delta(epsilon: float, at: float) -> float:
    """Largest delta at ``at`` of any ``epsilon``-DP mechanism: (e^epsilon - e^at) / (1 + e^epsilon), or 0."""
    epsilon, at = check_amount("epsilon", epsilon), check_amount("at", at)
    return 0.0 if at >= epsilon else -math.expm1(at - epsilon) / (1 + math.exp(-epsilon))


def pure_epsilon(epsilon: float, delta: float) -> float:
    """The inverse of :func:`pure_delta`: the least epsilon at ``delta`` of any ``epsilon``-DP mechanism, rounded up."""
    epsilon, delta = check_amount("epsilon", epsilon), check_delta(delta)
    left = delta * (1 + math.exp(-epsilon))
    if left >= -math.expm1(-epsilon):
        return 0.0
    return max(0.0, min(epsilon, epsilon + math.log1p(-left) + SLACK * epsilon))


def pure_rho(epsilon: float) -> float:
    """epsilon tanh(epsilon / 2): the least rho for which every epsilon-DP mechanism is rho-zCDP (Theorem 9)."""
    epsilon = check_amount("epsilon", epsilon)
    if epsilon == 0:
        return 0.0
    return min(epsilon * math.tanh(epsilon / 2) * (1 + SLACK) + SMALLEST, half_square(epsilon))


def pure_renyi(epsilon: float, excess: Array) -> Array:
    """Largest Rényi divergence of order 1 + ``excess`` of any ``epsilon``-DP mechanism, rounded up.

    ln[cosh((alpha - 1/2) eps) / cosh(eps / 2)] / (alpha - 1), that of randomised response (Theorem 9).
    """
    power = excess * epsilon
    with np.errstate(over="ignore", invalid="ignore"):
        rise = 2 * np.sinh(power / 2) ** 2 + math.tanh(epsilon / 2) * np.sinh(power)
        # cosh(a + d) / cosh(a) = e^d (1 + e^-2(a + d)) / (1 + e^-2a)
        logs = power + np.log1p(np.exp(-2 * power - epsilon)) - math.log1p(math.exp(-epsilon))
        direct = np.where(power < 1, np.log1p(rise), logs) / excess
    linear = (1 + excess) * pure_rho(epsilon)
    return np.minimum(np.minimum(direct * (1 + 2 * SLACK) + SMALLEST, linear), epsilon)
