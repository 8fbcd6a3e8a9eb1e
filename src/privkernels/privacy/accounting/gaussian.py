"""The Gaussian mechanism, exactly (Balle and Wang 2018)."""

from __future__ import annotations

import math

from scipy import special

from privkernels.privacy.accounting.budget import check_delta


def gaussian_delta(mu: float, epsilon: float) -> float:
    """delta = Phi(mu/2 - eps/mu) - e^eps Phi(-mu/2 - eps/mu)."""
    if mu == 0:
        return 0.0
    upper = special.ndtr(mu / 2 - epsilon / mu)
    return max(0.0, float(upper - math.exp(epsilon + special.log_ndtr(-mu / 2 - epsilon / mu))))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The least epsilon at ``delta``."""
    check_delta(delta)
    low, high = 0.0, 1.0
    if gaussian_delta(mu, 0.0) <= delta:
        return 0.0
    while gaussian_delta(mu, high) > delta:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_delta(mu, middle) <= delta else (middle, high)
    return high


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu = sensitivity / std for which (epsilon, delta) holds."""
    low, high = 0.0, 1.0
    while gaussian_delta(high, epsilon) <= delta:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if gaussian_delta(middle, epsilon) <= delta else (low, middle)
    return low
