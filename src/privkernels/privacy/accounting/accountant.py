"""Composition of events: the least of the bounds that are valid for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from privkernels.privacy.accounting.budget import Bound, check_amount, check_delta, variation_cost
from privkernels.privacy.accounting.composition import Composition
from privkernels.privacy.accounting.renyi import SMALLEST
from privkernels.privacy.events import Event


def compose(events: Sequence[Event], delta: float, *, numerical: bool = False) -> Bound:
    """(epsilon, delta) of all ``events`` together, adaptively chosen ones included, for one unit.

    The least epsilon of: basic composition; Rényi DP over all orders, each event by its tight curve (zCDP is the case
    of linear curves); the exact curve where there is one (Gaussian noise alone; a single operation); and, if
    ``numerical``, privacy loss distributions. docs/accounting.md proves each. Events for add-or-remove neighbours
    beside events for replace-one are turned into the latter.

    Args:
        events: what was done; none costs nothing.
        delta: what may be spent, in (0, 1).
        numerical: also compose privacy loss distributions with dp-accounting, for up to 10^6 operations and where
            ``delta`` is well above what the numerics may lose (10^-10, or 10^-14 an operation): tighter for few
            operations and for sampled Gaussians. Needed for sampled Gaussians with replace-one neighbours, and done
            there in any case.

    Time: without ``numerical``, about a millisecond for each kind and size of event, 20 to 100 for a sampled Gaussian
    seen for the first time, and five to twenty times as much where there are total variations. With it, a second or
    two for the first call (an import), then 0.1 to some seconds.

    Returns:
        The bound and the argument that gave it. Its delta is ``delta`` or less, unless the events' own deltas and
        total variations cannot be met with it: then the delta that holds, at most 1. Where nothing is known, epsilon
        is infinite and the argument says why.

    Raises:
        InvalidBudgetError: ``delta`` is not in (0, 1).
        InvalidArgumentError: ``events`` holds something that is not an event.
    """
    whole, delta = Composition.of(events), check_delta(delta)

    def best(inner: float, thorough: bool) -> tuple[float, str]:
        epsilon, accountant = min(whole.epsilons(inner, thorough and numerical))
        return (epsilon, accountant) if epsilon < math.inf else (epsilon, whole.why_no_bound)

    return spend(best, delta, pure=whole.pure, own_delta=whole.own_delta, total_variation=whole.total_variation)


def composed_delta(events: Sequence[Event], epsilon: float, *, numerical: bool = False) -> Bound:
    """The least delta that is known at ``epsilon`` (0 or more), by the same arguments as :func:`compose`.

    0 only where the events are known to be ``epsilon``-DP; a delta too small for a float is rounded up to the smallest.

    Raises:
        InvalidBudgetError: ``epsilon`` is negative or not finite.
        InvalidArgumentError: ``events`` holds something that is not an event.
    """
    whole, epsilon = Composition.of(events), check_amount("epsilon", epsilon)
    delta, accountant = min(whole.deltas(epsilon, numerical))
    if whole.pure > epsilon:
        delta = max(delta, SMALLEST)
    extra = whole.own_delta + variation_cost(epsilon, whole.total_variation)
    return Bound(epsilon, min(1.0, delta + extra), accountant)


def spend(
    best: Callable[[float, bool], tuple[float, str]],
    delta: float,
    *,
    pure: float,
    own_delta: float,
    total_variation: float,
) -> Bound:
    """The bound at ``delta`` when part of it pays for what the mechanisms and their implementation add.

    (eps, delta')-DP of the ideal mechanisms gives (eps, delta' + own_delta + (1 + e^eps) total_variation)-DP
    (docs/accounting.md, Statement 13). delta' is the largest for which that is ``delta``, but at least half of
    ``delta`` - own_delta.

    Args:
        best: least epsilon of the ideal mechanisms at a delta' and its argument; the flag allows it to take long.
        delta: what may be spent.
        pure: the epsilon at which they need no delta'; may be infinite.
        own_delta, total_variation: of all of them together.
    """

    def total(inner: float, epsilon: float) -> float:
        inner = 0.0 if pure <= epsilon else inner
        return min(1.0, inner + own_delta + variation_cost(epsilon, total_variation))

    inner = _largest_inner_delta(lambda d: total(d, best(d, False)[0]), delta, own_delta, total_variation)
    if inner is not None:
        # Where it was found, the pure epsilon, which needs none of it, may have been the least. A smaller epsilon that
        # does need it can then be too much; the quick one is not.
        for thorough in (True, False):
            epsilon, accountant = best(inner, thorough)
            spent = total(inner, epsilon)
            if math.isinf(epsilon):
                return Bound(epsilon, delta, accountant)
            if spent <= delta:
                return Bound(epsilon, spent if pure <= epsilon else delta, accountant)
    if total(0.0, pure) <= delta:
        return Bound(pure, total(0.0, pure), "basic composition")
    half = delta / 2 or delta  # half of the smallest float is 0
    epsilon, accountant = best(half, True)
    over = "the operations' own delta and total variation exceed what was asked for"
    return Bound(epsilon, total(half, epsilon), f"{accountant}; {over}")


def _largest_inner_delta(
    spent: Callable[[float], float], delta: float, own_delta: float, total_variation: float
) -> float | None:
    """The largest delta' with spent(delta') <= delta, to a part in 10^6; None if half of what is left is too much."""
    high = delta - own_delta
    if high + own_delta > delta:  # by rounding
        high = math.nextafter(high, 0.0)
    if high <= 0:
        return None
    if total_variation == 0 or spent(high) <= delta:
        return high
    low = high / 2
    if low == 0 or spent(low) > delta:
        return None
    quick = high - 1.000001 * (spent(high) - delta) - 1e-9 * delta
    if quick > low and spent(quick) <= delta:
        return quick
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) <= delta else (low, middle)
    return low
