"""What an accountant returns, and the checks of what it is asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from privkernels.errors import InvalidArgumentError, InvalidBudgetError

# Beyond these no setting has a meaning, and the square of a quotient of two would leave the range of float64.
SMALLEST, LARGEST = 1e-50, 1e50
_MOST = 2**63 - 1


@dataclass(frozen=True)
class Bound:
    """epsilon and delta, and the argument that gives them.

    An infinite epsilon states nothing; ``accountant`` then says why nothing is known.
    """

    epsilon: float
    delta: float
    accountant: str


class Comparison(NamedTuple):
    """A looser or conditional formula of the literature, beside which ours is shown; never a bound by itself.

    Attributes:
        value: what the formula gives.
        proven: whether the conditions under which its authors proved it are met.
    """

    value: float
    proven: bool


def check_epsilon(epsilon: float) -> float:
    """Return ``epsilon`` if it is positive and at most 1e50, else raise :class:`InvalidBudgetError`."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 < epsilon <= LARGEST:
        raise InvalidBudgetError(f"epsilon must be a positive, finite number of at most {LARGEST:g}, got {epsilon!r}")
    return float(epsilon)


def check_delta(delta: float) -> float:
    """Return ``delta`` if it lies strictly between 0 and 1, else raise :class:`InvalidBudgetError`."""
    if isinstance(delta, bool) or not isinstance(delta, int | float) or not 0 < delta < 1:
        raise InvalidBudgetError(f"delta must lie strictly between 0 and 1, got {delta!r}")
    return float(delta)


def check_amount(name: str, value: float, *, high: float = sys.float_info.max) -> float:
    """Return ``value`` if it lies in [0, ``high``], else raise :class:`InvalidBudgetError` naming it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise InvalidBudgetError(f"{name} must be finite and not negative (at most {high:.4g}), got {value!r}")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """Return ``value`` if it lies in [1e-50, 1e50], else raise :class:`InvalidArgumentError` naming it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not SMALLEST <= value <= LARGEST:
        raise InvalidArgumentError(
            f"{name} must be a positive, finite number ({SMALLEST:g} to {LARGEST:g}), got {value!r}"
        )
    return float(value)


def check_count(name: str, value: int, *, low: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``low``, else raise :class:`InvalidArgumentError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise InvalidArgumentError(f"{name} must be a whole number of {low} or more, got {value!r}")
    if value > _MOST:
        raise InvalidArgumentError(f"{name} must be below 2^63, got a number of {value.bit_length()} bits")
    return value


def sum_up(terms: Iterable[tuple[int, float]]) -> float:
    """Sum of count times value (finite, 0 or more), rounded up; infinite above the largest float."""
    exact = sum((Fraction(count) * Fraction(value) for count, value in terms), Fraction(0))
    try:
        nearest = float(exact)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= exact else math.nextafter(nearest, math.inf)


def variation_cost(epsilon: float, total_variation: float) -> float:
    """(1 + e^epsilon) total_variation, at most 1: what Statement 13 of docs/accounting.md adds to delta, rounded up."""
    if total_variation == 0:
        return 0.0
    if epsilon < 700:
        return min(1.0, (1 + math.exp(epsilon)) * total_variation * (1 + 1e-15) + 5e-324)
    exponent = epsilon + math.log(total_variation)  # an error of 10^-13 at most where e^exponent is below 1
    return 1.0 if exponent >= 0 else min(1.0, (total_variation + math.exp(exponent)) * (1 + 1e-12))
