"""Known answers of the metrics."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from privkernels.audit.metrics import AttackMetrics, measure, roc_curve, tpr_at_fpr
from privkernels.errors import CorruptFileError, EmptyDataError, InvalidArgumentError, NonFiniteValueError

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=25).map(lambda xs: np.asarray(xs, float))


@given(SCORES, SCORES)
def test_the_roc_curve_is_scikit_learns(members: np.ndarray, nonmembers: np.ndarray) -> None:
    truth = np.repeat([1, 0], [len(members), len(nonmembers)])
    scores = np.concatenate([members, nonmembers])
    fpr, tpr, _ = sklearn_roc_curve(truth, scores, drop_intermediate=False)
    roc = roc_curve(members, nonmembers)
    assert (roc.fpr[0], roc.tpr[0], roc.fpr[-1], roc.tpr[-1]) == (0, 0, 1, 1)
    # Merged straight runs leave the curve as it was: no point of ours is new, and the area agrees.
    theirs = set(zip(fpr.tolist(), tpr.tolist(), strict=True))
    assert set(zip(roc.fpr, roc.tpr, strict=True)) <= theirs
    area = np.trapezoid(roc.tpr, roc.fpr)
    assert area == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


def test_an_area_needs_ten_of_each() -> None:
    few = measure(np.arange(9.0), np.arange(500.0)).auc
    assert few.value is None
    assert "9 members and 500 non-members" in few.reason
    assert measure(np.arange(10.0), np.arange(10.0)).auc.value == 0.5


def test_a_perfect_binary_score_has_area_one() -> None:
    metrics = measure(np.ones(600), np.zeros(600))
    assert metrics.auc.value == 1
    assert metrics.auc.low < 1
    assert metrics.roc.fpr == (0, 0, 1)
    assert metrics.roc.tpr == (0, 1, 1)
    rate = metrics.tpr_at_fpr[0]
    assert (rate.threshold, rate.tpr.value, rate.fpr.value) == (0, 1, 0)
    assert metrics.at_threshold.balanced_accuracy.value == 1
    assert metrics.at_threshold.precision.value == 1
    assert metrics.at_threshold.recall.value == 1


def test_a_constant_score_has_area_one_half_and_finds_nobody() -> None:
    metrics = measure(np.zeros(600), np.zeros(600))
    assert metrics.auc.value == 0.5
    assert metrics.auc.low < 0.5 < metrics.auc.high
    assert metrics.roc.fpr == (0, 1)
    assert metrics.roc.tpr == (0, 1)
    assert metrics.tpr_at_fpr[0].tpr.value == 0
    assert metrics.at_threshold.balanced_accuracy.value == 0.5


def test_tpr_at_one_percent_by_hand() -> None:
    # 1000 non-members score 0..999, so 10 of them exceed 989; 37 of 200 members do.
    members = np.concatenate([np.full(37, 989.5), np.full(100, 989.0), np.zeros(63)])
    rate = tpr_at_fpr(members, np.arange(1000.0), 0.01)
    assert rate.threshold == 989
    assert rate.tpr.value == 37 / 200
    assert rate.fpr.value == 0.01
    assert (rate.tpr.low, rate.tpr.high) == pytest.approx((0.1338, 0.2460), abs=5e-4)
    assert (rate.fpr.low, rate.fpr.high) == pytest.approx((0.00481, 0.01831), abs=5e-5)


def test_ties_at_the_threshold_count_for_nobody() -> None:
    # 40 non-members tie at the top: exceeding them means no false positive at all.
    nonmembers = np.concatenate([np.full(40, 5.0), np.zeros(960)])
    rate = tpr_at_fpr(np.array([5.0, 5.0, 6.0, 0.0]), nonmembers, 0.01)
    assert rate.threshold == 5
    assert rate.tpr.value == 0.25
    assert rate.fpr.value == 0
    assert rate.fpr.low == 0
    assert rate.fpr.high == pytest.approx(0.01831, abs=5e-5), "the limit for 10 of 1000, not for 0"


@pytest.mark.parametrize(("n", "rate"), [(499, 0.01), (4999, 0.001), (49, 0.1)])
def test_too_few_records_to_say(n: int, rate: float) -> None:
    answer = tpr_at_fpr(np.ones(1000), np.zeros(n), rate)
    assert answer.tpr.value is None
    assert answer.tpr.low is None
    assert answer.threshold is None
    assert answer.fpr.value is None
    assert f"{n} non-members" in answer.tpr.reason
    assert f"{n + 1} non-members are needed" in answer.tpr.reason
    assert tpr_at_fpr(np.ones(1000), np.zeros(n + 1), rate).tpr.value == 1


def test_the_number_of_allowed_false_positives_survives_rounding() -> None:
    # 0.29 * 100 is 28.999999999999996 in floating point.
    rate = tpr_at_fpr(np.zeros(10), np.arange(100.0), 0.29)
    assert rate.fpr.value == 0.29
    assert tpr_at_fpr(np.zeros(10), np.arange(100.0), 1 - 1e-12).fpr.value == 0.99


def test_the_accuracy_threshold_is_chosen_on_one_half_and_judged_on_the_other() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1, 1, 801), rng.normal(0, 1, 400)
    held = measure(members, nonmembers, seed=7).at_threshold
    assert (held.n_selection, held.n_evaluation) == (600, 601)
    again = measure(members, nonmembers, seed=7).at_threshold
    assert held == again
    assert held != measure(members, nonmembers, seed=8).at_threshold
    # Scores of the evaluated half do not move the threshold.
    rng = np.random.default_rng(7)
    chosen = rng.permutation(801)[:400]
    changed = members.copy()
    changed[np.setdiff1d(np.arange(801), chosen)] += 100
    assert measure(changed, nonmembers, seed=7).at_threshold.threshold == held.threshold
    assert measure(changed, nonmembers, seed=7).at_threshold.recall.value == 1


def test_the_figures_at_the_threshold_by_hand() -> None:
    # Every half looks the same: 3 of 4 members score 1, 1 of 4 non-members does.
    members = np.tile([1.0, 1.0, 1.0, 0.0], 1000)
    nonmembers = np.tile([1.0, 0.0, 0.0, 0.0], 1000)
    held = measure(members, nonmembers).at_threshold
    assert held.threshold == 1
    assert held.recall.value == pytest.approx(0.75, abs=0.02)
    assert held.precision.value == pytest.approx(0.75, abs=0.02)
    assert held.balanced_accuracy.value == pytest.approx(0.75, abs=0.02)
    found = held.recall.value * 2000
    wrong = found / held.precision.value - found
    assert held.balanced_accuracy.value == pytest.approx((found + 2000 - wrong) / 4000)


def test_halves_under_ten_records_choose_no_threshold() -> None:
    held = measure(np.arange(19.0), np.arange(500.0)).at_threshold
    assert held.threshold is None
    assert held.balanced_accuracy.value is None
    assert "19 members" in held.balanced_accuracy.reason
    assert measure(np.arange(20.0), np.arange(500.0)).at_threshold.threshold is not None


def test_per_class_figures_follow_the_same_rules() -> None:
    rng = np.random.default_rng(1)
    member_classes = np.repeat([0, 1, 2, 4], [300, 9, 50, 1])
    nonmember_classes = np.repeat([0, 1, 2, 3], [600, 50, 50, 3])
    members = rng.normal(size=360) + np.where(member_classes == 0, 2.0, 0.0)
    nonmembers = rng.normal(size=703)
    rows = {
        row.label: row
        for row in measure(
            members, nonmembers, member_classes=member_classes, nonmember_classes=nonmember_classes
        ).per_class
    }
    assert sorted(rows) == [0, 1, 2, 3, 4]
    alone = measure(members[:300], nonmembers[:600])
    assert rows[0].auc == alone.auc
    assert rows[0].tpr_at_fpr == alone.tpr_at_fpr[0]
    assert rows[0].balanced_accuracy.value > 0.7
    assert rows[1].auc.value is None
    assert "9 members and 50 non-members" in rows[1].auc.reason
    assert rows[1].tpr_at_fpr.tpr.value is None
    assert rows[2].auc.value is not None
    assert rows[2].tpr_at_fpr.tpr.value is None
    assert "500 non-members are needed" in rows[2].tpr_at_fpr.tpr.reason
    assert rows[3].n_members == 0
    assert rows[3].auc.value is None
    assert rows[4].n_nonmembers == 0


def test_per_class_accuracies_average_to_the_overall_accuracy() -> None:
    rng = np.random.default_rng(2)
    labels = np.arange(1000) % 2
    members, nonmembers = rng.normal(1, 1, 1000), rng.normal(0, 1, 1000)
    metrics = measure(members, nonmembers, member_classes=labels, nonmember_classes=labels)
    mean = np.mean([row.balanced_accuracy.value for row in metrics.per_class])
    assert mean == pytest.approx(metrics.at_threshold.balanced_accuracy.value, abs=0.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(NonFiniteValueError, match="1 of 2 member"):
        measure(np.array([0.0, bad]), np.zeros(3))
    with pytest.raises(NonFiniteValueError, match="1 of 3 non-member"):
        roc_curve(np.zeros(2), np.array([0.0, bad, 1.0]))


def test_empty_scores_and_wrong_shapes_are_refused() -> None:
    with pytest.raises(EmptyDataError, match="no member"):
        measure(np.empty(0), np.zeros(3))
    with pytest.raises(EmptyDataError, match="no non-member"):
        measure(np.zeros(3), np.empty(0))
    with pytest.raises(InvalidArgumentError, match=r"\[3, 1\]"):
        measure(np.zeros((3, 1)), np.zeros(3))
    with pytest.raises(InvalidArgumentError, match="classes of the members"):
        measure(np.zeros(3), np.zeros(3), member_classes=np.zeros(3, int))
    with pytest.raises(InvalidArgumentError, match="one integer class per score"):
        measure(np.zeros(3), np.zeros(3), member_classes=np.zeros(2, int), nonmember_classes=np.zeros(3, int))
    with pytest.raises(InvalidArgumentError, match=r"\(0, 1\)"):
        tpr_at_fpr(np.zeros(3), np.zeros(3), 1.0)
    with pytest.raises(InvalidArgumentError, match="at least one"):
        measure(np.zeros(3), np.zeros(3), false_positive_rates=())


def test_metrics_survive_json() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(600) % 3
    metrics = measure(rng.normal(1, 1, 600), rng.normal(size=600), member_classes=labels, nonmember_classes=labels)
    text = json.dumps(metrics.to_dict(), allow_nan=False)
    assert AttackMetrics.from_dict(json.loads(text)) == metrics


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value.pop("auc"),
        lambda value: value.update(extra=1),
        lambda value: value.update(n_members="many"),
        lambda value: value.update(n_members=True),
        lambda value: value["roc"].update(fpr=3),
        lambda value: value.update(auc=[]),
    ],
)
def test_damaged_json_is_named(damage: object) -> None:
    value = json.loads(json.dumps(measure(np.ones(3), np.zeros(3)).to_dict()))
    damage(value)
    with pytest.raises(CorruptFileError, match="AttackMetrics"):
        AttackMetrics.from_dict(value)
