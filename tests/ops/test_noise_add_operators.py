"""noise_add and noise_steps as PyTorch operators: schema, fake tensors, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.errors import InvalidArgumentError
from privkernels.ops import noise_add, noise_steps
from privkernels.randomness import Key

NOISE_ADD = torch.ops.privkernels.noise_add.default
NOISE_STEPS = torch.ops.privkernels.noise_steps.default
SECRET = Key.from_seed(3).derive("op").tensor()
INPUTS = [
    torch.ones(3, 5), torch.ones(4, 6).t(), torch.ones(7)[::2], torch.ones(1).expand(9), torch.ones(()),
    torch.ones(0, 3), torch.ones(5, dtype=torch.float16), torch.ones(5, dtype=torch.bfloat16),
    torch.ones(4, requires_grad=True),
]  # fmt: skip


@pytest.mark.parametrize("x", INPUTS, ids=lambda x: f"{x.dtype}{list(x.shape)}{x.stride()}")
@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
def test_opcheck(x: torch.Tensor, distribution: str) -> None:
    """Schema, fake, autograd registration and AOT dispatch with static and dynamic shapes."""
    torch.library.opcheck(NOISE_ADD, (x.detach(), distribution, 300.0, -8, SECRET, 5))


def test_opcheck_noise_steps() -> None:
    torch.library.opcheck(NOISE_STEPS, (17, "gaussian", 300.0, SECRET, 5, torch.device("cpu")))


def test_the_operator_is_what_the_function_calls() -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(1))
    same: dict[str, Any] = {"distribution": "laplace", "key": Key.from_seed(3), "label": "op", "first_element": 5}
    assert torch.equal(noise_add(x, scale=3.0, granularity=0.25, **same), NOISE_ADD(x, "laplace", 12.0, -2, SECRET, 5))
    assert torch.equal(
        noise_steps(50, steps=12.0, **same), NOISE_STEPS(50, "laplace", 12.0, SECRET, 5, torch.device("cpu"))
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    """fullgraph=True, so nothing falls back to Python; the eager backend needs no C++ compiler."""

    def function(x: torch.Tensor, secret: torch.Tensor) -> torch.Tensor:
        return NOISE_ADD(x.clamp(-1, 1) * 2, "gaussian", 40.0, -8, secret, 3) + 1

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for size in (5, 300, 301):
        x = torch.randn(size, 2, generator=torch.Generator().manual_seed(size))
        assert torch.equal(compiled(x, SECRET), function(x, SECRET))


def test_fake_tensors() -> None:
    with FakeTensorMode():
        x = torch.empty(4, 6, dtype=torch.bfloat16).t()
        secret = torch.empty(32, dtype=torch.uint8)
        result = NOISE_ADD(x, "laplace", 2.0, 0, secret, 0)
        assert (result.shape, result.dtype, result.is_contiguous()) == ((6, 4), torch.bfloat16, True)
        noise = NOISE_STEPS(7, "laplace", 2.0, secret, 0, torch.device("cpu"))
        assert (noise.shape, noise.dtype) == ((7,), torch.int64)


def test_the_operator_checks_what_the_function_checks() -> None:
    x = torch.ones(3)
    good: list[Any] = [x, "laplace", 2.0, 0, SECRET, 0]
    NOISE_ADD(*good)
    for place, bad in ((1, "normal"), (2, 0.0), (3, 101), (4, SECRET[:31]), (5, -1), (0, x.double())):
        with pytest.raises(InvalidArgumentError):
            NOISE_ADD(*good[:place], bad, *good[place + 1 :])
