"""kde_em and kde_scores as PyTorch operators: schema, fake tensors, torch.compile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from privkernels.errors import InvalidArgumentError
from privkernels.ops import kde_em, kde_scores
from privkernels.randomness import Key

KDE_EM = torch.ops.privkernels.kde_em.default
KDE_SCORES = torch.ops.privkernels.kde_scores.default
KEY = Key.from_seed(3)


def scores_arguments(size: int = 37, per_element: bool = False, strided: bool = False) -> tuple[Any, ...]:
    theta = torch.randn(5, 2 * size, generator=torch.Generator().manual_seed(1)) * 0.3
    theta = theta[:, ::2] if strided else theta[:, :size].contiguous()
    numbers = [torch.tensor(x) for x in (-1.0, 1.0, 0.1)]
    if per_element:
        numbers = [x.expand(size) if strided else x.repeat(size) for x in numbers]
    return list(theta.unbind(0)), *numbers, 1.0, 16


def draw_arguments(**layout: Any) -> tuple[Any, ...]:
    members, lo, hi, bandwidth, window_ratio, grid_points = scores_arguments(**layout)
    key = KEY.derive("op").tensor()
    return members, lo, hi, bandwidth, key, window_ratio, grid_points, 40.0, 8, 0


LAYOUTS = [{}, {"per_element": True}, {"per_element": True, "strided": True}, {"size": 1}, {"size": 0}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_opcheck(layout: dict[str, Any]) -> None:
    """Schema, fake, autograd registration and AOT dispatch with static and dynamic shapes."""
    torch.library.opcheck(KDE_EM, draw_arguments(**layout))
    torch.library.opcheck(KDE_SCORES, scores_arguments(**layout))


def test_the_operator_is_what_the_function_calls() -> None:
    members, lo, hi, bandwidth, window_ratio, grid_points = scores_arguments()
    parameters = {"lo": lo, "hi": hi, "bandwidth": bandwidth}
    rest = {"window_ratio": window_ratio, "grid_points": grid_points}
    drawn = kde_em(members, **parameters, multiplier=40.0, key=KEY, label="op", first_element=8, **rest)
    for a, b in zip(drawn, KDE_EM(*draw_arguments()), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(kde_scores(members, **parameters, **rest), KDE_SCORES(*scores_arguments()))


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_into_one_graph(dynamic: bool) -> None:
    """fullgraph=True, so nothing falls back to Python; the eager backend needs no C++ compiler."""

    def function(theta: torch.Tensor, key: torch.Tensor, bandwidth: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lo, hi = theta.amin(), theta.amax()
        rows = list((theta * 2).unbind(0))
        value, index = torch.ops.privkernels.kde_em(rows, lo, hi, bandwidth, key, 1.0, 16, 30.0, 0, 0)
        scores = torch.ops.privkernels.kde_scores(rows, lo, hi, bandwidth, 1.0, 16)
        return value + 1, index, scores.sum(1)

    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    key = KEY.tensor()
    for size in (12, 30):
        theta = torch.randn(4, size, generator=torch.Generator().manual_seed(size))
        bandwidth = torch.full((size,), 0.2)
        for a, b in zip(compiled(theta, key, bandwidth), function(theta, key, bandwidth), strict=True):
            assert torch.equal(a, b)


def test_scores_function_compiles_into_one_graph() -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        lambda theta: kde_scores(theta, lo=-1.0, hi=1.0, bandwidth=0.2, grid_points=8).mean(0),
        fullgraph=True, backend="aot_eager",
    )  # fmt: skip
    theta = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(compiled(theta), kde_scores(theta, lo=-1.0, hi=1.0, bandwidth=0.2, grid_points=8).mean(0))


def test_fake_tensors_have_the_real_shapes_and_refuse_what_the_kernel_refuses() -> None:
    real_value, real_index = KDE_EM(*draw_arguments())
    real_scores = KDE_SCORES(*scores_arguments())
    mode = FakeTensorMode()
    members, lo, hi, bandwidth, key, *numbers = draw_arguments()
    fakes = [[mode.from_tensor(row) for row in members], *map(mode.from_tensor, (lo, hi, bandwidth))]
    with mode:
        value, index = KDE_EM(*fakes, mode.from_tensor(key), *numbers)
        scores = KDE_SCORES(*fakes, 1.0, 16)
        for fake, real in ((value, real_value), (index, real_index), (scores, real_scores)):
            assert (fake.shape, fake.dtype, fake.stride()) == (real.shape, real.dtype, real.stride())
        with pytest.raises(InvalidArgumentError, match="member 1 must be float32"):
            KDE_SCORES([fakes[0][0], fakes[0][1][:5]], *fakes[1:], 1.0, 16)
        with pytest.raises(InvalidArgumentError, match="at least 2 members"):
            KDE_SCORES(fakes[0][:1], *fakes[1:], 1.0, 16)


def test_no_gradient_flows_through_a_draw() -> None:
    theta = torch.randn(3, 9, requires_grad=True, generator=torch.Generator().manual_seed(0))
    value, index = kde_em(theta, lo=-1.0, hi=1.0, bandwidth=0.2, multiplier=1.0, key=KEY, label="g")
    assert not value.requires_grad
    assert not index.requires_grad
    assert not kde_scores(theta, lo=-1.0, hi=1.0, bandwidth=0.2).requires_grad
