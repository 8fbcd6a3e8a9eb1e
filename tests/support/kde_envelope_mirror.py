"""kde_em's draw by the envelope again, in NumPy float32: the operations of csrc/core/kde_envelope.h in the same order.

Unlike the kernel it shows the envelope, and with it the exact law of a trial.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support import chacha20
from tests.support import kde_em_mirror as direct
from tests.support.kde_em_mirror import Floats

TRIALS = 9
_F = np.float32
_HALF, _GROUP, _MOST_NODES = 16, 33, 264
_TRIAL_PURPOSE, _RETRY_PURPOSE = 16, 17
_ONE = _F(2.0**22)
_SPACING = _F(0.44)


def _rough_exp2(x: Floats) -> Floats:
    shifted = x + _F(12582912.0)
    f = x - (shifted - _F(12582912.0))
    p = ((f * _F(0.0551716685) + _F(0.242611125)) * f + _F(0.693260968)) * f + _F(0.999928057)
    return (p.view(np.uint32) + (shifted.view(np.uint32) << np.uint32(23))).view(np.float32)


def _rough_exp2_pair(x: Floats) -> tuple[Floats, Floats]:
    shifted = x + _F(12582912.0)
    f = x - (shifted - _F(12582912.0))
    square = f * f
    even = (square * _F(0.00956967473) + _F(0.240247667)) * square + _F(0.999999225)
    odd = (square * _F(0.0559182465) + _F(0.693121731)) * f
    whole = shifted.view(np.uint32) << np.uint32(23)
    return (
        ((even + odd).view(np.uint32) + whole).view(np.float32),
        ((even - odd).view(np.uint32) - whole).view(np.float32),
    )


@dataclass(frozen=True)
class Envelope:
    """Of N elements: usable [N] (else only the scores serve), shift and nodes [N], weights [N, nodes], best [N]."""

    usable: npt.NDArray[np.bool_]
    shift: npt.NDArray[np.int64]
    nodes: npt.NDArray[np.int64]
    weights: npt.NDArray[np.int64]
    best: Floats
    grid_points: int
    scale: np.float32

    @property
    def offset_bits(self) -> int:
        """Of each of a trial's two words, for the offset from the node; the others choose the node, or accept."""
        return max(2, _largest_shift(self.grid_points))

    def bounds(self, j: int) -> Floats:
        """What one element's hats add up to at every grid point, [R]; an integer is 2^-22 of the largest weight."""
        points = np.arange(self.grid_points)
        low = points >> self.shift[j]
        share = (points - (low << self.shift[j])) / 2.0 ** self.shift[j]
        padded = np.append(self.weights[j], 0)
        return padded[low] * (1 - share) + padded[low + 1] * share


def _largest_shift(grid_points: int) -> int:
    shift = 0
    while grid_points >> (shift + 4) > 0:
        shift += 1
    return shift


def envelope(
    theta: Floats, lo: Floats, hi: Floats, bandwidth: Floats, window_ratio: float, grid_points: int, multiplier: float
) -> Envelope:
    """theta [M, N]; lo, hi, bandwidth [N]."""
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return _envelope(theta, lo, hi, bandwidth, window_ratio, grid_points, multiplier)


