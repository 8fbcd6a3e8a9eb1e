"""kde_em's envelope, by which it draws lazily, and that the time of fixed work does not depend on the members."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.ops import kde_em, kde_peak, kde_scores
from privkernels.ops.kde_em import _envelope_gap as envelope_gap
from privkernels.randomness import Key
from tests.ops.test_kde_em import Case, make_case
from tests.support import kde_em_mirror as mirror
from tests.support import kde_envelope_mirror as envelope_mirror
from tests.support.least_times import assert_alike

KEY = Key.from_seed(5)


def multiplier(epsilon: float, num_members: int, window_ratio: float = 1.0) -> float:
    return epsilon * num_members / (2 * kde_peak(window_ratio))


def usual(num_members: int, size: int, grid_points: int = 256, window_ratio: float = 1.0) -> Case:
    """As training leaves parameters: range +-4 spreads, bandwidth half a spread."""
    rng = np.random.default_rng(num_members)
    center = rng.normal(size=size) * 0.05
    spread = rng.uniform(0.01, 0.03, size)
    theta = center + spread * rng.normal(size=(num_members, size))
    arrays = (theta, center - 4 * spread, center + 4 * spread, spread / 2)
    return Case(*(torch.from_numpy(x.astype(np.float32)) for x in arrays), window_ratio, grid_points)


@pytest.mark.parametrize("grid_points", [40, 64, 257, 4096])
@pytest.mark.parametrize("epsilon", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("window_ratio", [0.01, 1.0, 2.0])
def test_the_envelope_serves_usual_parameters_and_accepts_often(
    grid_points: int, epsilon: float, window_ratio: float
) -> None:
    """Else lazy work would be as slow as the scores of all grid points, and no other test would see it."""
    case = usual(50, 40, grid_points, window_ratio)
    factor = multiplier(epsilon, 50, window_ratio)
    envelope, totals = case.envelope(factor), case.totals()
    assert envelope.usable.all()
    accepted = [envelope_mirror.trial_law(envelope, j, totals[j]).sum() for j in range(5)]
    # A window of two bandwidths is flat on top.
    assert min(accepted) > (0.5 if window_ratio <= 1 else 0.2)


@given(
    st.sampled_from([2, 3, 17, 50, 200]), st.sampled_from([8, 33, 256, 1000]),
    st.sampled_from([1e-3, 0.3, 1.0, 1.7, 2.0]), st.sampled_from([1e-30, 0.05, 1e25]),
    st.sampled_from(["normal", "equal", "outliers", "on the grid", "denormal", "huge", "at the window's edge"]),
    st.sampled_from([0.1, 20.0, 1e4]), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=120)
def test_no_weight_lies_above_the_envelope(
    num_members: int, grid_points: int, window_ratio: float, bandwidth: float, kind: str, factor: float, seed: int
) -> None:
    case = make_case(num_members, 12, grid_points, window_ratio, bandwidth, kind, seed)
    envelope, totals = case.envelope(factor), case.totals()
    for j in np.flatnonzero(envelope.usable):
        scale = float(envelope.scale)
        exact = case.reference()[j].numpy() * num_members / kde_peak(window_ratio)
        for sums in (totals[j].astype(np.float64), exact):
            weight = np.exp2((sums - float(envelope.best[j])) * scale) * 2.0**22
            # What the clamp at 1 - 2^-24 may hide.
            assert (weight <= envelope.bounds(int(j)) * (1 + 2e-7)).all()


@pytest.mark.parametrize("grid_points", [1024, 65536])
@pytest.mark.parametrize("swing", [26.0, 60.0, 300.0])
def test_the_envelope_at_a_point_is_the_sum_of_its_hats(grid_points: int, swing: float) -> None:
    """Else the law would not be that of the weights: what proposes a point must be what its weight is divided by.

    Worst where nodes are thousands of points apart and their weights far from equal; from either node, to 2 units.
    """
    theta, ends = np.full((2, 1), 1.3, np.float32), [np.full(1, x, np.float32) for x in (0.0, 4.0, 1.0)]
    envelope = envelope_mirror.envelope(theta, *ends, 1.0, grid_points, swing / kde_peak(1.0))
    weights, points = envelope.weights[0], 1 << int(envelope.shift[0])
    exact = envelope.bounds(0)
    worst = 0.0
    for node in np.flatnonzero(weights[:-1] != weights[1:])[:4].tolist():
        for offset in {1, 2, points // 2, points - 2, points - 1} - {0, points}:
            wanted = exact[(node << int(envelope.shift[0])) + offset]
            for hat in (
                envelope_mirror.hat(envelope, 0, node, offset),
                envelope_mirror.hat(envelope, 0, node + 1, offset - points),
            ):
                worst = max(worst, abs(float(hat) / wanted - 1))
    assert points >= 32
    assert worst <= 2 * 2.0**-24 * 1.001


@pytest.mark.parametrize("window_ratio", [1e-3, 1.0, 2.0])
@pytest.mark.parametrize("swing", [0.5, 10.0, 26.0, 40.0])
@pytest.mark.parametrize("kind", ["equal", "normal", "on the grid"])
def test_an_accepted_share_is_at_least_the_stated_one(window_ratio: float, swing: float, kind: str) -> None:
    """docs/accounting.md, Statement 17 (3); and the gap is not four times what occurs."""
    gap = envelope_gap(window_ratio, swing)
    highest = -math.inf
    for grid_points in (64, 1000):
        case = make_case(5, 20, grid_points, window_ratio, 0.05, kind, grid_points)
        envelope, totals = case.envelope(swing / kde_peak(window_ratio)), case.totals()
        for j in np.flatnonzero(envelope.usable):
            exponent = (totals[j].astype(np.float64) - float(envelope.best[j])) * float(envelope.scale) * math.log(2)
            reciprocal = envelope.bounds(int(j)) / (np.exp(exponent) * 2.0**22)
            assert (reciprocal <= 1.0005 * (math.exp(gap) + 2.0**-22 * np.exp(-exponent))).all()
            assert (-exponent <= 1.1 * swing).all()
            highest = max(highest, math.log((reciprocal - 2.0**-22 * np.exp(-exponent)).max()))
    assert kind != "equal" or highest > gap / 4 - 0.1


@given(
    st.sampled_from([2, 50]), st.sampled_from([8, 33, 257]), st.sampled_from([1e-3, 1.0, 2.0]),
    st.sampled_from(["equal", "outliers", "normal", "huge"]), st.sampled_from([0.1, 100.0]), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=60)
def test_no_member_leads_to_denormals(
    num_members: int, grid_points: int, window_ratio: float, kind: str, factor: float, seed: int
) -> None:
    """Some processors are slow on them; with fixed work the time would tell where the members are."""
    case = make_case(num_members, 12, grid_points, window_ratio, 0.05, kind, seed)
    reach = (case.hi - case.lo) * grid_points**0.5 / 2
    for hi in (case.hi, case.lo + reach):
        ends = [x.numpy() for x in (case.lo, hi, case.bandwidth)]
        serves = envelope_mirror.envelope(case.theta.numpy(), *ends, window_ratio, grid_points, factor).usable
        chosen = (case.theta.numpy()[:, serves], *(x[serves] for x in ends))
        with np.errstate(under="raise"):
            envelope_mirror.envelope(*chosen, window_ratio, grid_points, factor)


def test_half_precision_members_are_their_float32_values() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        theta = (torch.randn(9, 500, generator=torch.Generator().manual_seed(3)) * 0.3).to(dtype)
        theta[0, :8] = torch.tensor([0.0, -0.0, 6e-8, -6e-5, 65504.0, -65504.0, 1e-7, 2**-14], dtype=dtype)
        arguments: dict[str, Any] = {"lo": -1.0, "hi": 1.0, "bandwidth": 0.1, "grid_points": 64}
        strided = torch.zeros(9, 1000, dtype=dtype)
        strided[:, ::2] = theta
        for work in ("lazy", "fixed"):
            draw: dict[str, Any] = {"multiplier": 60.0, "key": KEY, "label": "half", "work": work, **arguments}
            expected = kde_em(theta.float(), **draw)
            for rows in (theta, strided[:, ::2], list(theta)):
                assert all(torch.equal(a, b) for a, b in zip(kde_em(rows, **draw), expected, strict=True))
        assert torch.equal(kde_scores(theta, **arguments), kde_scores(theta.float(), **arguments))


@pytest.mark.parametrize("bits", [torch.arange(0, 2**16, dtype=torch.int32).to(torch.int16)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_exactly(bits: torch.Tensor, dtype: torch.dtype) -> None:
    """Two members alike, window and range around them: the score at the middle is w_max only where both are exact."""
    values = bits.view(dtype)
    values = values[values.isfinite()]
    wide = values.float()
    bandwidth = (wide.abs() * 2**-20).clamp(2.0**-126, 2.0**100)
    arguments: dict[str, Any] = {"lo": wide, "hi": wide, "bandwidth": bandwidth, "grid_points": 2}
    scores = kde_scores(torch.stack([values, values]), **arguments)
    assert torch.equal(scores, kde_scores(torch.stack([wide, wide]), **arguments))
    assert (scores - kde_peak(1.0)).abs().max() < 1e-6


def adversarial() -> dict[str, torch.Tensor]:
    """Members for which the number of trials, and where the draw falls, differ most."""
    size, num_members = 256, 30
    noise = torch.randn(num_members, size, generator=torch.Generator().manual_seed(0))
    return {
        "all at the lower end": torch.full((num_members, size), -1.0),
        "all at the upper end": torch.full((num_members, size), 1.0),
        "far outside": torch.full((num_members, size), 1e30),
        "spread": noise * 0.4,
        "close together": noise * 1e-3 + 0.3,
        "two clusters": torch.where(torch.arange(num_members)[:, None] % 2 == 0, -0.9, 0.9).expand(-1, size).clone(),
    }


@pytest.mark.parametrize(("window_ratio", "epsilon"), [(1.0, 3.0), (1.5, 3.0), (2.0, 100.0)])
def test_the_time_of_fixed_work_does_not_depend_on_the_members(window_ratio: float, epsilon: float) -> None:
    draw: dict[str, Any] = {
        "lo": -1.0, "hi": 1.0, "bandwidth": 0.1, "grid_points": 128, "window_ratio": window_ratio,
        "multiplier": multiplier(epsilon, 30, window_ratio), "key": KEY, "label": "t", "work": "fixed",
    }  # fmt: skip
    calls = {name: partial(kde_em, theta, **draw) for name, theta in adversarial().items()}
    assert_alike(calls, rounds=15, limit=1.5)


def test_mirrors_constants_are_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last trial's bits are used: an element that only it accepts is drawn there, as the twin says."""
    case = usual(20, 1500, 64, 2.0)
    factor = multiplier(20.0, 20, 2.0)
    totals, envelope = case.totals(), case.envelope(factor)
    secret = KEY.derive("release").secret
    from_scores = mirror.draw(mirror.integer_weights(totals, 20, 2.0, factor), secret)
    expected = {}
    for trials in (8, 9, 10):
        monkeypatch.setattr(envelope_mirror, "TRIALS", trials)
        drawn = envelope_mirror.draw(envelope, totals, secret, 0, 0)
        expected[trials] = np.where(drawn >= 0, drawn, from_scores)
    _, index = kde_em(
        case.theta, lo=case.lo, hi=case.hi, bandwidth=case.bandwidth, multiplier=factor, key=KEY, label="release",
        window_ratio=2.0, grid_points=64,
    )  # fmt: skip
    np.testing.assert_array_equal(index.numpy(), expected[9])
    for other in (8, 10):
        assert (expected[other] != expected[9]).any()
