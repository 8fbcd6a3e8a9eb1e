"""kmeans1d gives the same bits on any number of threads and any instruction set; and as a PyTorch operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.ops import kmeans1d, kmeans1d_split
from tests.support.instruction_sets import assert_same_bits

KMEANS = torch.ops.privkernels.kmeans1d.default
SPLIT = torch.ops.privkernels.kmeans1d_split.default

PROGRAM = """
from privkernels.ops import kmeans1d, kmeans1d_split
for size in (1, 63, 1000, 100_001):
    x = torch.randn(size, generator=torch.Generator().manual_seed(size)) + 0.3
    for k in (1, 5, 16, 300, 40_000):
        digest = hashlib.sha256()
        for method in ("optimal", "lloyd"):
            if k > 20 and method == "optimal" or size * k > 2**24 and method == "optimal":
                continue
            got = kmeans1d(x, k, method=method)
            split = kmeans1d_split(x, got.centroids, centroid_bits=9, residual_bits=17)
            digest.update(repr(got.inertia).encode() + got.centroids.numpy().tobytes())
            for t in (got.assignment, split.assignment, split.residual, split.values):
                digest.update(t.numpy().tobytes())
        digests[f"{size} {k}"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=11)


def test_one_and_more_threads(set_threads: Callable[[int], None]) -> None:
    x = torch.randn(300_001, generator=torch.Generator().manual_seed(0))
    set_threads(1)
    expected, split = kmeans1d(x, 40), kmeans1d_split(x, 40, centroid_bits=8, residual_bits=12)
    for threads in (2, 3, 64):
        set_threads(threads)
        got, again = kmeans1d(x, 40), kmeans1d_split(x, 40, centroid_bits=8, residual_bits=12)
        assert got.inertia == expected.inertia
        assert torch.equal(got.centroids, expected.centroids)
        assert torch.equal(got.assignment, expected.assignment)
        assert torch.equal(again.residual, split.residual)
        assert torch.equal(again.values, split.values)


def test_the_order_of_the_values_does_not_matter() -> None:
    x = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(10_000, generator=torch.Generator().manual_seed(1))
    got, mixed = kmeans1d(x, 16, method="lloyd"), kmeans1d(x[order], 16, method="lloyd")
    assert torch.equal(got.centroids, mixed.centroids)
    assert torch.equal(got.assignment[order], mixed.assignment)
    assert got.inertia == mixed.inertia


@pytest.mark.parametrize("x", [torch.arange(20.0), torch.ones(4, 6).t(), torch.ones(()), torch.ones(5).half()])
def test_opcheck(x: torch.Tensor) -> None:
    for method in ("auto", "optimal", "lloyd"):
        torch.library.opcheck(KMEANS, (x, 3, 5, method))
    torch.library.opcheck(SPLIT, (x, torch.tensor([0.0, 1.0]), 4, 8))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        centroids, assignment, _, _ = KMEANS(x * 2, 4, 5, "lloyd")
        return SPLIT(x, centroids, 40, 10)[2] + centroids[assignment.long()]

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (5, 300, 301):
        x = torch.randn(size, 2, generator=torch.Generator().manual_seed(size))
        assert torch.equal(compiled(x), function(x))


def test_fake_tensors() -> None:
    with FakeTensorMode():
        centroids, assignment, inertia, summary = KMEANS(torch.empty(4, 6), 300, 5, "auto")
        assert (centroids.shape, assignment.shape, assignment.dtype) == ((300,), (4, 6), torch.int16)
        assert (inertia.dtype, summary.shape) == (torch.float64, (3,))
