"""Composition of events: the least of the bounds that are valid for them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting.budget import Bound, check_delta
from privkernels.privacy.accounting.concentrated import zcdp_to_epsilon
from privkernels.privacy.events import (
    BoundedRangeEvent,
    ConcentratedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
)


def compose(events: Sequence[Event], delta: float) -> Bound:
    """(epsilon, delta) of all ``events`` together, adaptively chosen, for one unit and one relation."""
    check_delta(delta)
    pure = math.fsum(e.count * _pure(e) for e in events)
    rho = math.fsum(e.count * _rho(e) for e in events)
    concentrated = zcdp_to_epsilon(rho, delta) if math.isfinite(rho) else math.inf
    if pure <= concentrated:
        return Bound(pure, 0.0, "basic composition")
    return Bound(concentrated, delta, f"zCDP, rho = {rho:.4g}")


def _pure(event: Event) -> float:
    if isinstance(event, LaplaceEvent | PureEvent):
        return event.epsilon
    return event.eta if isinstance(event, BoundedRangeEvent) else math.inf


def _rho(event: Event) -> float:
    if isinstance(event, GaussianEvent):
        return event.mu**2 / 2
    if isinstance(event, LaplaceEvent | PureEvent):
        return event.epsilon**2 / 2
    if isinstance(event, BoundedRangeEvent):
        return event.eta**2 / 8
    if isinstance(event, ConcentratedEvent):
        return event.rho
    raise InvalidArgumentError(f"no accountant for {event.kind}")
