"""kde_em again, in NumPy float32: the operations of csrc/core/kde.h in the same order.

NumPy rounds every float32 operation once and contracts nothing, so this must give the kernel's bits.
Unlike the kernel it shows the integer weights, and with them the exact law of a draw.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt

from tests.support import chacha20

PURPOSE = 1
Floats = npt.NDArray[np.float32]
_BASE_TWO = 0.84932180028801904272  # sqrt(log2(e) / 2)
_DEGREE = 4
_F = np.float32


def exp2(x: Floats) -> Floats:
    shift = _F(12582912.0)
    shifted = x + shift
    f = x - (shifted - shift)
    q = np.full_like(f, 1.32749905e-3)
    for c in (9.6718464e-3, 5.5506926e-2, 2.4022235e-1, 6.93147004e-1):
        q = q * f + _F(c)
    power = q * f + _F(1)
    return (power.view(np.uint32) + (shifted.view(np.uint32) << np.uint32(23))).view(np.float32)


def _half_erfc(x: Floats) -> Floats:
    x = np.minimum(x, _F(10.954451))
    v = _F(1) / (x * _F(0.41627730557884884) + _F(1))
    p = np.full_like(v, 0.05880204807)
    for c in (-0.2182398887, 0.1221823204, 0.307676128, 0.1308464754, 0.3216977596, 0.2770351686):
        p = p * v + _F(c)
    return p * v * exp2(-(x * x)) * _F(0.5)


def _series(window_ratio: float) -> list[np.float32]:
    h, first, factor, series = window_ratio / 2, 1.0, 1.0, []
    for k in range(_DEGREE + 1):
        integral, term = 0.0, 1.0
        for m in range(30):
            integral += term / (2 * k + 2 * m + 1)
            term *= -h * h / (2.0 * (m + 1))
        if k == 0:
            first = integral
        else:
            factor *= h * h / ((2.0 * k) * (2.0 * k - 1)) / (_BASE_TWO * _BASE_TWO)
            series.append(_F(factor * integral / first))
    return series


def _kernel(x: Floats, window_ratio: float) -> Floats:
    if window_ratio <= 1:
        series = _series(window_ratio)
        s = np.minimum(x * x, _F(120))
        q = np.full_like(s, series[-1])
        for c in reversed(series[:-1]):
            q = q * s + c
        return (q * s + _F(1)) * exp2(-s)
    half = _F(window_ratio / 2 * _BASE_TWO)
    t = np.abs(x)
    inner = t - half
    tail = _half_erfc(np.abs(inner))
    above = np.where(inner >= 0, tail, _F(1) - tail)
    return (above - _half_erfc(t + half)) * _F(1 / _peak(window_ratio))


def _peak(window_ratio: float) -> float:
    return math.erf(window_ratio / 2 / math.sqrt(2.0))


def grid(lo: Floats, hi: Floats, grid_points: int) -> Floats:
    """lo, hi [N] -> the grid [N, R]."""
    step = (hi - lo) / _F(grid_points - 1)
    points = np.arange(grid_points, dtype=np.float32)
    return np.minimum(lo[:, None] + step[:, None] * points, hi[:, None])


def totals(theta: Floats, lo: Floats, hi: Floats, bandwidth: Floats, window_ratio: float, grid_points: int) -> Floats:
    """theta [M, N], lo, hi, bandwidth [N] -> sums of K / w_max over the members, [N, R]."""
    with np.errstate(all="ignore"):
        points = grid(lo, hi, grid_points)
        inverse = _F(_BASE_TWO) / bandwidth
        total = np.zeros_like(points)
        for begin in range(0, len(theta), 8):
            block = np.zeros_like(points)
            for row in theta[begin : begin + 8]:
                block += _kernel((points - row[:, None]) * inverse[:, None], window_ratio)
            total += block
        return total


def scores(total: Floats, num_members: int, window_ratio: float) -> Floats:
    """What kde_scores returns for these totals."""
    return total * _F(_peak(window_ratio) / num_members)


def integer_weights(total: Floats, num_members: int, window_ratio: float, multiplier: float) -> npt.NDArray[np.uint64]:
    """The integers [N, R] that one draw is proportional to."""
    grid_points = total.shape[1]
    bits = 62 - (grid_points - 1).bit_length()
    scale = _F(multiplier * (_peak(window_ratio) / num_members) * 1.4426950408889634)
    with np.errstate(all="ignore"):
        exponent = (total - total.max(axis=1, keepdims=True)) * scale
        weight = exp2(np.maximum(exponent, _F(-125)))
        return (weight * _F(2.0**bits)).astype(np.int64).astype(np.uint64)


def draw(
    weights: npt.NDArray[np.uint64], secret: bytes, first_element: int = 0, attempt: int = 0
) -> npt.NDArray[np.int32]:
    """The grid index that each element draws."""
    index = np.empty(len(weights), dtype=np.int32)
    for j, row in enumerate(weights):
        cumulative = np.cumsum(row, dtype=np.uint64)
        bits = chacha20.element_bits(secret, first_element + j, attempt, PURPOSE)
        target = (bits * int(cumulative[-1])) >> 64
        index[j] = np.searchsorted(cumulative, np.uint64(target), side="right")
    return index


def exact_probabilities(weights: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """The law of one draw, [R]: how many of the 2^64 values of the uniform bits select each point.

    The counts are exact integers; only the last division rounds.
    """
    cumulative = [0]
    for weight in weights.tolist():
        cumulative.append(cumulative[-1] + weight)
    total = cumulative[-1]
    below = [-(-(c << 64) // total) for c in cumulative]  # values of the bits with target < c
    return np.array([(b - a) / 2**64 for a, b in itertools.pairwise(below)])
