"""Private selection: releasing one of several tries (docs/accounting.md, Statement 14).

Which function applies depends on who stops the loop and how:

* at most k tries, accepted by a public test: :func:`fixed_tries`;
* tries until a public test accepts, however long: :func:`unlimited_public_acceptance`;
* tries until a score computed on private records, itself released by one of the events, passes a public threshold:
  :func:`private_threshold`;
* the best of a geometric number of tries, by such a score or by a public one: :func:`geometric_stopping`.

In all but the first, the number of tries must stay secret. A try is one run of all of ``events`` with fresh noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.accountant import compose, spend
from privkernels.privacy.accounting.budget import Bound, check_count, check_delta, sum_up
from privkernels.privacy.accounting.composition import Composition
from privkernels.privacy.accounting.renyi import Array, least_over_orders, renyi_to_epsilon
from privkernels.privacy.events import BoundedRangeEvent, Event


def fixed_tries(events: Sequence[Event], tries: int, delta: float) -> Bound:
    """At most ``tries`` (public) tries, released by any public rule: post-processing of all of them.

    Raises:
        InvalidArgumentError: ``tries`` is not a whole number of 1 or more.
        InvalidBudgetError: ``delta`` is not in (0, 1).
    """
    check_count("tries", tries)
    return compose([event.times(tries) for event in events], delta)


def unlimited_public_acceptance(events: Sequence[Event], *, adaptive: bool = False) -> Bound:
    """Tries until the outcome lies in a public set, however small that set is.

    An outcome conditioned on a public set. Its privacy loss has the range of the unconditioned one: eta for each
    bounded-range event, 2 epsilon for each other; the sum is the pure epsilon (docs/accounting.md, Statement 14.2).
    Numbers from zCDP or any delta do NOT survive the conditioning, so none is used.

    Args:
        events: one try.
        adaptive: whether the mechanism of some bounded-range event depends on the outcome of another event. Then its
            interval of losses moves with that outcome, and it counts twice. (A noisy score of the candidate drawn may
            depend on it in either case: its losses lie in [-epsilon, epsilon] whatever was drawn.)

    Raises:
        InvalidArgumentError: an event has no pure epsilon, or a total variation: a public set can be as rare as that,
            so nothing is left. Bound the number of tries instead (:func:`fixed_tries`).
    """
    whole = _pure_base(events, "unlimited tries")
    once = [isinstance(e, BoundedRangeEvent) and not adaptive for e in whole.events]
    epsilon = sum_up((1 if is_once else 2, _pure(e)) for is_once, e in zip(once, whole.events, strict=True))
    return Bound(epsilon, 0.0, "range of the privacy loss, conditioned on a public set")


def private_threshold(events: Sequence[Event]) -> Bound:
    """Tries until a released private score passes a public threshold, however long: twice the pure epsilon.

    Liu and Talwar 2019, Theorem 3.1 (their halting probability only helps); docs/accounting.md, Statement 14.3. The
    events are those of a candidate and of its noisy score together. Where the candidates come from bounded-range
    draws, :func:`unlimited_public_acceptance` with the score's event among ``events`` is smaller.

    Raises:
        InvalidArgumentError: as :func:`unlimited_public_acceptance`.
    """
    whole = _pure_base(events, "a threshold on private scores")
    return Bound(2 * whole.pure, 0.0, "private selection by a threshold, 2 epsilon")


def geometric_stopping(events: Sequence[Event], stop: float, delta: float) -> Bound:
    """The best of K tries, P(K = k) = stop (1 - stop)^(k-1), by a score that the events cover or that is public.

    Papernot and Steinke 2022, Theorem 2 with their eta = 1: for all alpha > 1 and alpha^ >= 1 the selection has
    D'(alpha) = D(alpha) + 2 (1 - 1/alpha^) D(alpha^) + 2 ln(1/stop) / alpha^ + ln(1/stop) / (alpha - 1). Where the base
    is pure, 3 epsilon at most (Liu and Talwar 2019, Theorem 3.2). The tries' total variations add up to their number's
    expectation, 1 / stop.

    Args:
        events: one try, its score included.
        stop: probability of stopping after each try, in (0, 1]; public.
        delta: what may be spent.

    Raises:
        InvalidArgumentError: ``stop`` is out of range, or an event has a delta of its own or no Rényi curve.
        InvalidBudgetError: ``delta`` is not in (0, 1).
    """
    whole, delta = Composition.of(events), check_delta(delta)
    if isinstance(stop, bool) or not isinstance(stop, int | float) or not 0 < stop <= 1:
        raise InvalidArgumentError(f"stop is the probability of stopping after a try, in (0, 1], got {stop!r}")
    if whole.own_delta > 0 or not whole.has_renyi:
        raise InvalidArgumentError(
            "geometric stopping is known for events with a Rényi curve and no delta of their own; bound the number of "
            "tries instead (fixed_tries)"
        )
    cost = -math.log(stop)
    pure = sum_up([(3, whole.pure)]) if math.isfinite(whole.pure) else math.inf

    def second(excess: Array) -> Array:
        return (excess * whole.renyi(excess) + cost) / (1 + excess)

    at_second_order = 2 * min(cost, least_over_orders(second).value)

    def best(inner: float, _: bool) -> tuple[float, str]:
        epsilon, order = renyi_to_epsilon(lambda excess: whole.renyi(excess) + at_second_order + cost / excess, inner)
        return min(
            (pure, "private selection, 3 epsilon"),
            (epsilon, f"private selection, Rényi DP at order {order:.4g}"),
        )

    variation = min(1.0, whole.total_variation / stop)
    return spend(best, delta, pure=pure, own_delta=0.0, total_variation=variation)


def _pure_base(events: Sequence[Event], what: str) -> Composition:
    whole = Composition.of(events)
    if not math.isfinite(whole.pure) or whole.own_delta > 0 or whole.total_variation > 0:
        raise InvalidArgumentError(
            f"{what} needs events with a pure epsilon and neither a delta nor a total variation, since the accepted "
            "outcomes may be as rare as those; bound the number of tries instead (fixed_tries)"
        )
    return whole


def _pure(event: Event) -> float:
    return Composition.of([event]).pure
