"""Intervals for proportions and for the area under a ROC curve, against other computations."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import stats

from privkernels.audit.intervals import Figure, auc, clopper_pearson, mean_of_proportions, proportion
from privkernels.errors import InvalidArgumentError

# Few distinct values, so that ties are common.
SCORES = st.lists(st.integers(0, 6), min_size=1, max_size=30)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_clopper_pearson_is_scipys_exact_interval(counts: tuple[int, int]) -> None:
    expected = stats.binomtest(*counts).proportion_ci(0.95, method="exact")
    assert clopper_pearson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_clopper_pearson_keeps_a_width_at_the_boundaries() -> None:
    low, high = clopper_pearson(0, 100)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 100))
    assert clopper_pearson(100, 100) == pytest.approx((1 - high, 1))


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(InvalidArgumentError, match="successes"):
        clopper_pearson(successes, trials)


def test_a_mean_of_proportions_has_the_width_of_independent_parts() -> None:
    mean, part = mean_of_proportions((60, 100), (60, 100)), proportion(60, 100)
    assert mean.value == pytest.approx(0.6)
    assert part.high - 0.6 == pytest.approx(math.sqrt(2) * (mean.high - 0.6))
    assert 0.6 - part.low == pytest.approx(math.sqrt(2) * (0.6 - mean.low))


def test_a_mean_of_perfect_proportions_is_not_certain() -> None:
    mean = mean_of_proportions((50, 50), (50, 50))
    assert mean.value == 1
    assert mean.high == 1
    assert mean.low < 0.96


def brute_force_auc(members: np.ndarray, nonmembers: np.ndarray) -> tuple[float, np.ndarray]:
    wins = (members[:, None] > nonmembers) + 0.5 * (members[:, None] == nonmembers)
    return float(wins.mean()), wins


@given(SCORES, SCORES)
def test_auc_counts_ties_half_and_its_interval_holds_it(left: list[int], right: list[int]) -> None:
    members, nonmembers = np.asarray(left, float), np.asarray(right, float)
    figure = auc(members, nonmembers)
    assert figure.value == pytest.approx(brute_force_auc(members, nonmembers)[0], abs=1e-12)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.high - figure.low > 1e-3
    mirrored = auc(-members, -nonmembers)
    assert mirrored.low == pytest.approx(1 - figure.high, abs=1e-9)
    assert mirrored.high == pytest.approx(1 - figure.low, abs=1e-9)


def test_auc_interval_is_newcombes_where_that_is_wider() -> None:
    # One of 600 pairs is the wrong way round: DeLong's variance nearly vanishes. Newcombe's lower limit solves a
    # quadratic-like equation; here it is found again by a plain search.
    m, n, z, area = 30, 20, stats.norm.isf(0.025), 1 - 1 / 600
    theta = np.linspace(0.5, area, 2_000_001)
    half = (m + n) / 2 - 1
    variance = theta * (1 - theta) * (1 + half * ((1 - theta) / (2 - theta) + theta / (1 + theta))) / (m * n)
    inside = theta[np.abs(area - theta) <= z * np.sqrt(variance)]
    figure = auc(np.append(np.arange(29.0) + 100, 18.5), np.arange(20.0))
    assert figure.value == pytest.approx(area)
    assert figure.low == pytest.approx(inside.min(), abs=1e-6)


def test_auc_interval_is_delongs_where_that_is_wider() -> None:
    # Half of the members stand out at the top, half at the bottom.
    rng = np.random.default_rng(0)
    nonmembers = rng.normal(size=200)
    members = np.where(np.arange(40) < 21, 10.0, -10.0) + rng.normal(size=40)
    value, wins = brute_force_auc(members, nonmembers)
    error = math.sqrt(wins.mean(1).var(ddof=1) / 40 + wins.mean(0).var(ddof=1) / 200)
    step = stats.norm.isf(0.025) * error / (value * (1 - value))
    limits = [1 / (1 + math.exp(-(math.log(value / (1 - value)) + sign * step))) for sign in (-1, 1)]
    figure = auc(members, nonmembers)
    assert (figure.low, figure.high) == pytest.approx(tuple(limits), abs=1e-12)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 50), (50, 1)])
def test_one_record_on_a_side_does_not_rule_out_guessing(m: int, n: int) -> None:
    figure = auc(np.ones(m), np.zeros(n))
    assert figure.value == 1
    assert figure.low < 0.5


@pytest.mark.parametrize(("m", "n", "rare"), [(10, 200, 0.15), (30, 200, 0.05), (30, 30, 0.07)])
def test_members_that_all_stand_out_do_not_rule_out_some_that_do_not(m: int, n: int, rare: float) -> None:
    # A share of the members lies below all non-members, and the true area is what it leaves. Stated: 2.5 %; of 400
    # audits more than 20 have a probability of 0.1 % (binomial). Newcombe's and DeLong's intervals alone are wrong in
    # 10 to 20 %: whenever no such member is drawn.
    rng, wrong = np.random.default_rng(m + n), 0
    for _ in range(400):
        members = np.where(rng.random(m) < rare, -1.0, 1.0) + 0.1 * rng.random(m)
        low = auc(members, 0.1 * rng.random(n)).low
        assert low is not None
        wrong += low > 1 - rare
    assert wrong <= 20
    turned = auc(-np.ones(m), np.zeros(n))
    assert turned.high == pytest.approx(1 - 0.025 ** (1 / min(m, n)))


def test_an_unknown_figure_has_a_reason_and_no_number() -> None:
    assert Figure.unknown("why") == Figure(None, None, None, 0.95, "why")
