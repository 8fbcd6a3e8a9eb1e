"""Composition of bounded-range mechanisms, by basic composition and by zero-concentrated privacy.

Sources: a draw of the exponential mechanism whose privacy loss has range eta (is eta-bounded-range) is
eta-DP and (eta^2 / 8)-zCDP (Cesar and Rogers 2021; Durfee and Rogers 2019). zCDP adds up under adaptive
composition (Bun and Steinke 2016) and is converted by Canonne, Kamath and Steinke 2020.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.optimize import minimize_scalar

from privkernels.errors import InvalidBudgetError


@dataclass(frozen=True)
class Bound:
    """epsilon and delta, and the argument that gives them."""

    epsilon: float
    delta: float
    accountant: str


def check_epsilon(epsilon: float) -> float:
    """Return ``epsilon`` if it is positive and finite, else raise :class:`InvalidBudgetError`."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon < math.inf:
        raise InvalidBudgetError(f"epsilon must be a positive, finite number, got {epsilon!r}")
    return float(epsilon)


def check_delta(delta: float) -> float:
    """Return ``delta`` if it lies strictly between 0 and 1, else raise :class:`InvalidBudgetError`."""
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise InvalidBudgetError(f"delta must lie strictly between 0 and 1, got {delta!r}")
    return float(delta)


def zcdp_to_epsilon(rho: float, delta: float) -> float:
    """Smallest epsilon that rho-zCDP gives at ``delta`` (Canonne, Kamath, Steinke 2020, Prop. 12).

    epsilon = min over alpha > 1 of  rho alpha + [ln(1/delta) + (alpha - 1) ln(1 - 1/alpha) - ln alpha] / (alpha - 1).
    Every alpha gives a valid bound, so an inexact minimum is still one.
    """
    check_delta(delta)
    if not 0 <= rho < math.inf:
        raise InvalidBudgetError(f"rho must be finite and not negative, got {rho!r}")
    if rho == 0:
        return 0.0

    def epsilon(log_excess: float) -> float:
        excess = math.exp(log_excess)  # alpha - 1
        log_ratio = -math.log1p(1 / excess)  # ln(1 - 1/alpha)
        return rho * (1 + excess) + (math.log(1 / delta) - math.log1p(excess)) / excess + log_ratio

    # The classic conversion's optimum is close; search e^8 around it.
    start = 0.5 * math.log(math.log(1 / delta) / rho)
    best = minimize_scalar(epsilon, bounds=(start - 8, start + 8), method="bounded", options={"xatol": 1e-10})
    return max(0.0, min(float(best.fun), epsilon(start)))


def compose_bounded_range(eta: float, count: int, delta: float) -> Bound:
    """(epsilon, delta) of ``count`` adaptive eta-bounded-range draws: the lesser of two valid bounds.

    Basic composition gives count * eta with delta 0; zCDP gives the conversion of count * eta^2 / 8.

    Args:
        eta: range of the privacy loss of one draw, >= 0.
        count: number of draws, >= 0.
        delta: in (0, 1); the one that zCDP is converted at.
    """
    basic = count * eta
    rho = count * eta * eta / 8
    concentrated = zcdp_to_epsilon(rho, delta) if math.isfinite(rho) else math.inf
    if basic <= concentrated:
        return Bound(basic, 0.0, f"basic composition of {count} draws of epsilon {eta:.4g}")
    return Bound(
        concentrated,
        delta,
        f"zCDP, rho = {rho:.4g} ({count} bounded-range draws, range {eta:.4g}, eta^2/8 each)",
    )
