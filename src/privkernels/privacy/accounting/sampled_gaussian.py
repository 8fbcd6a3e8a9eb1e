"""Rényi divergences of a Poisson-sampled Gaussian step, for add-or-remove neighbours, from above at every order.

One step is dominated, at every order, by P = (1 - q) N(0, s^2) + q N(1, s^2) against Q = N(0, s^2) (Mironov, Talwar and
Zhang 2019, Theorems 4 and 5). With l = dP/dQ, D_alpha = ln(1 + alpha (alpha - 1) m(alpha)) / (alpha - 1) where

    m(alpha) = E_Q[l^alpha - 1 - alpha (l - 1)] / (alpha (alpha - 1)),   m(1) = E_Q[l ln l - l + 1].

All terms of m are positive, so it keeps its digits however small it is: at whole orders by a finite sum, at some low
ones between them by a trapezoidal rule. ln m is convex in alpha, so that its chords are upper bounds in between
(docs/accounting.md, Statement 16).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy import special

from privkernels.privacy.accounting.renyi import Array

_WHOLE_ORDERS = np.unique(np.concatenate([np.arange(2, 65), np.geomspace(65, 8192, 90)]).astype(np.int64))
_WHOLE_EXCESSES = np.asarray(_WHOLE_ORDERS - 1, dtype=np.float64)
# The rule's orders, less 1: so close that a chord of ln m, which bends by 1 / noise^2, costs little.
_FEW_BROKEN: Array = np.concatenate([[0.0, 0.01, 0.02, 0.05], np.arange(1, 30) / 10])
_BROKEN: Array = np.concatenate([_FEW_BROKEN, np.arange(30, 110) / 10, np.arange(44, 252) / 4])
_LEAST_NOISE = 0.01  # below it the trapezoidal rule would need too many points, and every order costs over 5000
_SLACK = 1e-9  # what the sums and the rule may lose: lgamma of 8192 about 10^-11


def sampled_gaussian_renyi(rate: float, noise_multiplier: float, excess: Array) -> Array:
    """Rényi divergence of order 1 + ``excess`` of one step, rounded up [same shape].

    Never above that of the step without sampling, alpha / (2 noise_multiplier^2), which is all that is used above order
    8192 and at rate 1.

    Args:
        rate: probability that a unit takes part, in [0, 1]; 0 costs nothing.
        noise_multiplier: standard deviation of the noise over the largest contribution of a unit, above 0.
        excess: alpha - 1, above 0.
    """
    if rate == 0:
        return np.zeros_like(excess)
    with np.errstate(over="ignore"):
        unsampled: Array = (1 + excess) * np.float64(0.5 / noise_multiplier / noise_multiplier) * (1 + 1e-15) + 5e-324
    if rate == 1:
        return unsampled
    knots, log_moments = _log_moments(rate, noise_multiplier)
    # Below the first knot its divergence is an upper bound: D grows with the order. At the order 1 itself it is m(1).
    at = np.maximum(excess, max(float(knots[0]), 1e-300))
    log_rise = np.interp(at, knots, log_moments) + np.log1p(at) + np.log(at)
    sampled = np.logaddexp(0.0, log_rise) / at * (1 + _SLACK) + 5e-324
    return np.where(at > knots[-1], unsampled, np.minimum(sampled, unsampled))


@lru_cache(maxsize=64)
def _log_moments(rate: float, noise: float) -> tuple[Array, Array]:
    """The orders, less 1, at which m is known, and ln m there."""
    whole = np.array([_log_whole(rate, noise, int(order)) for order in _WHOLE_ORDERS])
    if noise < _LEAST_NOISE:
        return _WHOLE_EXCESSES, whole
    # With little noise high orders cost more than anybody would pay.
    broken = _FEW_BROKEN if noise < 0.3 else _BROKEN
    broken = broken[(broken < 1) | (broken % 1 > 0)]
    knots: Array = np.concatenate([broken, _WHOLE_EXCESSES])
    log_moments: Array = np.concatenate([_log_broken(rate, noise, broken), whole])
    order = np.argsort(knots)
    return knots[order], log_moments[order]


def _log_whole(rate: float, noise: float, order: int) -> float:
    """ln m by the binomial sum: E_Q[l^a] - 1 = sum over k >= 2 of C(a, k) (1-q)^(a-k) q^k (e^((k^2-k)/(2 s^2)) - 1)."""
    k = np.arange(2, order + 1, dtype=np.float64)
    with np.errstate(over="ignore", divide="ignore"):
        power = (k * k - k) / 2 / noise / noise
        # ln(e^x - 1); x itself where x is too small for a float to tell e^x from 1 + x, or not even above 0.
        log_rise = power + np.log(-np.expm1(-np.maximum(power, 1e-300)))
        log_rise = np.where(power < 1e-290, np.log((k * k - k) / 2) - 2 * math.log(noise), log_rise)
    binomial = special.gammaln(order + 1) - special.gammaln(k + 1) - special.gammaln(order - k + 1)
    terms = binomial + (order - k) * math.log1p(-rate) + k * math.log(rate) + log_rise
    return float(special.logsumexp(terms)) - math.log(order * (order - 1))


def _log_broken(rate: float, noise: float, excesses: Array) -> Array:
    """ln m at the orders 1 + ``excesses``, by the trapezoidal rule on the noise y = z / s.

    The integrand is analytic up to |Im y| = pi s, where l vanishes, and dies like e^(-y^2/2): with steps of s/3 and of
    at most 1/4 the rule is exact to float64.
    """
    step = min(0.25, noise / 3)
    y = np.arange(-14.0, 14.0 + (2 + excesses.max()) / noise, step)
    exponent = (y - 0.5 / noise) / noise
    log_density = -y * y / 2 - 0.5 * math.log(2 * math.pi) + math.log(step)
    log_ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + exponent)
    with np.errstate(over="ignore", divide="ignore"):
        # u = l - 1 = q (e^x - 1), in logarithms since q may be tiny and e^x huge.
        log_size = math.log(rate) + np.maximum(exponent, 0) + np.log(-np.expm1(-np.abs(exponent)))
        u = np.sign(exponent) * np.exp(np.minimum(log_size, 2.0))
    return np.array([special.logsumexp(log_density + _log_integrand(1 + x, u, log_size, log_ratio)) for x in excesses])


def _log_integrand(order: float, u: Array, log_size: Array, log_ratio: Array) -> Array:
    """ln of [l^a - 1 - a u] / (a (a - 1)), u = l - 1; three forms that keep their digits for small, middle, large u."""
    factor = order * (order - 1)
    series = np.ones_like(u)
    for n in range(9, 2, -1):  # u^2/2 (1 + (a-2) u/3 (1 + (a-3) u/4 (...)))
        series = 1 + (order - n + 1) * u / n * series
    small = np.abs(u) < 0.02
    large = log_ratio > 0.7
    middle = np.where(small | large, 0.5, u)
    log_middle = np.log1p(middle)
    far = np.where(large, log_ratio, 1.0)
    if order == 1:
        in_middle = (1 + middle) * log_middle - middle
        at_far = far - 1 + np.exp(-far)
    else:
        in_middle = (np.expm1(order * log_middle) - order * middle) / factor
        at_far = (1 - np.exp(-order * far) - order * (np.exp((1 - order) * far) - np.exp(-order * far))) / factor
    log_small = 2 * log_size + np.log(np.where(small, series, 1.0) / 2)
    return np.where(small, log_small, np.where(large, order * far + np.log(at_far), np.log(in_middle)))
