"""CUDA graphs on a device: what may be captured is replayed on new input, and what refuses leaves the capture whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from privkernels.errors import GraphCaptureError
from privkernels.ops import decode_fixed_point, pack_mask, prune_apply_, unpack_mask
from tests.support.graph_calls import DRAWS, INTERLEAVED, READS, Call

pytestmark = pytest.mark.gpu

REFUSED = [*DRAWS, *READS, ("an operator that works in place on tensors that interleave", INTERLEAVED)]


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def captured(function: Callable[..., Any], *inputs: torch.Tensor) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The graph of function(*inputs), and its result, which every replay overwrites."""
    function(*inputs)  # what is made on first use is not to be made during the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(*inputs)
    return graph, result


@pytest.mark.parametrize(("name", "call"), REFUSED, ids=[name for name, _ in REFUSED])
def test_refuses_and_leaves_the_capture_whole(name: str, call: Call) -> None:
    x = torch.ones(64, device="cuda")
    call(x.clone())

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        if torch.cuda.is_current_stream_capturing():
            with pytest.raises(GraphCaptureError, match=rf"^{name} cannot be captured"):
                call(y)
        return y * 2

    graph, result = captured(function, x)
    x.fill_(3)
    graph.replay()
    assert torch.equal(result.cpu(), torch.full((64,), 8.0))
    call(x.clamp(0, 1))  # and it works again afterwards


@pytest.mark.parametrize("as_bits", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_prune_apply_is_replayed_on_new_tensors_and_masks(dtype: torch.dtype, as_bits: bool) -> None:
    """Contiguous, and transposed, which is worked on in a copy."""
    first, second = (normal(130, 83, seed=seed).to(dtype) for seed in (1, 2))
    x, mask = first.cuda(), (first > 0).cuda()

    def function(x: torch.Tensor, mask: torch.Tensor) -> list[torch.Tensor]:
        results = [x.clone(), x.t().clone(memory_format=torch.contiguous_format).t()]
        prune_apply_(results, [pack_mask(mask) if as_bits else mask] * 2)
        return results

    graph, results = captured(function, x, mask)
    for values in (first, second):
        x.copy_(values)
        mask.copy_(values > 0.5)
        graph.replay()
        for result in results:
            assert torch.equal(result.cpu(), torch.where(values > 0.5, values, 0))


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_noisy_activations_is_replayed(dtype: torch.dtype, norm: bool) -> None:
    backward = torch.ops.privkernels.noisy_activations_backward
    stages = 1.0, norm, False, 5, 1.0, 0.5, 2.0
    inputs = [[normal(2, 9, 700, seed=seed + i).to(dtype) for i in range(2)] for seed in (1, 5)]
    grad, x = (tensor.cuda() for tensor in inputs[0])
    graph, result = captured(lambda grad, x: backward(grad, x, *stages), grad, x)
    for new_grad, new_x in inputs:
        grad.copy_(new_grad)
        x.copy_(new_x)
        graph.replay()
        assert torch.equal(result.cpu(), backward(new_grad, new_x, *stages))


def test_masks_and_fixed_point_are_replayed() -> None:
    """They are plain PyTorch, and nothing of them waits for the device."""
    x = normal(1003, seed=1).cuda()

    def function(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bits = pack_mask(x > 0)
        return bits, unpack_mask(bits, [17, 59]), decode_fixed_point((x * 256).int(), fraction_bits=8)

    graph, results = captured(function, x)
    new = normal(1003, seed=2)
    x.copy_(new)
    graph.replay()
    for got, expected in zip(results, function(new), strict=True):
        assert torch.equal(got.cpu(), expected)
