"""kmeans1d on a CUDA device: the CPU's bits, the caller's stream, named errors."""

from __future__ import annotations

import math

import pytest
import torch

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import Clusters, kmeans1d, kmeans1d_layers, kmeans1d_split
from tests.support.kmeans1d_values import EMPTIES_A_CLUSTER

pytestmark = pytest.mark.gpu


def normal(size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def values_of(kind: str) -> torch.Tensor:
    x = normal(300_007)
    match kind:
        case "pruned":  # starting values coincide
            return torch.where(x.abs() < 1, torch.zeros(()), x)
        case "few":
            return (x * 8).round() / 8
        case "positive":
            return x.abs() + 0.5
        case "negative":
            return -x.abs() - 0.5
        case "outlier":
            return torch.cat([x, torch.tensor([3e38, -3e38, 1e-40, -1e-40, 0.0, -0.0])])
        case "equal":
            return torch.full((70_000,), -0.0)
        case "strided":
            return x[:300_000].view(300, 1000).t()
        case "half":
            return x.half()
    return x


def same(got: Clusters, expected: Clusters) -> None:
    assert (got.inertia, got.method, got.iterations) == (expected.inertia, expected.method, expected.iterations)
    assert got.centroids.is_cuda
    assert got.assignment.is_cuda
    assert torch.equal(got.centroids.cpu(), expected.centroids)
    assert torch.equal(got.assignment.cpu(), expected.assignment)


@pytest.mark.parametrize(
    "kind", ["normal", "pruned", "few", "positive", "negative", "outlier", "equal", "strided", "half"]
)
def test_clusters_are_the_cpus_bits(kind: str) -> None:
    x = values_of(kind)
    for k in (1, 2, 16, 257, 40_000):
        for iterations in (0, 1, 16, 40):
            got = kmeans1d(x.cuda(), k, iterations=iterations, method="lloyd")
            same(got, kmeans1d(x, k, iterations=iterations, method="lloyd"))


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 4095, 4096, 4097, 8193, 70_001])
def test_every_size_and_method(size: int) -> None:
    for x in (normal(size), (normal(size) * 4).round()):
        for k in (1, 3, 100):
            for method in ("auto", "lloyd", "optimal"):
                if method != "optimal" or size * k <= 2**20:
                    same(kmeans1d(x.cuda(), k, method=method), kmeans1d(x, k, method=method))


def test_an_empty_cluster_and_the_limit_of_auto() -> None:
    x = torch.tensor(EMPTIES_A_CLUSTER)
    same(kmeans1d(x.cuda(), 10, iterations=30, method="lloyd"), kmeans1d(x, 10, iterations=30, method="lloyd"))
    for size in (2**12, 2**12 + 1):  # k D just at 2^20, and above
        x = torch.arange(size).float()
        same(kmeans1d(x.cuda(), 256), kmeans1d(x, 256))


@pytest.mark.parametrize("k", [1, 16, 300, 40_000])
def test_the_split_is_the_cpus_bits(k: int) -> None:
    for x in (normal(100_003), normal(100_000).view(100, 1000).t(), normal(50_000).bfloat16(), normal(3)):
        centroids = normal(k, 1)
        for p_c, p_r in ((8, 12), (12, 0), (0, 20)):
            got = kmeans1d_split(x.cuda(), centroids.cuda(), centroid_bits=p_c, residual_bits=p_r)
            expected = kmeans1d_split(x, centroids, centroid_bits=p_c, residual_bits=p_r)
            for name in ("centroids", "assignment", "residual", "values"):
                assert torch.equal(getattr(got, name).cpu(), getattr(expected, name)), name
    empty = kmeans1d_split(normal(0).cuda(), normal(k).cuda(), centroid_bits=3, residual_bits=3)
    assert empty.values.shape == (0,)


def test_layers_on_both_devices() -> None:
    layers = [normal(5000), normal(70_000, 1).cuda(), normal(9000, 2), normal(300, 3).cuda()]
    for got, x in zip(kmeans1d_layers(layers, 16), layers, strict=True):
        assert got.centroids.device == x.device
        assert torch.equal(got.centroids.cpu(), kmeans1d(x.cpu(), 16).centroids)


def test_errors_name_the_element() -> None:
    x = normal(100_000)
    x[40_000], x[99_999] = math.nan, math.inf
    with pytest.raises(NonFiniteValueError, match="element 40000 "):
        kmeans1d(x.cuda(), 4)
    with pytest.raises(NonFiniteValueError, match="element 40000 "):
        kmeans1d_split(x.cuda(), torch.zeros(1).cuda(), centroid_bits=1, residual_bits=1)
    x = torch.zeros(40_000)
    x[30_000], x[30_001] = 2.0**31, 2.0**40
    with pytest.raises(InvalidArgumentError, match=r"element 30000 .* does not fit"):
        kmeans1d_split(x.cuda(), torch.zeros(1).cuda(), centroid_bits=20, residual_bits=20)
    with pytest.raises(InvalidArgumentError, match=r"2\*\*26"):
        kmeans1d(normal(300_000).cuda(), 1000, method="optimal")
    with pytest.raises(InvalidArgumentError, match="strictly increasing"):
        torch.ops.privkernels.kmeans1d_split(x.cuda(), torch.tensor([2.0, 1.0]).cuda(), 1, 1)


def test_runs_on_the_callers_stream() -> None:
    source = normal(100_000).cuda()
    late = torch.full_like(source, math.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        got = kmeans1d(late, 16)
    stream.synchronize()
    same(got, kmeans1d(source.cpu(), 16))
