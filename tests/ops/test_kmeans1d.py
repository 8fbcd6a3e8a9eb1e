"""kmeans1d against plain references: the optimum by brute force, Lloyd's algorithm, ties, extremes, layouts, errors."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops import kmeans1d, kmeans1d_layers, kmeans1d_reference, kmeans1d_split
from tests.support.kmeans1d_values import EMPTIES_A_CLUSTER

FLOATS = st.floats(-100, 100, width=32)


def normal(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def nearest(values: torch.Tensor, centroids: torch.Tensor) -> list[int]:
    """In exact rationals; the first of equals is the lower."""
    centers = [Fraction(c) for c in centroids.tolist()]
    return [min(range(len(centers)), key=lambda c: abs(Fraction(v) - centers[c])) for v in values.flatten().tolist()]


def cost(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((v - mean) ** 2 for v in values)


def least_inertia(values: list[float], k: int) -> float:
    """Over all ways to cut the sorted values into at most k parts."""
    ordered, size = sorted(values), len(values)
    best = math.inf
    for parts in range(1, min(k, size) + 1):
        for cuts in itertools.combinations(range(1, size), parts - 1):
            edges = [0, *cuts, size]
            best = min(best, math.fsum(cost(ordered[a:b]) for a, b in itertools.pairwise(edges)))
    return best


@given(st.lists(FLOATS, min_size=1, max_size=9), st.integers(1, 5))
@settings(max_examples=150)
def test_optimal_is_the_least_of_all(values: list[float], k: int) -> None:
    got = kmeans1d(torch.tensor(values), k, method="optimal")
    scale = sum(v * v for v in values) + 1e-30
    assert got.method == "optimal"
    assert len(got.centroids) == min(k, len(set(values)))  # 0.0 == -0.0
    # Centroids are rounded to float32, which costs at most the square of that.
    assert got.inertia == pytest.approx(least_inertia(values, k), rel=1e-6, abs=1e-12 * scale)


def test_optimal_beats_lloyd_where_lloyd_is_stuck() -> None:
    values = torch.cat([torch.zeros(90), torch.tensor([10.0, 10.1, 20.0, 20.1, 30.0, 30.1])])
    best, local = (kmeans1d(values, 4, method=m).inertia for m in ("optimal", "lloyd"))
    assert best == pytest.approx(3 * 0.005, rel=1e-4)
    assert local >= best


@given(st.lists(FLOATS | st.sampled_from([0.0, -0.0, 1.0, 1e-40]), min_size=1, max_size=60), st.integers(1, 12))
@settings(max_examples=150)
def test_lloyd_against_the_reference(values: list[float], k: int) -> None:
    x = torch.tensor(values)
    centroids, assignment, inertia = kmeans1d_reference(x, k, iterations=20)
    got = kmeans1d(x, k, iterations=20, method="lloyd")
    assert got.method == "lloyd"
    # Means in another order of summation may round to the neighbouring float32, and then a tie falls otherwise: compare
    # bits where the reference is not on such an edge, which is nearly everywhere, and always what defines the result.
    assert got.assignment.tolist() == nearest(x, got.centroids)
    own = got.centroids[got.assignment.long()].double()
    assert got.inertia == pytest.approx(float((x.double() - own).square().sum()), rel=1e-12)
    assert (got.centroids.diff() > 0).all()
    assert len(got.centroids) == len(centroids)
    if len(set(values)) <= k:
        assert got.inertia == 0
        assert torch.equal(got.centroids, x.unique() + 0.0)
        assert torch.equal(got.assignment.long(), assignment)
    assert inertia >= 0


@pytest.mark.parametrize("k", [1, 2, 7, 16, 24, 25, 26, 100, 256, 257])
@pytest.mark.parametrize("size", [1000, 4096, 8193, 70_000])
def test_lloyd_on_normal_values(size: int, k: int) -> None:
    x = normal(size)
    few = 3
    got = kmeans1d(x, k, iterations=few, method="lloyd")
    if size <= 8193:
        centroids, assignment, inertia = kmeans1d_reference(x, k, iterations=few)
        assert torch.allclose(got.centroids, centroids, rtol=1e-6, atol=1e-7)
        assert (got.assignment.long() != assignment).float().mean() < 1e-3
        assert got.inertia == pytest.approx(float(inertia), rel=1e-6)
    distances = (x.double()[:, None] - got.centroids.double()).abs() if k <= 100 else None
    if distances is not None:
        assert torch.equal(distances.argmin(1), got.assignment.long())
        assert got.inertia == pytest.approx(float(distances.min(1).values.square().sum()), rel=1e-12)
    assert got.iterations == (few if k > 1 else 2)
    assert got.assignment.dtype == (torch.uint8 if k <= 256 else torch.int16)


def test_stops_where_no_centroid_moves() -> None:
    got = kmeans1d(torch.tensor([0.0, 0.1, 5.0, 5.1]), 2, iterations=1000, method="lloyd")
    assert got.iterations <= 3
    assert got.centroids.tolist() == pytest.approx([0.05, 5.05])
    assert kmeans1d(normal(100), 5, iterations=0, method="lloyd").centroids.tolist() == pytest.approx(
        [float(normal(100).sort().values[r]) for r in (10, 30, 50, 70, 90)]
    )


TINY = 2.0**-149


@pytest.mark.parametrize(
    ("low", "high", "value", "expected"),
    [
        (0.0, 2.0, 1.0, 0), (-1.0, 1.0, 0.0, 0), (-1.0, 1.0, -0.0, 0), (0.0, 2.0, 1.0 + 2.0**-23, 1),
        (1.0, 1.0 + 2.0**-22, 1.0 + 2.0**-23, 0), (TINY, 2.0**100, 2.0**99, 0), (-TINY, 2.0**100, 2.0**99, 1),
        (0.0, 3 * TINY, TINY, 0), (0.0, 3 * TINY, 2 * TINY, 1), (-3e38, 3.2e38, 1e37, 1), (-3e38, 3.2e38, 9e36, 0),
    ],
)  # fmt: skip
def test_ties_go_to_the_lower_exactly(low: float, high: float, value: float, expected: int) -> None:
    """Also where float64's sum of two centroids is rounded. Without iterations the centroids are the quantiles."""
    x = torch.tensor([low] * 1000 + [value] + [high] * 1000)
    got = kmeans1d(x, 2, iterations=0, method="lloyd")
    assert got.centroids.tolist() == torch.tensor([low, high]).tolist()
    assert int(got.assignment[1000]) == expected == nearest(x[1000:1001], got.centroids)[0]


