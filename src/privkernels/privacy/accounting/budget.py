"""What an accountant returns, and the checks of what it is asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
