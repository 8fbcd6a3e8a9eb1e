"""What one private operation did, in the terms an accountant needs: the currency of composition and of the ledger.

An event is a worst-case statement about one operation (or ``count`` of them, the later ones chosen after the
earlier were seen) for two inputs that differ as its ``relation`` says. It says nothing about which data set or whose
record: the ledger files it under both.

==========================  ====================================================  ==================================
event                       what is known of every neighbouring pair              mechanisms
==========================  ====================================================  ==================================
:class:`GaussianEvent`      dominated by N(0, 1) against N(mu, 1)                 Gaussian, discrete Gaussian
:class:`LaplaceEvent`       dominated by Laplace(0, 1) against Laplace(eps, 1)    Laplace, discrete Laplace,
                                                                                  permute-and-flip
:class:`BoundedRangeEvent`  the privacy loss lies in an interval of length eta    exponential mechanism
:class:`PureEvent`          the privacy loss lies in [-eps, eps]                  randomised response; any eps-DP
:class:`ConcentratedEvent`  rho-zCDP                                              any
:class:`ApproximateEvent`   (eps, delta)-DP                                       any
:class:`SampledGaussianEvent`  Poisson-sampled Gaussian                           a step of DP-SGD
==========================  ====================================================  ==================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Self

from privkernels.errors import CorruptFileError, InvalidArgumentError


class Relation(StrEnum):
    """When two inputs are neighbours."""

    REPLACE_ONE = "replace-one"  # one unit is replaced by another; the number of units is public
    ADD_OR_REMOVE_ONE = "add-or-remove-one"  # one unit is added or left out


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events; use one of the subclasses.

    Attributes:
        relation: which inputs the event's parameter compares.
        count: how many such operations, adaptively chosen ones included.
        total_variation: distance of one operation as implemented (finite random bits, rounded tables) from the law
            that the parameter describes, for the same input, over what one unit touches. With tau in all, delta grows
            by (1 + e^epsilon) tau (docs/accounting.md).
    """

    kind: ClassVar[str] = ""
    relation: Relation = Relation.REPLACE_ONE
    count: int = 1
    total_variation: float = 0.0

    def __post_init__(self) -> None:
        if self.relation not in tuple(Relation):
            raise InvalidArgumentError(f"a relation is one of {', '.join(Relation)}, not {self.relation!r}")
        object.__setattr__(self, "relation", Relation(self.relation))
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count < 2**63:
            raise InvalidArgumentError(f"an event's count is a whole number from 1 to 2**63 - 1, got {self.count!r}")
        if not 0 <= self.total_variation <= 1:
            raise InvalidArgumentError(f"a total variation lies in [0, 1], got {self.total_variation!r}")

    def scaled(self, factor: int) -> Self:
        """The event for inputs that differ in ``factor`` units (group privacy, or a record used in that many).

        ``total_variation`` grows with it: the group may touch that many times as much of the output.
        """
        raise NotImplementedError

    def times(self, count: int) -> Self:
        """``count`` times as many of these operations."""
        return replace(self, count=self.count * count)

    def replaced(self) -> Self:
        """The same operation for replace-one neighbours: a replacement is a removal and an addition."""
        if self.relation is Relation.REPLACE_ONE:
            return self
        return replace(self.scaled(2), relation=Relation.REPLACE_ONE)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the event's ``kind``."""
        return {"kind": self.kind, **asdict(self), "relation": str(self.relation)}


def _check(name: str, value: float, *, low: float = 0.0, high: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high or not math.isfinite(value):
        bound = "" if high == math.inf else f" and at most {high:g}"
        raise InvalidArgumentError(f"{name} must be finite, at least {low:g}{bound}, got {value!r}")


def _check_factor(factor: int) -> int:
    if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
        raise InvalidArgumentError(f"a group has 1 or more units, got {factor!r}")
    return factor


@dataclass(frozen=True, kw_only=True)
class _OneNumberEvent(Event):
    """An event with one finite number >= 0, which grows with the size of a group."""

    number: ClassVar[str] = ""
    growth: ClassVar[int] = 1  # a group of s units has s**growth times the number

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.number, getattr(self, self.number))

    def scaled(self, factor: int) -> Self:
        grown = getattr(self, self.number) * _check_factor(factor) ** self.growth
        return replace(self, **{self.number: grown, "total_variation": min(1.0, factor * self.total_variation)})


