"""The Gaussian mechanism, exactly (Balle and Wang 2018), and the discrete Gaussian by way of it.

With mu = L2 sensitivity / standard deviation of the noise,

    delta(eps) = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)          (Balle and Wang 2018, Theorem 8)

and adaptively chosen Gaussian mechanisms compose to one of mu = sqrt(sum of mu_i^2) (docs/accounting.md,
Statement 3). For x = eps/mu - mu/2 and R(x) = Phi(-x) / phi(x), Mills' ratio, delta = phi(x) [R(x) - R(x + mu)],
which loses no digits when both terms are tiny and is taken as an integral of -R' when they are close.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy import special
from scipy.optimize import brentq

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.budget import (
    Comparison,
    check_amount,
    check_count,
    check_delta,
    check_epsilon,
    check_positive,
)
from privkernels.privacy.accounting.renyi import Array

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
# Coordinates times the log-ratio of discrete_gaussian_mu: what rounding to a lattice adds to the whole release.
_LATTICE_LOG_RATIO = 2.0**-60


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta of the Gaussian mechanism at ``epsilon`` (0 or more), rounded up to the next float.

    0 for mu = 0 alone: Gaussian noise has no pure epsilon, so a delta below the smallest float is given as that float.

    Raises:
        InvalidBudgetError: ``mu`` or ``epsilon`` is negative, infinite or NaN.
    """
    delta = math.exp(gaussian_log_delta(mu, epsilon))
    return math.nextafter(delta, 1.0) if mu > 0 else 0.0


def gaussian_log_delta(mu: float, epsilon: float) -> float:
    """ln of :func:`gaussian_delta`, also where delta itself is too small for a float; -inf for mu = 0."""
    mu, epsilon = check_amount("mu", mu), check_amount("epsilon", epsilon)
    if mu == 0:
        return -math.inf
    x = epsilon / mu - mu / 2
    if x == math.inf:
        return -math.inf
    if mu < 0.5:
        y = x + mu * (_NODES + 1) / 2
        difference = float(_minus_mills_slope(y) @ _WEIGHTS) * mu / 2
    elif x >= 0:
        difference = _mills(x) - _mills(x + mu)
    else:
        # Phi(-x) is at least 1/2 here, and R(x) may overflow.
        return math.log(float(special.ndtr(-x)) - math.exp(-x * x / 2 - _LOG_SQRT_2PI) * _mills(x + mu))
    if difference <= 0:
        return -math.inf
    return min(0.0, -x * x / 2 - _LOG_SQRT_2PI + math.log(difference))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon at ``delta``, rounded up; infinite where mu^2 / 2 is above the largest float.

    Raises:
        InvalidBudgetError: ``mu`` is negative or not finite, or ``delta`` is not in (0, 1).
    """
    mu, target = check_amount("mu", mu), math.log(check_delta(delta))
    if gaussian_log_delta(mu, 0.0) <= target:
        return 0.0
    # delta(eps) <= Phi(mu/2 - eps/mu), so the epsilon at which that is delta is enough.
    high = max(mu * mu / 2 - mu * float(special.ndtri_exp(target)), 1e-300)
    if high == math.inf:
        return math.inf
    if gaussian_log_delta(mu, high) > target:  # by rounding only
        high *= 1 + 1e-9
    epsilon = float(brentq(lambda e: gaussian_log_delta(mu, e) - target, 0.0, high, xtol=1e-300, rtol=1e-14))
    step = 1e-15
    while gaussian_log_delta(mu, epsilon) > target:
        epsilon += epsilon * step
        step *= 2
    return epsilon * (1 + 1e-14) + 1e-13 * delta  # the last digits of gaussian_log_delta


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu = sensitivity / standard deviation for which (``epsilon``, ``delta``) holds, rounded down.

    ``epsilon`` may be 0: then delta alone, a total variation, is the budget.

    Raises:
        InvalidBudgetError: ``epsilon`` is negative or not finite, or ``delta`` is not in (0, 1).
    """
    epsilon, target = check_amount("epsilon", epsilon), math.log(check_delta(delta))
    quantile = float(special.ndtri_exp(target))
    root = math.sqrt(quantile * quantile + 2 * epsilon)
    # Two values that are certainly private enough: from delta <= Phi(mu/2 - eps/mu), and from epsilon = 0.
    first = quantile + root if quantile > 0 else 2 * epsilon / (root - quantile) if epsilon > 0 else 0.0
    low = max(first, 2 * math.sqrt(2) * float(special.erfinv(delta))) * (1 - 1e-9)
    high = 2 * low
    while gaussian_log_delta(high, epsilon) <= target:
        low, high = high, 2 * high
    # In ln mu: the differences of numbers near the smallest float would underflow.
    log_mu = brentq(
        lambda m: gaussian_log_delta(math.exp(m), epsilon) - target, math.log(low), math.log(high), xtol=1e-14
    )
    mu = math.exp(float(log_mu))
    step = 1e-15
    while gaussian_log_delta(mu, epsilon) > target:
        mu -= mu * step
        step *= 2
    return mu * (1 - 1e-13)


