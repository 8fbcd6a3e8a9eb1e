"""The gradient of noisy_activations: gradcheck, the reference's own gradient, clipping, layouts, memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.errors import InvalidArgumentError
from privkernels.ops import noisy_activations, noisy_activations_reference
from privkernels.randomness import Key

DRAW: dict[str, Any] = {"key": Key.from_seed(8), "label": "gradient"}
STAGES: list[dict[str, Any]] = [
    {"clip": None, "window": None},
    {"clip": None},
    {"clip": 1.0, "beta": 0.75, "window": 3},
    {"clip": 1.0, "signed": True, "beta": 1.0, "window": 99},
    {"clip": 2.0, "clip_kind": "norm", "signed": True, "beta": 0.6},
    {"clip": 2.0, "clip_kind": "norm", "window": None},
    {"clip": 500.0, "clip_kind": "norm", "window": 2, "alpha": 0.3},
]


def gradients(function: Any, x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    (gradient,) = torch.autograd.grad(function(x), x, upstream)
    return gradient


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_gradcheck(stages: dict[str, Any]) -> None:
    """In float64, of the operator itself, noise and all (float64 noise is a constant to it)."""
    x = (torch.randn(2, 5, 3, 2, generator=torch.Generator().manual_seed(0)).double() * 1.3).requires_grad_()
    noise: dict[str, Any] = {"noise_std": 0.5, "secure": False, **DRAW}
    assert torch.autograd.gradcheck(lambda t: noisy_activations(t, **noise, **stages), (x,))
    last = x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: noisy_activations(t, **noise, **stages), (last,))


@given(
    st.sampled_from(STAGES),
    st.lists(st.integers(1, 8), min_size=2, max_size=4),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    st.integers(0, 1000),
)
@settings(max_examples=100, deadline=None)
def test_the_references_gradient(stages: dict[str, Any], shape: list[int], dtype: torch.dtype, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, upstream = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    expected = gradients(lambda t: noisy_activations_reference(t, **stages), x.double(), upstream.double())
    got = gradients(lambda t: noisy_activations(t, noise_std=0.5, **DRAW, **stages), x, upstream)
    unit = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype]
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() <= unit * max(float(upstream.abs().max()), 1e-3)


@pytest.mark.parametrize("signed", [False, True])
def test_clamp_passes_what_torch_passes(signed: bool) -> None:
    x = torch.tensor([[-2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0]])
    got = gradients(lambda t: noisy_activations(t, clip=1.0, window=None, signed=signed, noise_std=0), x, x + 10)
    assert torch.equal(got, gradients(lambda t: t.clamp(-1.0 if signed else 0.0, 1.0), x, x + 10))


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_layouts_and_several_tiles(stages: dict[str, Any]) -> None:
    x, upstream = torch.randn(2, 2, 6, 35, 35, generator=torch.Generator().manual_seed(1))
    expected = gradients(lambda t: noisy_activations(t, noise_std=0, **stages), x, upstream)
    oracle = gradients(lambda t: noisy_activations_reference(t, **stages), x.double(), upstream.double())
    torch.testing.assert_close(expected.double(), oracle, rtol=1e-5, atol=1e-6)
    last = x.contiguous(memory_format=torch.channels_last)
    got = gradients(lambda t: noisy_activations(t, noise_std=0, **stages), last, upstream)
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(got, expected)
    # An expanded gradient, as sum() gives it.
    ones = gradients(lambda t: noisy_activations(t, noise_std=0, **stages), x, torch.ones(()).expand(x.shape))
    assert torch.equal(ones, gradients(lambda t: noisy_activations(t, noise_std=0, **stages), x, torch.ones_like(x)))


def test_x_alone_is_saved_and_noise_has_no_gradient() -> None:
    x = torch.randn(4, 3, 5, requires_grad=True)
    y = noisy_activations(x, clip=1.0, noise_std=3.0, **DRAW)
    assert y.grad_fn is not None
    assert [t.data_ptr() for t in y.grad_fn.saved_tensors] == [x.data_ptr()]  # type: ignore[attr-defined]
    quiet = noisy_activations(x, clip=1.0, noise_std=0)
    assert torch.equal(*(torch.autograd.grad(t.sum(), x)[0] for t in (y, quiet)))


def test_infinite_gradients_reach_the_input() -> None:
    """A loss scaler looks for them."""
    x = torch.ones(1, 4, dtype=torch.float16, requires_grad=True)
    upstream = torch.tensor([[torch.inf, 1.0, 2.0, torch.nan]]).half()
    noisy_activations(x, clip=None, window=None, noise_std=0).backward(upstream)
    assert x.grad is not None
    assert torch.isinf(x.grad[0, 0])
    assert torch.isnan(x.grad[0, 3])
    assert x.grad[0, 1:3].tolist() == [1.0, 2.0]


def test_there_is_no_second_derivative() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(noisy_activations(x, clip=1.0, noise_std=0).sum(), x, create_graph=True)
    with pytest.raises(InvalidArgumentError, match="differentiated once"):
        first.sum().backward()
