"""kde_em's scores by nodes again, in NumPy float32: the operations of csrc/core/kde_nodes.h in the same order."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tests.support import kde_em_mirror as direct
from tests.support.kde_em_mirror import Floats

CLOSEST, WIDEST, FEWEST_INTERVALS, FARTHEST = 0.125, 0.26, 64, 16384.0
MIDDLE, HALF_RANGE = (WIDEST + CLOSEST) / 2, (WIDEST - CLOSEST) / 2
_F = np.float32
_INNER, _OUTER, _SPAN = 2, 4, 22
_GROUP = 2 * _SPAN + 1
_AT_ONCE, _BETWEEN, _EXTRA, _DEGREE = 8, 32, 4, 18
_BASE_TWO = 0.84932180028801904272
_PI, _LN2 = 3.14159265358979323846, 0.69314718055994530942


@dataclass(frozen=True)
class Plan:
    """What is the same for all elements of a call; taps [2 reach + 2, 19]."""

    usable: bool
    largest_shift: int
    reach: int
    taps: Floats

    @property
    def beyond(self) -> int:
        """Nodes on either side of those over the range."""
        return self.reach + _EXTRA // 2


def plan(window_ratio: float, num_members: int, grid_points: int) -> Plan:
    if window_ratio > 2 or num_members > 8192 or grid_points <= FEWEST_INTERVALS:
        return Plan(False, 0, 0, np.zeros((0, 0), np.float32))
    half, shift = window_ratio / 2, 0
    while (grid_points - 1) >> (shift + 1) >= FEWEST_INTERVALS - 1:
        shift += 1
    reach = int(half / CLOSEST + 5.25)
    points = _DEGREE + 1
    taps = np.empty((2 * reach + 2, points), np.float32)
    for tap in range(len(taps)):
        value = [
            tap_of(0.5 * tap, MIDDLE + HALF_RANGE * math.cos(_PI * (i + 0.5) / points), half) for i in range(points)
        ]
        for k in range(points):
            total = 0.0
            for i in range(points):
                total += value[i] * math.cos(_PI * k * (i + 0.5) / points)
            taps[tap, k] = total * (1.0 if k == 0 else 2.0) / points
    return Plan(True, shift, reach, taps)


def tap_of(at: float, eta: float, half: float) -> float:
    """In double: what a node's sum is multiplied by, for a point `at` nodes away."""
    w, kappa, root = half / eta, 0.5 / (_LN2 * (1 / (eta * eta) - 1)), 0.70710678118654752440
    scale = math.sqrt(kappa * _LN2 / _PI) / math.erf(half / math.sqrt(2.0))
    return scale * 0.5 * (math.erfc((at - w) * root) - math.erfc((at + w) * root))


def taps_at(plan: Plan, place: Floats) -> list[Floats]:
    """The taps of elements, [2 reach + 2] arrays like ``place``, which is eta from -1 to 1."""
    twice, taps = place + place, []
    for row in plan.taps:
        one, two = np.zeros_like(place), np.zeros_like(place)
        for k in range(_DEGREE, 0, -1):
            one, two = (twice * one - two) + row[k], one
        taps.append((place * one - two) + row[0])
    return taps


@dataclass(frozen=True)
class _Shape:
    inverse: Floats
    inverse_rest: Floats
    kappa: Floats
    kappa_rest: Floats
    farthest: Floats
    place: Floats