@dataclass(frozen=True, kw_only=True)
class GaussianEvent(_OneNumberEvent):
    """Gaussian noise; ``mu`` is the L2 sensitivity over the noise's standard deviation."""

    kind: ClassVar[str] = "gaussian"
    number: ClassVar[str] = "mu"
    mu: float


@dataclass(frozen=True, kw_only=True)
class LaplaceEvent(_OneNumberEvent):
    """Laplace noise; ``epsilon`` is the L1 sensitivity over the noise's scale."""

    kind: ClassVar[str] = "laplace"
    number: ClassVar[str] = "epsilon"
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class BoundedRangeEvent(_OneNumberEvent):
    """A draw of the exponential mechanism: largest minus smallest privacy loss is at most ``eta``."""

    kind: ClassVar[str] = "bounded-range"
    number: ClassVar[str] = "eta"
    eta: float


@dataclass(frozen=True, kw_only=True)
class PureEvent(_OneNumberEvent):
    """``epsilon``-DP, and nothing more is known."""

    kind: ClassVar[str] = "pure"
    number: ClassVar[str] = "epsilon"
    epsilon: float


@dataclass(frozen=True, kw_only=True)
class ConcentratedEvent(_OneNumberEvent):
    """``rho``-zCDP, and nothing more is known."""

    kind: ClassVar[str] = "zcdp"
    number: ClassVar[str] = "rho"
    growth: ClassVar[int] = 2
    rho: float


@dataclass(frozen=True, kw_only=True)
class ApproximateEvent(Event):
    """(``epsilon``, ``delta``)-DP, and nothing more is known."""

    kind: ClassVar[str] = "approximate"
    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("epsilon", self.epsilon)
        _check("delta", self.delta, high=1.0)

    def scaled(self, factor: int) -> Self:
        # Group privacy: delta times 1 + e^eps + ... + e^((s-1) eps) = (e^(s eps) - 1) / (e^eps - 1).
        whole = self.epsilon * _check_factor(factor)
        if self.delta == 0:
            delta = 0.0
        elif whole > 700:
            delta = 1.0
        else:
            growth = math.expm1(whole) / math.expm1(self.epsilon) if self.epsilon > 0 else float(factor)
            delta = min(1.0, self.delta * growth * (1 + 1e-15))
        return replace(self, epsilon=whole, delta=delta, total_variation=min(1.0, factor * self.total_variation))


@dataclass(frozen=True, kw_only=True)
class SampledGaussianEvent(Event):
    """A step of DP-SGD: every unit takes part with probability ``rate``; then Gaussian noise on the sum.

    ``noise_multiplier`` is the noise's standard deviation over the clipping norm of one unit's contribution.
    """

    kind: ClassVar[str] = "sampled-gaussian"
    noise_multiplier: float
    rate: float
    relation: Relation = Relation.ADD_OR_REMOVE_ONE

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("noise_multiplier", self.noise_multiplier)
        _check("rate", self.rate, high=1.0)
        if self.noise_multiplier == 0:
            raise InvalidArgumentError("a noise multiplier of 0 is no noise: nothing can be said of such a step")

    def scaled(self, factor: int) -> Self:
        if _check_factor(factor) == 1:
            return self
        raise InvalidArgumentError(
            "group privacy of a Poisson-sampled Gaussian is not computed here: account for the group in the clipping "
            "norm instead (clip each unit's contribution to the norm divided by the size of the group)"
        )

    def replaced(self) -> Self:
        """dp-accounting has the replace-one form of this event, so nothing is scaled."""
        return replace(self, relation=Relation.REPLACE_ONE)


_KINDS: dict[str, type[Event]] = {
    event.kind: event
    for event in (
        GaussianEvent,
        LaplaceEvent,
        BoundedRangeEvent,
        PureEvent,
        ConcentratedEvent,
        ApproximateEvent,
        SampledGaussianEvent,
    )
}


def event_from_dict(value: Mapping[str, Any]) -> Event:
    """Inverse of :meth:`Event.to_dict`; raises :class:`CorruptFileError` on anything else."""
    try:
        fields = dict(value)
        return _KINDS[fields.pop("kind")](**fields)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptFileError(f"this is not an event as privkernels writes it: {error!r}") from error
