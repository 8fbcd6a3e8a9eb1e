"""em_select on a CUDA device: the CPU's indices, the caller's stream, named errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops import em_select
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

DRAW: dict[str, Any] = {"key": Key.from_seed(4), "label": "cuda", "first_segment": 3}
# rows, n, k, multiplier, scale: one candidate, part of a warp, more rows than thread blocks, several levels of search.
CASES = [
    (1, 1, 1, 1.0, 1.0), (700, 9, 9, 2.0, 1.0), (300, 257, 2, 0.1, 30.0), (40, 1000, 5, 1e-30, 1e30),
    (50_000, 33, 1, 1.0, 3.0), (1, 300_001, 3, 1.0, 5.0), (3, 2_000_003, 1, 1.0, 1.0), (50, 64, 64, 0.0, 1.0),
    (2, 16_385, 4, 1e300, 1.0),
]  # fmt: skip


def make_scores(rows: int, size: int, scale: float, dtype: torch.dtype) -> torch.Tensor:
    scores = torch.randn(rows, size, generator=torch.Generator().manual_seed(rows + size), dtype=torch.float64) * scale
    return scores.to(dtype)


@pytest.mark.parametrize("mechanism", ["exponential", "permute-and-flip"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "size", "k", "multiplier", "scale"), CASES)
def test_cuda_gives_the_cpus_indices(
    rows: int, size: int, k: int, multiplier: float, scale: float, dtype: torch.dtype, mechanism: Any
) -> None:
    scores = make_scores(rows, size, scale, dtype)
    arguments = {"multiplier": multiplier, "k": k, "mechanism": mechanism, **DRAW}
    got = em_select(scores.cuda(), **arguments)
    assert got.is_cuda
    assert torch.equal(got.cpu(), em_select(scores, **arguments))


@pytest.mark.parametrize("mechanism", ["exponential", "permute-and-flip"])
def test_ragged_segments_and_strides(mechanism: Any) -> None:
    lengths = torch.tensor([5, 40_000, 1 + 2, 300, 131_072, 77])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    scores = make_scores(1, int(offsets[-1]), 2.0, torch.float32)[0]
    arguments = {"multiplier": 1.0, "k": 3, "mechanism": mechanism, **DRAW}
    expected = em_select(scores, offsets=offsets, **arguments)
    wide = torch.zeros(2 * len(scores), device="cuda")
    wide[::2] = scores.cuda()
    for layout in (scores.cuda(), wide[::2]):
        assert torch.equal(em_select(layout, offsets=offsets.cuda(), **arguments).cpu(), expected)
    rows = make_scores(30, 200, 2.0, torch.float32)
    for k in (1, 4):
        arguments["k"] = k
        got = em_select(rows.t().contiguous().cuda().t(), **arguments)
        assert torch.equal(got.cpu(), em_select(rows, **arguments))


def test_runs_on_the_callers_stream() -> None:
    """The scores are still being written on that stream when the call is made."""
    scores = make_scores(500, 300, 1.0, torch.float32)
    expected = em_select(scores, multiplier=1.0, **DRAW)
    late, source = torch.full_like(scores, math.nan, device="cuda"), scores.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        index = em_select(late, multiplier=1.0, **DRAW)
    stream.synchronize()
    assert torch.equal(index.cpu(), expected)


def test_inputs_are_not_written() -> None:
    scores = make_scores(5, 300, 1.0, torch.float32).cuda()
    before = scores.clone()
    em_select(scores, multiplier=1.0, k=4, **DRAW)
    assert torch.equal(scores, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_named(bad: float) -> None:
    scores = torch.zeros(500, 700, device="cuda")
    scores[123, 456], scores[123, 457], scores[400, 1] = bad, bad, bad
    offsets = torch.arange(0, 500 * 700 + 1, 700, device="cuda")
    for call in (
        lambda: em_select(scores, multiplier=1.0, **DRAW),
        lambda: em_select(scores.reshape(-1), offsets=offsets, multiplier=1.0, k=2, **DRAW),
    ):
        with pytest.raises(NonFiniteValueError, match="score 456 of segment 123 "):
            call()


def test_bad_layouts() -> None:
    scores = torch.zeros(9, device="cuda")
    with pytest.raises(InvalidArgumentError, match="offsets must be int64"):
        em_select(scores, offsets=torch.tensor([0, 9]), multiplier=1.0, **DRAW)
    with pytest.raises(InvalidArgumentError, match="must not decrease"):
        em_select(scores, offsets=torch.tensor([0, 5, 4, 9], device="cuda"), multiplier=1.0, **DRAW)
    with pytest.raises(EmptyDataError):
        em_select(scores, offsets=torch.tensor([0, 5, 5, 9], device="cuda"), multiplier=1.0, **DRAW)
    assert em_select(torch.zeros(0, 4, device="cuda"), multiplier=1.0, **DRAW).shape == (0,)


def test_operator_checks_on_the_device() -> None:
    scores = make_scores(5, 40, 1.0, torch.float32).cuda()
    key = Key.from_seed(0).tensor()
    torch.library.opcheck(torch.ops.privkernels.em_select.default, (scores, None, key, 1.0, 2, False, 0))
