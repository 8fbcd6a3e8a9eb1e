"""kde_em and kde_scores against the float64 reference, and against an independent NumPy float32 twin."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from privkernels import _native
from privkernels.ops import (
    kde_em,
    kde_em_accuracy,
    kde_em_probabilities_reference,
    kde_grid,
    kde_peak,
    kde_scores,
    kde_scores_reference,
)
from privkernels.randomness import Key
from tests.support import kde_em_mirror as mirror
from tests.support import kde_envelope_mirror as envelope_mirror

KEY = Key.from_seed(2022)
KINDS = ("normal", "equal", "outliers", "on the grid", "denormal", "huge", "at the window's edge")
# Below one chunk of 1,024 elements, at its ends, and beyond; odd and even, none and one.
SIZES = (0, 1, 2, 15, 16, 17, 33, 1023, 1024, 1025, 2051)


@dataclass(frozen=True)
class Case:
    """Inputs of a call: members [M, N]; lo, hi, bandwidth [N]."""

    theta: torch.Tensor
    lo: torch.Tensor
    hi: torch.Tensor
    bandwidth: torch.Tensor
    window_ratio: float
    grid_points: int

    def scores(self) -> torch.Tensor:
        return kde_scores(
            self.theta, lo=self.lo, hi=self.hi, bandwidth=self.bandwidth,
            window_ratio=self.window_ratio, grid_points=self.grid_points,
        )  # fmt: skip

    def draw(self, multiplier: float, label: str = "release", **rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return kde_em(
            self.theta, lo=self.lo, hi=self.hi, bandwidth=self.bandwidth, multiplier=multiplier,
            key=KEY, label=label, window_ratio=self.window_ratio, grid_points=self.grid_points, **rest,
        )  # fmt: skip

    def reference(self) -> torch.Tensor:
        grid = kde_grid(self.lo, self.hi, self.grid_points)
        return kde_scores_reference(self.theta, grid, self.bandwidth, self.window_ratio)

    def score_error(self) -> float:
        return kde_em_accuracy(
            len(self.theta), multiplier=1.0, window_ratio=self.window_ratio, grid_points=self.grid_points
        ).score_error

    def totals(self) -> np.ndarray:
        arrays = (x.numpy() for x in (self.theta, self.lo, self.hi, self.bandwidth))
        return mirror.totals(*arrays, self.window_ratio, self.grid_points)

    def envelope(self, multiplier: float) -> envelope_mirror.Envelope:
        arrays = (x.numpy() for x in (self.theta, self.lo, self.hi, self.bandwidth))
        return envelope_mirror.envelope(*arrays, self.window_ratio, self.grid_points, multiplier)


def make_case(
    num_members: int, size: int, grid_points: int, window_ratio: float, bandwidth: float, kind: str, seed: int
) -> Case:
    """Random inputs whose scores are neither all zero nor all equal, of one of ``KINDS``."""
    rng = np.random.default_rng(seed)
    b = (bandwidth * rng.uniform(0.5, 2, size)).astype(np.float32)
    reach = b * max(1.0, window_ratio) * rng.uniform(0.3, 4, size)
    center = bandwidth * rng.normal(size=size) * rng.choice([0, 1, 30])
    lo, hi = (center - reach).astype(np.float32), (center + reach).astype(np.float32)
    theta = center + reach * rng.normal(size=(num_members, size)) * rng.choice([0.1, 1])
    if kind == "equal":
        theta[:] = center
    elif kind == "outliers":
        theta[:: max(1, num_members // 3)] *= 1e6
    elif kind == "on the grid":
        theta[:] = lo + (hi - lo) * rng.integers(0, grid_points, theta.shape) / (grid_points - 1)
    elif kind == "denormal":
        theta[:] = rng.choice([0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.2e-38], theta.shape)
    elif kind == "huge":
        theta[::2] = rng.choice([3.4e38, -3.4e38, 1e30], theta[::2].shape)
    elif kind == "at the window's edge":
        theta[:] = lo + rng.choice([-0.5, 0.5], theta.shape) * window_ratio * b
    theta = np.clip(theta, -3.4e38, 3.4e38).astype(np.float32)
    tensors = (torch.from_numpy(x) for x in (theta, lo, hi, b))
    return Case(*tensors, window_ratio, grid_points)


@st.composite
def cases(draw: st.DrawFn, window_ratios: tuple[float, float] = (1e-3, 100.0)) -> Case:
    """Cases of every size, bandwidths over the whole range allowed, windows over five decades."""
    size = draw(st.sampled_from(SIZES))
    small = size <= 64
    num_members = draw(st.sampled_from([2, 3, 7, 8, 9, 16, 50, 97, 200] if small else [2, 3, 9, 17]))
    grid_points = draw(st.sampled_from([2, 7, 64, 257] if small else [2, 3, 5, 33]))
    low, high = (math.log(x) for x in window_ratios)
    window_ratio = draw(st.one_of(st.just(1.0), st.floats(low, high).map(math.exp)))
    bandwidth = draw(st.one_of(st.just(0.05), st.floats(-37, 29).map(lambda e: 10.0**e)))
    return make_case(
        num_members, size, grid_points, window_ratio, bandwidth, draw(st.sampled_from(KINDS)),
        draw(st.integers(0, 2**20)),
    )  # fmt: skip


@given(cases())
@settings(max_examples=100)
def test_scores_are_within_the_stated_error_of_the_reference(case: Case) -> None:
    scores = case.scores()
    assert scores.shape == (case.theta.shape[1], case.grid_points)
    assert scores.dtype == torch.float32
    error = (scores.double() - case.reference()).abs()
    assert (error <= case.score_error()).all(), f"{error.max()} > {case.score_error()}"


@pytest.mark.parametrize("window_ratio", [1e-6, 1e-4, 0.3, 1.0, math.nextafter(1.0, 2), 3.0, 1e3, 1e5, 1e6])
@pytest.mark.parametrize("kind", KINDS)
def test_score_error_over_the_whole_range_of_windows(window_ratio: float, kind: str) -> None:
    case = make_case(50, 61, 33, window_ratio, 0.02, kind, seed=5)
    error = (case.scores().double() - case.reference()).abs().max()
    assert error <= case.score_error()


def test_the_stated_score_error_is_the_right_order() -> None:
    """The bound is not so loose that it would hide a wrong kernel: it is below 3e-6 of w_max at M = 50."""
    for window_ratio in (0.05, 1.0, 2.0):
        accuracy = kde_em_accuracy(50, multiplier=1.0, window_ratio=window_ratio, grid_points=256)
        assert accuracy.score_error < 4e-6 * kde_peak(window_ratio)


def test_reference_agrees_with_the_formula_written_out() -> None:
    """Eq. 3 for one element by math.erf, member by member."""
    theta, grid, b, ratio = [0.1, -0.3, 0.25], [-0.5, 0.0, 0.125], 0.2, 1.5

    def phi(x: float) -> float:
        return 0.5 * (1 + math.erf(x / math.sqrt(2)))

    width = float(np.float32(b))
    expected = []
    for r in grid:
        distances = [(r - float(np.float32(t))) / width for t in theta]
        expected.append(sum(phi(d + ratio / 2) - phi(d - ratio / 2) for d in distances) / 3)
    got = kde_scores_reference(torch.tensor(theta).unsqueeze(1), torch.tensor(grid), b, ratio)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=1e-12)
    assert kde_peak(ratio) == pytest.approx(phi(ratio / 2) - phi(-ratio / 2), rel=1e-14)


def test_reference_probabilities_are_a_softmax() -> None:
    scores = torch.tensor([[0.1, 0.2, 0.4]])
    weights = torch.exp(7.0 * scores.double())
    torch.testing.assert_close(kde_em_probabilities_reference(scores, 7.0), weights / weights.sum())


@given(cases(), st.sampled_from([0.0, 0.7, 25.0, 400.0, 1e7]), st.integers(0, 2**40), st.integers(0, 2**32 - 1))
@settings(max_examples=60)
@example(make_case(50, 33, 257, 1.0, 0.05, "normal", 1), 65.0, 2**63 - 100, 0)
@example(make_case(2, 17, 7, 1e-6, 0.05, "normal", 1), 1e30, 0, 2**32 - 1)
def test_every_bit_of_a_draw_is_that_of_the_twin(
    case: Case, multiplier: float, first_element: int, attempt: int
) -> None:
    """Scores, indices and values equal those of the NumPy twin, which has its own ChaCha20."""
    value, index = case.draw(multiplier, first_element=first_element, attempt=attempt)
    size = case.theta.shape[1]
    if size == 0:
        assert value.shape == index.shape == (0,)
        return
    totals = case.totals()
    np.testing.assert_array_equal(case.scores().numpy(), mirror.scores(totals, len(case.theta), case.window_ratio))
    secret = KEY.derive("release").secret
    weights = mirror.integer_weights(totals, len(case.theta), case.window_ratio, multiplier)
    from_scores = mirror.draw(weights, secret, first_element, attempt)
    by_envelope = envelope_mirror.draw(case.envelope(multiplier), totals, secret, first_element, attempt)
    expected = np.where(by_envelope >= 0, by_envelope, from_scores)
    np.testing.assert_array_equal(index.numpy(), expected)
    grid = mirror.grid(case.lo.numpy(), case.hi.numpy(), case.grid_points)
    np.testing.assert_array_equal(value.numpy(), grid[np.arange(size), expected])


@given(cases())
@settings(max_examples=40)
def test_value_is_the_grid_point_of_index(case: Case) -> None:
    value, index = case.draw(50.0)
    assert index.dtype == torch.int32
    assert ((index >= 0) & (index < case.grid_points)).all()
    grid = kde_grid(case.lo, case.hi, case.grid_points)
    assert torch.equal(value, grid.gather(1, index.long().unsqueeze(1)).squeeze(1))


def test_grid_ends_at_lo_and_never_passes_hi() -> None:
    rng = np.random.default_rng(3)
    lo = torch.from_numpy(rng.normal(size=500).astype(np.float32))
    hi = lo + torch.from_numpy(rng.uniform(0, 2, size=500).astype(np.float32))
    for grid_points in (2, 3, 7, 256, 1000):
        grid = kde_grid(lo, hi, grid_points)
        assert torch.equal(grid[:, 0], lo)
        assert (grid <= hi.unsqueeze(1)).all()
        assert (grid.diff(dim=1) >= 0).all()
        torch.testing.assert_close(grid[:, -1], hi, rtol=0, atol=2e-6)


def test_lo_equal_to_hi_gives_lo() -> None:
    theta = torch.zeros(4, 100)
    value, index = kde_em(theta, lo=0.3, hi=0.3, bandwidth=0.1, multiplier=9.0, key=KEY, label="one point")
    assert torch.equal(value, torch.full((100,), 0.3))
    assert len(index.unique()) > 20  # which of the equal points is drawn is uniform


def test_the_extreme_range_of_a_grid() -> None:
    """hi - lo near the largest float: no grid point overflows, whatever the rounding of the step."""
    theta = torch.zeros(2, 8)
    for grid_points in (2, 3, 7, 1000):
        value, _ = kde_em(
            theta, lo=-1.7e38, hi=1.7e38, bandwidth=1e30, multiplier=0.0, key=KEY, label="wide",
            grid_points=grid_points,
        )  # fmt: skip
        assert value.isfinite().all()
        assert (value.abs() <= 1.7e38).all()


def test_largest_grid_and_a_zero_multiplier_are_uniform() -> None:
    theta = torch.zeros(2, 4000)
    _, index = kde_em(theta, lo=-1.0, hi=1.0, bandwidth=0.01, multiplier=0.0, key=KEY, label="flat", grid_points=65536)
    # Mean of 4,000 uniforms on [0, 65536): standard error 299; six of them.
    assert abs(index.double().mean() - 32767.5) < 6 * 299
    assert len(index.unique()) > 3800


def test_a_large_multiplier_draws_the_best_point() -> None:
    case = make_case(9, 300, 33, 1.0, 0.05, "normal", 8)
    _, index = case.draw(1e9)
    chosen = case.scores().gather(1, index.long().unsqueeze(1)).squeeze(1)
    assert torch.equal(chosen, case.scores().amax(dim=1))


@pytest.mark.parametrize("change", ["attempt", "label", "key", "first_element"])
def test_another_address_gives_other_draws(change: str) -> None:
    theta = torch.zeros(3, 4096)

    def draw(**changed: object) -> torch.Tensor:
        arguments: dict[str, object] = {"key": KEY, "label": "a", "attempt": 0, "first_element": 0, **changed}
        return kde_em(theta, lo=-1.0, hi=1.0, bandwidth=0.1, multiplier=0.0, grid_points=64, **arguments)[1]

    other = {"attempt": 1, "label": "b", "key": Key.from_seed(2023), "first_element": 4096}[change]
    equal = (draw() == draw(**{change: other})).double().mean()
    # Independent draws agree in 1 of 64; 4,096 of them by six standard errors of 0.0019.
    assert abs(equal - 1 / 64) < 6 * 0.0019
    assert torch.equal(draw(), draw())


def test_the_uniform_draw_has_more_than_32_bits() -> None:
    """Elements whose bits lie so close to the edge of a grid point that 32 of them choose the wrong one.

    Drawn from the scores: the window is too wide for the envelope.
    """
    grid_points, label = 65521, "resolution"
    secret = KEY.derive(label).secret
    native = _native.cpu()
    elements, expected = [], []
    for element in range(400_000):
        bits = native.element_bits(secret, element, 0, mirror.PURPOSE)
        index = bits * grid_points >> 64  # all weights are equal
        if (bits >> 32) * grid_points >> 32 != index:
            elements.append(element)
            expected.append(index)
    assert len(elements) >= 3
    theta = torch.zeros(2, 1)
    for element, index in zip(elements, expected, strict=True):
        _, drawn = kde_em(
            theta, lo=-1.0, hi=1.0, bandwidth=0.1, multiplier=0.0, key=KEY, label=label, window_ratio=3.0,
            grid_points=grid_points, first_element=element,
        )  # fmt: skip
        assert drawn.item() == index
