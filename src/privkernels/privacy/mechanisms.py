"""Private mechanisms on tensors: each returns what it drew and the event that says what it cost.

=================================  =======================  ======================================================
mechanism                          kernel                   event
=================================  =======================  ======================================================
:func:`exponential_mechanism`      ``em_select``            :class:`BoundedRangeEvent`
:func:`permute_and_flip`           ``em_select``            :class:`LaplaceEvent` (docs/accounting.md)
:func:`discrete_laplace`           ``noise_add``            :class:`LaplaceEvent`, or :class:`PureEvent`
:func:`discrete_gaussian`          ``noise_add``            :class:`GaussianEvent`, or :class:`ConcentratedEvent`
:func:`randomized_response`        ``randomized_response``  :class:`PureEvent`
=================================  =======================  ======================================================

Every draw is a function of (key, label, position) and of the input alone, so a (key, label) pair is for one operation.
With ``account`` the event is charged to a ledger before anything is drawn; an operation that fails after that stays
charged. The work for an element does not depend on its value. There is no faster variant in floating point: none is
offered, because the low bits of such noise tell the data apart (Mironov 2012; Haney et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Required, TypedDict, Unpack

import torch

from privkernels import ops
from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy.accounting import (
    check_epsilon,
    discrete_gaussian_mu,
    discrete_gaussian_rho,
    discrete_laplace_epsilon,
)
from privkernels.privacy.events import (
    BoundedRangeEvent,
    ConcentratedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
)
from privkernels.privacy.ledger import Account
from privkernels.randomness import Key

# The default grid is this much finer than the noise, and rounding to it adds at most this share to the sensitivity.
_CHANGES = ("any", "one-direction", "one-candidate")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
_FINENESS = 2.0**-10
_COARSE = 1e-4  # relative cost of reading discrete Laplace noise as continuous beyond which it is charged as pure
_FINEST = 2.0**-40  # of the noise's scale; see privkernels.ops.noise_law


@dataclass(frozen=True)
class Drawn:
    """What a mechanism drew, and what it cost.

    Attributes:
        value: the result; it may be published if the event's cost is acceptable.
        event: for an accountant or a ledger.
        terms: what the implementation chose or adds (multiplier, granularity, total variation, ...).
    """

    value: torch.Tensor
    event: Event
    terms: dict[str, float | int]


class Selection(TypedDict, total=False):
    """Arguments of :func:`exponential_mechanism` and :func:`permute_and_flip`.

    Attributes:
        epsilon: of one draw.
        sensitivity: how much any score can change between neighbours, > 0.
        key, label: for this operation only.
        offsets: int64 [S + 1]: scores of ragged segments, one after the other.
        k: draw this many without replacement, in the order drawn; each costs epsilon.
        changes: how scores differ between neighbours. "any" if absent: multiplier epsilon / (2 sensitivity). For
            "one-direction" (all grow or all shrink, as counts do when a record is added) and "one-candidate" (the
            others stay) it is epsilon / sensitivity. One direction needs the relation add-or-remove-one: a replaced
            record moves counts both ways.
        segments_affected: in how many segments one unit's scores can change; all if absent.
        relation: which neighbours ``sensitivity`` is for; replace-one if absent.
        account: charge the event there before drawing.
    """

    epsilon: Required[float]
    sensitivity: Required[float]
    key: Required[Key]
    label: Required[str]
    offsets: torch.Tensor | None
    k: int | None
    changes: Literal["any", "one-direction", "one-candidate"]
    segments_affected: int | None
    relation: Relation
    account: Account | None


def exponential_mechanism(scores: torch.Tensor, **arguments: Unpack[Selection]) -> Drawn:
    """Draw a candidate of every segment with probability proportional to exp(multiplier * score).

    Source: McSherry and Talwar 2007. Its loss has a range of at most epsilon (Durfee and Rogers 2019).

    Args:
        scores: float32 or float64 [n], [B, n], or ragged [n] with ``offsets``; higher is likelier.
        arguments: see :class:`Selection`.

    Returns:
        ``value``: int64, indices within the segment; [] or [B] or [S], with a last dimension k if that is given.

    Raises:
        InvalidBudgetError, InvalidArgumentError, NonFiniteValueError, EmptyDataError: as the message says.
        BudgetExceededError, KeyReusedError: the ledger refused; nothing was drawn.
    """
    return _select("exponential", scores, arguments)


def permute_and_flip(scores: torch.Tensor, **arguments: Unpack[Selection]) -> Drawn:
    """As :func:`exponential_mechanism`, by permute-and-flip (McKenna and Sheldon 2020).

    Never worse in expected score than the exponential mechanism at the same epsilon, and up to twice as good; but the
    range of its loss is up to 2 epsilon, so that many draws compose as Laplace noise does: for more than a few, use
    the exponential mechanism.
    """
    return _select("permute-and-flip", scores, arguments)


def _select(mechanism: Literal["exponential", "permute-and-flip"], scores: torch.Tensor, arguments: Selection) -> Drawn:
    _check_selection(scores, arguments)
    epsilon, sensitivity = check_epsilon(arguments["epsilon"]), _positive("sensitivity", arguments["sensitivity"])
    key, label, k, offsets = arguments["key"], arguments["label"], arguments.get("k"), arguments.get("offsets")
    segments, candidates = _shape(scores, offsets)
    affected = arguments.get("segments_affected")
    if affected is not None and not 1 <= affected <= segments:
        raise InvalidArgumentError(f"segments_affected must be between 1 and {segments}, got {affected!r}")
    if k is not None and not 1 <= k <= candidates:
        raise InvalidArgumentError(f"k must be between 1 and the {candidates} candidates of a segment, got {k!r}")
    accuracy = ops.em_select_accuracy(candidates, mechanism=mechanism)
    if epsilon <= 2 * accuracy.epsilon_shift:
        raise InvalidBudgetError(f"epsilon {epsilon:g} is too small: rounding alone costs {accuracy.epsilon_shift:.3g}")
    # What rounding costs comes out of epsilon, so that no draw costs more than was asked for.
    multiplier = (
        (epsilon - accuracy.epsilon_shift) / sensitivity / (2 if arguments.get("changes", "any") == "any" else 1)
    )
    count = max(1, segments if affected is None else affected) * (k or 1)
    tv, relation = min(1.0, accuracy.total_variation), arguments.get("relation", Relation.REPLACE_ONE)
    event: Event
    if mechanism == "exponential":
        event = BoundedRangeEvent(eta=epsilon, count=count, total_variation=tv, relation=relation)
    else:
        event = LaplaceEvent(epsilon=epsilon, count=count, total_variation=tv, relation=relation)
    _charge(arguments.get("account"), event, key, label, mechanism)
    value = ops.em_select(
        scores, multiplier=multiplier, key=key, label=label, offsets=offsets, k=k, mechanism=mechanism
    )
    terms = {
        "multiplier": multiplier,
        "epsilon_shift_per_draw": accuracy.epsilon_shift,
        "total_variation_per_draw": accuracy.total_variation,
    }
    return Drawn(value, event, terms)


def _check_selection(scores: torch.Tensor, arguments: Selection) -> None:
    """What a type checker sees, for those who run none: a misspelt name must not change what is charged."""
    known = Selection.__annotations__.keys()
    if wrong := sorted(set(arguments) - known):
        raise InvalidArgumentError(f"there is no argument {', '.join(wrong)}: use {', '.join(known)}")
    if lacking := [name for name in ("epsilon", "sensitivity", "key", "label") if name not in arguments]:
        raise InvalidArgumentError(f"{', '.join(lacking)} must be given")
    _check_tensor("scores", scores, (torch.float32, torch.float64))
    if (offsets := arguments.get("offsets")) is not None:
        _check_tensor("offsets", offsets, (torch.int64,))
    changes = arguments.get("changes", "any")
    if changes not in _CHANGES:
        raise InvalidArgumentError(f"changes is one of {', '.join(_CHANGES)}, not {changes!r}")
    if changes == "one-direction" and arguments.get("relation") != Relation.ADD_OR_REMOVE_ONE:
        raise InvalidArgumentError(
            "scores that change in one direction do so where a unit is added or removed: give "
            "relation=Relation.ADD_OR_REMOVE_ONE, or leave changes out"
        )


def _check_tensor(name: str, value: torch.Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, torch.Tensor) or value.dtype not in dtypes:
        kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        got = str(value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        raise InvalidArgumentError(f"{name} must be a tensor of {kinds}, got {got}")


def _shape(scores: torch.Tensor, offsets: torch.Tensor | None) -> tuple[int, int]:
    """Number of segments, and of candidates in the largest."""
    if offsets is not None:
        sizes = offsets.diff()
        return len(sizes), int(sizes.max()) if len(sizes) else 0
    return (1, scores.numel()) if scores.dim() < 2 else (scores.shape[0], scores.shape[-1])


def discrete_laplace(
    x: torch.Tensor,
    *,
    epsilon: float,
    sensitivity: float,
    key: Key,
    label: str,
    granularity: float | None = None,
    on_grid: bool = False,
    coordinates_affected: int | None = None,
    relation: Relation = Relation.REPLACE_ONE,
    account: Account | None = None,
) -> Drawn:
    """Add discrete Laplace noise on a power-of-two grid (Ghosh et al. 2009), so that the sum is epsilon-DP.

    ``x`` is rounded to the grid first; rounding can add one grid step per coordinate to the L1 sensitivity, which the
    noise covers.

    Args:
        x: float32, float16 or bfloat16, any shape and strides.
        sensitivity: L1 distance of ``x`` between neighbours, in units of ``x``, > 0.
        granularity: grid step, a power of two chosen without looking at ``x``; None takes one so fine that rounding
            adds a thousandth to the sensitivity. Values beyond 2**50 steps are clamped.
        on_grid: every value that ``x`` can have, in any data set, is a multiple of ``granularity`` (counts, with
            granularity 1): then rounding costs nothing. An ``x`` that is not is refused.
        coordinates_affected: the most coordinates that differ between neighbours; all if None.

    Returns:
        ``value``: as ``x`` in dtype and shape.
    """
    _check_tensor("x", x, _FLOATS)
    check_epsilon(epsilon)
    _positive("sensitivity", sensitivity)
    coordinates = _coordinates(x, coordinates_affected)
    step = _granularity(granularity, sensitivity / epsilon, sensitivity, coordinates)
    # A whole number, because the rounded values differ by whole steps.
    l1 = math.floor(_steps_between(x, sensitivity, step, on_grid)) + (0 if on_grid else coordinates)
    # l1 / s + 1 / (4 s^2) = epsilon makes it a Laplace event (docs/accounting.md, Theorem 10); l1 / s = epsilon would
    # do for epsilon-DP alone. On a fine grid the two are nearly one; on a coarse one the first would cost noise.
    exact = l1 / epsilon * (1 + 1e-12)
    steps = (l1 + math.sqrt(l1 * l1 + epsilon)) / (2 * epsilon) * (1 + 1e-12)
    fine = steps <= exact * (1 + _COARSE)
    law = ops.noise_law("laplace", steps if fine else exact)
    event = _laplace_event(l1, law.steps, fine, _joint(law, coordinates), relation)
    steps = law.steps
    _charge(account, event, key, label, "discrete Laplace noise")
    value = ops.noise_add(x, distribution="laplace", scale=steps * step, granularity=step, key=key, label=label)
    terms = {"granularity": step, "scale": steps * step, "sensitivity_in_steps": l1}
    return Drawn(value, event, terms | {"total_variation": event.total_variation})


def discrete_gaussian(
    x: torch.Tensor,
    *,
    noise_std: float,
    sensitivity: float,
    key: Key,
    label: str,
    granularity: float | None = None,
    on_grid: bool = False,
    coordinates_affected: int | None = None,
    relation: Relation = Relation.REPLACE_ONE,
    account: Account | None = None,
) -> Drawn:
    """Add discrete Gaussian noise on a power-of-two grid (Canonne, Kamath and Steinke 2020).

    Args:
        noise_std: standard deviation of the noise, in units of ``x``;
            :func:`privkernels.privacy.gaussian_mu` says which one an (epsilon, delta) needs.
        sensitivity: L2 distance of ``x`` between neighbours, in units of ``x``, > 0. Rounding adds the square root
            of the number of coordinates, in steps.

    Other arguments and the result as :func:`discrete_laplace`. The event is that of a continuous Gaussian of very
    nearly the same noise where the grid is fine enough for that to be proven, else zCDP (docs/accounting.md).
    """
    _check_tensor("x", x, _FLOATS)
    _positive("noise_std", noise_std)
    _positive("sensitivity", sensitivity)
    coordinates = _coordinates(x, coordinates_affected)
    step = _granularity(granularity, noise_std, sensitivity, math.sqrt(coordinates))
    l2 = _steps_between(x, sensitivity, step, on_grid) + (0.0 if on_grid else math.sqrt(coordinates))
    steps = noise_std / step
    law = ops.noise_law("gaussian", steps)
    event = _gaussian_event(l2, steps, coordinates, _joint(law, coordinates), relation)
    _charge(account, event, key, label, "discrete Gaussian noise")
    value = ops.noise_add(x, distribution="gaussian", scale=noise_std, granularity=step, key=key, label=label)
    terms = {"granularity": step, "noise_std": noise_std, "sensitivity_in_steps": l2}
    return Drawn(value, event, terms | {"total_variation": event.total_variation})


def randomized_response(
    values: torch.Tensor,
    *,
    categories: int,
    epsilon: float,
    key: Key,
    label: str,
    values_affected: int = 1,
    account: Account | None = None,
) -> Drawn:
    """Keep every value with probability e^eps / (e^eps + K - 1), else another one at random (Warner 1965; K-ary).

    Args:
        values: int64 of any shape, in [0, categories).
        categories: K, 2 to 2**31.
        epsilon: of one value. The implemented probabilities are exact rationals that never exceed it.
        values_affected: how many values belong to one unit.
    """
    _check_tensor("values", values, (torch.int64,))
    check_epsilon(epsilon)
    law = ops.randomized_response_law(categories, epsilon)
    event = PureEvent(epsilon=law.epsilon, count=values_affected)
    _charge(account, event, key, label, "randomised response")
    value = ops.randomized_response(values, categories=categories, epsilon=epsilon, key=key, label=label)
    return Drawn(value, event, {"epsilon_implemented": law.epsilon})


def _charge(account: Account | None, event: Event, key: Key, label: str, note: str) -> None:
    if account is not None:
        account.charge(event, key=key, label=label, note=note)


def _joint(law: ops.NoiseLaw, coordinates: int) -> float:
    """Total variation of the noise on all coordinates from the ideal law."""
    return min(1.0, coordinates * law.total_variation)


def _laplace_event(l1: int, steps: float, fine: bool, total_variation: float, relation: Relation) -> Event:
    if not fine:
        return PureEvent(epsilon=l1 / steps, total_variation=total_variation, relation=relation)
    return LaplaceEvent(epsilon=discrete_laplace_epsilon(l1, steps), total_variation=total_variation, relation=relation)


def _gaussian_event(l2: float, steps: float, coordinates: int, total_variation: float, relation: Relation) -> Event:
    """As continuous noise where the grid is fine enough for that to be proven, else zCDP."""
    try:
        mu, rounding = discrete_gaussian_mu(l2, steps, coordinates)
    except InvalidArgumentError:
        rho = discrete_gaussian_rho(l2, steps)
        return ConcentratedEvent(rho=rho, total_variation=total_variation, relation=relation)
    return GaussianEvent(mu=mu, total_variation=min(1.0, total_variation + rounding), relation=relation)


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidArgumentError(f"{name} must be a positive, finite number, got {value!r}")
    return float(value)


def _coordinates(x: torch.Tensor, affected: int | None) -> int:
    if affected is not None and not 1 <= affected <= max(1, x.numel()):
        raise InvalidArgumentError(f"coordinates_affected must be between 1 and {x.numel()}, got {affected!r}")
    return max(1, x.numel()) if affected is None else affected


def _granularity(given: float | None, scale: float, sensitivity: float, rounding_steps: float) -> float:
    """The grid step: as given, or fine against both the noise and the sensitivity. Public inputs only."""
    if given is not None:
        return given  # noise_add checks it
    wanted = _FINENESS * min(scale, sensitivity / rounding_steps)
    return 2.0 ** math.floor(math.log2(max(wanted, scale * _FINEST * 2)))


def _steps_between(x: torch.Tensor, sensitivity: float, step: float, on_grid: bool) -> float:
    """The sensitivity in grid steps, before rounding."""
    if math.frexp(_positive("granularity", step))[0] != 0.5:
        raise InvalidArgumentError(f"granularity must be a power of two, got {step!r}")
    # NaN and infinity are named by noise_add.
    finite = x[x.isfinite()]
    if on_grid and not bool(torch.equal(finite, (finite.double() / step).round().mul(step).to(x.dtype))):
        raise InvalidArgumentError(
            f"x holds values that are no multiple of the granularity {step:g}: leave on_grid out, so that rounding is "
            "accounted for"
        )
    return sensitivity / step
