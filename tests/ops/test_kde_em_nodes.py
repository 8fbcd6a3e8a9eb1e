"""kde_em with fixed work: scores from sums at nodes, bit for bit those of the twin, and within their stated error."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from privkernels.ops import kde_em, kde_em_accuracy, kde_em_probabilities_reference, kde_peak
from privkernels.ops.kde_em import _node_units as node_units
from privkernels.randomness import Key
from tests.ops.test_kde_em import KEY, KINDS, Case, cases, make_case
from tests.support import kde_em_mirror as mirror
from tests.support import kde_nodes_mirror as nodes_mirror

SECRET = KEY.derive("release").secret


def node_case(
    num_members: int, grid_points: int, window_ratio: float, eta: float, kind: str, seed: int, size: int = 12
) -> Case:
    """Elements whose nodes are `eta` bandwidths apart, where they are as many grid points apart as can be."""
    case = make_case(num_members, size, grid_points, window_ratio, 0.05, kind, seed)
    shift = nodes_mirror.plan(window_ratio, num_members, grid_points).largest_shift
    wide = (case.bandwidth.double() * eta * (grid_points - 1) / 2**shift).float()
    squeeze = (case.theta - case.lo) / (case.hi - case.lo).clamp_min(1e-30) * wide + case.lo
    theta = case.theta if kind in ("huge", "denormal", "outliers") else squeeze
    return Case(theta, case.lo, case.lo + wide, case.bandwidth, window_ratio, grid_points)


def by_nodes(case: Case) -> tuple[np.ndarray, np.ndarray]:
    arrays = (x.numpy() for x in (case.theta, case.lo, case.hi, case.bandwidth))
    return nodes_mirror.totals(*arrays, case.window_ratio, case.grid_points)


def exact_scores(case: Case) -> np.ndarray:
    """Eq. 3 in float64 at lo + k step, [N, R]."""
    lo, hi = case.lo.numpy(), case.hi.numpy()
    step = ((hi - lo) / np.float32(case.grid_points - 1)).astype(np.float64)
    grid = torch.from_numpy(lo.astype(np.float64)[:, None] + step[:, None] * np.arange(case.grid_points))
    half, total = case.window_ratio / 2, torch.zeros_like(grid)
    for row in case.theta.double():
        t = ((grid - row[:, None]) / case.bandwidth.double()[:, None]).abs()
        total += (torch.erfc((t - half) * math.sqrt(0.5)) - torch.erfc((t + half) * math.sqrt(0.5))) / 2
    return (total / len(case.theta)).numpy()


def assert_the_twins_draws(case: Case, multiplier: float, first_element: int, attempt: int) -> None:
    value, index = case.draw(multiplier, first_element=first_element, attempt=attempt, work="fixed")
    _, totals = by_nodes(case)
    weights = mirror.integer_weights(totals, len(case.theta), case.window_ratio, multiplier)
    expected = mirror.draw(weights, SECRET, first_element, attempt)
    np.testing.assert_array_equal(index.numpy(), expected)
    grid = mirror.grid(case.lo.numpy(), case.hi.numpy(), case.grid_points)
    np.testing.assert_array_equal(value.numpy(), grid[np.arange(len(expected)), expected])


@given(
    st.sampled_from([2, 7, 8, 9, 33, 50]), st.sampled_from([65, 128, 256, 257, 1000]),
    st.sampled_from([1e-6, 0.1, 1.0, 1.3, 2.0]), st.sampled_from([0.1251, 0.17, 0.2599]),
    st.sampled_from(KINDS), st.sampled_from([0.0, 25.0, 1e7]), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=40)
def test_every_bit_of_a_draw_is_that_of_the_twin(
    num_members: int, grid_points: int, window_ratio: float, eta: float, kind: str, factor: float, seed: int
) -> None:
    case = node_case(num_members, grid_points, window_ratio, eta, kind, seed, size=19)
    assert (by_nodes(case)[0] >= 0).all()
    assert_the_twins_draws(case, factor, 2**40 + seed, seed)


@pytest.mark.parametrize("eta", [0.1251, 0.17, 0.2599])
@pytest.mark.parametrize(
    ("grid_points", "window_ratio", "start"),
    [(65, 1e-6, 0.0), (256, 1.0, -2000.0), (513, 2.0, 16000.0), (1000, 0.7, 0.5), (4097, 0.3, 15.0)],
)
def test_every_bit_of_a_score_is_that_of_the_twin(
    grid_points: int, window_ratio: float, start: float, eta: float
) -> None:
    """Members a bandwidth apart have the same score everywhere, but for rounding: its last bits decide the draw."""
    nodes = (grid_points - 1) / 2 ** nodes_mirror.plan(window_ratio, 2, grid_points).largest_shift
    lo = np.float32(start) + np.linspace(0, 0.9, 16, dtype=np.float32)
    hi = lo + np.float32(eta * nodes)
    theta = lo[0] - 8 + np.arange(math.ceil(eta * nodes + 17), dtype=np.float32)[:, None] + np.zeros_like(lo)
    arrays = (theta, lo, hi, np.ones_like(lo))
    case = Case(*(torch.from_numpy(x) for x in arrays), window_ratio, grid_points)
    shift, totals = by_nodes(case)
    assert (shift == shift[0]).all()
    assert shift[0] >= 0
    assert np.ptp(totals, axis=1).max() < 2e-5
    assert_the_twins_draws(case, 1e9 / kde_peak(window_ratio), 7, 0)


@given(cases(), st.sampled_from([0.7, 400.0]), st.integers(0, 2**40))
@settings(max_examples=25)
def test_any_case_is_that_of_the_twin(case: Case, factor: float, first_element: int) -> None:
    """Most of these are scored directly."""
    if case.theta.shape[1] > 0:
        assert_the_twins_draws(case, factor, first_element, 0)


def test_elements_of_one_call_may_differ_in_their_nodes() -> None:
    parts = [node_case(9, 512, 1.0, eta, "normal", 3, size=16) for eta in (0.2, 0.1, 0.4, 1.0, 2.0, 8.0)]
    order = torch.randperm(96, generator=torch.Generator().manual_seed(0))
    theta = torch.cat([part.theta for part in parts], 1)[:, order]
    lo, hi, b = (torch.cat([getattr(part, name) for part in parts])[order] for name in ("lo", "hi", "bandwidth"))
    case = Case(theta, lo, hi, b, 1.0, 512)
    assert set(by_nodes(case)[0].tolist()) == {-1, 0, 1, 2, 3}
    assert_the_twins_draws(case, 20.0, 5, 0)


@pytest.mark.parametrize("window_ratio", [1e-6, 0.1, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("kind", [*KINDS, "one place"])
def test_the_score_error_is_within_its_bound(window_ratio: float, kind: str) -> None:
    for num_members, grid_points in ((2, 300), (50, 256), (90, 128)):
        bound = node_units(num_members, window_ratio, grid_points) * 2.0**-24 * kde_peak(window_ratio)
        for eta in (0.1251, 0.21, 0.2599):
            case = node_case(num_members, grid_points, window_ratio, eta, kind, num_members + grid_points, size=6)
            if kind == "one place":  # where errors of all members are alike, at any place of a group of nodes
                place = torch.linspace(0.0, 1.0, 6).expand(num_members, -1)
                case = Case(case.lo + place * (case.hi - case.lo), *list(vars(case).values())[1:])
            shift, totals = by_nodes(case)
            assert (shift >= 0).all()
            scores = totals.astype(np.float64) * (kde_peak(window_ratio) / num_members)
            assert np.abs(scores - exact_scores(case)).max() <= bound


@pytest.mark.parametrize(
    ("start", "bandwidth", "serves"),
    [
        (16300.0, 1.0, True), (-16380.0, 1.0, True), (16390.0, 1.0, False), (-16390.0, 1.0, False),
        (16370.0, 1.0, False),  # its other end
        (2.0**27, 1.0, False), (1.0, 3.7e-9, False), (2.0**126, 2.0**100, False),  # floats are further apart than nodes
        (0.0, 2.0**-126, False), (0.0, 2.2e-38, False), (0.0, 5.8e-38, False),  # a node's inverse is no float
        (0.0, 6e-38, True), (0.0, 2.0**100, True),
    ],
)  # fmt: skip
def test_nodes_serve_where_floats_can_tell_places_apart(start: float, bandwidth: float, serves: bool) -> None:
    """And elsewhere scores are direct: by nodes a member would be at another place, its score wrong by up to w_max."""
    grid_points, b = 128, np.full(8, bandwidth, np.float32)
    lo = np.full(8, start, np.float32)
    hi = np.maximum(lo + np.float32(127 * 0.2) * b, np.nextafter(lo, np.float32(np.inf)))
    b = np.maximum(b, (hi - lo) / np.float32(127 * 0.25))  # the next float may be further away
    theta = np.stack([lo + (hi - lo) * np.linspace(0, 1, 8, dtype=np.float32)] * 3)
    case = Case(*(torch.from_numpy(x) for x in (theta, lo, hi, b)), 1.0, grid_points)
    shift, totals = by_nodes(case)
    assert ((shift >= 0) == serves).all()
    assert_the_twins_draws(case, 100.0, 0, 0)
    exact = exact_scores(case) if serves else case.reference().numpy()
    error = np.abs(totals.astype(np.float64) * (kde_peak(1.0) / 3) - exact).max()
    assert error <= case.score_error()


@pytest.mark.parametrize(
    ("grid_points", "window_ratio", "serves"), [(64, 1.0, False), (65, 1.0, True), (65, 2.0, True), (65, 2.001, False)]
)
def test_how_many_points_and_which_window_nodes_serve(grid_points: int, window_ratio: float, serves: bool) -> None:
    """kde_em_accuracy counts their error there; direct scores differ enough from theirs for other draws."""
    num_members = 3
    case = node_case(num_members, grid_points, window_ratio, 0.2, "normal", 2, size=40)
    shift, totals = by_nodes(case)
    assert ((shift >= 0) == serves).all()
    assert_the_twins_draws(case, 1e8, 3, 0)
    exact = exact_scores(case) if serves else case.reference().numpy()
    error = np.abs(totals.astype(np.float64) * (kde_peak(window_ratio) / num_members) - exact).max()
    assert error <= case.score_error()


@pytest.mark.parametrize("grid_points", [128, 256, 512, 65536])
def test_nodes_serve_a_range_of_eight_bandwidths(grid_points: int) -> None:
    """What publishing takes unless told otherwise; direct scores would cost ten times as much."""
    lo, hi, inverse = (np.full(1, x, np.float32) for x in (-0.3, 0.3, 0.84932180 / 0.075))
    step = (hi - lo) / np.float32(grid_points - 1)
    plan = nodes_mirror.plan(0.99, 50, grid_points)
    assert nodes_mirror.shifts(plan, lo, hi, step, inverse)[0] == plan.largest_shift > 0


def test_the_bound_is_below_a_millionth_at_the_usual_setting() -> None:
    accuracy = kde_em_accuracy(50, multiplier=65.0, window_ratio=1.0, grid_points=256)
    assert accuracy.score_error < 1e-6
    assert accuracy.score_error == pytest.approx(node_units(50, 1.0, 256) * 2.0**-24 * kde_peak(1.0))


@pytest.mark.parametrize("window_ratio", [1e-6, 0.3, 0.7, 1.0, 1.5, 2.0])
def test_the_constants_of_the_bound(window_ratio: float) -> None:
    """Of docs/accounting.md, Statement 18: what the taps' rounding, the rule and the taps' end come to, in 2^-24."""
    plan, half = nodes_mirror.plan(window_ratio, 50, 257), window_ratio / 2
    for eta in np.linspace(0.125001, 0.26, 28):
        place = np.array([(eta - nodes_mirror.MIDDLE) / nodes_mirror.HALF_RANGE], np.float32)
        exact = np.array([nodes_mirror.tap_of(tap / 2, float(eta), half) for tap in range(len(plan.taps))])
        rounded = np.concatenate(nodes_mirror.taps_at(plan, place)).astype(np.float64)
        error = np.abs(rounded - exact) * 2**24
        partial, kappa = 0.0, 0.5 / (math.log(2) * (1 / eta**2 - 1))
        for odd in (0, 1):
            distance = np.arange(plan.reach, -1, -1) + odd / 2
            share = exact[2 * np.arange(plan.reach, -1, -1) + odd] * np.exp2(-kappa * distance**2) * 2
            share[distance == 0] /= 2
            partial = max(partial, share[:-1].cumsum().sum())
            x = np.linspace(-60, 60, 1201)
            at = np.arange(-plan.reach, plan.reach + 1 + odd) - odd / 2
            taps = exact[np.abs(2 * at).astype(int)]
            rule = (taps[:, None] * np.exp2(-kappa * (at[:, None] - x) ** 2)).sum(0)
            t = torch.from_numpy(np.abs(x) * eta)
            kernel = (
                (torch.erfc((t - half) * 0.5**0.5) - torch.erfc((t + half) * 0.5**0.5)) / 2 / kde_peak(window_ratio)
            )
            assert np.abs(rule - kernel.numpy()).max() * 2**24 < 0.36
        taps_error = max(error[0] + 2 * error[2::2].sum(), 2 * error[1::2].sum())
        assert partial + taps_error < 2.6 + 1.75 * window_ratio


@pytest.mark.parametrize(("num_members", "epsilon"), [(2, 0.5), (50, 0.01), (50, 1.0), (50, 3.0), (300, 1.0)])
@pytest.mark.parametrize("window_ratio", [0.05, 1.0, 2.0])
@pytest.mark.parametrize("kind", ["normal", "equal", "outliers"])
def test_the_exact_law_is_within_the_stated_bounds(
    num_members: int, epsilon: float, window_ratio: float, kind: str
) -> None:
    case = node_case(num_members, 257, window_ratio, 0.2, kind, 7, size=3)
    multiplier = epsilon * num_members / (2 * kde_peak(window_ratio))
    accuracy = kde_em_accuracy(num_members, multiplier=multiplier, window_ratio=window_ratio, grid_points=257)
    shift, totals = by_nodes(case)
    assert (shift >= 0).all()
    weights = mirror.integer_weights(totals, num_members, window_ratio, multiplier)
    wanted = kde_em_probabilities_reference(torch.from_numpy(exact_scores(case)), multiplier).numpy()
    half = accuracy.epsilon_shift / 2
    for j in range(3):
        got = mirror.exact_probabilities(weights[j])
        assert np.abs(got - wanted[j]).sum() / 2 <= accuracy.resolution_tv + math.expm1(half)
        if accuracy.resolution_epsilon < math.inf:
            assert np.abs(np.log(got / wanted[j])).max() <= half + accuracy.resolution_epsilon / 2


@given(
    st.sampled_from([2, 17, 50]), st.sampled_from([65, 256]), st.sampled_from([1e-3, 1.0, 2.0]),
    st.sampled_from(KINDS), st.sampled_from([0.126, 0.259]), st.integers(0, 2**20),
)  # fmt: skip
@settings(max_examples=25)
def test_no_member_leads_to_denormals(
    num_members: int, grid_points: int, window_ratio: float, kind: str, eta: float, seed: int
) -> None:
    """Some processors are slow on them; the time would tell where the members are."""
    case = node_case(num_members, grid_points, window_ratio, eta, kind, seed, size=5)
    theta, *ends = (x.numpy() for x in (case.theta, case.lo, case.hi, case.bandwidth))
    theta = np.where(np.abs(theta) < 1e-30, np.float32(0), theta)  # a member that is one itself
    plan = nodes_mirror.plan(window_ratio, num_members, grid_points)
    with np.errstate(under="raise"):
        nodes_mirror.scores_of(plan, theta, *ends, grid_points)


@pytest.mark.parametrize("window_ratio", [1.0, 2.0])
def test_draws_follow_the_law(window_ratio: float) -> None:
    """Chi-square on 2^17 draws of one element repeated, at an error rate of 1e-6."""
    size, grid_points = 2**17, 65
    case = node_case(20, grid_points, window_ratio, 0.2, "normal", 11, size=1)
    theta = case.theta.expand(20, size)
    _, index = kde_em(
        theta, lo=case.lo.item(), hi=case.hi.item(), bandwidth=case.bandwidth.item(), multiplier=12.0,
        key=Key.from_seed(77), label="law", window_ratio=window_ratio, grid_points=grid_points, work="fixed",
    )  # fmt: skip
    wanted = kde_em_probabilities_reference(torch.from_numpy(exact_scores(case)), 12.0)[0].numpy() * size
    counts = np.bincount(index.numpy(), minlength=grid_points)
    statistic = float(((counts - wanted) ** 2 / wanted).sum())
    # Wilson and Hilferty's normal approximation; 4.75 standard deviations.
    freedom = grid_points - 1
    assert ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom)) < 4.75
