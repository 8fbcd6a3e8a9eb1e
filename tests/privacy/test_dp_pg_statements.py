"""The paper's statements on DP-PG beside what can be computed: each refuted one by its counterexample, each number
again.

In the order of the argument: sensitivity, grid and bandwidth from the data, composition, training records, accept loop.
"""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy import special, stats
from scipy.optimize import brentq

from privkernels.ops import kde_peak
from privkernels.privacy import (
    BoundedRangeEvent,
    Guarantee,
    dp_pg_guarantee,
    kde_sensitivity,
    paper_kde_sensitivity,
    plan_proven_dp_pg,
    zcdp_to_epsilon,
)
from privkernels.privacy.accounting import unlimited_public_acceptance
from privkernels.privacy.dp_pg import event_of

SHAPE = {"num_members": 50, "num_parameters": 400, "grid_points": 64, "window_ratio": 1.0}
NETWORKS = (7_850, 314_394, 1_199_882)  # parameters of the networks that the numbers are given for
SOURCES = {"grid_is_public": True, "bandwidth_source": "public", "range_source": "public"}


def scores(values, grid, bandwidth):
    """u of Eq. 3 with window = bandwidth, for values [M] and a grid [R]."""
    z = (np.asarray(grid)[:, None] - np.asarray(values)[None, :]) / bandwidth
    return (special.ndtr(z + 0.5) - special.ndtr(z - 0.5)).mean(axis=1)


# Sensitivity


def test_sensitivities_at_fifty_members():
    assert kde_peak(1.0) == pytest.approx(0.3829, abs=5e-5)
    assert kde_sensitivity(50, 1.0) == pytest.approx(7.658e-3, rel=1e-3)
    assert paper_kde_sensitivity(50) == pytest.approx(4.08e-4, rel=1e-3)
    assert kde_sensitivity(50, 1.0) / paper_kde_sensitivity(50) == pytest.approx(18.76, abs=5e-3)


def test_an_ordinary_slice_exceeds_the_papers_sensitivity():
    """Leaving one member out of 50 standard normal ones, as the paper's neighbours do."""
    values = np.random.default_rng(0).normal(size=50)
    grid = np.linspace(-6, 6, 601)
    whole = scores(values, grid, 1.0)
    changes = [np.abs(whole - scores(np.delete(values, i), grid, 1.0)).max() for i in range(50)]
    assert max(changes) == pytest.approx(6.35e-3, rel=0.1)
    assert min(changes) > 4 * paper_kde_sensitivity(50)


def largest_log_ratio(sensitivity):
    """Worst pair of one draw at epsilon 1: 49 members together, the last one here or there."""
    grid = np.linspace(-20, 20, 41)
    laws = [special.log_softmax(scores([0.0] * 49 + [last], grid, 1.0) / (2 * sensitivity)) for last in (0.0, 10.0)]
    return np.abs(laws[0] - laws[1]).max()


def test_a_draw_with_the_papers_sensitivity_spends_nineteen_epsilon():
    assert largest_log_ratio(paper_kde_sensitivity(50)) == pytest.approx(18.756, abs=0.02)
    assert 0.95 < largest_log_ratio(kde_sensitivity(50, 1.0)) <= 1


# Bandwidth and grid from the data


def silverman(values):
    spread = min(np.std(values, ddof=1), np.subtract(*np.percentile(values, [75, 25])) / 1.35)
    return 0.9 * spread * len(values) ** -0.2


def mass_at_zero(values, bandwidth, window=0.01):
    """u of Eq. 3 at r = 0 with a window that is fixed in units of the parameter, as the paper has it."""
    return float(
        np.mean(special.ndtr((window / 2 - values) / bandwidth) - special.ndtr((-window / 2 - values) / bandwidth))
    )


def test_silvermans_bandwidth_has_no_small_sensitivity():
    """Values in [0, 1]: one replacement lets the interquartile range jump from nothing over the gap between two
    bunches."""
    before, after = (np.array([0.0] * zeros + [1.0] * (50 - zeros)) for zeros in (38, 37))
    before[:2] = after[:2] = 1e-4, 2e-4
    before[25:38] = after[25:37] = 1e-4
    after = np.where(np.arange(50) < 37, after, 1.0)
    assert np.sum(before != after) == 1
    change = abs(mass_at_zero(before, silverman(before)) - mass_at_zero(after, silverman(after)))
    assert change > 0.68
    assert change > 80 * kde_sensitivity(50, 1.0)


