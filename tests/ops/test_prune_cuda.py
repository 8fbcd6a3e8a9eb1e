"""prune on a CUDA device: the CPU's bits, the caller's stream, named errors."""

from __future__ import annotations

import math

import pytest
import torch

from privkernels.errors import NonFiniteValueError
from privkernels.ops import (
    pack_mask,
    prune_apply_,
    prune_keep_probabilities,
    prune_mask,
    prune_pattern_mask,
    prune_project,
    prune_project_,
    prune_random_mask,
)
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

KEY = Key.from_seed(4)
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


def tensors_of(dtype: torch.dtype) -> list[list[torch.Tensor]]:
    x = torch.randn(300_007, generator=torch.Generator().manual_seed(1)).to(dtype)
    ties = x.round()
    infinite = torch.where(x > 2, torch.tensor(math.inf, dtype=dtype), x)
    return [[x[:7], x[7:9000], x[:0], x[9000:]], [ties], [infinite[::3]], [x[:300_000].view(300, 1000).t()], [x[:1]]]


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_and_projections_are_the_cpus(dtype: torch.dtype) -> None:
    for tensors in tensors_of(dtype):
        size = sum(x.numel() for x in tensors)
        there = [x.cuda() if x.is_contiguous() else x.contiguous().cuda() for x in tensors]
        for keep in sorted({0, 1, size // 10, size // 2, size}):
            for as_bits in (False, True):
                expected, threshold = prune_mask(tensors, keep=keep, as_bits=as_bits)
                got, found = prune_mask(there, keep=keep, as_bits=as_bits)
                assert all(torch.equal(a.cpu(), b) for a, b in zip(got, expected, strict=True))
                assert torch.equal(found.cpu(), threshold)
            signed, _ = prune_mask(tensors, keep=keep, rank_by="value")
            got, _ = prune_mask(there, keep=keep, rank_by="value")
            assert all(torch.equal(a.cpu(), b) for a, b in zip(got, signed, strict=True))
            wanted = prune_project(tensors, keep=keep)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(prune_project(there, keep=keep), wanted, strict=True))
            copies = [x.clone() for x in there]
            prune_project_(copies, keep=keep)
            assert all(torch.equal(a.cpu(), b) for a, b in zip(copies, wanted, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_patterns_application_and_random_masks_are_the_cpus(dtype: torch.dtype) -> None:
    x = torch.randn(130, 83, generator=torch.Generator().manual_seed(2)).to(dtype)
    for n, m in ((2, 4), (1, 4), (5, 9)):
        for dim in (0, 1):
            assert torch.equal(prune_pattern_mask(x.cuda(), n, m, dim=dim).cpu(), prune_pattern_mask(x, n, m, dim=dim))
    mask = x > 0
    for given in (mask, pack_mask(mask)):
        y, z = x.clone(), x.cuda()
        prune_apply_(y, given)
        prune_apply_(z, given.cuda())
        assert torch.equal(z.cpu(), y)
    (p,) = prune_keep_probabilities(x)
    assert torch.equal(prune_keep_probabilities(x.cuda())[0].cpu(), p)
    for first in (0, 77, 2**40 + 1):
        (expected,) = prune_random_mask(x, key=KEY, label="c", first_element=first)
        (got,) = prune_random_mask(x.cuda(), key=KEY, label="c", first_element=first)
        assert torch.equal(got.cpu(), expected)


def test_nan_is_named_and_nothing_is_changed() -> None:
    x, y = torch.ones(9).cuda(), torch.ones(50_000).cuda()
    y[40_000], y[49_999] = math.nan, math.nan
    for call in (prune_mask, prune_project, prune_project_):
        with pytest.raises(NonFiniteValueError, match="tensor 1 holds NaN in element 40000 "):
            call([x, y], keep=5)
    assert x.sum() == 9
    with pytest.raises(NonFiniteValueError, match="element 40000 "):
        prune_pattern_mask(y, 2, 4)


def test_runs_on_the_callers_stream() -> None:
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    expected, _ = prune_mask(x, keep=1000)
    source = x.cuda()
    late = torch.full_like(source, math.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        got, _ = prune_mask(late, keep=1000)
    stream.synchronize()
    assert torch.equal(got[0].cpu(), expected[0])


def test_application_runs_on_the_callers_stream() -> None:
    """It returns before it is done: nothing is read back."""
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    source, mask = x.cuda(), (x > 0).cuda()
    late, late_mask = torch.zeros_like(source), torch.ones_like(mask)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        late_mask.copy_(mask)
        prune_apply_(late, late_mask)
    stream.synchronize()
    assert torch.equal(late.cpu(), torch.where(x > 0, x, 0))
