"""Subgroups: which leak, and that chance seldom names one."""

import json

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.intervals import auc
from privkernels.audit.metrics import measure
from privkernels.audit.null_tests import auc_p_value, tpr_p_value
from privkernels.audit.subgroups import Subgroups, _holm, groups_by_attribute, groups_by_label, measure_subgroups
from privkernels.errors import InvalidArgumentError, NonFiniteValueError


def partition(rng, m, n, groups):
    return groups_by_label(rng.integers(groups, size=m), rng.integers(groups, size=n))


def test_few_null_audits_name_a_subgroup():
    """Ten classes and two overlapping halves; at most 5 % of 120 audits, tested with error 1e-4."""
    rng, runs, named, by_own_interval = np.random.default_rng(0), 120, 0, 0
    for _ in range(runs):
        members, nonmembers = rng.normal(size=400), rng.normal(size=400)
        groups = partition(rng, 400, 400, 10)
        groups |= {"first half": (np.arange(400) < 200,) * 2, "even": (np.arange(400) % 2 == 0,) * 2}
        named += bool(measure_subgroups(members, nonmembers, groups).leaking)
        by_own_interval += any(auc(members[a], nonmembers[b]).low > 0.5 for a, b in groups.values())
    allowed = stats.binom.isf(1e-4, runs, 0.05)
    assert named <= allowed < by_own_interval


def test_the_intervals_hold_together():
    """Every interval of every subgroup covers in at least 95 % of audits (error 1e-4); those at 95 % each do not."""
    rng, runs, missed, missed_each = np.random.default_rng(1), 100, 0, 0
    truth = stats.norm.cdf(1 / np.sqrt(2))
    for _ in range(runs):
        members, nonmembers = rng.normal(1, 1, 300), rng.normal(size=300)
        groups = partition(rng, 300, 300, 6)
        rows = measure_subgroups(members, nonmembers, groups, rate=0.1).groups
        missed += any(not row.auc.low <= truth <= row.auc.high for row in rows)
        alone = [auc(members[a], nonmembers[b]) for a, b in groups.values()]
        missed_each += any(not figure.low <= truth <= figure.high for figure in alone)
    allowed = stats.binom.isf(1e-4, runs, 0.05)
    assert missed <= allowed < missed_each


def test_the_leaking_class_is_named_and_no_other():
    rng = np.random.default_rng(12)
    labels = np.arange(1000) % 10
    members = rng.normal(size=1000) + 1.2 * (labels == 3)
    result = measure_subgroups(members, rng.normal(size=1000), groups_by_label(labels, labels))
    assert result.leaking == ("3",)
    assert "leak more than guessing: 3 (of 10 tested; with 95% confidence" in str(result)
    row = result.groups[3]
    assert row.adjusted_p_value == pytest.approx(10 * row.p_value)
    assert row.auc.low > 0.5
    # The level that 30 intervals share.
    assert row.auc.confidence == pytest.approx(1 - 0.05 / 30)
    assert Subgroups.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_a_few_members_beyond_all_others_are_a_leak_too():
    rng = np.random.default_rng(3)
    everybody = {"all": (np.ones(200, dtype=bool), np.ones(200, dtype=bool))}
    members = np.concatenate([rng.normal(-0.1, 1, 188), rng.normal(9, 1, 12)])
    result = measure_subgroups(members, rng.normal(size=200), everybody)
    assert result.groups[0].auc.low < 0.5
    assert result.leaking == ("all",)


def test_figures_agree_with_the_per_class_table():
    rng = np.random.default_rng(4)
    labels = np.arange(300) % 3
    members, nonmembers = rng.normal(1, 1, 300), rng.normal(size=300)
    table = measure(members, nonmembers, member_classes=labels, nonmember_classes=labels).per_class
    rows = measure_subgroups(members, nonmembers, groups_by_label(labels, labels)).groups
    for mine, theirs in zip(rows, table, strict=True):
        assert (mine.name, mine.n_members, mine.n_nonmembers) == (str(theirs.label), 100, 100)
        assert mine.auc.value == theirs.auc.value
        assert mine.auc.low < theirs.auc.low
        assert mine.auc.high > theirs.auc.high
        # Twice the smaller of two: at a rate of 1 %, 100 non-members allow one above the threshold.
        inside, outside = (kind[labels == theirs.label] for kind in (members, nonmembers))
        found = int((inside > np.sort(outside)[-2]).sum())
        either = min(auc_p_value(mine.auc.value, 100, 100), tpr_p_value(found, 1, 100, 100))
        assert mine.p_value == pytest.approx(2 * either)