def test_a_standard_deviation_as_bandwidth_reaches_sensitivity_one():
    before, after = np.linspace(0, 1e-4, 50), np.linspace(0, 1e-4, 50)
    after[-1] = 1e6
    change = abs(mass_at_zero(before, np.std(before)) - mass_at_zero(after, np.std(after)))
    assert change > 0.9997


def test_a_grid_over_the_range_of_the_data_identifies_the_data():
    values = np.sort(np.random.default_rng(0).normal(size=50))
    grids = [np.linspace(v.min(), v.max(), 1000) for v in (values, values[:-1])]
    common = np.intersect1d(*grids)
    assert len(common) == 1
    assert common[0] == values[0]


def test_a_fixed_lattice_cut_to_the_range_of_the_data_has_no_finite_epsilon():
    """Lattice points beyond the second largest value have mass under D and none under D'."""
    values = np.sort(np.random.default_rng(0).normal(size=50))
    lattice = np.arange(-4, 4, 1 / 128)
    inside = lattice[(lattice >= values[0]) & (lattice <= values[-1])]
    law = special.softmax(scores(values, inside, 0.5) * 0.1 / (2 * kde_sensitivity(50, 1.0)))
    outside = law[inside > values[-2]].sum()
    assert outside > 0.01, "delta of one coordinate, for any epsilon"
    assert 1 - (1 - outside) ** 1000 > 0.9999, "delta of a thousand coordinates"


# Composition over the parameters


def loss_tail(epsilon, eta, count, t):
    """E[1 - e^(epsilon - L)] over positive parts, L the loss of ``count`` draws with losses t and t - eta."""
    q = -math.expm1(t - eta) / -math.expm1(-eta)  # probability of loss t under the first input
    mean, spread = count * (1 - q), math.sqrt(count * q * (1 - q))
    i = np.arange(max(0, int(mean - 9 * spread)), min(count, int(mean + 9 * spread)) + 1)
    loss = count * t - i * eta
    kept = loss > epsilon
    return float(stats.binom.pmf(i[kept], count, 1 - q) @ -np.expm1(epsilon - loss[kept])) if kept.any() else 0.0


def bounded_range_delta(epsilon, eta, count):
    """The non-adaptive optimum for ``count`` draws (Dong, Durfee, Rogers 2020), maximised over t by two grids."""
    coarse = np.linspace(0.05, 0.95, 46) * eta
    best = max(coarse, key=lambda t: loss_tail(epsilon, eta, count, t))
    return max(loss_tail(epsilon, eta, count, t) for t in best + np.linspace(-0.02, 0.02, 41) * eta)


@pytest.mark.parametrize(
    ("epsilon_draw", "concentrated", "optimal"),
    [
        (1.0, (1_190.5, 40_639, 152_608), (1_154.1, 39_945, 150_252)),
        (0.1, (29.7, 524.7, 1_759), (28.0, 511.6, 1_733)),
        (0.01, (1.89, 16.3, 39.8), (1.74, 15.3, 37.6)),
    ],
)
def test_what_a_draw_of_epsilon_costs_over_a_whole_network(epsilon_draw, concentrated, optimal):
    for count, expected, best in zip(NETWORKS, concentrated, optimal, strict=True):
        assert zcdp_to_epsilon(count * epsilon_draw**2 / 8, 1e-5) == pytest.approx(expected, rel=4e-3)
        assert bounded_range_delta(best * 1.004, epsilon_draw, count) < 1e-5
        assert bounded_range_delta(best * 0.996, epsilon_draw, count) > 1e-5


def test_the_papers_sensitivity_would_cost_twenty_two_million():
    eta = kde_sensitivity(50, 1.0) / paper_kde_sensitivity(50)
    assert eta * NETWORKS[2] == pytest.approx(22.5e6, rel=1e-3)


@pytest.mark.parametrize(("epsilon", "draws"), [(8.0, (0.0354, 0.00559, 0.00286)), (1.0, (0.00558, 8.8e-4, 4.5e-4))])
def test_the_draws_that_a_budget_leaves(epsilon, draws):
    for count, expected in zip(NETWORKS, draws, strict=True):
        plan = plan_proven_dp_pg(epsilon, delta=1e-5, unit="member", **(SHAPE | {"num_parameters": count}))
        assert plan.epsilon_draw == pytest.approx(expected, rel=1e-2)


