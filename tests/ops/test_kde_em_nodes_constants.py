"""The numbers of docs/accounting.md, Statement 18, that are computed and not derived: errors in units of 2^-24."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erfc

from tests.support import kde_nodes_mirror as mirror

Doubles = npt.NDArray[np.float64]
UNIT = 2.0**-24
WINDOWS = [1e-6, 0.3, 0.7, 1.0, 1.5, 2.0]
SPACINGS = np.linspace(0.125001, 0.26, 8)  # of nodes, in bandwidths
MOST_HALVINGS = 9  # 65,536 grid points, every second one from the taps
POINTS = 15  # half a node apart, enough for whatever is interpolated around their middle


def coefficients(first: bool) -> Doubles:
    """Of six neighbours in the point half-way, the constants in float32 and nothing else rounded."""
    return np.asarray(mirror.half_way(list(np.eye(6)), first), np.float64)


def interpolated(halvings: int, first: bool = True) -> Doubles:
    """Coefficients of POINTS in the points between, [points, POINTS]; ``first``: from the first halving on."""
    rows = np.eye(POINTS)
    for halving in range(halvings):
        weights = coefficients(first and halving == 0)
        between = sum(weights[i] * rows[i : len(rows) - 5 + i] for i in range(6))
        finer = np.empty((2 * len(between) + 1, POINTS))
        finer[::2], finer[1::2] = rows[2:-2], between
        rows = finer
    return rows[2:-2] if halvings == 0 else rows


def filters(window_ratio: float, eta: float, halvings: int) -> tuple[npt.NDArray[np.int64], Doubles]:
    """Nodes, and their weights in points of the grid, [points, nodes]."""
    reach = mirror.plan(window_ratio, 2, 65).reach
    nodes = np.arange(-reach - 1, POINTS // 2 + reach + 2)
    places = np.arange(POINTS)[:, None]
    halves = np.abs(places - 2 * nodes)  # of a node, between a point and a node
    table = np.array([mirror.tap_of(tap / 2, eta, window_ratio / 2) for tap in range(2 * reach + 2)] + [0.0])
    taps = table[np.where(halves <= 2 * reach + places % 2, halves, -1)]
    return nodes, interpolated(halvings) @ taps


def kernel(t: Doubles, window_ratio: float) -> Doubles:
    """K / w_max."""
    half, t = window_ratio / 2, np.abs(t)
    tails = erfc((t - half) * math.sqrt(0.5)) - erfc((t + half) * math.sqrt(0.5))
    return np.asarray(tails / 2 / math.erf(half * math.sqrt(0.5)))


@pytest.mark.parametrize("first", [True, False])
def test_interpolation_enlarges_errors_of_points_by_its_norm(first: bool) -> None:
    norms = [np.abs(interpolated(halvings, first)).sum(1).max() for halvings in range(1, MOST_HALVINGS + 1)]
    assert max(norms) <= 1.3942
    assert all(a <= b + 1e-12 for a, b in pairwise(norms))


@pytest.mark.parametrize("window_ratio", WINDOWS)
def test_the_weights_of_nodes_are_positive_at_every_grid_point(window_ratio: float) -> None:
    for eta in SPACINGS:
        for halvings in range(MOST_HALVINGS + 1):
            weights = filters(window_ratio, eta, halvings)[1]
            assert -np.minimum(weights, 0).sum(1).min() < 1.1e-8


@pytest.mark.parametrize("window_ratio", [*WINDOWS, 0.4])
def test_how_many_products_lie_behind_a_score(window_ratio: float) -> None:
    distance = np.abs(np.arange(-22, 23))
    blocks = (distance + 2) // 5
    products = blocks + np.abs(distance - 5 * blocks)
    assert products.max() == 6
    most = 0.0
    for eta in SPACINGS:
        for halvings in (0, 1, 3):
            nodes, weights = filters(window_ratio, eta, halvings)
            kappa = 0.5 / (math.log(2) * (1 / eta**2 - 1))
            members = np.linspace(-4, 11, 76)
            shares = np.exp2(-kappa * (nodes[:, None] - members) ** 2)
            for first in range(45):  # of the group's nodes, the one at node 0
                count = products[(nodes + first) % 45]
                most = max(most, ((np.abs(weights) * count) @ shares).max())
    stated = 5.75 - 0.27 * window_ratio
    assert stated - 0.2 < most <= stated


@pytest.mark.parametrize("window_ratio", WINDOWS)
def test_the_error_of_halving(window_ratio: float) -> None:
    """Points at most half a node apart, and then half of that."""
    t = np.linspace(-7, 7, 2801)
    for first, widest, stated in ((True, 0.13, 1.16), (False, 0.065, 0.1)):
        weights = coefficients(first)
        for spacing in np.linspace(widest / 2, widest, 20):
            half_way = sum(weights[i] * kernel(t + (i - 2.5) * spacing, window_ratio) for i in range(6))
            assert np.abs(half_way - kernel(t, window_ratio)).max() <= stated * UNIT


def test_the_error_of_a_power() -> None:
    """Both of them, at exponents whose large part is exact and whose small part is not."""
    rng = np.random.default_rng(0)
    high = (rng.integers(-(2**19), 2**19, 200_000) * 2.0**-14).astype(np.float32)  # to +-32
    low = rng.uniform(-1 / 64, 1 / 64, high.size).astype(np.float32)
    up, down = mirror.power(high, low)
    exact = high.astype(np.longdouble) + low
    worst = max(float(np.abs(up / np.exp2(exact) - 1).max()), float(np.abs(down / np.exp2(-exact) - 1).max()))
    assert 1.0 * UNIT < worst <= 1.95 * UNIT
