"""Privacy loss distributions: numerical composition through dp-accounting, for what no closed form covers.

A mechanism is replaced by a pair of laws that dominates it; the losses of pairs add under composition, adaptive
composition included (Zhu, Dong and Wang 2022, Theorem 10). The pair's hockey stick is known on a grid of losses and
replaced by the chords between (Doroshenko et al. 2022, "Connect the Dots"), which lie above it; what rounding and the
Fourier transforms may lose, in proportion to the number of operations, is added to delta (docs/accounting.md, Statement
16). dp-accounting takes over a second to import, so it is imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.bounded_range import bounded_range_delta
from privkernels.privacy.accounting.budget import check_delta
from privkernels.privacy.accounting.laplace import laplace_delta, pure_delta
from privkernels.privacy.events import (
    BoundedRangeEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
)

MOST_OPERATIONS = 10**6  # above it the transforms take many seconds and lose more than a delta of 10^-8
LARGEST_LOSS = 1e4  # above it a step of the grid would be so long that e^step means nothing
_CELLS = 50_000  # of the grid, over what the losses reach
_LEAST_STEP = 1e-9  # of the grid: the masses are differences of deltas over it, and lose digits where it is tiny
_MOST_NOISE = 1e100  # its square is still a float; more noise only hides more


@dataclass(frozen=True)
class ComposedLoss:
    """dp-accounting's privacy loss distribution of ``count`` operations together, and what its numerics may lose."""

    distribution: Any
    count: int

    @property
    def _growth(self) -> float:
        """By what the mass of the losses, once composed, may fall short of 1, for each of them a few last digits."""
        return 1 + 1e-14 * self.count

    def epsilon(self, delta: float) -> float:
        """Least epsilon at ``delta``; infinite where that is not well above what the numerics may lose."""
        error = _error(self.count)
        if error > 0.1 * check_delta(delta):
            return math.inf
        left = (delta - error) / self._growth
        return max(0.0, float(self.distribution.get_epsilon_for_delta(left))) * (1 + 1e-12)

    def delta(self, epsilon: float) -> float:
        """delta at ``epsilon``, with what the numerics may lose."""
        found = max(0.0, float(self.distribution.get_delta_for_epsilon(epsilon)))
        return min(1.0, found * self._growth + _error(self.count))


def numerical_error(events: Sequence[Event]) -> float:
    """What may be lost of delta in composing ``events``, by rounding, transforms and cut tails."""
    return _error(sum(event.count for event in events))


def _error(count: int) -> float:
    return max(1e-11, 1e-15 * count)


def composed_loss(events: Sequence[Event], spread: float) -> ComposedLoss | None:
    """The privacy loss distribution of all ``events``, which share one relation.

    Args:
        events: of kinds with a dominating pair (neither zCDP nor approximate); total variations are left to the caller.
        spread: the losses that matter reach about so far; sets the step of the grid, not whether the bound holds.

    Returns:
        None where there are more than MOST_OPERATIONS or one of them has losses above LARGEST_LOSS.

    Raises:
        InvalidArgumentError: an event has no known dominating pair.
    """
    count, reach = sum(event.count for event in events), max(_reach(event) for event in events)
    if count > MOST_OPERATIONS or reach > LARGEST_LOSS:
        return None
    step = max(_LEAST_STEP, max(reach, min(spread, LARGEST_LOSS)) / _CELLS)
    total = None
    for event in events:
        one = _one(event, step)
        composed = one if event.count == 1 else one.self_compose(event.count)
        total = composed if total is None else total.compose(composed, 1e-15)
    return ComposedLoss(total, count)


def _one(event: Event, step: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(event, GaussianEvent):
        return pld.from_gaussian_mechanism(1 / max(event.mu, 1 / _MOST_NOISE), value_discretization_interval=step)
    if isinstance(event, SampledGaussianEvent):
        return _sampled(event, step)
    return _from_curve(_curve(event), _reach(event), step)


def _sampled(event: SampledGaussianEvent, step: float) -> Any:
    import dp_accounting
    from dp_accounting.pld import privacy_loss_distribution as pld

    replace = event.relation is Relation.REPLACE_ONE
    relations = dp_accounting.NeighboringRelation
    return pld.from_gaussian_mechanism(
        min(event.noise_multiplier, _MOST_NOISE),
        sampling_prob=event.rate,
        value_discretization_interval=step,
        neighboring_relation=relations.REPLACE_ONE if replace else relations.ADD_OR_REMOVE_ONE,
    )


def _curve(event: Event) -> Callable[[float], float]:
    if isinstance(event, BoundedRangeEvent):
        return lambda at: bounded_range_delta(event.eta, at)
    if isinstance(event, LaplaceEvent):
        return lambda at: laplace_delta(event.epsilon, at)
    if isinstance(event, PureEvent):
        return lambda at: pure_delta(event.epsilon, at)
    raise InvalidArgumentError(f"no dominating pair is known for an event of kind {event.kind!r}")


def _reach(event: Event) -> float:
    """The largest loss of one operation, or one that is as good as never exceeded."""
    if isinstance(event, BoundedRangeEvent):
        return event.eta
    if isinstance(event, LaplaceEvent | PureEvent):
        return event.epsilon
    if isinstance(event, SampledGaussianEvent):
        mu = (2 if event.relation is Relation.REPLACE_ONE else 1) / event.noise_multiplier
        unsampled = mu * (6 + mu / 2)
        return math.log1p(event.rate * math.expm1(unsampled)) if unsampled < 700 else unsampled
    mu = event.mu if isinstance(event, GaussianEvent) else 0.0
    return mu * (8 + mu / 2)


def _from_curve(curve: Callable[[float], float], reach: float, step: float) -> Any:
    """The symmetric pair with this delta(epsilon) for epsilon in [0, reach], its dots connected on the grid.

    For a symmetric pair delta(-x) = 1 - e^-x + e^-x delta(x), so the curve is needed at x >= 0 only.
    """
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld

    top = max(1, math.ceil(reach / step))
    above = np.array([curve(i * step) for i in range(top)] + [0.0])
    x = np.arange(1, top + 1) * step
    below = (-np.expm1(-x) + np.exp(-x) * above[1:])[::-1]
    deltas = np.minimum.accumulate(np.concatenate([below, above]))
    pmf = pld_pmf.create_pmf_pessimistic_connect_dots(step, np.arange(-top, top + 1), np.clip(deltas, 0, 1))
    return pld.PrivacyLossDistribution(pmf)
