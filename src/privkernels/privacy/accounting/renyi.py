"""From Rényi divergences at all orders to epsilon and delta, by the least over the orders.

A curve is given as a function of the excess, alpha - 1, so that orders near 1 and beyond 10^8 are both exact.
Every order gives a valid bound, so a search that misses the best one is still right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Curve = Callable[[Array], Array]

_LOG_EXCESSES = np.linspace(-28.0, 28.0, 281)
_ZOOM = np.linspace(-1.0, 1.0, 41)
# What summing and exponentiating in float64 may lose; every result is moved by it to the safe side.
SLACK = 1e-12
# The least float above 0: what a positive number too small for a float is rounded up to.
SMALLEST = 5e-324


class AtOrder(NamedTuple):
    """A value (epsilon or ln delta) and the order alpha that gives it."""

    value: float
    order: float


def renyi_to_epsilon(curve: Curve, delta: float) -> AtOrder:
    """Least epsilon at ``delta`` over the orders (Canonne, Kamath, Steinke 2020, Prop. 12).

    epsilon = D(alpha) + [ln(1/delta) + (alpha - 1) ln(1 - 1/alpha) - ln alpha] / (alpha - 1), D the curve.
    """

    def epsilon(excess: Array) -> Array:
        divergence = curve(excess)
        # The terms cancel where delta is near 1: what they lose is relative to the largest of them.
        lost = 4e-16 * (divergence + (np.log1p(excess) - math.log(delta)) / excess)
        return divergence + epsilon_over_divergence(excess, delta) + lost

    best = least_over_orders(epsilon)
    return AtOrder(max(0.0, best.value + SLACK * abs(best.value)), best.order)


def renyi_to_delta(curve: Curve, epsilon: float) -> AtOrder:
    """Least ln delta (0 or less) at ``epsilon`` over the orders; the same proposition solved for delta.

    delta = exp((alpha - 1) (D(alpha) - epsilon)) / (alpha - 1) * (1 - 1/alpha)^alpha.
    """

    def log_delta(excess: Array) -> Array:
        divergence = curve(excess)
        lost = 4e-16 * excess * (divergence + epsilon)
        return excess * (divergence - epsilon) - np.log(excess) - (1 + excess) * np.log1p(1 / excess) + lost

    best = least_over_orders(log_delta)
    return AtOrder(min(0.0, best.value + 1e-11 + SLACK * abs(best.value)), best.order)


def epsilon_over_divergence(excess: Array, delta: float) -> Array:
    """What Prop. 12 adds to the Rényi divergence of order 1 + ``excess``."""
    return (-math.log(delta) - np.log1p(excess)) / excess - np.log1p(1 / excess)


def least_over_orders(objective: Curve) -> AtOrder:
    """Minimum over alpha, by a search on ln(alpha - 1) that grows finer around the best."""
    points, width = _LOG_EXCESSES, 0.2
    best_point, best = 0.0, math.inf
    for _ in range(5):
        with np.errstate(over="ignore", invalid="ignore"):
            values = objective(np.exp(points))
        values = np.where(np.isnan(values), np.inf, values)
        index = int(np.argmin(values))
        if values[index] < best:
            best_point, best = float(points[index]), float(values[index])
        points, width = best_point + width * _ZOOM, width / 20
    return AtOrder(best, 1 + math.exp(best_point))


def half_square(value: float) -> float:
    """value^2 / 2, rounded up: above 0 where it is too small for a float, infinite where it is too large."""
    return value * value / 2 * (1 + 4e-16) + SMALLEST if value > 0 else 0.0
