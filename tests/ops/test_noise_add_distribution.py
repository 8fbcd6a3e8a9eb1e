"""Draws against the ideal laws, with the power to reject a scale that is 2 % off, and attacks on floating point.

Keys are fixed, so these tests give the same result on every run; a right sampler is refused by a test of level 1e-6
for one key in a million.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from privkernels.ops import noise_add, noise_law, noise_steps
from privkernels.ops.noise_law import Distribution
from privkernels.randomness import Key

KEY = Key.from_seed(11)
DISTRIBUTIONS: tuple[Distribution, Distribution] = ("laplace", "gaussian")
LEVEL = 1e-6


def draws(distribution: Distribution, steps: float, size: int, label: str = "law") -> np.ndarray:
    return noise_steps(size, distribution=distribution, steps=steps, key=KEY, label=label).numpy()


def ideal_cdf(distribution: Distribution, steps: float, k: np.ndarray) -> np.ndarray:
    """P(K <= k). The Gaussian's is the continuous one at k + 1/2: within 1/(4 steps^2), far below what is tested."""
    if distribution == "gaussian":
        return stats.norm.cdf((k + 0.5) / steps)
    q = math.exp(-1 / steps)
    upper = 1 - np.exp(-(np.maximum(k, 0) + 1) / steps) / (1 + q)
    lower = np.exp(np.minimum(k, 0) / steps) / (1 + q)
    return np.where(k >= 0, upper, lower)


def kolmogorov_smirnov(distribution: Distribution, steps: float, sample: np.ndarray) -> float:
    """p-value of the largest distance, at and before every value drawn; conservative for a discrete law."""
    values, counts = np.unique(sample, return_counts=True)
    above = np.cumsum(counts) / len(sample)
    at = np.abs(above - ideal_cdf(distribution, steps, values)).max()
    before = np.abs(above - counts / len(sample) - ideal_cdf(distribution, steps, values - 1)).max()
    return float(stats.kstwobign.sf(max(at, before) * math.sqrt(len(sample))))


@pytest.mark.parametrize("steps", [200.0, 1000.0, 2.0**20, 2.0**40])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_kolmogorov_smirnov(distribution: Distribution, steps: float) -> None:
    sample = draws(distribution, steps, 3_000_000)
    assert kolmogorov_smirnov(distribution, steps, sample) > LEVEL
    for wrong in (0.98, 1.02):
        assert kolmogorov_smirnov(distribution, steps * wrong, sample) < LEVEL


def chi_square(distribution: Distribution, steps: float, sample: np.ndarray) -> float:
    """p-value over all outcomes that are expected 20 times or more, and one cell for the rest."""
    law = noise_law(distribution, steps).probabilities()
    cells = {k: float(p) for k, p in law.items() if float(p) * len(sample) >= 20}
    expected = np.array([*cells.values(), 1 - sum(cells.values())]) * len(sample)
    observed = np.array([np.count_nonzero(sample == k) for k in cells])
    observed = np.append(observed, len(sample) - observed.sum())
    if expected[-1] < 20:  # too few for a cell of their own
        observed, expected = (np.append(x[:-2], x[-2] + x[-1]) for x in (observed, expected))
    statistic = ((observed - expected) ** 2 / expected).sum()
    return float(stats.chi2.sf(statistic, len(expected) - 1))


