"""kde_em and kde_scores on a CUDA device: the CPU's bits, the caller's stream, named errors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops import kde_em, kde_scores
from privkernels.randomness import Key

pytestmark = pytest.mark.gpu

KEY = Key.from_seed(4)
DRAW: dict[str, Any] = {"multiplier": 40.0, "key": KEY, "label": "cuda", "first_element": 3}
GOOD: dict[str, Any] = {"lo": -1.0, "hi": 1.0, "bandwidth": 0.1}
# M, N, R, window_ratio, scale: both kernels, one element, no whole block, more blocks than the grid holds.
CASES = [
    (2, 1, 2, 1.0, 0.3), (3, 19, 5, 0.01, 1e-30), (50, 4097, 256, 1.0, 0.3), (50, 1031, 64, 2.5, 0.3),
    (9, 333, 33, 30.0, 1e20), (8, 64, 300, 1e6, 1.0), (200, 77, 65, 0.999, 1e-38), (17, 40, 16, 1e-6, 3.0),
    (3, 200_003, 8, 1.0, 0.3), (2, 70, 65536, 1.0, 0.3),
]  # fmt: skip


def inputs(num_members: int, size: int, scale: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Members [M, N] with an outlier, and lo, hi, bandwidth [N], on the CPU."""
    rng = torch.Generator().manual_seed(num_members * size)
    theta = torch.randn(num_members, size, generator=rng) * scale
    theta[0] *= 1e3
    lo = (torch.rand(size, generator=rng) - 2) * scale
    hi = lo + torch.rand(size, generator=rng) * 4 * scale
    bandwidth = ((torch.rand(size, generator=rng) + 0.1) * scale).clamp_min(1.2e-38)
    return theta, {"lo": lo, "hi": hi, "bandwidth": bandwidth}


def moved(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.cuda() for name, value in parameters.items()}


@pytest.mark.parametrize(("num_members", "size", "grid_points", "window_ratio", "scale"), CASES)
def test_cuda_gives_the_cpus_bits(
    num_members: int, size: int, grid_points: int, window_ratio: float, scale: float
) -> None:
    theta, parameters = inputs(num_members, size, scale)
    settings = {"window_ratio": window_ratio, "grid_points": grid_points}
    expected = (*kde_em(theta, **parameters, **settings, **DRAW), kde_scores(theta, **parameters, **settings))
    on_device = theta.cuda(), moved(parameters)
    got = (
        *kde_em(on_device[0], **on_device[1], **settings, **DRAW),
        kde_scores(on_device[0], **on_device[1], **settings),
    )
    for name, a, b in zip(("value", "index", "scores"), expected, got, strict=True):
        assert b.is_cuda
        assert torch.equal(a.view(torch.int32), b.cpu().view(torch.int32)), name


@pytest.mark.parametrize("work", ["lazy", "fixed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_either_work_and_every_dtype(work: str, dtype: torch.dtype) -> None:
    theta, parameters = inputs(30, 5000, 0.3)
    theta[0] /= 1e3
    theta = theta.to(dtype)
    draw = DRAW | {"work": work, "grid_points": 256}
    expected = kde_em(theta, **parameters, **draw)
    got = kde_em(theta.cuda(), **moved(parameters), **draw)
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a.view(torch.int32), b.cpu().view(torch.int32))


def test_layouts_and_numbers() -> None:
    theta, parameters = inputs(6, 500, 0.3)
    numbers = {name: value[0].item() for name, value in parameters.items()}
    expected = kde_em(theta, **numbers, **DRAW)
    wide = torch.zeros(6, 1500, device="cuda")
    wide[:, 1::3] = theta.cuda()
    for layout in (theta.cuda(), theta.cuda().t().contiguous().t(), wide[:, 1::3], [r.cuda() for r in theta]):
        for a, b in zip(expected, kde_em(layout, **numbers, **DRAW), strict=True):
            assert torch.equal(a, b.cpu())
    for part in (slice(0, 123), slice(123, 500)):
        value, _ = kde_em(theta.cuda()[:, part], **numbers, **DRAW | {"first_element": 3 + part.start})
        assert torch.equal(value.cpu(), expected[0][part])


def test_no_elements() -> None:
    value, index = kde_em(torch.zeros(3, 0, device="cuda"), **GOOD, **DRAW)
    assert value.shape == index.shape == (0,)
    assert kde_scores(torch.zeros(3, 0, device="cuda"), **GOOD, grid_points=4).shape == (0, 4)


def test_runs_on_the_callers_stream() -> None:
    """The inputs are still being written on that stream when the call is made."""
    theta, parameters = inputs(50, 4096, 0.3)
    expected, _ = kde_em(theta, **parameters, **DRAW)
    parameters = moved(parameters)
    late = torch.full_like(theta, math.nan, device="cuda")
    source = theta.cuda()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        late.copy_(source)
        value, _ = kde_em(late, **parameters, **DRAW)
    stream.synchronize()
    assert torch.equal(value.cpu(), expected)


def test_the_current_device_is_kept() -> None:
    last = torch.cuda.device_count() - 1
    before = torch.cuda.current_device()
    theta, parameters = inputs(4, 100, 0.3)
    value, _ = kde_em(theta.to(f"cuda:{last}"), **{k: v.to(f"cuda:{last}") for k, v in parameters.items()}, **DRAW)
    assert value.device == torch.device("cuda", last)
    assert torch.cuda.current_device() == before


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_members(bad: float) -> None:
    theta = torch.zeros(40, 5000, device="cuda")
    theta[31, 4000], theta[3, 1234] = bad, bad
    for call in (lambda: kde_em(theta, **GOOD, **DRAW), lambda: kde_scores(theta, **GOOD)):
        with pytest.raises(NonFiniteValueError, match="element 1234;"):
            call()


@pytest.mark.parametrize("changed", [{"bandwidth": 0.0}, {"lo": 2.0}, {"bandwidth": 1e-39}])
def test_unusable_parameters(changed: dict[str, float]) -> None:
    theta = torch.zeros(4, 5000, device="cuda")
    ((name, bad),) = changed.items()
    parameter = torch.full((5000,), GOOD[name], device="cuda")
    parameter[777] = bad
    with pytest.raises(InvalidArgumentError, match="element 777 "):
        kde_em(theta, **GOOD | {name: parameter}, **DRAW)


def test_wrong_device_and_arguments() -> None:
    theta = torch.zeros(4, 50, device="cuda")
    with pytest.raises(InvalidArgumentError, match=r"lo must be one float32 or float32 \[50\] on cuda:0"):
        kde_em(theta, **GOOD | {"lo": torch.zeros(50)}, **DRAW)
    with pytest.raises(InvalidArgumentError, match="member 1 must be float32"):
        kde_em([theta[0], torch.zeros(50)], **GOOD, **DRAW)
    with pytest.raises(InvalidArgumentError, match="window_ratio"):
        kde_em(theta, **GOOD, **DRAW, window_ratio=0.0)
    with pytest.raises(InvalidArgumentError, match="grid_points"):
        kde_scores(theta, **GOOD, grid_points=1)


def test_opcheck() -> None:
    theta, parameters = inputs(4, 60, 0.3)
    rows, on_device = list(theta.cuda().unbind(0)), moved(parameters)
    arguments = (rows, on_device["lo"], on_device["hi"], on_device["bandwidth"])
    torch.library.opcheck(torch.ops.privkernels.kde_scores.default, (*arguments, 1.0, 8))
    torch.library.opcheck(torch.ops.privkernels.kde_em.default, (*arguments, KEY.tensor().cuda(), 1.0, 8, 20.0, 0, 0))
