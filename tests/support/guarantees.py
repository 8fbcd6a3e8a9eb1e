"""What every guarantee keeps whatever its numbers, and how one is made from numbers: for property tests."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from hypothesis import strategies as st

from privkernels.privacy import Guarantee

# Values that no number may have.
NEVER = (math.nan, -math.inf, -1, -0.5, 10**400, True, "x", ())
# Values that are wrong for most arguments; where one is right, the guarantee has to be in order.
ODD = (math.inf, 0, 0.0, 0.5, 1.5, 1e300, 1e-300, 1e49, 1e-49, 5e-324, 2**62, None)


@dataclass(frozen=True)
class Case:
    """A way from numbers to a guarantee.

    Attributes:
        module: whose ``bound_of`` gives the proven number.
        plan: numbers to plan.
        guarantee: plan to guarantee.
        numbers: a strategy of valid values for each argument of ``plan``.
        grows: arguments of which more never costs less.
        shrinks: arguments of which more never costs more.
    """

    module: ModuleType
    plan: Callable[..., Any]
    guarantee: Callable[..., Guarantee]
    numbers: Mapping[str, st.SearchStrategy[Any]]
    grows: tuple[str, ...] = ()
    shrinks: tuple[str, ...] = ()

    def make(self, **numbers: Any) -> Guarantee:
        return self.guarantee(self.plan(**numbers))


def check(guarantee: Guarantee) -> None:
    """A finite proof or a reason, a finite claim, readable as text, and the same after JSON."""
    if guarantee.proven is None:
        assert guarantee.not_proven_because
        assert "Proven: nothing" in str(guarantee)
    else:
        assert math.isfinite(guarantee.proven.epsilon)
        assert guarantee.proven.epsilon >= 0
        assert 0 <= guarantee.proven.delta <= 1
        assert guarantee.proven.accountant
    assert guarantee.claimed is None or math.isfinite(guarantee.claimed.epsilon)
    assert f"Unit: {guarantee.unit}" in str(guarantee)
    assert Guarantee.from_json(guarantee.to_json()) == guarantee


def spread(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats over orders of magnitude."""
    return st.floats(math.log10(low), math.log10(high)).map(lambda exponent: 10**exponent)


def counts(low: int, high: int) -> st.SearchStrategy[int]:
    """Whole numbers over orders of magnitude."""
    return st.floats(math.log(low), math.log(high + 0.5)).map(lambda exponent: min(high, round(math.exp(exponent))))


DELTAS = spread(1e-9, 1e-2)
