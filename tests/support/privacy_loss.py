"""Exact small cases, computed without the accountant: what its bounds must not be below."""

from __future__ import annotations

import math

import numpy as np


def hockey_stick(p: np.ndarray, q: np.ndarray, epsilon: float) -> float:
    """sup over events S of P(S) - e^epsilon Q(S), for two laws on the same finite set."""
    return float(np.maximum(p - math.exp(epsilon) * q, 0).sum())


def renyi(p: np.ndarray, q: np.ndarray, alpha: float) -> float:
    """Rényi divergence of order alpha of two laws with the same finite support."""
    return float(np.log((p * np.exp((alpha - 1) * (np.log(p) - np.log(q)))).sum()) / (alpha - 1))


def two_point(eta: float, t: float) -> tuple[np.ndarray, np.ndarray]:
    """The eta-bounded-range pair with losses t and t - eta: laws (P, Q) on two outcomes."""
    top = math.expm1(t - eta) / math.expm1(-eta)
    p = np.array([top, 1 - top])
    return p, p * np.exp([-t, eta - t])


def product(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The laws of independent pairs together."""
    p, q = np.ones(1), np.ones(1)
    for one_p, one_q in pairs:
        p, q = np.outer(p, one_p).ravel(), np.outer(q, one_q).ravel()
    return p, q


def adaptive_bounded_range(eta: float, count: int, epsilon: float, *, times: int = 201) -> float:
    """Largest delta of ``count`` eta-bounded-range draws, each chosen after the earlier were seen, by recursion.

    delta_k(x) = max over t of  p delta_(k-1)(x - t) + (1 - p) delta_(k-1)(x - t + eta), p the mass of the loss t.
    Two points are enough, since e^L delta(x - L) is convex in e^L. The maximum is over a grid of t, so the result is
    attained by a mechanism: never above the truth.
    """
    if count == 0:
        return max(0.0, -math.expm1(epsilon))
    if epsilon >= count * eta:
        return 0.0
    if epsilon <= -count * eta:
        return -math.expm1(epsilon)
    best = 0.0
    for t in np.linspace(0, eta, times if count > 2 else 2 * times - 1):
        top = math.expm1(t - eta) / math.expm1(-eta)
        if count == 1:
            value = top * max(0.0, -math.expm1(epsilon - t)) + (1 - top) * max(0.0, -math.expm1(epsilon - t + eta))
        else:
            value = top * _inner(eta, count - 1, epsilon - t) + (1 - top) * _inner(eta, count - 1, epsilon - t + eta)
        best = max(best, value)
    return best


def _inner(eta: float, count: int, epsilon: float) -> float:
    """delta_1 in closed form (tested against the grid); the rest by the recursion on a coarser grid."""
    if count > 1:
        return adaptive_bounded_range(eta, count, epsilon, times=41)
    if epsilon >= eta:
        return 0.0
    if epsilon <= -eta:
        return -math.expm1(epsilon)
    return math.expm1((epsilon - eta) / 2) ** 2 / -math.expm1(-eta)


def permute_and_flip(scores: np.ndarray) -> np.ndarray:
    """Law of the maximum of scores plus standard exponential noise: a_i times the integral of prod (1 - a_j v)."""
    a = np.exp(scores - scores.max())
    law = []
    for i in range(len(a)):
        polynomial = np.poly1d([1.0])
        for j in range(len(a)):
            if j != i:
                polynomial = polynomial * np.poly1d([-a[j], 1.0])
        law.append(a[i] * polynomial.integ()(1.0))
    return np.array(law)


def discrete_gaussian(steps: float, center: int, size: int) -> np.ndarray:
    """P(x) ~ exp(-(x - center)^2 / (2 steps^2)) on the integers -size..size."""
    weights = np.exp(-((np.arange(-size, size + 1) - center) ** 2) / (2 * steps**2))
    return weights / weights.sum()


def discrete_laplace(steps: float, center: int, size: int) -> np.ndarray:
    """P(x) ~ exp(-|x - center| / steps) on the integers -size..size."""
    weights = np.exp(-np.abs(np.arange(-size, size + 1) - center) / steps)
    return weights / weights.sum()