def test_a_whole_network_is_drawn_nearly_uniformly_unless_thousands_of_members_are_trained():
    shape = SHAPE | {"num_parameters": NETWORKS[2]}
    plan = plan_proven_dp_pg(8.0, delta=1e-5, unit="member", **shape)
    assert plan.swing == pytest.approx(0.072, rel=0.01)
    assert plan.near_uniform()
    for draw, needed in zip((0.0354, 0.00559, 0.00286), (560, 3_543, 6_921), strict=True):
        assert 2 * (math.log(1000) + 3) / draw == pytest.approx(needed, rel=2e-3)


# Training records


def test_ten_per_member_is_thousands_for_a_record_in_all_members():
    rho = brentq(lambda rho: zcdp_to_epsilon(rho, 1e-5) - 10, 1, 3)
    for overlap, expected in ((2, 24.0), (10, 266), (50, 4_906)):
        assert zcdp_to_epsilon(rho * overlap**2, 1e-5) == pytest.approx(expected, rel=5e-3)


def test_random_subsets_overlap_far_more_than_their_rate_suggests():
    assert stats.binom.isf(1e-6, 50, 0.02) == 8
    assert stats.binom.isf(1e-6, 50, 0.632) == 46


# The accept loop of Algorithm 1


def conditioned(log_law, accepted):
    return special.log_softmax(np.asarray(log_law)[list(accepted)])


def test_a_private_accept_test_reveals_which_data_it_read():
    """A base that ignores the data: the test takes a under D and b under D'. The two releases never agree: delta =
    1."""
    base = np.log([0.5, 0.5])
    laws = np.zeros((2, 2))
    for data, accepted in enumerate(([0], [1])):
        laws[data, accepted] = np.exp(conditioned(base, accepted))
    assert 0.5 * np.abs(laws[0] - laws[1]).sum() == 1


def test_a_public_accept_loop_doubles_the_epsilon_of_a_general_mechanism():
    up, tiny, small = math.e, 1e-12, 1e-4
    d = np.array([up * tiny, small])  # outcomes a and b; all other mass is elsewhere and is rejected
    other = np.array([tiny, up * small])
    assert np.abs(np.log(d / other)).max() == pytest.approx(1)
    assert np.abs(conditioned(np.log(d), [0, 1]) - conditioned(np.log(other), [0, 1])).max() == pytest.approx(
        2, abs=1e-6
    )


def test_a_public_accept_loop_does_not_double_the_range_of_the_exponential_mechanism():
    rng = np.random.default_rng(0)
    change = rng.uniform(0, 1, 12)
    change[:2] = 0, 1  # range 1
    base = rng.normal(size=12) * 8
    d, other = special.log_softmax(base + change), special.log_softmax(base)
    worst = max(
        np.abs(conditioned(d, accepted) - conditioned(other, accepted)).max()
        for size in range(1, 13)
        for accepted in combinations(range(12), size)
    )
    assert 0.99 < worst <= 1 + 1e-12


def test_the_zcdp_of_many_draws_does_not_survive_an_accept_loop():
    """400 two-valued draws of range .1, rho = .5. The set {all up, all down} is public, and rare."""
    count, eta = 400, 0.1
    all_up_or_down = count * np.array([eta / 4, -eta / 4])
    losses = [conditioned(sign * all_up_or_down, [0, 1]) for sign in (1, -1)]
    divergence = float(np.exp(losses[0]) @ (losses[0] - losses[1]))
    rho = count * eta**2 / 8
    assert rho == pytest.approx(0.5)
    assert np.abs(losses[0] - losses[1]).max() == pytest.approx(20, rel=1e-6)
    assert divergence == pytest.approx(20, rel=1e-6)
    assert divergence > 30 * rho
    assert zcdp_to_epsilon(rho, 1e-5) == pytest.approx(4.7, rel=0.01)


def test_an_unlimited_loop_costs_the_sum_of_the_ranges():
    plan = plan_proven_dp_pg(8.0, delta=1e-5, unit="member", max_tries=None, **SHAPE)
    event = event_of(plan)
    assert event.count == 1
    assert event.eta == pytest.approx(8, rel=2e-3)
    assert 400 * plan.epsilon_draw == pytest.approx(event.eta, rel=1e-3)
    one_try = plan_proven_dp_pg(8.0, delta=1e-5, unit="member", max_tries=1, **SHAPE)
    assert one_try.epsilon_draw > 5 * plan.epsilon_draw
    guarantee = dp_pg_guarantee(plan, **SOURCES)
    assert guarantee.proven.epsilon <= 8
    assert guarantee.implementation["tries_charged"] == "unlimited"
    assert any("how many tries" in assumption.text for assumption in guarantee.assumptions)
    assert Guarantee.from_json(guarantee.to_json()) == guarantee


