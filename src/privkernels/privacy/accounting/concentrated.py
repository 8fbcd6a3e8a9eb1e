"""Zero-concentrated differential privacy (Bun and Steinke 2016): D_alpha <= rho alpha for every alpha > 1."""

from __future__ import annotations

import math

from privkernels.privacy.accounting.budget import Comparison, check_amount, check_delta, check_epsilon
from privkernels.privacy.accounting.renyi import (
    SLACK,
    SMALLEST,
    epsilon_over_divergence,
    least_over_orders,
    renyi_to_delta,
    renyi_to_epsilon,
)


def zcdp_to_epsilon(rho: float, delta: float) -> float:
    """Smallest epsilon that rho-zCDP gives at ``delta`` (Canonne, Kamath, Steinke 2020, Prop. 12).

    epsilon = min over alpha > 1 of  rho alpha + [ln(1/delta) + (alpha - 1) ln(1 - 1/alpha) - ln alpha] / (alpha - 1).
    Every alpha gives a valid bound, so an inexact minimum is still one.

    Raises:
        InvalidBudgetError: ``rho`` is negative or not finite, or ``delta`` is not in (0, 1).
    """
    rho, delta = check_amount("rho", rho), check_delta(delta)
    if rho == 0:
        return 0.0
    return renyi_to_epsilon(lambda excess: rho * (1 + excess), delta).value


def zcdp_to_delta(rho: float, epsilon: float) -> float:
    """Smallest delta that rho-zCDP gives at ``epsilon`` (0 or more); the same proposition solved for delta.

    Above 0 for every ``rho`` above 0: at least the smallest float.

    Raises:
        InvalidBudgetError: ``rho`` or ``epsilon`` is negative or not finite.
    """
    rho, epsilon = check_amount("rho", rho), check_amount("epsilon", epsilon)
    if rho == 0:
        return 0.0
    return max(math.exp(renyi_to_delta(lambda excess: rho * (1 + excess), epsilon).value), SMALLEST)


def epsilon_to_zcdp(epsilon: float, delta: float) -> float:
    """Largest rho whose conversion at ``delta`` stays within ``epsilon``: how much zCDP a budget buys.

    rho = max over alpha of (epsilon - [...]) / alpha with the bracket of :func:`zcdp_to_epsilon`.

    Raises:
        InvalidBudgetError: ``epsilon`` is not positive and finite, or ``delta`` is not in (0, 1).
    """
    epsilon, delta = check_epsilon(epsilon), check_delta(delta)
    best = least_over_orders(lambda excess: (epsilon_over_divergence(excess, delta) - epsilon) / (1 + excess))
    rho = max(0.0, -best.value) * (1 - 4 * SLACK)
    step = 4 * SLACK
    while rho > 0 and zcdp_to_epsilon(rho, delta) > epsilon:  # the slack of the way back
        rho *= 1 - min(step, 0.5)
        step *= 2
    return rho


def classic_zcdp_epsilon(rho: float, delta: float) -> Comparison:
    """rho + 2 sqrt(rho ln(1/delta)) (Bun and Steinke 2016, Prop. 1.3): valid, and never below ours."""
    rho, delta = check_amount("rho", rho), check_delta(delta)
    return Comparison(rho + 2 * math.sqrt(-rho * math.log(delta)), True)
