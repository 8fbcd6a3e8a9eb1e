"""noisy_activations as PyTorch operators: schema, fake tensors, autograd registration, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.errors import InvalidArgumentError
from privkernels.ops import noisy_activations
from privkernels.randomness import Key

FORWARD = torch.ops.privkernels.noisy_activations.default
BACKWARD = torch.ops.privkernels.noisy_activations_backward.default
SECRET = Key.from_seed(3).derive("op").tensor()
STAGES: list[tuple[Any, ...]] = [
    (1.0, False, False, 5, 1.0, 0.5, 2.0), (2.0, True, True, 3, 1.0, 0.6, 2.0),
    (None, False, True, None, 1.0, 0.5, 2.0),
]  # fmt: skip
NOISE: list[tuple[Any, ...]] = [(0.5, -8, SECRET, 5, 1), (0.5, None, SECRET, 5, 1), (0.0, None, SECRET, 0, 0)]
INPUTS = [
    torch.ones(3, 5), torch.ones(4, 6).t(), torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    torch.ones(1, 3).expand(4, 3), torch.ones(0, 3), torch.ones(2, 0, 5), torch.ones(2, 5, 3, dtype=torch.float16),
    torch.ones(2, 5, dtype=torch.bfloat16), torch.ones(2, 3, 2, 2, 2, dtype=torch.float64),
]  # fmt: skip


@pytest.mark.parametrize("x", INPUTS, ids=lambda x: f"{x.dtype}{list(x.shape)}{x.stride()}")
@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_opcheck(x: torch.Tensor, stages: tuple[Any, ...]) -> None:
    """Schema, fake, autograd registration and AOT dispatch with static and dynamic shapes, forwards and backwards."""
    for noise in NOISE:
        torch.library.opcheck(FORWARD, (x.clone().requires_grad_(), *stages, *noise))
    torch.library.opcheck(BACKWARD, (torch.ones_like(x), x, *stages))


def test_the_operator_is_what_the_function_calls() -> None:
    x = torch.randn(4, 50, generator=torch.Generator().manual_seed(1))
    got = noisy_activations(
        x, clip=1.0, noise_std=0.5, granularity=2.0**-8, key=Key.from_seed(3), label="op", first_element=5, attempt=1
    )
    assert torch.equal(got, FORWARD(x, *STAGES[0], *NOISE[0]))


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_compiles_into_one_graph_both_ways(stages: tuple[Any, ...], dynamic: bool) -> None:
    """fullgraph=True, so nothing falls back to Python; the eager backend needs no C++ compiler."""

    def function(x: torch.Tensor, secret: torch.Tensor) -> torch.Tensor:
        return (FORWARD(x * 2, *stages, 0.5, -8, secret, 3, 0) + 1).square()

    torch._dynamo.reset()  # else the compilations of the other cases count
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (5, 7):
        x = torch.randn(3, 4, size, generator=torch.Generator().manual_seed(size)).requires_grad_()
        results = []
        for run in (function, compiled):
            y = run(x, SECRET)
            results.append((y, *torch.autograd.grad(y.sum(), x)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_fake_tensors_have_the_memory_format() -> None:
    real = torch.zeros(2, 3, 4, 5)
    with FakeTensorMode():
        x = torch.empty(2, 3, 4, 5, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        secret = torch.empty(32, dtype=torch.uint8)
        for result in (FORWARD(x, *STAGES[0], 0.5, -8, secret, 0, 0), BACKWARD(x, x, *STAGES[0])):
            assert (result.shape, result.dtype) == (real.shape, torch.bfloat16)
            assert result.is_contiguous(memory_format=torch.channels_last)


def test_the_operators_check_what_the_function_checks() -> None:
    x = torch.ones(2, 3)
    good: list[Any] = [x, *STAGES[0], *NOISE[0]]
    FORWARD(*good)
    bad: list[tuple[int, Any]] = [
        (0, x[0]), (0, x.int()), (1, 0.0), (4, 0), (5, -1.0), (6, 3.0), (7, 0.0), (8, -1.0), (9, 101),
        (10, SECRET[:31]), (11, -1), (12, 2**28),
    ]  # fmt: skip
    for place, value in bad:
        with pytest.raises(InvalidArgumentError):
            FORWARD(*good[:place], value, *good[place + 1 :])
    for grad in (x.double(), x.t()):
        with pytest.raises(InvalidArgumentError, match="gradient"):
            BACKWARD(grad, x, *STAGES[0])
