"""noise_add and noise_steps on a CUDA device: the CPU's bits, the caller's stream, named errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from privkernels.errors import NonFiniteValueError
from privkernels.ops import noise_add, noise_steps
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

KEY = Key.from_seed(4)
DRAW: dict[str, Any] = {"key": KEY, "label": "cuda"}


@pytest.mark.parametrize("steps", [0.125, 0.3, 10.0, 300.0, 2.0**20, 2.0**40])
@pytest.mark.parametrize("distribution", ["laplace", "gaussian"])
def test_noise_has_the_cpus_bits(distribution: Any, steps: float) -> None:
    for size, first in ((1, 0), (129, 127), (5000, 77), (3_000_001, 2**40 + 1)):
        draw = {"distribution": distribution, "steps": steps, "first_element": first, **DRAW}
        assert torch.equal(noise_steps(size, **draw), noise_steps(size, **draw, device="cuda").cpu())


@pytest.mark.parametrize("exponent", [-100, -20, 0, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_sums_have_the_cpus_bits(dtype: torch.dtype, exponent: int) -> None:
    x = torch.randn(4097, generator=torch.Generator().manual_seed(1))
    x = torch.cat([x * 2.0**-140, x * 2.0**-20, x, x * 2.0**10, x * 2.0**40]).clamp(-60000, 60000).to(dtype)
    for scale in (0.5, 1000.0):
        arguments = {"scale": scale * 2.0**exponent, "granularity": 2.0**exponent, "distribution": "gaussian"}
        expected = noise_add(x, **arguments, first_element=5, **DRAW)
        got = noise_add(x.cuda(), **arguments, first_element=5, **DRAW)
        assert got.is_cuda
        assert torch.equal(got.cpu().view(torch.int16), expected.view(torch.int16))


ADD: dict[str, Any] = {"distribution": "laplace", "scale": 2.0, "granularity": 0.25, **DRAW}


def test_layouts_slices_and_no_elements() -> None:
    x = torch.randn(40, 50, generator=torch.Generator().manual_seed(2))
    expected = noise_add(x.t(), **ADD)
    assert torch.equal(noise_add(x.cuda().t(), **ADD).cpu(), expected)
    flat = x.t().flatten().cuda()
    parts = [noise_add(flat[a:b], **ADD, first_element=a) for a, b in ((0, 123), (123, 1900), (1900, 2000))]
    assert torch.equal(torch.cat(parts).cpu(), expected.flatten())
    assert noise_add(torch.zeros(3, 0, device="cuda"), **ADD).shape == (3, 0)


def test_runs_on_the_callers_stream() -> None:
    """The input is still being written on that stream when the call is made."""
    x = torch.randn(100_000, generator=torch.Generator().manual_seed(3))
    expected = noise_add(x, **ADD)
    source = x.cuda()
    late = torch.full_like(source, math.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        got = noise_add(late, **ADD)
    stream.synchronize()
    assert torch.equal(got.cpu(), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_not_finite(dtype: torch.dtype, bad: float) -> None:
    x = torch.zeros(50_000, dtype=dtype, device="cuda")
    x[1234], x[40_000] = bad, bad
    with pytest.raises(NonFiniteValueError, match="element 1234 "):
        noise_add(x, **ADD)


def test_the_current_device_is_kept() -> None:
    before = torch.cuda.current_device()
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    assert noise_add(torch.zeros(5, device=last), **ADD).device == last
    assert torch.cuda.current_device() == before


def test_opcheck() -> None:
    secret = KEY.derive("cuda").tensor()
    x = torch.ones(60, device="cuda")
    torch.library.opcheck(torch.ops.privkernels.noise_add.default, (x, "gaussian", 300.0, -8, secret, 5))
