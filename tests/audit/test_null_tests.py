"""P-values against guessing: exact where they say so, and below a level no more often than it."""

import itertools

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.metrics import measure, tpr_at_fpr
from privkernels.audit.null_tests import auc_p_value, found_p_value, leak_p_values, tpr_p_value


def assignments(m, n):
    """Every choice of the m members' ranks among m + n, as member and non-member scores."""
    ranks = np.arange(m + n, dtype=np.float64)
    for chosen in itertools.combinations(range(m + n), m):
        mask = np.isin(ranks, chosen)
        yield ranks[mask], ranks[~mask]


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_the_tpr_p_value_is_the_share_of_all_assignments(allowed):
    found = [int((members > np.sort(nonmembers)[::-1][allowed]).sum()) for members, nonmembers in assignments(5, 6)]
    for count in range(6):
        assert tpr_p_value(count, allowed, 5, 6) == pytest.approx(np.mean(np.array(found) >= count))


def test_the_p_value_of_found_members_is_the_share_of_all_assignments():
    # A threshold fixed beforehand accuses the four highest ranks.
    found = [int((members >= 7).sum()) for members, _ in assignments(5, 6)]
    for count in range(5):
        assert found_p_value(count, 4, 5, 6) == pytest.approx(np.mean(np.array(found) >= count))


def area(members, nonmembers):
    return float(np.mean(members[:, None] > nonmembers) + np.mean(members[:, None] == nonmembers) / 2)


@pytest.mark.parametrize(("m", "n"), [(3, 9), (6, 6), (5, 8)])
def test_the_auc_p_value_is_not_below_the_exact_one_where_it_counts(m, n):
    areas = np.array([area(*pair) for pair in assignments(m, n)])
    for value in np.unique(areas):
        exact = np.mean(areas >= value - 1e-12)
        p = auc_p_value(float(value), m, n)
        assert p >= exact or exact > 0.03
        assert p == pytest.approx(exact, abs=0.012)


def test_ties_make_the_p_values_larger():
    """Rounded scores: no level is reached more often than its share of 400 audits (error 1e-4)."""
    rng, runs = np.random.default_rng(0), 400
    smallest = {0.01: 0, 0.05: 0}
    for run in range(runs):
        metrics = measure(
            np.round(rng.normal(size=50)), np.round(rng.normal(size=60)), seed=run, false_positive_rates=(0.1,)
        )
        values = leak_p_values(metrics)
        assert sorted(values) == ["accuracy", "auc", "auc below", "tpr@0.1"]
        for level in smallest:
            smallest[level] += min(values.values()) <= level / 4
    for level, count in smallest.items():
        assert count <= stats.binom.isf(1e-4, runs, level)


def test_the_counts_behind_the_figures_are_recovered():
    rng = np.random.default_rng(1)
    for m, n in ((41, 60), (200, 333)):
        members, nonmembers = rng.normal(1, 1, m), rng.normal(size=n)
        metrics = measure(members, nonmembers, seed=3, false_positive_rates=(0.1,))
        values = leak_p_values(metrics)
        rate = tpr_at_fpr(members, nonmembers, 0.1)
        assert values["tpr@0.1"] == tpr_p_value(int((members > rate.threshold).sum()), int(0.1 * n), m, n)
        # The evaluated half, from the threshold and the seed of the split.
        split = np.random.default_rng(3)
        held = []
        for kind in (members, nonmembers):
            held.append(kind[split.permutation(len(kind))[len(kind) // 2 :]])
        accused = [int((kind >= metrics.at_threshold.threshold).sum()) for kind in held]
        assert values["accuracy"] == found_p_value(accused[0], sum(accused), len(held[0]), len(held[1]))
        assert values["auc"] == pytest.approx(auc_p_value(area(members, nonmembers), m, n))
        assert values["auc"] < 1e-6
        assert values["auc below"] > 0.999


def test_figures_that_are_unknown_have_no_p_value():
    assert leak_p_values(measure(np.arange(5.0), np.arange(5.0))) == {}
    assert sorted(leak_p_values(measure(np.arange(12.0), np.arange(12.0)))) == ["auc", "auc below"]