def test_two_draws_of_one_model_are_independent_and_keep_the_sum_of_their_ranges():
    """Two slices, one member replaced in both, and the public accept set of the two outcomes that differ most."""
    grid, multiplier = np.linspace(-10, 10, 9), 1 / (2 * kde_sensitivity(5, 1.0))
    slices = [[0.0] * 4 + [last] for last in (0.0, 5.0)]
    laws = [special.log_softmax(multiplier * scores(values, grid, 1.0)) for values in slices]
    whole = [np.add.outer(law, law).ravel() for law in laws]
    losses = whole[0] - whole[1]
    worst = losses.max() - losses.min()
    pair = [int(losses.argmax()), int(losses.argmin())]
    rare = conditioned(whole[0], pair) - conditioned(whole[1], pair)
    assert rare.max() - rare.min() == pytest.approx(worst)
    assert np.abs(rare).max() > 1.1, "more than the range of one draw"
    draws = [BoundedRangeEvent(eta=1.0, count=2)]
    assert 1.1 < worst <= unlimited_public_acceptance(draws).epsilon == 2
    assert unlimited_public_acceptance(draws, adaptive=True).epsilon == 4, "what draws that depend on others would cost"


@pytest.mark.parametrize("unit", ["parameter", "member", "example"])
def test_an_unlimited_loop_is_charged_as_draws_that_do_not_depend_on_each_other(unit):
    plan = plan_proven_dp_pg(8.0, delta=1e-5, unit=unit, max_tries=None, overlap=3, **SHAPE)
    tries = event_of(replace(plan, max_tries=1))
    assert event_of(plan).eta == pytest.approx(unlimited_public_acceptance([tries]).epsilon)
    guarantee = dp_pg_guarantee(plan, **SOURCES)
    assert any("Statement 14.2" in assumption.text for assumption in guarantee.assumptions)


def test_an_unlimited_loop_has_no_bound_where_sampling_resolution_is_a_total_variation():
    plan = plan_proven_dp_pg(
        1.0,
        delta=1e-5,
        unit="member",
        max_tries=None,
        num_members=50,
        num_parameters=1,
        grid_points=64,
        window_ratio=1.0,
    )
    coarse = type(plan)(**{**plan.__dict__, "multiplier": 1e4})
    assert event_of(plan).total_variation == 0
    assert event_of(coarse).total_variation == 1


def test_tries_that_are_counted_cost_their_number():
    for tries, expected in ((2, 12.2), (5, 21.8)):
        assert zcdp_to_epsilon(1.23 * tries, 1e-5) == pytest.approx(expected, rel=0.01)
    assert zcdp_to_epsilon(1.23, 1e-5) == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize(("stop", "expected"), [(0.1, 13.0), (0.01, 16.5)])
def test_stopping_at_random_costs_less_than_the_tries_it_allows(stop, expected):
    """Papernot and Steinke 2022, Theorem 2 for a geometric number of tries, at rho = 1.23."""
    orders = 1 + np.geomspace(0.05, 50, 1500)
    inner = np.min(2 * (1 - 1 / orders) * 1.23 * orders + 2 * math.log(1 / stop) / orders)
    renyi = 1.23 * orders + inner + math.log(1 / stop) / (orders - 1)
    converted = renyi + (math.log(1e5) + (orders - 1) * np.log1p(-1 / orders) - np.log(orders)) / (orders - 1)
    assert converted.min() == pytest.approx(expected, rel=0.01)


def test_a_noised_private_accuracy_adds_twice_its_epsilon():
    """One draw of range 1 and a Laplace-noised accuracy at epsilon .5, accepted above a far threshold: 1 + 2 * .5."""
    threshold, epsilon = 40.0, 0.5

    def law(data):
        weight = np.array([-30.0 + (0.5 if data else -0.5), 0.0])  # the exponential mechanism, scores up to a constant
        accuracy = np.array([0.5, -0.5]) * (1 if data else -1)
        tail = -epsilon * (threshold - accuracy)  # log P[accuracy + noise >= threshold], up to a constant
        return special.log_softmax(weight + tail)

    assert np.abs(law(0) - law(1)).max() == pytest.approx(2, abs=1e-6)


def test_the_number_of_tries_has_an_unbounded_ratio():
    """Acceptance with probability .5 under D and .4 under D': a long wait tells them apart."""
    ratio = [stats.geom.logpmf(n, 0.4) - stats.geom.logpmf(n, 0.5) for n in (10, 100, 1000)]
    assert ratio[0] < ratio[1] < ratio[2]
    assert ratio[2] > 180
