"""randomized_response on a CUDA device: the CPU's results, named errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from privkernels.errors import InvalidArgumentError
from privkernels.ops import randomized_response
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

DRAW: dict[str, Any] = {"epsilon": 1.0, "key": Key.from_seed(4), "label": "cuda"}


@pytest.mark.parametrize("categories", [2, 7, 1000, 2**31])
@pytest.mark.parametrize(("size", "first_element"), [(0, 0), (1, 5), (1000, 3), (500_009, 2**40 - 3)])
def test_cuda_gives_the_cpus_results(categories: int, size: int, first_element: int) -> None:
    values = torch.randint(0, categories, (size,), generator=torch.Generator().manual_seed(size))
    arguments = {"categories": categories, "first_element": first_element, **DRAW}
    got = randomized_response(values.cuda(), **arguments)
    assert got.is_cuda
    assert torch.equal(got.cpu(), randomized_response(values, **arguments))


def test_strides() -> None:
    values = torch.randint(0, 9, (40, 50), generator=torch.Generator().manual_seed(0))
    expected = randomized_response(values, categories=9, **DRAW)
    got = randomized_response(values.cuda().t().contiguous().t(), categories=9, **DRAW)
    assert torch.equal(got.cpu(), expected)


def test_the_first_value_out_of_range_is_named() -> None:
    values = torch.zeros(100_000, dtype=torch.int64, device="cuda")
    values[70_000], values[60_000] = -1, 9
    with pytest.raises(InvalidArgumentError, match="element 60000 is 9"):
        randomized_response(values, categories=9, **DRAW)


def test_runs_on_the_callers_stream() -> None:
    """The values are still being written on that stream when the call is made."""
    values = torch.randint(0, 9, (100_000,), generator=torch.Generator().manual_seed(1))
    expected = randomized_response(values, categories=9, **DRAW)
    source = values.cuda()
    late = torch.full_like(source, -1)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        got = randomized_response(late, categories=9, **DRAW)
    stream.synchronize()
    assert torch.equal(got.cpu(), expected)
