"""What is known of several events together: every valid epsilon at a delta, and every valid delta at an epsilon."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting import loss_distribution
from privkernels.privacy.accounting.bounded_range import (
    bounded_range_delta,
    bounded_range_epsilon,
    bounded_range_renyi,
)
from privkernels.privacy.accounting.concentrated import zcdp_to_epsilon
from privkernels.privacy.accounting.gaussian import compose_mu, gaussian_delta, gaussian_epsilon
from privkernels.privacy.accounting.laplace import (
    laplace_delta,
    laplace_epsilon,
    laplace_renyi,
    pure_delta,
    pure_epsilon,
    pure_renyi,
)
from privkernels.privacy.accounting.renyi import Array, renyi_to_delta, renyi_to_epsilon
from privkernels.privacy.events import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
)

# Orders at which dp-accounting is asked for the Rényi divergence of a sampled Gaussian, as alpha - 1.
_SAMPLED_EXCESSES = np.concatenate([np.linspace(0.05, 1, 20), np.arange(1.1, 11, 0.1), np.arange(11, 64, 1),
                                    np.array([79.0, 99, 127, 191, 255, 383, 511])])  # fmt: skip

# At which zCDP is turned into a dominating pair when delta is what is asked for.
_SMALL_DELTA = 1e-9


@dataclass(frozen=True)
class Composition:
    """Events of one relation, the Gaussian ones merged into one and equal ones counted together."""

    events: tuple[Event, ...]
    own_delta: float
    total_variation: float

    @classmethod
    def of(cls, events: Sequence[Event]) -> Composition:
        for event in events:
            if not isinstance(event, Event) or type(event) is Event:
                raise InvalidArgumentError(f"compose takes events of privkernels.privacy, got {event!r}")
        if len({event.relation for event in events}) > 1:
            events = [event.replaced() for event in events]
        own = math.fsum(e.count * e.delta for e in events if isinstance(e, ApproximateEvent))
        variation = math.fsum(e.count * e.total_variation for e in events)
        return cls(tuple(_merged(events)), min(1.0, own), min(1.0, variation))

    @cached_property
    def pure(self) -> float:
        """Sum of the pure epsilons (basic composition), infinite if some event has none."""
        return math.fsum(e.count * _pure(e) for e in self.events)

    def epsilons(self, delta: float, numerical: bool) -> Iterator[tuple[float, str]]:
        """Every valid epsilon at ``delta``, with the name of its argument."""
        yield self.pure, "basic composition"
        if not self.events:
            return
        if self._exact is not None:
            yield self._exact.epsilon(delta), self._exact.name
            return
        if self.has_renyi:
            epsilon, order = renyi_to_epsilon(self.renyi, delta, self.orders)
            yield epsilon, self._name_of(order)
        if numerical or not self.has_renyi:
            ideal, left = self._dominating_pairs(delta)
            loss = loss_distribution.composed_loss(ideal, self._spread(left))
            yield loss_distribution.loss_to_epsilon(loss, left), "privacy loss distributions"

    def deltas(self, epsilon: float, numerical: bool) -> Iterator[tuple[float, str]]:
        """Every valid delta of the ideal mechanisms at ``epsilon``, with the name of its argument."""
        yield (0.0 if self.pure <= epsilon else 1.0), "basic composition"
        if not self.events:
            return
        if self._exact is not None:
            yield self._exact.delta(epsilon) * (1 + 1e-10), self._exact.name
            return
        if self.has_renyi:
            log_delta, order = renyi_to_delta(self.renyi, epsilon, self.orders)
            yield math.exp(log_delta), self._name_of(order)
        if numerical or not self.has_renyi:
            ideal, left = self._dominating_pairs(_SMALL_DELTA)
            loss = loss_distribution.composed_loss(ideal, self._spread(left))
            delta = loss_distribution.loss_to_delta(loss, epsilon) + (_SMALL_DELTA - left)
            yield delta, "privacy loss distributions"

    @cached_property
    def _exact(self) -> _Exact | None:
        """The curve of a single operation, or of Gaussian noise alone: nothing else can be below it."""
        single = len(self.events) == 1 and self.events[0].count == 1
        return _exact_curve(self.events[0]) if single else None

    @cached_property
    def has_renyi(self) -> bool:
        """Whether every event has a Rényi curve; a sampled Gaussian for replace-one neighbours has none here."""
        return all(
            not isinstance(e, SampledGaussianEvent) or e.relation is Relation.ADD_OR_REMOVE_ONE for e in self.events
        )

    def _name_of(self, order: float) -> str:
        if all(isinstance(e, GaussianEvent | ConcentratedEvent) for e in self.events):
            rho = math.fsum(e.count * _rho(e) for e in self.events)
            return f"zero-concentrated DP, rho = {rho:.4g}"
        return f"Rényi DP at order {order:.4g}"

    def renyi(self, excess: Array) -> Array:
        """Rényi divergence of order alpha = 1 + ``excess`` of all events together: those of the events, added up."""
        total = np.zeros_like(excess)
        for event, curve in self._curves:
            total = total + event.count * curve(excess)
        return total

    @cached_property
    def orders(self) -> Array | None:
        """The values of alpha - 1 at which :meth:`renyi` may be asked; None for any."""
        sampled = any(isinstance(e, SampledGaussianEvent) for e in self.events)
        return _SAMPLED_EXCESSES if sampled else None

    @cached_property
    def _curves(self) -> list[tuple[Event, Callable[[Array], Array]]]:
        return [(event, _curve(event)) for event in self.events]

    def _dominating_pairs(self, delta: float) -> tuple[list[Event], float]:
        """Events with dominating pairs, and what is left of ``delta``: zCDP alone has none, so a tenth of it pays."""
        ideal: list[Event] = []
        concentrated = [e for e in self.events if isinstance(e, ConcentratedEvent)]
        for event in self.events:
            if isinstance(event, ApproximateEvent):
                ideal.append(PureEvent(epsilon=event.epsilon, count=event.count, relation=event.relation))
            elif not isinstance(event, ConcentratedEvent):
                ideal.append(event)
        if concentrated:
            rho = math.fsum(e.count * e.rho for e in concentrated)
            ideal.append(PureEvent(epsilon=zcdp_to_epsilon(rho, delta / 10), relation=concentrated[0].relation))
            delta = delta * 0.9
        return ideal, delta

    def _spread(self, delta: float) -> float:
        """About how far the losses reach; only the grid of the numerical composition depends on it."""
        if self.has_renyi:
            return renyi_to_epsilon(self.renyi, delta, self.orders).value
        return 10.0


class _Exact(NamedTuple):
    """delta as a function of epsilon for one operation, its inverse, and its name."""

    delta: Callable[[float], float]
    epsilon: Callable[[float], float]
    name: str


def _exact_curve(event: Event) -> _Exact | None:
    if isinstance(event, GaussianEvent):
        name = f"exact Gaussian curve, mu = {event.mu:.4g}"
        return _Exact(partial(gaussian_delta, event.mu), partial(gaussian_epsilon, event.mu), name)
    if isinstance(event, BoundedRangeEvent):
        name = "exact curve of bounded range, one draw"
        return _Exact(partial(bounded_range_delta, event.eta), partial(bounded_range_epsilon, event.eta), name)
    if isinstance(event, LaplaceEvent):
        name = "exact Laplace curve, one use"
        return _Exact(partial(laplace_delta, event.epsilon), partial(laplace_epsilon, event.epsilon), name)
    if isinstance(event, PureEvent | ApproximateEvent):
        name = "exact curve of randomised response, one use"
        return _Exact(partial(pure_delta, event.epsilon), partial(pure_epsilon, event.epsilon), name)
    return None


def _merged(events: Sequence[Event]) -> Iterator[Event]:
    """Ideal events: one for all Gaussian noise, and one of each other kind and parameter, with their counts added."""
    mus: list[float] = []
    counts: dict[Event, int] = {}
    for event in events:
        if isinstance(event, GaussianEvent):
            mus.append(event.mu * math.sqrt(event.count))
        elif not _costs_nothing(event):
            ideal = replace(event, count=1, total_variation=0.0)
            counts[ideal] = counts.get(ideal, 0) + event.count
    mu = compose_mu(mus)
    if mu > 0:
        yield GaussianEvent(mu=mu * (1 + 1e-15), relation=events[0].relation)
    for ideal, count in counts.items():
        yield replace(ideal, count=count)


def _costs_nothing(event: Event) -> bool:
    if isinstance(event, SampledGaussianEvent):
        return event.rate == 0
    return _pure(event) == 0 or (isinstance(event, ConcentratedEvent) and event.rho == 0)


def _pure(event: Event) -> float:
    if isinstance(event, LaplaceEvent | PureEvent | ApproximateEvent):
        return event.epsilon
    return event.eta if isinstance(event, BoundedRangeEvent) else math.inf


def _rho(event: Event) -> float:
    return event.mu**2 / 2 if isinstance(event, GaussianEvent) else getattr(event, "rho", math.inf)


def _curve(event: Event) -> Callable[[Array], Array]:
    """Rényi divergence of one such operation, as a function of alpha - 1."""
    if isinstance(event, GaussianEvent | ConcentratedEvent):
        rho = _rho(event)
        return lambda excess: rho * (1 + excess)
    if isinstance(event, BoundedRangeEvent):
        return lambda excess: bounded_range_renyi(event.eta, excess)
    if isinstance(event, LaplaceEvent):
        return lambda excess: laplace_renyi(event.epsilon, excess)
    if isinstance(event, PureEvent | ApproximateEvent):
        return lambda excess: pure_renyi(event.epsilon, excess)
    if isinstance(event, SampledGaussianEvent):
        known = loss_distribution.sampled_gaussian_renyi(event, _SAMPLED_EXCESSES)
        return lambda excess: known  # Composition.orders says that it is asked for these only
    raise InvalidArgumentError(f"no accountant for an event of kind {event.kind!r}")
