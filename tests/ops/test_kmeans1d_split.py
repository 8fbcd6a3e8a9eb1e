"""kmeans1d_split against exact rationals: truncation, grids, reconstruction, values that do not fit."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops import kmeans1d_split

BITS = st.integers(0, 40)
FLOATS = st.floats(-100, 100, width=32)


def truncate(x: Fraction, bits: int) -> Fraction:
    return Fraction(math.trunc(x * 2**bits), 2**bits)


@given(st.lists(FLOATS, max_size=20), st.lists(FLOATS, min_size=1, max_size=5), BITS, BITS)
@settings(max_examples=200)
def test_every_number_in_exact_rationals(values: list[float], centers: list[float], p_c: int, p_r: int) -> None:
    x = torch.tensor(values)
    coarse = sorted({truncate(Fraction(c), p_c) for c in centers})
    own = [min(range(len(coarse)), key=lambda c: abs(Fraction(v) - coarse[c])) for v in values]
    residuals = [truncate(Fraction(v) - coarse[c], p_r) for v, c in zip(values, own, strict=True)]
    steps = [int(r * 2**p_r) for r in residuals]
    if any(abs(Fraction(v)) * 2 ** max(p_c, p_r) >= 2**51 for v in values) or any(abs(s) >= 2**31 for s in steps):
        with pytest.raises(InvalidArgumentError, match="does not fit"):
            kmeans1d_split(x, torch.tensor(centers), centroid_bits=p_c, residual_bits=p_r)
        return
    got = kmeans1d_split(x, torch.tensor(centers), centroid_bits=p_c, residual_bits=p_r)
    assert [Fraction(c) for c in got.centroids.tolist()] == coarse
    assert got.assignment.tolist() == own
    assert got.residual.tolist() == steps
    # Python rounds a rational to float64 once, and float32 after it: exact sums have too few bits for that to matter.
    sums = [float(coarse[c] + r) for c, r in zip(own, residuals, strict=True)]
    assert got.values.tolist() == torch.tensor(sums, dtype=torch.float64).float().tolist()


def test_towards_zero_on_both_sides() -> None:
    got = kmeans1d_split(torch.tensor([0.7, -0.7, 0.2, -0.2]), torch.tensor([0.0]), centroid_bits=0, residual_bits=1)
    assert got.residual.tolist() == [1, -1, 0, 0]


def test_a_remainder_too_small_for_float64_counts() -> None:
    """1e-30 - 1 is not -1: truncated towards zero it is one step short of it."""
    got = kmeans1d_split(torch.tensor([1e-30, 0.0]), torch.tensor([1.0]), centroid_bits=0, residual_bits=20)
    assert got.residual.tolist() == [1 - 2**20, -(2**20)]


def test_nothing_is_lost_on_the_grid() -> None:
    steps = torch.randint(-1000, 1000, (5000,), generator=torch.Generator().manual_seed(0))
    x = steps.float() / 1024
    got = kmeans1d_split(x, 16, centroid_bits=6, residual_bits=10)
    assert torch.equal(got.values, x)
    assert not torch.equal(got.centroids[got.assignment.long()], x)


def test_no_residual_and_merged_centroids() -> None:
    x = torch.randn(3000, generator=torch.Generator().manual_seed(0)) * 0.1
    got = kmeans1d_split(x, 16, centroid_bits=4, residual_bits=0)
    assert not got.residual.any()
    assert torch.equal(got.values, got.centroids[got.assignment.long()])
    assert len(got.centroids) < 16
    assert ((got.centroids * 16) % 1 == 0).all()


def test_shapes() -> None:
    got = kmeans1d_split(torch.ones(3, 4).t(), torch.tensor([1.0]), centroid_bits=3, residual_bits=3)
    assert got.assignment.shape == got.residual.shape == got.values.shape == (4, 3)
    empty = kmeans1d_split(torch.ones(0, 4), torch.tensor([1.0]), centroid_bits=3, residual_bits=3)
    assert empty.values.shape == (0, 4)
    with pytest.raises(EmptyDataError):
        kmeans1d_split(torch.ones(0), 2, centroid_bits=3, residual_bits=3)


def test_errors_name_the_element() -> None:
    x = torch.zeros(40_000)
    x[30_000] = 2.0**31
    with pytest.raises(InvalidArgumentError, match=r"element 30000 .* does not fit"):
        kmeans1d_split(x, torch.tensor([0.0]), centroid_bits=20, residual_bits=20)
    with pytest.raises(InvalidArgumentError, match=r"element 30000 .* does not fit"):
        kmeans1d_split(x, torch.tensor([0.0]), centroid_bits=0, residual_bits=0)
    for p_c, p_r in ((-1, 0), (41, 0), (0, -1), (0, 41), (True, 0), (0, 1.5)):
        with pytest.raises(InvalidArgumentError, match=r"_bits \(p_"):
            kmeans1d_split(x, torch.tensor([0.0]), centroid_bits=p_c, residual_bits=p_r)
    for centroids in (torch.zeros(0), torch.zeros(2, 2), torch.zeros(2, dtype=torch.int32)):
        with pytest.raises(InvalidArgumentError, match="centroids are"):
            kmeans1d_split(x, centroids, centroid_bits=1, residual_bits=1)
    with pytest.raises(NonFiniteValueError, match="centroids hold"):
        kmeans1d_split(x, torch.tensor([math.nan]), centroid_bits=1, residual_bits=1)
    for centroids in (torch.tensor([2.0, 1.0]), torch.tensor([1.0, 1.0])):
        with pytest.raises(InvalidArgumentError, match="strictly increasing"):
            torch.ops.privkernels.kmeans1d_split(x, centroids, 1, 1)
