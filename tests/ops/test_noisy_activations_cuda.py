"""noisy_activations on a CUDA device: the CPU's bits in both directions, the caller's stream, named errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from privkernels.errors import NonFiniteValueError
from privkernels.ops import noisy_activations
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

DRAW: dict[str, Any] = {"key": Key.from_seed(4), "label": "cuda", "noise_std": 0.5}
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0, 0.6])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clip_kind", ["clamp", "norm"])
def test_the_cpus_bits(dtype: torch.dtype, beta: float, clip_kind: Any) -> None:
    for shape in ((3, 5), (2, 9, 7, 7), (2, 3, 1500)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        for secure in (True, False):
            for window in (None, 5, 8):
                stages = {"clip": 2.0, "clip_kind": clip_kind, "window": window, "beta": beta, "secure": secure}
                for layout in (x, x.movedim(1, -1).contiguous().movedim(-1, 1)):
                    results = []
                    for device in ("cpu", "cuda"):
                        t = layout.to(device).requires_grad_()
                        y = noisy_activations(t, first_element=77, attempt=3, **stages, **DRAW)
                        results.append((y.cpu(), torch.autograd.grad(y, t, torch.ones_like(y))[0].cpu()))
                    for a, b in zip(*results, strict=True):
                        assert torch.equal(a.contiguous().view(torch.int16), b.contiguous().view(torch.int16))


def test_runs_on_the_callers_stream() -> None:
    """The input is still being written on that stream when the call is made."""
    x = torch.randn(10, 20, 500, generator=torch.Generator().manual_seed(3))
    expected = noisy_activations(x, clip=1.0, **DRAW)
    source = x.cuda()
    late = torch.full_like(source, math.nan)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        got = noisy_activations(late, clip=1.0, **DRAW)
    stream.synchronize()
    assert torch.equal(got.cpu(), expected)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_not_finite(dtype: torch.dtype, bad: float) -> None:
    x = torch.zeros(5, 100, 100, dtype=dtype, device="cuda")
    x.view(-1)[1234] = x.view(-1)[40_000] = bad
    for clip_kind in ("clamp", "norm"):
        with pytest.raises(NonFiniteValueError, match="element 1234 "):
            noisy_activations(x, clip=1.0, clip_kind=clip_kind, **DRAW)


def test_no_elements_and_the_current_device() -> None:
    before = torch.cuda.current_device()
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    assert noisy_activations(torch.zeros(5, 0, device=last), clip=1.0, **DRAW).device == last
    assert noisy_activations(torch.zeros(5, 3, device=last), clip=1.0, **DRAW).device == last
    assert torch.cuda.current_device() == before


def test_opcheck() -> None:
    secret = Key.from_seed(4).derive("cuda").tensor()
    x = torch.ones(4, 6, 5, device="cuda", requires_grad=True)
    stages = 1.0, False, False, 5, 1.0, 0.5, 2.0
    torch.library.opcheck(torch.ops.privkernels.noisy_activations.default, (x, *stages, 0.5, -8, secret, 5, 0))
