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


class AtOrder(NamedTuple):
    """A value (epsilon or ln delta) and the order alpha that gives it."""

    value: float
    order: float


def renyi_to_epsilon(curve: Curve, delta: float, excesses: Array | None = None) -> AtOrder:
    """Least epsilon at ``delta`` over the orders (Canonne, Kamath, Steinke 2020, Prop. 12).

    epsilon = D(alpha) + [ln(1/delta) + (alpha - 1) ln(1 - 1/alpha) - ln alpha] / (alpha - 1), D the curve.
    ``excesses``: the only values of alpha - 1 at which the curve is known; any if None.
    """
    best = least_over_orders(lambda excess: curve(excess) + epsilon_over_divergence(excess, delta), excesses)
    return AtOrder(max(0.0, best.value + SLACK * abs(best.value)), best.order)


def renyi_to_delta(curve: Curve, epsilon: float, excesses: Array | None = None) -> AtOrder:
    """Least ln delta (0 or less) at ``epsilon`` over the orders; the same proposition solved for delta.

    delta = exp((alpha - 1) (D(alpha) - epsilon)) / (alpha - 1) * (1 - 1/alpha)^alpha.
    """

    def log_delta(excess: Array) -> Array:
        return excess * (curve(excess) - epsilon) - np.log(excess) - (1 + excess) * np.log1p(1 / excess)

    best = least_over_orders(log_delta, excesses)
    return AtOrder(min(0.0, best.value + 1e-11 + SLACK * abs(best.value)), best.order)


def epsilon_over_divergence(excess: Array, delta: float) -> Array:
    """What Prop. 12 adds to the Rényi divergence of order 1 + ``excess``."""
    return (-math.log(delta) - np.log1p(excess)) / excess - np.log1p(1 / excess)


def least_over_orders(objective: Curve, excesses: Array | None = None) -> AtOrder:
    """Minimum over alpha: at the ``excesses``, or by a search on ln(alpha - 1) that grows finer around the best."""
    points, width = (_LOG_EXCESSES if excesses is None else np.log(excesses)), 0.2
    best_point, best = 0.0, math.inf
    for _ in range(5 if excesses is None else 1):
        with np.errstate(over="ignore", invalid="ignore"):
            values = objective(np.exp(points) if excesses is None else excesses)
        values = np.where(np.isnan(values), np.inf, values)
        index = int(np.argmin(values))
        if values[index] < best:
            best_point, best = float(points[index]), float(values[index])
        points, width = best_point + width * _ZOOM, width / 20
    return AtOrder(best, 1 + math.exp(best_point))