def gaussian_noise_std(epsilon: float, delta: float, sensitivity: float) -> float:
    """The least standard deviation of Gaussian noise for (``epsilon``, ``delta``) at this L2 ``sensitivity``.

    In the units of ``sensitivity``, which is positive. Raises as :func:`gaussian_mu` does.
    """
    sensitivity = check_positive("sensitivity", sensitivity)
    mu = gaussian_mu(check_epsilon(epsilon), delta)
    return math.nextafter(sensitivity / mu, math.inf)


def compose_mu(mus: Iterable[float]) -> float:
    """mu of Gaussian mechanisms together, adaptively chosen ones included: the root of the sum of squares."""
    return math.hypot(*(check_amount("mu", mu) for mu in mus))


def classic_gaussian_epsilon(mu: float, delta: float) -> Comparison:
    """sqrt(2 ln(1.25 / delta)) mu: proven for epsilon below 1 only (Dwork and Roth 2014, Theorem A.1).

    Above 1 it may be false: at mu = 1 / 0.325 and delta = 1e-4 the true delta is 12 times what it claims.
    """
    value = math.sqrt(2 * math.log(1.25 / check_delta(delta))) * check_amount("mu", mu)
    return Comparison(value, value < 1)


def discrete_gaussian_rho(l2_steps: float, steps: float) -> float:
    """l2_steps^2 / (2 steps^2): the zCDP of discrete Gaussian noise (Canonne, Kamath, Steinke 2020, Theorem 4).

    Args:
        l2_steps: L2 sensitivity of the integer vector, in steps of the lattice.
        steps: the parameter s of the noise, P(x) ~ exp(-x^2 / (2 s^2)) on the integers.
    """
    return check_amount("l2_steps", l2_steps) ** 2 / (2 * check_positive("steps", steps) ** 2)


def discrete_gaussian_mu(l2_steps: float, steps: float, coordinates: int) -> tuple[float, float]:
    """(mu, total variation) of discrete Gaussian noise on ``coordinates`` integers: docs/accounting.md, Theorem 11.

    The noise of parameter s at an integer is, but for ``total_variation`` over all coordinates, a rounding of
    continuous noise of variance s^2 - tau^2 by a discrete Gaussian of width tau. So the mechanism is dominated by
    the Gaussian mechanism of mu = l2_steps / sqrt(s^2 - tau^2). tau^2, 2 to 4, is the least for which the
    log-ratio of the two laws, all coordinates together, is at most 2^-60.

    Args:
        l2_steps: L2 sensitivity of the integer vector, in steps of the lattice.
        steps: the parameter s of the noise in steps.
        coordinates: how many independent draws; 1 or more.

    Returns:
        mu, and the total variation (below 2^-61) between the noise and the law that mu describes.

    Raises:
        InvalidArgumentError: ``steps`` is so small (below about 2) that no rounding is that exact; then
            ConcentratedEvent(rho=discrete_gaussian_rho(l2_steps, steps)) is what holds.
    """
    l2_steps, steps = check_amount("l2_steps", l2_steps), check_positive("steps", steps)
    share = _LATTICE_LOG_RATIO / check_count("coordinates", coordinates)
    # theta = 2 q / (1 - q) with q = exp(-2 pi^2 tau^2), and ln((1 + theta) / (1 - theta)) <= 2.0001 theta.
    tau_squared = -math.log(share / 4.001) / (2 * math.pi**2) * (1 + 1e-12)
    if steps * steps <= tau_squared:
        raise InvalidArgumentError(
            f"discrete Gaussian noise of {steps:g} steps is too coarse for {coordinates} coordinates to be read as "
            f"continuous noise: it needs more than {math.sqrt(tau_squared):.4g} steps; use a finer lattice, or "
            "ConcentratedEvent with discrete_gaussian_rho"
        )
    mu = l2_steps / math.sqrt(steps * steps - tau_squared) * (1 + 1e-15)
    return mu, _LATTICE_LOG_RATIO / 2


def _mills(x: float) -> float:
    return math.sqrt(math.pi / 2) * float(special.erfcx(x / math.sqrt(2)))


def _minus_mills_slope(x: Array) -> Array:
    """-R'(x) = 1 - x R(x), which cancels for large x: there its asymptotic series, off by less than 1e-12."""
    direct = 1 - x * math.sqrt(math.pi / 2) * special.erfcx(x / math.sqrt(2))
    with np.errstate(divide="ignore", over="ignore"):
        w = 1 / np.maximum(x, 40.0) ** 2
    series: Array = w * (1 - 3 * w * (1 - 5 * w * (1 - 7 * w * (1 - 9 * w))))
    return np.where(x > 40, series, direct)