def test_small_subgroups_say_nothing_and_cost_nothing():
    rng = np.random.default_rng(5)
    masks = {"large": np.arange(100) >= 9, "small": np.arange(100) < 9}
    groups = {name: (mask, mask) for name, mask in masks.items()}
    large, small = measure_subgroups(rng.normal(3, 1, 100), rng.normal(size=100), groups).groups
    assert small.p_value is None
    assert small.adjusted_p_value is None
    assert not small.leaks
    assert "too few records" in small.auc.reason
    assert large.leaks
    assert large.adjusted_p_value == large.p_value


def test_holm_steps_down():
    assert _holm([0.01, 0.04, None, 0.03]) == pytest.approx([0.03, 0.06, None, 0.06])
    assert _holm([0.6, 0.9]) == [1.0, 1.0]
    assert _holm([None]) == [None]


def test_bad_input_is_refused():
    scores, mask = np.arange(20.0), np.ones(20, dtype=bool)
    good = {"all": (mask, mask)}
    with pytest.raises(InvalidArgumentError, match="subgroup"):
        measure_subgroups(scores, scores, {})
    for bad in (mask[:5], mask.astype(int)):
        with pytest.raises(InvalidArgumentError, match="'all' needs a bool per record"):
            measure_subgroups(scores, scores, {"all": (mask, bad)})
    with pytest.raises(InvalidArgumentError, match="false positive rate"):
        measure_subgroups(scores, scores, good, rate=1.0)
    with pytest.raises(InvalidArgumentError, match="confidence"):
        measure_subgroups(scores, scores, good, confidence=0.0)
    with pytest.raises(NonFiniteValueError):
        measure_subgroups(scores * np.nan, scores, good)


def test_every_value_of_an_attribute_is_a_subgroup():
    sexes = groups_by_attribute("sex", ["f", "m", "f"], np.array(["m", "x"]))
    assert list(sexes) == ["sex = f", "sex = m", "sex = x"]
    assert [(inside.tolist(), outside.tolist()) for inside, outside in sexes.values()] == [
        ([True, False, True], [False, False]),
        ([False, True, False], [True, False]),
        ([False, False, False], [False, True]),
    ]
    bands = groups_by_attribute("band", np.array([10, 2, 2], np.int8), np.array([2**63], np.uint64))
    assert list(bands) == ["band = 2", "band = 10", f"band = {2**63}"]
    assert [bands["band = 10"][0].tolist(), bands[f"band = {2**63}"][1].tolist()] == [[True, False, False], [True]]
    assert list(groups_by_attribute("retired", [True, False], [True])) == ["retired = False", "retired = True"]


@pytest.mark.parametrize(
    ("name", "members", "nonmembers", "words"),
    [
        ("age", [0.5, 1.0], [1, 2], "'age' of the members is float64"),
        ("age", [1, 2], np.array(["a", 1], dtype=object), "'age' of the non-members is object"),
        ("sex", [b"f"], [b"m"], "'sex' of the members is |S1"),
        ("sex", ["f", "m"], [0, 1], "strings for both"),
        ("sex", [["f"], ["m"]], ["f"], r"'sex' of the members is \[2, 1\]"),
        ("zip", np.arange(60), np.arange(60, 101), "101 different values, more than 100"),
        ("a = b", [1], [1], "without '='"),
        (" ", [1], [1], "without '='"),
    ],
)
def test_what_makes_no_subgroups_is_refused(name, members, nonmembers, words):
    with pytest.raises(InvalidArgumentError, match=words):
        groups_by_attribute(name, members, nonmembers)


def test_a_hundred_values_are_taken():
    assert len(groups_by_attribute("zip", np.arange(60), np.arange(60, 100))) == 100
