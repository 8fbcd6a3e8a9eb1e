"""Bounded range: all that is known of the exponential mechanism (Durfee and Rogers 2019).

A pair of laws is eta-bounded-range if its privacy loss lies in an interval of length eta. Everything here follows
from the two-point pairs at the ends of such an interval (docs/accounting.md, Theorems 4 to 7). With

    s(z) = ln(sinh(z/2) / (z/2))

the Rényi divergence of the class at order alpha is [alpha s(alpha eta) - s(eta)] / (alpha - 1) - s((alpha - 1) eta),
and its zCDP is rho = s(eta) + eta s'(eta); both are attained.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import special, stats

from privkernels.privacy.accounting.budget import check_amount, check_count, check_delta
from privkernels.privacy.accounting.renyi import SLACK, SMALLEST, Array, half_square

# Taylor coefficients of s at z^2, z^4, ...: B_2n / (2n (2n)!).
_SERIES = [
    float(b) / (2 * n * math.factorial(2 * n)) for n, b in enumerate(special.bernoulli(22)[2::2], start=1)
]  # fmt: skip


def bounded_range_rho(eta: float) -> float:
    """The least rho for which every ``eta``-bounded-range mechanism is rho-zCDP, rounded up.

    eta / (e^eta - 1) - 1 - ln(eta / (e^eta - 1)) (docs/accounting.md, Theorem 5); at most the eta^2 / 8 of Cesar and
    Rogers 2021.
    """
    eta = check_amount("eta", eta)
    if eta < 1:
        # s + eta s' term by term.
        value = math.fsum((2 * n + 1) * c * eta ** (2 * n) for n, c in enumerate(_SERIES, start=1))
    else:
        value = eta / 2 + math.log1p(-math.exp(-eta)) - math.log(eta) + (eta / 2) / math.tanh(eta / 2) - 1
    return min(value * (1 + SLACK) + SMALLEST, half_square(eta / 2)) if eta > 0 else 0.0


def bounded_range_renyi(eta: float, excess: Array) -> Array:
    """Largest Rényi divergence of order alpha = 1 + ``excess`` in the class, rounded up [same shape].

    docs/accounting.md, Theorem 5; agrees with 60-digit arithmetic to 1e-12 for orders 1 + 1e-12 to 1e12.
    """
    if eta == 0 or eta > 600:
        return np.full(excess.shape, eta)
    alpha = 1 + excess
    small = alpha * eta < 0.1
    exact = np.where(small, _small_renyi(eta, excess), 0.0)
    if not small.all():
        first = _difference(excess * eta, np.full(excess.shape, eta))
        second = _difference(np.full(excess.shape, eta), excess * eta) / excess
        # alpha s(a) - s(b) = (alpha - 1) s(a) + [s(a) - s(b)], so D = [s(a) - s(a - eta)] + [s(a) - s(eta)] / excess.
        exact = np.where(small, exact, first + second)
    return np.minimum(exact * (1 + 2 * SLACK) + SMALLEST, np.minimum(alpha * half_square(eta / 2) * (1 + 1e-15), eta))


def bounded_range_delta(eta: float, epsilon: float) -> float:
    """Largest delta in the class at ``epsilon``, 0 or more: (1 - e^((epsilon - eta)/2))^2 / (1 - e^-eta) below eta.

    docs/accounting.md, Theorem 6. At epsilon = 0 it is the total variation, tanh(eta / 4).
    """
    eta, epsilon = check_amount("eta", eta), check_amount("epsilon", epsilon)
    if epsilon >= eta:
        return 0.0
    root = -math.expm1((epsilon - eta) / 2)
    return root * (root / -math.expm1(-eta))  # in this order nothing underflows at epsilon = 0


def bounded_range_epsilon(eta: float, delta: float) -> float:
    """Least epsilon at ``delta`` for one draw: the inverse of :func:`bounded_range_delta`, rounded up."""
    eta, delta = check_amount("eta", eta), check_delta(delta)
    if delta >= math.tanh(eta / 4):
        return 0.0
    root = math.sqrt(-delta * math.expm1(-eta))
    return max(0.0, min(eta, eta + 2 * math.log1p(-root) + SLACK * eta))


def nonadaptive_bounded_range_delta(eta: float, count: int, epsilon: float) -> float:
    """A LOWER bound on what ``count`` draws can leak: the best mechanisms known, chosen in advance.

    Dong, Durfee and Rogers 2020, Theorem 3.1 (all draws the same two-point mechanism). An adaptive sequence may leak
    more, so no guarantee may be taken from it: it shows how far a bound can at most be improved.
    Up to 512 values of t are tried; more draws than that make the optimum a lower one still.
    """
    eta, epsilon, count = check_amount("eta", eta), check_amount("epsilon", epsilon), check_count("count", count)
    if eta == 0:
        return 0.0
    levels = np.unique(np.linspace(0, count, min(count + 1, 512)).astype(np.int64))
    times = np.clip((epsilon + (levels + 1) * eta) / (count + 1), 0, eta)
    lower = np.arange(count + 1)
    best = 0.0
    for t in np.unique(times):
        share = math.expm1(t - eta) / math.expm1(-eta)  # mass of the larger loss, t, under P
        losses = count * t - lower * eta
        weights = stats.binom.pmf(lower, count, 1 - share)
        best = max(best, float(weights @ -np.expm1(np.minimum(0.0, epsilon - losses))))
    return min(1.0, best)


def _small_renyi(eta: float, excess: Array) -> Array:
    """Three terms of the Taylor series of the divergence in eta; it alternates, so they are an upper bound."""
    alpha = 1 + excess
    square = np.minimum(alpha * alpha - alpha + 1, 1e300) * eta * eta
    return alpha * (eta * eta) * (1 / 8 - square / 576 + square * square / 25920)


def _s(z: Array) -> Array:
    """ln(sinh(z/2) / (z/2)) for z >= 0."""
    square = np.minimum(z, 1.0) ** 2
    series = square * np.polyval(_SERIES[::-1], square)
    positive = np.maximum(z, 1.0)
    return np.where(z < 1, series, positive / 2 + np.log1p(-np.exp(-positive)) - np.log(positive))


def _difference(start: Array, step: Array) -> Array:
    """s(start + step) - s(start); a small step would cancel, so there the ratio of sinh is expanded."""
    plain = _s(start + step) - _s(start)
    near = np.minimum(step, 600.0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        half = near / 2
        rise = 2 * np.sinh(half / 2) ** 2 + np.sinh(half) / np.tanh(start / 2)
        expanded = np.log1p(rise) - np.log1p(step / start)
    return np.where((step < start) & (step <= 600), expanded, plain)