def shifts(
    plan: Plan, lo: Floats, hi: Floats, step: Floats, inverse: Floats
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """log2 of the number of grid points between two nodes, -1 where they do not serve, and the spacing eta; [N]."""
    eta = step.astype(np.float64) * inverse.astype(np.float64) / _BASE_TWO
    shift = np.zeros(len(step), np.int64)
    for _ in range(plan.largest_shift):
        more = 2 * eta <= WIDEST
        eta, shift = np.where(more, 2 * eta, eta), shift + more
    offset = np.maximum(np.abs(lo), np.abs(hi)).astype(np.float64) * inverse.astype(np.float64)
    length = step.astype(np.float64) * 2.0**shift
    serves = plan.usable & (eta > CLOSEST) & (eta <= WIDEST)
    serves &= (offset <= FARTHEST * _BASE_TWO) & (length >= 2.0**-126)
    return np.where(serves, shift, -1), eta


def _shape(step: Floats, shift: int, eta: npt.NDArray[np.float64]) -> _Shape:
    length = step.astype(np.float64) * 2.0**shift
    kappa = 0.72134752044448170368 / (1 / (eta * eta) - 1)
    inverse = (1 / length).astype(np.float32)
    cut = ((kappa.astype(np.float32).view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    return _Shape(
        inverse,
        (1 / (length * inverse.astype(np.float64)) - 1).astype(np.float32),
        cut,
        (kappa - cut.astype(np.float64)).astype(np.float32),
        ((_SPAN + 6.0 / eta) * length).astype(np.float32),
        ((eta - MIDDLE) / HALF_RANGE).astype(np.float32),
    )


def _parts(high: Floats, low: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    shifted = (high + low) + _F(12582912)
    f = (high - (shifted - _F(12582912))) + low
    square = f * f + _F(2.0**-52)
    even = ((square * _F(0.00015474987) + _F(0.009618012)) * square + _F(0.2402265)) * square
    odd = (square * _F(0.0013422533) + _F(0.055502627)) * (square * f)
    return f * _F(0.69314724), even, odd, shifted


def power(high: Floats, low: Floats) -> tuple[Floats, Floats]:
    """2^x and 2^-x."""
    line, even, odd, shifted = _parts(high, low)
    whole = shifted.view(np.uint32) << np.uint32(23)
    up, down = (line + (even + odd)) + _F(1), ((even - odd) - line) + _F(1)
    return (up.view(np.uint32) + whole).view(np.float32), (down.view(np.uint32) - whole).view(np.float32)


def _members(theta: Floats, middle: Floats, rest: Floats, shape: _Shape) -> list[Floats]:
    """weight, up, down, block_up and block_down of members theta [8, N]."""
    near = np.maximum(np.minimum(theta, middle + shape.farthest), middle - shape.farthest)
    d = near - middle
    back = near - d
    lost = (near - (d + back)) + (back - middle)
    whole = d * shape.inverse
    high = (whole + _F(1572864)) - _F(1572864)
    low = (whole - high) + ((lost - rest) * shape.inverse + whole * shape.inverse_rest)
    x = high + low
    slope = shape.kappa * high
    curve = (x + high) * low * shape.kappa + x * x * shape.kappa_rest
    weight = power(-(slope * high), -curve)[0] * _F(2.0**86)
    turn = slope + slope
    turn_low = (low * shape.kappa + x * shape.kappa_rest) * _F(2)
    return [weight, *power(turn, turn_low), *power(turn * _F(5), turn_low * _F(5))]


def _tree(share: Floats) -> Floats:
    return ((share[0] + share[1]) + (share[2] + share[3])) + ((share[4] + share[5]) + (share[6] + share[7]))


def _add(sums: Floats, members: list[Floats]) -> None:
    weight, up, down, block_up, block_down = members
    for sign, block_turn in ((-1, block_down), (1, block_up)):
        anchor = weight
        for block in range(_OUTER + 1):
            at = _SPAN + sign * 5 * block
            if block > 0:
                anchor = anchor * block_turn
            if block == 0 and sign < 0:
                continue
            sums[at] += _tree(anchor)
            for direction, turn in ((-1, down), (1, up)):
                share = anchor
                for step in range(1, _INNER + 1):
                    share = share * turn
                    sums[at + direction * step] += _tree(share)


def _node_sums(
    theta: Floats, lo: Floats, step: Floats, plan: Plan, shift: int, shape: _Shape, count: int
) -> list[Floats]:
    zero = np.zeros_like(shape.kappa)
    factor = []
    for distance in range(_SPAN + 1):
        square = _F(distance * distance)
        factor.append(power(-(shape.kappa * square), -(shape.kappa_rest * square))[0] * _F(2.0**-86))
    nodes: list[Floats] = []
    for group in range(-(-count // _GROUP)):
        at = float(group * _GROUP + _SPAN - plan.beyond)
        exact = lo.astype(np.float64) + step.astype(np.float64) * (at * 2.0**shift)
        middle = exact.astype(np.float32)
        rest = (exact - middle.astype(np.float64)).astype(np.float32)
        total = np.zeros((_GROUP, len(zero)), np.float32)
        for begin in range(0, len(theta), _BETWEEN):
            sums = np.zeros_like(total)
            block = theta[begin : begin + _BETWEEN]
            for first in range(0, len(block), _AT_ONCE):
                members = _members(block[first : first + _AT_ONCE], middle, rest, shape)
                lacking = _AT_ONCE - len(members[0])
                fill = np.zeros((lacking, len(zero)), np.float32)
                _add(sums, [np.concatenate([part, fill + _F(i > 0)]) for i, part in enumerate(members)])
            total += sums
        for place in range(_GROUP):
            nodes.append(np.maximum(total[place], _F(2.0**30)) * factor[abs(place - _SPAN)])
    return nodes


def _at_node(nodes: list[Floats], at: int, taps: list[Floats], reach: int) -> Floats:
    total = np.zeros_like(nodes[at])
    for k in range(reach, 0, -1):
        total += (nodes[at - k] + nodes[at + k]) * taps[2 * k]
    return total + nodes[at] * taps[0]


def _after_node(nodes: list[Floats], at: int, taps: list[Floats], reach: int) -> Floats:
    total = np.zeros_like(nodes[at])
    for k in range(reach, -1, -1):
        total += (nodes[at - k] + nodes[at + k + 1]) * taps[2 * k + 1]
    return total


def half_way(points: list[Floats], first: bool) -> Floats:
    a, b, c = (0.08651626, 0.09852781, 0.01201156) if first else (0.0859375, 0.09765625, 0.01171875)
    near, next_, far = (points[2 - i] + points[3 + i] for i in range(3))
    return near * _F(0.5) + (near * _F(a) - next_ * _F(b) + far * _F(c))


def _spread(plan: Plan, shape: _Shape, shift: int, grid_points: int, nodes: list[Floats]) -> Floats:
    taps = taps_at(plan, shape.place)
    if shift == 0:
        return np.stack([_at_node(nodes, plan.beyond + k, taps, plan.reach) for k in range(grid_points)], 1)
    last = -(-(grid_points - 1) // (1 << shift))
    level = []  # points -4 ... of the level
    for i in range(-_EXTRA // 2, last + _EXTRA // 2 + 1):
        level.append(_at_node(nodes, plan.beyond + i, taps, plan.reach))
        if i < last + _EXTRA // 2:
            level.append(_after_node(nodes, plan.beyond + i, taps, plan.reach))
    for halving in range(2, shift + 1):
        last *= 2
        finer = []
        for i in range(-_EXTRA // 2, last + _EXTRA // 2 + 1):
            finer.append(level[i + _EXTRA])
            if i < last + _EXTRA // 2:
                finer.append(half_way(level[i + _EXTRA - 2 : i + _EXTRA + 4], halving == 2))
        level = finer
    return np.stack(level[_EXTRA : _EXTRA + grid_points], 1)


def scores_of(
    settings: Plan, theta: Floats, lo: Floats, hi: Floats, bandwidth: Floats, grid_points: int
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Shift [N], and where it is not negative the sums of K / w_max [N, R]; nothing of use elsewhere."""
    step = (hi - lo) / _F(grid_points - 1)
    shift, eta = shifts(settings, lo, hi, step, _F(_BASE_TWO) / bandwidth)
    total = np.zeros((len(lo), grid_points), np.float32)
    for each in np.unique(shift[shift >= 0]).tolist():
        of = shift == each
        shape = _shape(step[of], each, eta[of])
        count = -(-(grid_points - 1) // (1 << each)) + 1 + 2 * settings.beyond
        nodes = _node_sums(theta[:, of], lo[of], step[of], settings, each, shape, count)
        total[of] = _spread(settings, shape, each, grid_points, nodes)
    return shift, total


def totals(
    theta: Floats, lo: Floats, hi: Floats, bandwidth: Floats, window_ratio: float, grid_points: int
) -> tuple[npt.NDArray[np.int64], Floats]:
    """What fixed work draws from: shift [N], -1 where scores are computed directly, and sums of K / w_max [N, R]."""
    with np.errstate(all="ignore"):
        settings = plan(window_ratio, len(theta), grid_points)
        shift, total = scores_of(settings, theta, lo, hi, bandwidth, grid_points)
        of = shift < 0
        total[of] = direct.totals(theta[:, of], lo[of], hi[of], bandwidth[of], window_ratio, grid_points)
        return shift, total