@pytest.mark.parametrize("steps", [0.3, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_chi_square(distribution: Distribution, steps: float) -> None:
    sample = draws(distribution, steps, 1_000_000)
    assert chi_square(distribution, steps, sample) > LEVEL
    for wrong in (0.98, 1.02):
        assert chi_square(distribution, steps * wrong, sample) < LEVEL


@pytest.mark.parametrize("steps", [0.3, 2.5, 300.0, 2.0**20, 2.0**40])
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_moments_symmetry_and_independence(distribution: Distribution, steps: float) -> None:
    sample = draws(distribution, steps, 1_000_000).astype(np.float64)
    variance = steps**2
    if distribution == "laplace":
        variance = 2 * steps**2 if steps > 1e6 else 1 / (math.cosh(1 / steps) - 1)
    elif steps < 1:
        variance = sum(k * k * float(p) for k, p in noise_law(distribution, steps).probabilities().items())
    n = len(sample)
    assert abs(sample.mean()) < 5 * math.sqrt(variance / n)
    fourth = (sample**4).mean() / variance**2
    assert abs(sample.var() / variance - 1) < 5 * math.sqrt(fourth / n)
    positive, negative = np.count_nonzero(sample > 0), np.count_nonzero(sample < 0)
    assert abs(positive - negative) < 5 * math.sqrt(n)
    for lag in (1, 16, 128):  # neighbours, the same block, the next group
        assert abs(np.mean(sample[lag:] * sample[:-lag]) / variance) < 5 / math.sqrt(n)


# --- attacks on noise in floating point ---


def naive_laplace(x: float, size: int, seed: int) -> torch.Tensor:
    """The textbook's sampler: inverse CDF of a 24-bit uniform in float32, added to the value. For the attacks alone."""
    rng = torch.Generator().manual_seed(seed)
    u = torch.rand(size, generator=rng) - 0.5
    return x + -u.sign() * torch.log1p(-2 * u.abs())


def released(x: float, size: int, label: str, granularity: float = 2.0**-10) -> torch.Tensor:
    values = torch.full((size,), x)
    return noise_add(values, distribution="laplace", scale=1.0, granularity=granularity, key=KEY, label=label)


def naive_outputs(x: float) -> torch.Tensor:
    """Every value that naive_laplace(x) can give, sorted: torch.rand has 2^24 values."""
    u = torch.arange(2**24, dtype=torch.float32) * 2.0**-24 - 0.5
    return torch.unique(x + -u.sign() * torch.log1p(-2 * u.abs()))


def share_in(outputs: torch.Tensor, possible: torch.Tensor) -> float:
    place = torch.searchsorted(possible, outputs).clamp_max(len(possible) - 1)
    return (possible[place] == outputs).float().mean().item()


def test_least_significant_bits_tell_neighbours_apart_for_naive_noise_alone() -> None:
    """Mironov 2012: which neighbour could have given this float at all?"""
    zero, one = naive_outputs(0.0), naive_outputs(1.0)
    assert share_in(naive_laplace(0.0, 20_000, 1), zero) == 1
    assert share_in(naive_laplace(0.0, 20_000, 1), one) < 0.5  # more than half of them prove that x was not 1
    # Ours: whatever x is, any float32 on the grid is a possible output, and nothing else is.
    grid = 2.0**-10
    for x in (0.0, 1.0, 1 / 3, -1e-30):
        steps = released(x, 20_000, "attack") / grid
        assert torch.equal(steps, steps.round())
    # Within the range where both neighbours have given every point, the two sets of outputs are the same.
    seen = [set(released(x, 2_000_000, f"seen {x}", 2.0**-4).tolist()) for x in (0.0, 1 / 3)]
    middle = {k * 2.0**-4 for k in range(-100, 101)}
    assert seen[0] & middle == seen[1] & middle == middle


def test_the_last_place_tells_neighbours_apart_for_naive_noise_alone() -> None:
    """Haney et al. 2022: a sum has no finer unit in the last place than its terms, so fine outputs mean x = 0."""

    def fine(outputs: torch.Tensor) -> torch.Tensor:
        return outputs * 2.0**25 != (outputs * 2.0**25).round()

    naive = [fine(naive_laplace(x, 200_000, 2)).float().mean().item() for x in (0.0, 1.0)]
    assert naive[0] > 0.1
    assert naive[1] == 0
    for x in (0.0, 1.0):
        assert not fine(released(x, 200_000, "last place")).any()


def test_rounding_the_value_first_is_what_closes_the_last_place() -> None:
    """A value off the grid must not shine through: outputs of x and of x rounded to the grid are the same."""
    grid = 2.0**-10
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(3))
    draw = {"distribution": "laplace", "scale": 1.0, "granularity": grid, "key": KEY, "label": "rounded"}
    assert torch.equal(noise_add(x, **draw), noise_add((x / grid).round() * grid, **draw))
