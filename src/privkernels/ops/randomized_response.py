"""randomized_response: keep each value with a probability that epsilon sets, else replace it by another.

The contract (layout, randomness, time) is csrc/include/privkernels/randomized_response.h. Sources: Warner 1965
(K = 2); Kairouz, Oh and Viswanath, JMLR 2016 (K-ary). Departure: probabilities are multiples of 2**-64, chosen
so that the privacy of the implemented law, an exact rational, never exceeds epsilon.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.ops._library import KEYED, define, implement, key_bytes
from privkernels.randomness import Key

_WORD = 2**64
_MOST_CATEGORIES = 2**31
_DIGITS = 60  # of the decimal arithmetic that bounds exp and ln; a threshold has 20
_INVALID_PARAMETER = 3  # csrc/include/privkernels/status.h

define(
    "randomized_response(Tensor values, Tensor key, int categories, float epsilon, int first_element) -> Tensor",
    outside_graphs=KEYED,
)


def randomized_response(
    values: torch.Tensor, *, categories: int, epsilon: float, key: Key, label: str, first_element: int = 0
) -> torch.Tensor:
    """Randomise every value by itself: kept with probability e^eps / (e^eps + K - 1), else uniform among the others.

    Each result is eps-differentially private for its own value, exactly: :func:`randomized_response_law` is the law
    as implemented, and its epsilon is at most the one asked for. A result is a function of (key, label),
    ``first_element`` + its position in row-major order and the value alone, bit for bit on every CPU instruction set;
    CUDA is written to agree, which no GPU has confirmed yet. The time does not depend on the values.

    Args:
        values: int64 of any shape and strides, each in [0, categories).
        categories: K, 2 to 2**31.
        epsilon: positive and finite. From about K * 2**-62 down, 64-bit probabilities may be too coarse for it.
        key, label: a (key, label) pair must be used for one release only.
        first_element: position of the first value within the release; lets a release be drawn in slices.

    Returns:
        int64 of the shape of ``values``, contiguous.

    Raises:
        InvalidArgumentError: a dtype, categories or first_element is wrong, or a value out of range (its position in
            row-major order is named).
        InvalidBudgetError: epsilon is not positive and finite, or too small for 64 random bits.
    """
    if not isinstance(values, torch.Tensor):
        raise InvalidArgumentError(f"values must be an int64 tensor, not {type(values).__name__}")
    if not isinstance(key, Key):
        raise InvalidArgumentError(f"key is a privkernels.Key, not {type(key).__name__}")
    _check_numbers(categories, epsilon, first_element)
    out: torch.Tensor = torch.ops.privkernels.randomized_response(
        values, key.derive(label).tensor(), categories, float(epsilon), first_element
    )
    return out


@dataclass(frozen=True)
class RandomizedResponseLaw:
    """The law of one result as implemented, in exact rationals.

    Attributes:
        categories: K.
        threshold: a value is kept where its 64-bit coin is below this.
        keep: probability that a value is kept, threshold / 2**64.
        smallest_other, largest_other: probabilities of the least and the most likely of the other values; equal where
            K - 1 divides 2**64.
        epsilon: ln of the largest ratio of the probabilities of one output for two values, rounded up to a float; at
            most the epsilon asked for.
    """

    categories: int
    threshold: int
    keep: Fraction
    smallest_other: Fraction
    largest_other: Fraction
    epsilon: float

    def probability(self, value: int, output: int) -> Fraction:
        """The probability that ``value`` comes out as ``output``."""
        for name, number in (("value", value), ("output", output)):
            if not 0 <= number < self.categories:
                raise InvalidArgumentError(f"{name} must be in [0, {self.categories}), got {number}")
        if value == output:
            return self.keep
        return (1 - self.keep) * Fraction(_count(output - (output > value), self.categories - 1), _WORD)


def randomized_response_law(categories: int, epsilon: float) -> RandomizedResponseLaw:
    """The law that :func:`randomized_response` draws from: the largest threshold whose privacy is within epsilon.

    With q and r the least and the largest probability among the K - 1 others (multiples of 2**-64), the largest ratio
    of two probabilities of one output is max(p / ((1 - p) q), (1 - p) r / p, r / q); p is the largest multiple of
    2**-64 with p / ((1 - p) q) <= e^epsilon, where e^epsilon is bounded from below in decimal arithmetic.

    Raises:
        InvalidArgumentError: categories is not an integer in [2, 2**31].
        InvalidBudgetError: epsilon is not positive and finite, or no threshold meets it.
    """
    _check_numbers(categories, epsilon, 0)
    others = categories - 1
    least, most = _WORD // others, -(-_WORD // others)  # of the counts ceil((j + 1) W / others) - ceil(j W / others)
    bound = _exp_below(epsilon)
    odds = bound * Fraction(least, _WORD)
    threshold = min(math.floor(_WORD * odds / (1 + odds)), _WORD - 1)
    keep = Fraction(threshold, _WORD)
    low, high = (1 - keep) * Fraction(least, _WORD), (1 - keep) * Fraction(most, _WORD)
    if threshold == 0 or max(high / keep, high / low) > bound:
        raise InvalidBudgetError(
            f"epsilon = {epsilon} is too small for {categories} categories: probabilities are multiples of 2**-64; "
            "use a larger epsilon, or draw values that do not depend on the data"
        )
    ratio = max(keep / low, high / keep, high / low)
    return RandomizedResponseLaw(categories, threshold, keep, low, high, min(_log_above(ratio), float(epsilon)))


def _count(j: int, others: int) -> int:
    """How many 64-bit words d have floor(d * others / 2**64) = j."""
    return -(-(j + 1) * _WORD // others) + (-j * _WORD // others)


def _context(epsilon_digits: int = 0) -> Context:
    return Context(prec=_DIGITS + epsilon_digits, Emin=-(10**17), Emax=10**17, rounding=ROUND_FLOOR)


def _exp_below(epsilon: float) -> Fraction:
    """A rational at or below e^epsilon by at most 2**-180 of it. Beyond 200, more changes no threshold."""
    power = _context().exp(Decimal(min(float(epsilon), 200.0)))  # exp is rounded to nearest, whatever the context
    return Fraction(_context().next_minus(power))


def _log_above(ratio: Fraction) -> float:
    """A float at or above ln(ratio), ratio >= 1; exact at 1."""
    if ratio == 1:
        return 0.0
    context = _context(30)
    # Both steps are within one unit of their last place, far below the distance of two floats.
    value = context.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
    above = context.next_plus(context.ln(context.next_plus(value)))
    nearest = float(above)
    return nearest if Decimal(nearest) >= above else math.nextafter(nearest, math.inf)


def _check_numbers(categories: int, epsilon: float, first_element: int) -> None:
    if isinstance(categories, bool) or not isinstance(categories, int) or not 2 <= categories <= _MOST_CATEGORIES:
        raise InvalidArgumentError(f"categories must be an integer in [2, 2**31], got {categories!r}")
    number = isinstance(epsilon, int | float) and not isinstance(epsilon, bool)
    if not number or not 0 < epsilon < math.inf:
        raise InvalidBudgetError(f"epsilon must be positive and finite, got {epsilon!r}")
    whole = isinstance(first_element, int) and not isinstance(first_element, bool)
    if not whole or not 0 <= first_element < 2**63:
        raise InvalidArgumentError(f"first_element must be an integer in [0, 2**63), got {first_element!r}")


def _check(values: torch.Tensor) -> None:
    if values.dtype != torch.int64:
        raise InvalidArgumentError(f"values must be int64, got {values.dtype}")


def _out_of_range(element: int, value: int, categories: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"randomized_response: element {element} is {value}, but values must be in [0, {categories})"
    )


def _run_cpu(arguments: tuple[object, ...]) -> int:
    status = _native.cpu().randomized_response(*arguments, torch.get_num_threads())
    code, _, element, _ = status
    if code == _INVALID_PARAMETER:
        return int(element)
    _native.raise_for_status(status, "randomized_response")
    return -1


def _run_cuda(arguments: tuple[object, ...], device: torch.device) -> int:
    number = device.index if device.index is not None else torch.cuda.current_device()
    failure = torch.full((1,), -1, dtype=torch.int64, device=device)
    stream = torch.cuda.current_stream(device).cuda_stream
    status = _native.cuda().randomized_response(*arguments, failure.data_ptr(), number, stream)
    _native.raise_for_status(status, "randomized_response")
    return int(failure.item())


def _randomized_response(
    values: torch.Tensor, key: torch.Tensor, categories: int, epsilon: float, first_element: int
) -> torch.Tensor:
    _check(values)
    law = randomized_response_law(categories, epsilon)
    _check_numbers(categories, epsilon, first_element)
    flat = values.reshape(-1)
    if first_element + len(flat) >= 2**63:
        raise InvalidArgumentError(f"first_element + size must be below 2**63, got {first_element} + {len(flat)}")
    if flat.data_ptr() % 8:
        flat = flat.clone()
    out = torch.empty(values.shape, dtype=torch.int64, device=values.device)
    stride = flat.stride(0) if len(flat) else 1
    arguments = (
        flat.data_ptr(), stride, len(flat), categories, law.threshold, key_bytes(key), first_element, out.data_ptr()
    )  # fmt: skip
    failed = _run_cuda(arguments, values.device) if values.device.type == "cuda" else _run_cpu(arguments)
    if failed >= 0:
        raise _out_of_range(failed, int(flat[failed]), categories)
    return out


def _fake_randomized_response(
    values: torch.Tensor, key: torch.Tensor, categories: int, epsilon: float, first_element: int
) -> torch.Tensor:
    _check(values)
    return values.new_empty(values.shape)


implement("randomized_response", _randomized_response, _fake_randomized_response)
