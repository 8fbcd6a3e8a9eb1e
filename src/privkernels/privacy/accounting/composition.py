"""What is known of several events together: every valid epsilon at a delta, and every valid delta at an epsilon."""

from __future__ import annotations

import math
import sys
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
from privkernels.privacy.accounting.budget import sum_up
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
from privkernels.privacy.accounting.renyi import SMALLEST, Array, half_square, renyi_to_delta, renyi_to_epsilon
from privkernels.privacy.accounting.sampled_gaussian import sampled_gaussian_renyi
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
        """Sum of the pure epsilons (basic composition), rounded up; infinite if some event has none."""
        each = [(e.count, _pure(e)) for e in self.events]
        return math.inf if any(math.isinf(epsilon) for _, epsilon in each) else sum_up(each)

    @property
    def why_no_bound(self) -> str:
        """What to say where no epsilon is known."""
        if self.has_renyi:
            return "no bound: epsilon would be above the largest float"
        return (
            "no bound: a sampled Gaussian with replace-one neighbours is composed by privacy loss distributions only, "
            f"for up to {loss_distribution.MOST_OPERATIONS:g} operations, losses of each below "
            f"{loss_distribution.LARGEST_LOSS:g} and delta well above what their numerics may lose "
            f"(here {loss_distribution.numerical_error(self.events):.2g})"
        )

    def epsilons(self, delta: float, numerical: bool) -> Iterator[tuple[float, str]]:
        """Every valid epsilon at ``delta``, with the name of its argument."""
        yield self.pure, "basic composition"
        if not self.events:
            return
        if self._exact is not None:
            yield self._exact.epsilon(delta), self._exact.name
            return
        if self.has_renyi:
            epsilon, order = renyi_to_epsilon(self.renyi, delta)
            yield epsilon, self._name_of(order)
        if (numerical or not self.has_renyi) and delta > 10 * loss_distribution.numerical_error(self.events):
            loss, left = self._loss(delta)
            if loss is not None:
                yield loss.epsilon(left), self._name_of_losses

    def deltas(self, epsilon: float, numerical: bool) -> Iterator[tuple[float, str]]:
        """Every valid delta of the ideal mechanisms at ``epsilon``, with the name of its argument."""
        if self.pure <= epsilon:
            yield 0.0, "basic composition"
            return
        yield 1.0, "no bound below 1 is known"
        if self._exact is not None:
            yield min(1.0, self._exact.delta(epsilon) * (1 + self._exact.slack)), self._exact.name
            return
        if self.has_renyi:
            log_delta, order = renyi_to_delta(self.renyi, epsilon)
            yield math.exp(log_delta), self._name_of(order)
        if numerical or not self.has_renyi:
            loss, left = self._loss(_SMALL_DELTA)
            if loss is not None:
                yield min(1.0, loss.delta(epsilon) + (_SMALL_DELTA - left)), self._name_of_losses

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
    def _curves(self) -> list[tuple[Event, Callable[[Array], Array]]]:
        return [(event, _curve(event)) for event in self.events]

    @property
    def _name_of_losses(self) -> str:
        name = "privacy loss distributions"
        return name if self.has_renyi else f"{name} (dp-accounting's pair for sampling with replace-one neighbours)"

    def _loss(self, delta: float) -> tuple[loss_distribution.ComposedLoss | None, float]:
        """The losses of all events together, if they can be composed, and what is left of ``delta``.

        zCDP alone has no dominating pair: all of it together is one (epsilon, delta / 10)-DP interactive mechanism,
        which may be interleaved with the others (docs/accounting.md, Statement 2).
        """
        ideal: list[Event] = []
        for event in self.events:
            if isinstance(event, ApproximateEvent):
                ideal.append(PureEvent(epsilon=event.epsilon, count=event.count, relation=event.relation))
            elif not isinstance(event, ConcentratedEvent):
                ideal.append(event)
        rho = sum_up((e.count, e.rho) for e in self.events if isinstance(e, ConcentratedEvent))
        if rho > 0:
            epsilon = zcdp_to_epsilon(rho, delta / 10) if math.isfinite(rho) else math.inf
            if math.isinf(epsilon):
                return None, delta
            ideal.append(PureEvent(epsilon=epsilon, relation=self.events[0].relation))
            delta = delta * 0.9
        # About how far the losses reach; only the grid depends on it.
        spread = renyi_to_epsilon(replace(self, events=tuple(map(_with_renyi, self.events))).renyi, delta).value
        return loss_distribution.composed_loss(ideal, spread), delta