@pytest.mark.parametrize("method", ["optimal", "lloyd"])
@pytest.mark.parametrize(
    "x",
    [
        torch.full((500,), 3.25),
        torch.cat([normal(500), torch.tensor([-1e30])]),
        torch.cat([normal(500), torch.tensor([1e30])]),
        torch.cat([normal(5000), torch.tensor([-3e38, 3e38])]),
        normal(500) * 1e-40,
        1e6 + normal(5000),
        torch.tensor([0.0, -0.0] * 10 + [1.0]),
        torch.cat([torch.zeros(4000), normal(400)]),
    ],
    ids=["equal", "low outlier", "high outlier", "both", "denormals", "offset", "signed zeros", "pruned"],
)
def test_extremes(x: torch.Tensor, method: Any) -> None:
    got = kmeans1d(x, 5, method=method)
    assert len(got.centroids) == min(5, len(x.unique()))
    assert (got.centroids.diff() > 0).all()
    assert got.assignment.tolist() == nearest(x, got.centroids)
    own = got.centroids[got.assignment.long()].double()
    assert got.inertia == pytest.approx(float((x.double() - own).square().sum()), rel=1e-12)
    if method == "lloyd":
        for c in range(len(got.centroids)):
            members = x[got.assignment == c].double()
            if got.iterations < 20 and len(members):  # converged: every centroid is its cluster's mean
                mean = math.fsum(members.tolist()) / len(members)
                assert float(got.centroids[c]) == pytest.approx(mean, rel=1e-6, abs=1e-45)


def test_an_outlier_costs_no_accuracy() -> None:
    """The means of the other clusters are right although one value is 1e30 times larger, at either end."""
    x = normal(20_000)  # several groups of 4096, whose sums are added from zero outwards
    for outlier in (-1e30, 1e30):
        got = kmeans1d(torch.cat([x, torch.tensor([outlier])]), 2, iterations=50, method="lloyd")
        other = got.centroids[1 if outlier < 0 else 0]
        assert float(other) == pytest.approx(float(x.double().mean()), rel=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.57, 0.9])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_many_huge_values_cost_no_accuracy(sign: float, share: float) -> None:
    """Not only outliers: whole groups of values that are 1e30 times larger than the others, and all positive ones."""
    size = 40_000
    small = normal(size - int(size * share))
    for others in (small, small.abs(), -small.abs()):
        x = torch.cat([others, torch.full((int(size * share),), sign * 1e30)])
        got = kmeans1d(x, 2, iterations=50, method="lloyd")
        other = got.centroids[1 if sign < 0 else 0]
        assert float(other) == pytest.approx(float(others.double().mean()), rel=2e-7, abs=1e-9)
        assert float(got.centroids[0 if sign < 0 else 1]) == pytest.approx(sign * 1e30)


