"""Zero-concentrated differential privacy (Bun and Steinke 2016) and its conversion to epsilon and delta."""

from __future__ import annotations

import math

from scipy.optimize import minimize_scalar

from privkernels.errors import InvalidBudgetError
from privkernels.privacy.accounting.budget import check_delta


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
