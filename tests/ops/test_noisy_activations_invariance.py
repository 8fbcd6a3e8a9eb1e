"""Values and noise depend on addresses alone: not on threads, slices or the processor; and the law of float noise."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from privkernels import _native
from privkernels.ops import noisy_activations
from privkernels.randomness import Key
from tests.support.instruction_sets import assert_same_bits

DRAW: dict[str, Any] = {"key": Key.from_seed(7), "label": "x"}
STAGES: list[dict[str, Any]] = [
    {"clip": 1.0, "noise_std": 0.5}, {"clip": 1.0, "noise_std": 0.5, "secure": False},
    {"clip": 3.0, "clip_kind": "norm", "noise_std": 0.5, "beta": 0.75}, {"clip": None, "noise_std": 0, "beta": 0.6},
]  # fmt: skip


def values() -> torch.Tensor:
    return torch.randn(7, 6, 37, 33, generator=torch.Generator().manual_seed(0))


def both_ways(x: torch.Tensor, **stages: Any) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().clone().requires_grad_()
    y = noisy_activations(x, **DRAW, **stages)
    return y.detach(), torch.autograd.grad(y, x, torch.cos(x.detach()))[0]


@pytest.mark.parametrize("stages", STAGES, ids=str)
def test_one_and_more_threads(set_threads: Callable[[int], None], stages: dict[str, Any]) -> None:
    set_threads(1)
    expected = both_ways(values(), **stages)
    for threads in (2, 3, 64):
        set_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(both_ways(values(), **stages), expected, strict=True))


@given(st.sampled_from(STAGES), st.lists(st.integers(0, 7), max_size=4), st.integers(0, 2**62))
@settings(max_examples=20, deadline=None)
def test_any_slicing_into_examples_gives_the_whole(stages: dict[str, Any], cuts: list[int], first: int) -> None:
    x = values()
    whole = noisy_activations(x, first_element=first, **DRAW, **stages)
    edges, size = [0, *sorted(cuts), 7], x[0].numel()
    parts = [
        noisy_activations(x[a:b], first_element=first + a * size, **DRAW, **stages)
        for a, b in itertools.pairwise(edges)
    ]
    assert torch.equal(torch.cat(parts), whole)


def test_global_generators_are_not_touched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002 - read only
    noisy_activations(values(), clip=1.0, noise_std=0.5, **DRAW)
    assert torch.equal(torch.get_rng_state(), torch_state)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


# What every instruction set runs; it prints one digest of the bits for each case.
PROGRAM = """
from privkernels.ops import noisy_activations
x = torch.randn(3, 9, 41, 31, generator=torch.Generator().manual_seed(1))
x[0] *= 2.0**-130
x[1] *= 2.0**12
for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64):
    for beta in (0.5, 0.75, 1.0, 0.6):
        digest = hashlib.sha256()
        for clip_kind in ("clamp", "norm"):
            for secure in (True, False):
                for layout in (torch.contiguous_format, torch.channels_last):
                    t = x.to(dtype).contiguous(memory_format=layout).requires_grad_()
                    y = noisy_activations(t, clip=2.0, clip_kind=clip_kind, beta=beta, noise_std=0.3, secure=secure,
                                          signed=True, key=Key.from_seed(3), label="isa", first_element=5)
                    gradient = torch.autograd.grad(y, t, torch.cos(t.detach()))[0]
                    for result in (y.detach(), gradient):
                        digest.update(result.contiguous().view(torch.int16).numpy().tobytes())
        digests[f"{dtype} {beta}"] = digest.hexdigest()
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    assert_same_bits(PROGRAM, different=16, ATEN_CPU_CAPABILITY="default")


def test_known_answer() -> None:
    """The same bits in every version and on every machine: a change here breaks every key that was kept."""
    digest = hashlib.sha256()
    x = torch.arange(600).reshape(2, 6, 50).remainder(7) / 4
    for secure in (True, False):
        y = noisy_activations(x, clip=1.0, noise_std=0.5, secure=secure, first_element=9, attempt=2, **DRAW)
        digest.update(y.numpy().tobytes())
    assert digest.hexdigest() == "48c35cbd99387925aa50926353ed53867548e6bbefd4f8a2e071041a1ac7ad12"


def normals(first: int, step: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    out = torch.empty(count)
    _native.cpu().normal_of_bits(first, step, count, out.data_ptr())
    return out.numpy()


def error_of(magnitudes: np.ndarray[Any, np.dtype[np.int64]], z: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Largest |Phi(-z) - u| where magnitude k stands for the upper tail u = (2 k + 1) / 2^32."""
    return float(np.abs(ndtr(-z.astype(np.float64)) - (2 * magnitudes + 1) * 2.0**-32).max())


def test_the_law_of_float_noise() -> None:
    """Its distribution function is within 1e-7 of the normal one.

    If |Phi(-z(k)) - u_k| <= e for all k, u_k the middle of the cell of k, then {z >= t} differs from {u <= Phi(-t)} in
    cells within e of Phi(-t): the distance is at most e + 2^-32. Here e is taken over every 1,021st k, and over both
    ends of every octave, where the polynomial changes; the error is smooth in between, up to rounding.
    """
    step = 1021
    every = step * np.arange(2**30 // step)
    assert error_of(every, normals(0, 4 * step, every.size)) < 1e-7
    for octave in range(1, 31):
        first = max(2**octave // 2 - 5_000, 0)
        near = first + np.arange(min(10_000, 2**30 - first))
        assert error_of(near, normals(4 * first, 4, near.size)) < 1e-7, octave
    assert np.array_equal(normals(1, 2000, 10**6), -normals(0, 2000, 10**6))
    assert np.array_equal(normals(2, 2000, 10**6), normals(0, 2000, 10**6))
    assert 6.22 < normals(0, 0, 1)[0] < 6.24


@pytest.mark.parametrize("secure", [True, False])
def test_moments_of_the_noise(secure: bool) -> None:
    """A million draws: mean, variance, fourth moment and neighbouring products, each within 5 standard errors."""
    noise = noisy_activations(
        torch.zeros(10, 10, 10_000, dtype=torch.float64), clip=None, window=None, noise_std=2.0, secure=secure, **DRAW
    )
    z = noise.flatten().numpy() / 2.0
    size = z.size
    assert abs(z.mean()) < 5 / size**0.5
    assert abs((z**2).mean() - 1) < 5 * (2 / size) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / size) ** 0.5
    for lag in (1, 16, 128, 256):
        assert abs((z[lag:] * z[:-lag]).mean()) < 5 / size**0.5