def test_a_large_offset() -> None:
    """Means of values around 1e6 are right to float32's last place."""
    x = 1e6 + normal(100_000)
    got = kmeans1d(x, 3, iterations=200, method="lloyd")
    for c in range(3):
        members = x[got.assignment == c].double()
        assert abs(float(got.centroids[c]) - float(members.mean())) <= 2**-5


def test_an_empty_cluster_keeps_its_centroid() -> None:
    x = torch.tensor(EMPTIES_A_CLUSTER)
    got = kmeans1d(x, 10, iterations=30, method="lloyd")
    assert len(got.centroids) == 10 > len(got.assignment.unique())
    assert (got.centroids.diff() > 0).all()
    assert got.assignment.tolist() == nearest(x, got.centroids)
    assert torch.equal(got.centroids, kmeans1d_reference(x, 10, iterations=30)[0])


def test_auto() -> None:
    assert kmeans1d(normal(1000), 16).method == "optimal"
    assert kmeans1d(normal(70_000), 16).method == "lloyd"
    assert kmeans1d(normal(70_000).round(), 16).method == "optimal"
    # k D <= 2^20 counts every distinct value, the first one too.
    assert kmeans1d(torch.arange(2.0**12), 256).method == "optimal"
    assert kmeans1d(torch.arange(2.0**12 + 1), 256).method == "lloyd"
    with pytest.raises(InvalidArgumentError, match="2\\*\\*26"):
        kmeans1d(torch.arange(2_000_000).float(), 64, method="optimal")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dtypes_and_layouts(dtype: torch.dtype) -> None:
    base = normal(120).to(dtype)
    for x in (base.reshape(10, 12).t(), base[::3], base[:1].expand(7), base.reshape(2, 3, 4, 5), base[5], base[3:]):
        got, plain = kmeans1d(x, 4), kmeans1d(x.contiguous().float(), 4)
        assert torch.equal(got.centroids, plain.centroids)
        assert torch.equal(got.assignment, plain.assignment)
        assert got.assignment.shape == x.shape


def test_layers() -> None:
    layers = [normal(size, size) for size in (1, 10_000, 300, 70_000)]
    for got, layer in zip(kmeans1d_layers(layers, 16), layers, strict=True):
        alone = kmeans1d(layer, 16)
        assert (got.inertia, got.method, got.iterations) == (alone.inertia, alone.method, alone.iterations)
        assert torch.equal(got.assignment, alone.assignment)
    assert kmeans1d_layers([], 3) == []
    assert len(kmeans1d_layers(torch.zeros(3, 4), 3)) == 1  # one layer, and not its rows


def test_errors_name_the_layer() -> None:
    good = torch.zeros(3)
    for error, bad, message in (
        (NonFiniteValueError, torch.tensor([0.0, math.nan]), "layer 1: .*element 1 "),
        (EmptyDataError, torch.zeros(0), "layer 1: .*empty"),
        (InvalidArgumentError, good.double(), "layer 1: values must be"),
    ):
        with pytest.raises(error, match=message):
            kmeans1d_layers([good, bad], 2)
    with pytest.raises(InvalidArgumentError, match="layers must be"):
        kmeans1d_layers(3, 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="method must be"):
        kmeans1d_layers([good], 2, method=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite(bad: float) -> None:
    x = normal(70_000)
    x[300], x[69_999] = bad, bad
    with pytest.raises(NonFiniteValueError, match="element 300 "):
        kmeans1d(x, 3)
    with pytest.raises(NonFiniteValueError, match="element 300 "):
        kmeans1d_split(x, torch.tensor([0.0]), centroid_bits=1, residual_bits=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": torch.zeros(3, dtype=torch.float64)}, "values must be"), ({"values": [1.0]}, "values must be"),
        ({"values": torch.zeros(3).to_sparse()}, "dense"),
        ({"k": 0}, "k must be"), ({"k": 65537}, "k must be"), ({"k": True}, "k must be"), ({"k": 2.0}, "k must be"),
        ({"iterations": -1}, "iterations"), ({"method": "median"}, "method must be"),
        ({"method": None}, "method must be"),
    ],
)  # fmt: skip
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        kmeans1d(**{"values": torch.zeros(3), "k": 2} | arguments)


def test_empty() -> None:
    with pytest.raises(EmptyDataError):
        kmeans1d(torch.zeros(0, 3), 2)


def test_the_kernel_refuses_what_python_would_not_pass() -> None:
    good: list[Any] = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1]
    for place, value in ((1, -1), (2, 0), (2, 65537), (3, -1), (5, 3)):
        arguments = list(good)
        arguments[1] = 1
        arguments[place] = value
        assert _native.cpu().kmeans1d(*arguments)[0] == 1, place