def _envelope(
    theta: Floats, lo: Floats, hi: Floats, bandwidth: Floats, window_ratio: float, grid_points: int, multiplier: float
) -> Envelope:
    num_members, size = theta.shape
    h = window_ratio / 2
    peak = math.erf(h / math.sqrt(2.0))
    density = 0.3989422804014327 * math.exp(-h * h / 2)
    steepness = multiplier * peak / 26.0
    wish = _F(float(_SPACING) / math.sqrt(steepness if steepness > 1 else 1))
    inverse_width = _F(math.sqrt(2 * h * density / peak) * (1 - 1e-6))
    base_slack = _F((96 + num_members / 8) * 2.0**-24)
    excess = _F(1 + 2.0**-11 + num_members * 2.0**-24)

    step = (hi - lo) / _F(grid_points - 1)
    inverse = _F(0.84932180028801904272) / bandwidth * inverse_width
    per_point = step * inverse
    room = np.minimum(wish / np.maximum(per_point, _F(1e-30)), _F(2 ** _largest_shift(grid_points)))
    shift = np.maximum((room.view(np.uint32) >> 23).astype(np.int64) - 127, 0)
    nodes = ((grid_points + (1 << shift) - 1) >> shift) + 1
    spacing = per_point * (1 << shift).astype(np.float32)
    square = spacing * spacing
    bend = np.where(shift > 0, square * _F(0.1732873) + square * square * _F(0.0274557), _F(0))
    offset = np.maximum(np.maximum(np.abs(lo), np.abs(hi)), hi - lo) * inverse
    slack = offset * (_F(0.8) * _F(2.3841858e-7)) + base_slack
    usable = (per_point <= _SPACING) & (nodes <= _MOST_NODES) & (offset <= _F(16384))
    usable &= window_ratio <= 2 and num_members <= 8192 and grid_points >= 8
    nodes = np.where(usable, nodes, 0)

    count = int(nodes.max(initial=0))
    values = np.zeros((size, -(-count // _GROUP) * _GROUP + 1), dtype=np.float32)
    for group in range(-(-count // _GROUP)):
        middle = lo + step * ((group * _GROUP + _HALF) << shift).astype(np.float32)
        values[:, group * _GROUP : (group + 1) * _GROUP] = _group(theta, middle, inverse, spacing).T

    before = np.pad(values, ((0, 0), (1, 0)))[:, :-1]
    position = np.arange(values.shape[1])
    after = np.where(position + 1 < nodes[:, None], np.pad(values, ((0, 0), (0, 1)))[:, 1:], values)
    around = np.maximum(np.maximum(before, values), after)
    bound = (values + around * bend[:, None]) * excess + (slack * _F(num_members))[:, None]
    exists = position < nodes[:, None]
    best = np.where(exists, bound, _F(0)).max(axis=1, initial=0)
    scale = _F(multiplier * (peak / num_members) * 1.4426950408889634)
    exponent = np.maximum((bound - best[:, None]) * scale, _F(-125))
    whole = (_rough_exp2(exponent) * (_ONE * _F(1.0002))).astype(np.int64) + 1
    return Envelope(usable, shift, nodes, np.where(exists, whole, 0), best, grid_points, scale)


def _group(theta: Floats, middle: Floats, inverse: Floats, spacing: Floats) -> Floats:
    """The sums at 33 nodes, [33, N]."""
    sums = np.zeros((_GROUP, theta.shape[1]), dtype=np.float32)
    for row in theta:
        x = np.maximum(np.minimum((middle - row) * inverse, _F(13.6)), _F(-13.6))
        share = _rough_exp2(_F(64) - x * x)
        least = ((x * x * _F(16) + _F(12612480)).view(np.uint32) << np.uint32(15)).view(np.float32)
        down, up = (np.maximum(turn, least) for turn in _rough_exp2_pair(x * (spacing + spacing)))
        above = below = share
        sums[_HALF] += share
        for step in range(1, _HALF + 1):
            above, below = above * up, below * down
            sums[_HALF + step] += above
            sums[_HALF - step] += below
    turn = direct.exp2(-(spacing * spacing))
    factor, ratio, squared = np.full_like(turn, 5.4210109e-20), turn, turn * turn
    sums = np.maximum(sums, _F(1))
    sums[_HALF] *= factor
    for step in range(1, _HALF + 1):
        factor = factor * ratio
        ratio = ratio * squared
        sums[_HALF + step] *= factor
        sums[_HALF - step] *= factor
    return sums


def acceptance(envelope: Envelope, j: int, total: Floats, bound: Floats) -> npt.NDArray[np.int64]:
    """In units of one value of the bits that decide, for sums ``total`` and envelope values ``bound`` (float32)."""
    with np.errstate(all="ignore"):
        exponent = np.maximum((np.atleast_1d(total) - envelope.best[j]) * envelope.scale, _F(-125))
        weight = direct.exp2(np.minimum(exponent, _F(0))) * _ONE
        share = np.minimum(weight / bound, _F(1 - 2.0**-24)) * _F(2.0**31)
    whole = share.astype(np.int64)
    rest_bits = 33 - envelope.offset_bits
    rest = ((share - whole.astype(np.float32)) * _F(2.0**rest_bits)).astype(np.int64)
    return (whole << rest_bits) + rest


def hat(envelope: Envelope, j: int, node: int, offset: int) -> np.float32:
    """The envelope as a trial computes it from the node it drew."""
    weights = np.pad(envelope.weights[j], 1).astype(np.float32)
    here, other = weights[node + 1], weights[node + (0 if offset < 0 else 2)]
    points, distance = 1 << int(envelope.shift[j]), abs(offset)
    return _F(_F(here * _F(points - distance) + other * _F(distance)) / _F(points))


def _bits(secret: bytes, element: int, attempt: int, trial: int) -> tuple[int, int]:
    if trial == 0:
        purposes = [_TRIAL_PURPOSE, _TRIAL_PURPOSE | 1 << 8]
        first, second = (chacha20.spread_bits(secret, element, attempt, purpose) for purpose in purposes)
        return first, second
    words = chacha20.block_words(secret, element, attempt, _RETRY_PURPOSE | (trial - 1) // 4 << 8)
    at = (trial - 1) % 4 * 2
    return words[at], words[at + 1]


def draw(envelope: Envelope, totals: Floats, secret: bytes, first_element: int, attempt: int) -> npt.NDArray[np.int32]:
    """The grid index of each element; -1 where no trial is accepted or the envelope does not serve."""
    drawn = np.full(len(totals), -1, dtype=np.int32)
    for j in np.flatnonzero(envelope.usable):
        shift = int(envelope.shift[j])
        cumulative = np.cumsum(envelope.weights[j])
        bits = envelope.offset_bits
        for trial in range(TRIALS):
            first, second = _bits(secret, first_element + int(j), attempt, trial)
            target = ((first >> bits) * int(cumulative[-1])) >> (64 - bits)
            node = int(np.searchsorted(cumulative, target, side="right"))
            low = ((1 << bits) - 1, bits - shift)
            offset = ((first & low[0]) >> low[1]) + ((second & low[0]) >> low[1]) - ((1 << shift) - 1)
            k = (node << shift) + offset
            if not 0 <= k < envelope.grid_points:
                continue
            if second >> bits < acceptance(envelope, int(j), totals[j, k], hat(envelope, int(j), node, offset))[0]:
                drawn[j] = k
                break
    return drawn


def trial_law(envelope: Envelope, j: int, totals: Floats) -> npt.NDArray[np.float64]:
    """How probable it is that one trial of element j draws each grid point, [R]; exact but for the last rounding."""
    shift, points = int(envelope.shift[j]), 1 << int(envelope.shift[j])
    cumulative = [0, *np.cumsum(envelope.weights[j]).tolist()]
    steps = 64 - envelope.offset_bits
    below = [-(-(c << steps) // cumulative[-1]) for c in cumulative]
    law = np.zeros(envelope.grid_points)
    for node in range(int(envelope.nodes[j])):
        chance = (below[node + 1] - below[node]) / 2.0**steps
        for offset in range(1 - points, points):
            k = (node << shift) + offset
            if 0 <= k < envelope.grid_points:
                accepted = int(acceptance(envelope, j, totals[k], hat(envelope, j, node, offset))[0]) / 2.0**steps
                law[k] += chance * (points - abs(offset)) / points**2 * accepted
    return law


def exact_probabilities(
    envelope: Envelope, j: int, totals: Floats, from_scores: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """The law of a draw: the first trial that is accepted or, after the last one, ``from_scores`` [R]."""
    if not envelope.usable[j]:
        return from_scores
    trial = trial_law(envelope, j, totals)
    rejected = 1 - trial.sum()
    return trial * sum(rejected**t for t in range(TRIALS)) + rejected**TRIALS * from_scores
