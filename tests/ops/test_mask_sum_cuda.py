"""mask_sum on a CUDA device: the CPU's bits, the caller's stream."""

from __future__ import annotations

import pytest
import torch

from privkernels.ops import mask_sum, mask_sum_
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("seeds", [1, 3, 500])
def test_has_the_cpus_bits(dtype: torch.dtype, seeds: int) -> None:
    """Few seeds and many, so that one thread sums them all, or several add to an element."""
    keys = [Key.from_seed(seed) for seed in range(seeds)]
    signs = [1 if seed % 3 else -1 for seed in range(seeds)]
    for size, first in ((1, 0), (129, 127), (5000, 77), (1_000_001 // seeds, 2**36 - 1000)):
        values = torch.arange(size, dtype=dtype) * 12345
        expected = mask_sum(values, keys, signs, round=2, first_element=first)
        assert torch.equal(mask_sum(values.cuda(), keys, signs, round=2, first_element=first).cpu(), expected)
        strided = values.cuda().repeat_interleave(2)[::2]
        mask_sum_(strided, keys, signs, round=2, first_element=first)
        assert torch.equal(strided.cpu(), expected)


def test_runs_on_the_callers_stream() -> None:
    """The values are still being written on that stream when the call is made."""
    values = torch.arange(100_000, dtype=torch.int32) * 12345
    keys, signs = [Key.from_seed(seed) for seed in range(3)], [1, -1, 1]
    expected = mask_sum(values, keys, signs)
    source = values.cuda()
    late, changed = torch.zeros_like(source), torch.zeros_like(source)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        changed.copy_(source)
        got = mask_sum(late, keys, signs)
        mask_sum_(changed, keys, signs)
    stream.synchronize()
    assert torch.equal(got.cpu(), expected)
    assert torch.equal(changed.cpu(), expected)
