"""Thresholds: below, above, undecided, and how often each is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.thresholds import Decision, Threshold, decide, tpr_limits, worst
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError


def scores(seed: int, n: int, shift: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1.0, n)


def true_tpr(shift: float, fpr: float) -> float:
    """Of scores N(shift, 1) of members and N(0, 1) of non-members."""
    return float(stats.norm.sf(stats.norm.isf(fpr) - shift))


def test_a_threshold_is_read_as_it_is_written() -> None:
    assert Threshold.parse_tpr("0.01@0.001") == Threshold(0.01, 0.001)
    assert Threshold.parse_tpr(" 1e-2@1e-3 ") == Threshold(0.01, 0.001)
    assert str(Threshold(0.01, 0.001)) == "TPR at most 0.01 at 0.001 FPR"
    assert str(Threshold(0.6)) == "AUC at most 0.6"


@pytest.mark.parametrize(
    "text", ["0.01", "a@b", "0.01@0.001@1", "", "0.001@0.01", "1.5@0.1", "0.1@0", "1e@1", "-.1@.1"]
)
def test_what_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        Threshold.parse_tpr(text)


def test_an_auc_is_above_guessing() -> None:
    with pytest.raises(InvalidArgumentError, match="guessing"):
        Threshold(0.4)


@pytest.mark.parametrize("fpr", [0.01, 0.3])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_each_limit_is_wrong_no_more_often_than_stated(fpr: float, shift: float) -> None:
    # 300 draws at a stated error of 2.5 % each: more than 17 has a probability of less than 0.1 % (binomial).
    runs, truth = 300, true_tpr(shift, fpr)
    limits = [tpr_limits(scores(3 * i, 300, shift), scores(3 * i + 1, 1500, 0.0), fpr) for i in range(runs)]
    assert sum(low > truth for low, _ in limits) <= 17
    assert sum(high < truth for _, high in limits) <= 17
    # And they say something.
    assert np.median([high - low for low, high in limits]) < 0.25


def test_limits_hold_with_ties() -> None:
    # Members and non-members answer with the same coins: at any rate between, the true TPR is the FPR.
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(200):
        low, high = tpr_limits(rng.integers(0, 4, 200).astype(float), rng.integers(0, 4, 400).astype(float), 0.1)
        wrong += not low <= 0.1 <= high
    assert wrong <= 19, "5 % of 200, with less than 1 % for more"


def test_too_few_non_members_say_nothing() -> None:
    assert tpr_limits(np.full(100, 9.0), np.zeros(50), 0.001)[0] == 0.0
    assert tpr_limits(np.full(100, 9.0), np.zeros(5000), 0.001)[0] > 0.9


def test_a_leak_is_above_and_none_is_below() -> None:
    allowed = Threshold(0.05, 0.01)
    leaking = decide(allowed, scores(1, 2000, 2.0), scores(2, 4000, 0.0))
    silent = decide(allowed, scores(3, 2000, 0.0), scores(4, 4000, 0.0))
    few = decide(allowed, scores(5, 40, 0.5), scores(6, 40, 0.0))
    assert [decision.outcome for decision in (leaking, silent, few)] == ["above", "below", "undecided"]
    assert "above the 0.05" in leaking.reason
    assert "which is allowed" in silent.reason
    assert "40 members" in few.reason
    assert Decision.from_dict(leaking.to_dict()) == leaking


def test_an_auc_is_decided_by_its_interval() -> None:
    assert decide(Threshold(0.6), scores(1, 900, 1.0), scores(2, 900, 0.0)).outcome == "above"
    assert decide(Threshold(0.6), scores(1, 900, 0.0), scores(2, 900, 0.0)).outcome == "below"
    assert decide(Threshold(0.6), scores(1, 20, 0.3), scores(2, 20, 0.0)).outcome == "undecided"


def test_the_worst_decides() -> None:
    below, above, undecided = (
        Decision(Threshold(0.6), "a", outcome, 0.0, 1.0, 0.95, "") for outcome in ("below", "above", "undecided")
    )
    assert worst([below, below]) == "below"
    assert worst([below, undecided]) == "undecided"
    assert worst([undecided, above, below]) == "above"
    with pytest.raises(EmptyDataError):
        worst([])
    with pytest.raises(EmptyDataError):
        decide(Threshold(0.6), np.empty(0), np.ones(3))


@pytest.mark.parametrize("threshold", [Threshold(0.2, 0.1), Threshold(0.6)])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_numbers_decide_nothing(threshold: Threshold, bad: float) -> None:
    found = scores(1, 500, 0.0)
    for members, nonmembers in ((np.full(300, bad), found), (found, np.where(found > 2, bad, found))):
        with pytest.raises(NonFiniteValueError, match="NaN or infinite"):
            decide(threshold, members, nonmembers)
    with pytest.raises(InvalidArgumentError, match="one score per record"):
        decide(threshold, found[:, None], found)
