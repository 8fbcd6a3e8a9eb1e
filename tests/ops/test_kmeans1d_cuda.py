"""kmeans1d of tensors on a CUDA device, which is done on the processor."""

from __future__ import annotations

import pytest
import torch

from privkernels.ops import kmeans1d, kmeans1d_split

pytestmark = pytest.mark.gpu


def test_kmeans1d_of_device_tensors() -> None:
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    got, expected = kmeans1d(x.cuda(), 16), kmeans1d(x, 16)
    assert torch.equal(got.centroids.cpu(), expected.centroids)
    assert torch.equal(got.assignment.cpu(), expected.assignment)
    split = kmeans1d_split(x.cuda(), 16, centroid_bits=8, residual_bits=12)
    assert torch.equal(split.values.cpu(), kmeans1d_split(x, 16, centroid_bits=8, residual_bits=12).values)
