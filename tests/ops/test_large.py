"""Tensors of more than 2^31 elements on a CUDA device: where an index of 32 bits ends. Each test also runs small, on
the CPU: it is the same code but for the size.

What lies around element 2^31 and at the end is compared with the CPU's result for that slice alone, and where a result
depends on all elements, with one that is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from privkernels.ops import (
    count_kept,
    em_select,
    kde_em,
    kde_scores,
    kmeans1d,
    kmeans1d_split,
    mask_sum,
    mask_sum_,
    noise_add,
    noise_steps,
    noisy_activations,
    prune_apply_,
    prune_mask,
    prune_pattern_mask,
    prune_project_,
    prune_random_mask,
    randomized_response,
)
from privkernels.randomness import Key

sizes = pytest.mark.parametrize(
    ("size", "device"),
    [pytest.param(2**12, "cpu", id="small"), pytest.param(2**31, "cuda", id="large", marks=pytest.mark.gpu)],
)
MORE = 1000  # elements beyond `size`
CHUNK = 2**27  # of the comparisons: little memory, and no large index in PyTorch
KEY = Key.from_seed(4)
DRAW: dict[str, Any] = {"key": KEY, "label": "large"}


def need(gib: float, device: str) -> None:
    """Skip where the device has less free memory than the test takes at its peak (2^31 bytes are 2 GiB)."""
    if device != "cuda":
        return
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0] / 2**30
    if free < gib:
        pytest.skip(f"needs {gib} GiB of the device's memory, and {free:.1f} GiB are free")


def normal(*shape: int, dtype: torch.dtype, device: str, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(seed)
    x = torch.empty(shape, dtype=dtype, device=device)
    for part in x.view(-1).split(CHUNK):
        part.normal_(generator=generator)
    return x


def integers(size: int, most: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    generator = torch.Generator(device).manual_seed(1)
    x = torch.empty(size, dtype=dtype, device=device)
    for part in x.split(CHUNK):
        part.random_(most, generator=generator)
    return x


def windows(size: int) -> Iterator[slice]:
    """Of `size` + MORE elements: those around `size`, and the last ones."""
    yield slice(size - 400, size + 400)
    yield slice(size + MORE - 300, size + MORE)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and all(
        torch.equal(x, y) for x, y in zip(a.view(-1).split(CHUNK), b.view(-1).split(CHUNK), strict=True)
    )


def count(mask: torch.Tensor) -> int:
    return sum(int(part.sum()) for part in mask.split(CHUNK))


@sizes
def test_kde_em(size: int, device: str) -> None:
    need(26, device)  # two members 4 + 4, values 8, indices 8, the scores' workspace 0.25
    members = [normal(size + MORE, dtype=torch.bfloat16, device=device, seed=seed) for seed in (1, 2)]
    draw = {"lo": -1.5, "hi": 1.5, "bandwidth": 0.5, "multiplier": 8.0, "grid_points": 16, **DRAW}
    got = kde_em(members, **draw, first_element=3)
    for part in windows(size):
        expected = kde_em([row[part].cpu() for row in members], **draw, first_element=3 + part.start)
        for a, b in zip(got, expected, strict=True):
            assert torch.equal(a[part].cpu(), b)


@sizes
def test_kde_scores(size: int, device: str) -> None:
    """The scores are more than 2^31, not the elements."""
    need(10, device)  # scores 8, members 0.5 + 0.5, workspace 0.25
    points = 8
    members = normal(2, size // points + MORE, dtype=torch.bfloat16, device=device)
    grid: dict[str, Any] = {"lo": -2.0, "hi": 2.0, "bandwidth": 0.5, "grid_points": points}
    scores = kde_scores(members, **grid)
    assert scores.numel() > size
    for part in windows(size // points):
        assert torch.equal(scores[part].cpu(), kde_scores(members[:, part].cpu(), **grid))


@sizes
def test_em_select_in_one_segment(size: int, device: str) -> None:
    """All weight is on three candidates beyond `size`: the draw is the one among these three alone."""
    need(9, device)  # scores 8
    scores = torch.zeros(size + MORE, device=device)
    places = torch.tensor([size + 5, size + 77, size + MORE - 1])
    scores[places.to(device)] = 1.0
    draw = {"multiplier": 1000.0, "first_segment": 2, **DRAW}  # exp(-1000) is an integer weight of 0
    expected = int(em_select(torch.ones(3), **draw))
    assert expected > 0  # or the test could not tell it from the first
    assert int(em_select(scores, **draw)) == places[expected]


@sizes
@pytest.mark.parametrize("mechanism", ["exponential", "permute-and-flip"])
def test_em_select_in_many_segments(mechanism: Any, size: int, device: str) -> None:
    need(18, device)  # scores 8, their copy for k > 1 8
    length = math.isqrt(size)
    segments = size // length + 2
    scores = normal(segments, length, dtype=torch.float32, device=device)
    draw = {"multiplier": 2.0, "k": 2, "mechanism": mechanism, **DRAW}
    got = em_select(scores, **draw, first_segment=5)
    expected = em_select(scores[-3:].cpu(), **draw, first_segment=5 + segments - 3)
    assert torch.equal(got[-3:].cpu(), expected)


@sizes
def test_noise_add(size: int, device: str) -> None:
    need(9, device)  # values 4, result 4
    x = normal(size + MORE, dtype=torch.bfloat16, device=device)
    noise = {"distribution": "gaussian", "scale": 2.0, "granularity": 2.0**-10, **DRAW}
    got = noise_add(x, **noise, first_element=5)
    for part in windows(size):
        assert torch.equal(got[part].cpu(), noise_add(x[part].cpu(), **noise, first_element=5 + part.start))


@sizes
def test_noise_steps(size: int, device: str) -> None:
    need(17, device)  # result 16
    noise = {"distribution": "laplace", "steps": 300.0, **DRAW}
    got = noise_steps(size + MORE, **noise, first_element=5, device=device)
    for part in windows(size):
        expected = noise_steps(part.stop - part.start, **noise, first_element=5 + part.start)
        assert torch.equal(got[part].cpu(), expected)


@sizes
def test_randomized_response(size: int, device: str) -> None:
    need(33, device)  # values 16, result 16
    values = integers(size + MORE, 7, torch.int64, device)
    arguments = {"categories": 7, "epsilon": 1.0, **DRAW}
    got = randomized_response(values, **arguments, first_element=3)
    for part in windows(size):
        expected = randomized_response(values[part].cpu(), **arguments, first_element=3 + part.start)
        assert torch.equal(got[part].cpu(), expected)


@sizes
def test_mask_sum(size: int, device: str) -> None:
    need(17, device)  # values 8, result 8
    values = integers(size + MORE, 2**31 - 1, torch.int32, device)
    seeds, signs = [KEY, Key.from_seed(5), Key.from_seed(6)], [1, -1, 1]
    got = mask_sum(values, seeds, signs, first_element=7)
    for part in windows(size):
        expected = mask_sum(values[part].cpu(), seeds, signs, first_element=7 + part.start)
        assert torch.equal(got[part].cpu(), expected)
    mask_sum_(got, seeds, [-sign for sign in signs], first_element=7)
    assert equal(got, values)


@sizes
@pytest.mark.parametrize("clip_kind", ["clamp", "norm"])
def test_noisy_activations_and_their_gradient(clip_kind: Any, size: int, device: str) -> None:
    # x 4, result 4, gradients 4 + 4, and in float32, while the kernel runs, 8 + 8
    need(34, device)
    channels, positions = 8, math.isqrt(size)
    each = channels * positions
    batch = size // each + 2
    x = normal(batch, channels, positions, dtype=torch.bfloat16, device=device).requires_grad_()
    upstream = normal(batch, channels, positions, dtype=torch.bfloat16, device=device, seed=2)
    arguments = {"clip": 1.0, "clip_kind": clip_kind, "signed": True, "noise_std": 0.5, **DRAW}
    got = noisy_activations(x, **arguments, first_element=9)
    (gradient,) = torch.autograd.grad(got, x, upstream)
    last = x.detach()[-2:].cpu().requires_grad_()
    expected = noisy_activations(last, **arguments, first_element=9 + (batch - 2) * each)
    assert torch.equal(got[-2:].cpu(), expected)
    assert torch.equal(gradient[-2:].cpu(), torch.autograd.grad(expected, last, upstream[-2:].cpu())[0])


@sizes
def test_prune_mask_apply_and_project(size: int, device: str) -> None:
    """The last tie that is kept lies beyond `size`, and bfloat16 has many ties before it."""
    need(26, device)  # four of 4, three masks of 2, its bits 0.25
    x = normal(size + MORE, dtype=torch.bfloat16, device=device)
    x[size + 400], x[size + 600] = 1.0, -1.0
    cut = size + 500
    magnitude = x.abs()
    expected = magnitude > 1
    keep = count(expected)
    ties = magnitude == 1
    ties[cut:] = False
    keep += count(ties)
    expected |= ties
    wanted = torch.where(expected, x, 0)
    del magnitude, ties
    (bits,), threshold = prune_mask(x, keep=keep, as_bits=True)
    assert threshold == 1
    assert count_kept(bits) == keep
    (kept,), _ = prune_mask(x, keep=keep)
    assert equal(kept, expected)
    for mask in (bits, kept):
        pruned = x.clone()
        prune_apply_(pruned, mask)
        assert equal(pruned.view(torch.int16), wanted.view(torch.int16))
    prune_project_(x, keep=keep)
    assert equal(x.view(torch.int16), wanted.view(torch.int16))


@sizes
@pytest.mark.parametrize("dim", [0, 1])
def test_prune_pattern_mask(dim: int, size: int, device: str) -> None:
    need(7, device)  # scores 4, mask 2
    length = math.isqrt(size)
    x = normal(size // length + 2, length, dtype=torch.bfloat16, device=device)
    first = len(x) // 4 * 4 - 4  # where a group of rows begins
    got = prune_pattern_mask(x, 2, 4, dim=dim)
    assert torch.equal(got[first:].cpu(), prune_pattern_mask(x[first:].cpu(), 2, 4, dim=dim))


@sizes
def test_prune_random_mask(size: int, device: str) -> None:
    need(7, device)  # importances 4, mask 2
    x = normal(size + MORE, dtype=torch.bfloat16, device=device)
    draw = {"bounds": (-9.0, 9.0), **DRAW}
    (got,) = prune_random_mask(x, **draw, first_element=3)
    for part in windows(size):
        (expected,) = prune_random_mask(x[part].cpu(), **draw, first_element=3 + part.start)
        assert torch.equal(got[part].cpu(), expected)


@sizes
def test_kmeans1d_and_its_split(size: int, device: str) -> None:
    """16 clusters far apart, of equally many values each: Lloyd's algorithm ends at their means."""
    # values 8, labels 2, assignment 2, and either the sort's workspace, 16 + 0.3, or the split's results, 2 + 8 + 8
    need(31, device)
    labels = torch.arange(16, dtype=torch.uint8, device=device).repeat(size // 16 + MORE // 16)
    values = torch.empty(len(labels), device=device)
    generator = torch.Generator(device).manual_seed(1)
    sums, parts = torch.zeros(16, dtype=torch.float64), list(zip(values.split(CHUNK), labels.split(CHUNK), strict=True))
    for part, own in parts:
        part.uniform_(generator=generator).add_(own, alpha=10)
        sums += part.view(-1, 16).sum(0, dtype=torch.float64).cpu()
    clusters = kmeans1d(values, 16, method="lloyd")
    assert (clusters.method, clusters.iterations) == ("lloyd", 2)
    torch.testing.assert_close(clusters.centroids.cpu(), (sums * 16 / len(values)).float(), rtol=2e-7, atol=0)
    assert equal(clusters.assignment, labels)
    centroids = clusters.centroids.double()
    inertia = sum(float((part.double() - centroids[own.int()]).square().sum()) for part, own in parts)
    assert clusters.inertia == pytest.approx(inertia, rel=1e-9)

    arguments = {"centroid_bits": 8, "residual_bits": 12}
    split = kmeans1d_split(values, clusters.centroids, **arguments)
    for window in (slice(size - 400, size + 400), slice(len(values) - 300, len(values))):
        expected = kmeans1d_split(values[window].cpu(), clusters.centroids.cpu(), **arguments)
        for name in ("assignment", "residual", "values"):
            assert torch.equal(getattr(split, name)[window].cpu(), getattr(expected, name)), name