class _Exact(NamedTuple):
    """delta as a function of epsilon for one operation, its inverse, its name, and the part that delta may lose."""

    delta: Callable[[float], float]
    epsilon: Callable[[float], float]
    name: str
    slack: float = 1e-10


def _exact_curve(event: Event) -> _Exact | None:
    if isinstance(event, GaussianEvent):
        name = f"exact Gaussian curve, mu = {event.mu:.4g}"
        # epsilon / mu - mu / 2 loses digits in proportion to mu, and ln delta moves by at most 40 times what it loses.
        slack = 1e-10 + 1e-14 * event.mu
        return _Exact(partial(gaussian_delta, event.mu), partial(gaussian_epsilon, event.mu), name, slack)
    if isinstance(event, BoundedRangeEvent):
        name = "exact curve of bounded range, one draw"
        return _Exact(partial(bounded_range_delta, event.eta), partial(bounded_range_epsilon, event.eta), name)
    if isinstance(event, LaplaceEvent):
        name = "exact Laplace curve, one use"
        return _Exact(partial(laplace_delta, event.epsilon), partial(laplace_epsilon, event.epsilon), name)
    if isinstance(event, PureEvent | ApproximateEvent):
        # Exact for what is only known to be epsilon-DP; one of several bounds that hold for an approximate event.
        exact = "exact curve" if isinstance(event, PureEvent) else "curve"
        name = f"{exact} of randomised response, one use"
        return _Exact(partial(pure_delta, event.epsilon), partial(pure_epsilon, event.epsilon), name)
    return None


def _merged(events: Sequence[Event]) -> Iterator[Event]:
    """Ideal events: one for all Gaussian noise, and one of each other kind and parameter, with their counts added."""
    mus: list[float] = []
    counts: dict[Event, int] = {}
    for event in events:
        if isinstance(event, GaussianEvent):
            # Where this is above the largest float, so is epsilon, as long as its square is.
            mus.append(min(event.mu * math.sqrt(event.count), sys.float_info.max))
        elif not _costs_nothing(event):
            ideal = replace(event, count=1, total_variation=0.0)
            counts[ideal] = counts.get(ideal, 0) + event.count
    mu = compose_mu(mus)
    if mu > 0:
        yield GaussianEvent(mu=min(mu * (1 + 1e-15), sys.float_info.max), relation=events[0].relation)
    for ideal, count in counts.items():
        yield replace(ideal, count=count)


def _with_renyi(event: Event) -> Event:
    """The event, or for a sampled Gaussian of replace-one neighbours one that is about as large: no bound."""
    if isinstance(event, SampledGaussianEvent) and event.relation is Relation.REPLACE_ONE:
        noise = max(event.noise_multiplier / 2, SMALLEST)
        return replace(event, noise_multiplier=noise, relation=Relation.ADD_OR_REMOVE_ONE)
    return event


def _costs_nothing(event: Event) -> bool:
    if isinstance(event, SampledGaussianEvent):
        return event.rate == 0
    return _pure(event) == 0 or (isinstance(event, ConcentratedEvent) and event.rho == 0)


def _pure(event: Event) -> float:
    if isinstance(event, LaplaceEvent | PureEvent | ApproximateEvent):
        return event.epsilon
    return event.eta if isinstance(event, BoundedRangeEvent) else math.inf


def _rho(event: Event) -> float:
    return half_square(event.mu) if isinstance(event, GaussianEvent) else getattr(event, "rho", math.inf)


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
        if event.relation is not Relation.ADD_OR_REMOVE_ONE:
            raise InvalidArgumentError("the Rényi divergence of a sampled Gaussian is known for add-or-remove only")
        return lambda excess: sampled_gaussian_renyi(event.rate, event.noise_multiplier, excess)
    raise InvalidArgumentError(f"no accountant for an event of kind {event.kind!r}")
