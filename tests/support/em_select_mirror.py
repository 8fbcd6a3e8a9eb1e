"""em_select again, in NumPy float64 and plain integers: the operations of csrc/core/select.h in the same order.

NumPy rounds every float64 operation once and contracts nothing, so this must give the kernel's indices. Unlike the
kernel it shows the integer weights, and with them the exact law of a draw.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from tests.support import chacha20

EXPONENTIAL, PERMUTE_AND_FLIP = 3, 4  # purposes
ONE = 2**80  # the integer weight of the largest score
Floats = npt.NDArray[np.float64]
_COEFFICIENTS = [
    6.931471805599498e-01, 2.4022650695909506e-01, 5.550410866445835e-02, 9.618129107848525e-03,
    1.3333558228528347e-03, 1.5403530136579258e-04, 1.5252658183281915e-05, 1.321559369500251e-06,
    1.0208518111835072e-07, 7.046906312143922e-09,
]  # fmt: skip


def _exp2_scaled(x: Floats) -> Floats:
    shift = np.float64(6755399441055744.0)
    shifted = x + shift
    f = x - (shifted - shift)
    f2 = f * f
    f4 = f2 * f2
    c = _COEFFICIENTS
    pairs = [f * c[i + 1] + c[i] for i in range(0, 10, 2)]
    q = ((pairs[4] * f2 + pairs[3]) * f2 + pairs[2]) * f4 + (pairs[1] * f2 + pairs[0])
    power = q * f + 1.0
    moved = (shifted.view(np.uint64) + np.uint64(40)) << np.uint64(52)
    return (power.view(np.uint64) + moved).view(np.float64)


def weights(scores: npt.NDArray[np.float32] | Floats, multiplier: float, drawn: Sequence[int] = ()) -> list[int]:
    """The integer weights of one segment [n], with those already drawn left out of it (weight 0)."""
    values = scores.astype(np.float64)
    left = np.ones(len(values), dtype=bool)
    left[list(drawn)] = False
    exponent = (values - values[left].max()) * np.float64(multiplier * 1.4426950408889634074)
    scaled = _exp2_scaled(np.where(exponent > -200.0, exponent, -200.0))
    high = np.floor(scaled)
    low = np.floor((scaled - high) * 2.0**40)
    integers = [int(a) * 2**40 + int(b) for a, b in zip(high, low, strict=True)]
    return [w if keep else 0 for w, keep in zip(integers, left, strict=True)]


def exact_exponential(integers: Sequence[int]) -> list[Fraction]:
    """The law of a draw: how many of the 2^128 values of the uniform bits select each candidate."""
    cumulative = [0, *itertools.accumulate(integers)]
    below = [-((-c << 128) // cumulative[-1]) for c in cumulative]
    return [Fraction(b - a, 2**128) for a, b in itertools.pairwise(below)]


def exact_permute_and_flip(integers: Sequence[int]) -> list[Fraction]:
    """The law of a draw, but for ties of the 128-bit priorities: a_i integral of prod_{j != i} (1 - a_j v) dv."""
    a = [Fraction(w, ONE) for w in integers]
    result = []
    for i in range(len(a)):
        product = [Fraction(1)]  # coefficients of prod (1 - a_j v)
        for j in range(len(a)):
            if j != i:
                product = [x - a[j] * y for x, y in zip([*product, 0], [0, *product], strict=True)]
        result.append(a[i] * sum((c / (power + 1) for power, c in enumerate(product)), Fraction(0)))
    return result


def draw(
    scores: npt.NDArray[np.float32] | Floats, multiplier: float, secret: bytes, segment: int, k: int = 1,
    permute_and_flip: bool = False,
) -> list[int]:  # fmt: skip
    """The indices that one segment draws."""
    drawn: list[int] = []
    for peel in range(k):
        integers = weights(scores, multiplier, drawn)
        choose = _permute_and_flip if permute_and_flip else _exponential
        drawn.append(choose(integers, secret, segment, peel))
    return drawn


def _exponential(integers: list[int], secret: bytes, segment: int, peel: int) -> int:
    bits = int.from_bytes(chacha20.block(secret, struct.pack("<QII", segment, peel, EXPONENTIAL))[:16], "little")
    cumulative = list(itertools.accumulate(integers))
    target = bits * cumulative[-1] >> 128
    return sum(c <= target for c in cumulative)


def _permute_and_flip(integers: list[int], secret: bytes, segment: int, peel: int) -> int:
    accepted = []
    for i, weight in enumerate(integers):
        address = struct.pack("<IIII", i // 2, segment, peel, PERMUTE_AND_FLIP)
        own = chacha20.block(secret, address)[32 * (i % 2) :][:32]
        if int.from_bytes(own[:10], "little") < weight:
            priority = int.from_bytes(own[16:24], "little") << 64 | int.from_bytes(own[24:32], "little")
            accepted.append((priority, i))
    return min(accepted)[1]


def distance(one: Sequence[Fraction], other: Sequence[float | Fraction]) -> float:
    """Total variation."""
    return float(sum(abs(Fraction(a) - Fraction(b)) for a, b in zip(one, other, strict=True)) / 2)


def log_ratio(a: Fraction, b: Fraction) -> float:
    """ln(a / b), accurate also where it is tiny."""
    return math.log1p(float(a / b - 1))
