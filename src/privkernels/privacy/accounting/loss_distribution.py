"""Privacy loss distributions: numerical composition through dp-accounting, for what no closed form covers.

A mechanism is replaced by a pair of laws that dominates it; the losses of pairs add under composition, adaptive
composition included (Zhu, Dong and Wang 2022, Theorem 10). Losses are put on a grid, always towards more loss
(Doroshenko et al. 2022, "Connect the Dots"), so the result is an upper bound; what the Fourier transform may round
away is added to delta. dp-accounting takes over a second to import, so it is imported where it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.bounded_range import bounded_range_delta
from privkernels.privacy.accounting.budget import check_delta
from privkernels.privacy.accounting.laplace import laplace_delta, pure_delta
from privkernels.privacy.accounting.renyi import Array
from privkernels.privacy.events import (
    BoundedRangeEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
)

# Mass that dp-accounting's Fourier transforms may lose in one composition, and the tails that it cuts off.
FOURIER_ERROR = 1e-11
_CELLS = 50_000  # of the grid, over what the losses reach


def supports(event: Event) -> bool:
    """Whether the event has a dominating pair that this module knows."""
    return isinstance(event, GaussianEvent | LaplaceEvent | BoundedRangeEvent | PureEvent | SampledGaussianEvent)


def composed_loss(events: Sequence[Event], spread: float) -> Any:
    """The privacy loss distribution of all ``events`` (dp-accounting's object); they share one relation.

    Args:
        events: only those that :func:`supports` allows; total variations are left to the caller.
        spread: the losses that matter reach about so far; sets the step of the grid, not whether the bound holds.

    Raises:
        InvalidArgumentError: an event has no known dominating pair.
    """
    step = max(spread, *(_reach(event) for event in events)) / _CELLS
    total = None
    for event in events:
        one = _one(event, step)
        composed = one if event.count == 1 else one.self_compose(event.count)
        total = composed if total is None else total.compose(composed, 1e-15)
    return total


def loss_to_epsilon(loss: Any, delta: float) -> float:
    """Least epsilon at ``delta``; infinite where delta is not well above what the numerics may lose."""
    left = check_delta(delta) - FOURIER_ERROR
    return max(0.0, float(loss.get_epsilon_for_delta(left))) * (1 + 1e-12) if left > 0.9 * delta else math.inf


def loss_to_delta(loss: Any, epsilon: float) -> float:
    """delta at ``epsilon``, with what the numerics may lose."""
    return min(1.0, max(0.0, float(loss.get_delta_for_epsilon(epsilon))) + FOURIER_ERROR)


def sampled_gaussian_renyi(event: SampledGaussianEvent, excess: Array) -> Array:
    """Rényi divergence of one step for add-or-remove neighbours, at 1 + ``excess`` (Mironov, Talwar, Zhang 2019)."""
    import dp_accounting
    from dp_accounting import rdp

    if event.relation is not Relation.ADD_OR_REMOVE_ONE:
        # dp-accounting 0.6.0 answers for replace-one what holds for add-or-remove: too small (its issue 378).
        raise InvalidArgumentError("the Rényi divergence of a sampled Gaussian is known for add-or-remove only")
    accountant = rdp.RdpAccountant([float(a) for a in 1 + excess], dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE)
    accountant.compose(
        dp_accounting.PoissonSampledDpEvent(event.rate, dp_accounting.GaussianDpEvent(event.noise_multiplier))
    )
    values = np.asarray(accountant.rdp, dtype=np.float64)
    return np.where(np.isnan(values), np.inf, values) * (1 + 1e-9)


def _one(event: Event, step: float) -> Any:
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(event, GaussianEvent):
        return pld.from_gaussian_mechanism(1 / event.mu, value_discretization_interval=step)
    if isinstance(event, SampledGaussianEvent):
        return _sampled(event, step)
    return _from_curve(_curve(event), _reach(event), step)


def _sampled(event: SampledGaussianEvent, step: float) -> Any:
    import dp_accounting
    from dp_accounting.pld import privacy_loss_distribution as pld

    replace = event.relation is Relation.REPLACE_ONE
    relations = dp_accounting.NeighboringRelation
    return pld.from_gaussian_mechanism(
        event.noise_multiplier,
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
    mu = event.mu if isinstance(event, GaussianEvent) else 1.0
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
