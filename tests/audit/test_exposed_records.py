"""P-values per record, and the list of exposed records."""

import json

import numpy as np
import pytest
from scipy import stats

from privkernels.audit.exposed_records import ExposedRecords, conformal_p_values, exposed_records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError, TooFewRecordsError


def test_p_values_count_the_calibration_scores_that_are_as_high():
    p = conformal_p_values(np.array([9.0, 3.0, 2.5, 0.0]), np.array([1.0, 2.0, 3.0, 3.0]))
    assert p.tolist() == [1 / 5, 3 / 5, 3 / 5, 1.0]


def test_the_list_is_the_largest_that_the_rate_allows():
    # 99 calibration scores 1..99: a score of x gets (1 + number >= x) / 100.
    calibration = np.arange(1.0, 100.0)
    # p-values .01, .02, .03, .5: Benjamini-Hochberg at .05 compares with .0125, .025, .0375, .05.
    audited = np.array([50.5, 98.5, 200.0, 97.5])
    found = exposed_records(audited, calibration, 0.05)
    assert found.records == (2, 1, 3)
    assert found.p_values == (0.01, 0.02, 0.03)
    assert exposed_records(audited, calibration, 0.039).records == ()
    assert "3 of 4 records" in str(found)
    assert "at most 5%" in str(found)
    assert ExposedRecords.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_equal_p_values_are_ordered_by_score_then_index():
    found = exposed_records(np.array([5.0, 7.0, 7.0, 0.0]), np.arange(-100.0, 0.0), 0.2)
    assert found.records == (1, 2, 0, 3)


def test_how_short_a_list_can_be_is_said():
    calibration = np.arange(99.0)
    outliers = np.full(40, -1.0)
    for count in range(1, 40):
        outliers[:count] = 1000.0
        found = exposed_records(outliers, calibration, 0.1)
        # 1 / 100 <= 0.1 k / 40 from k = 4 on.
        assert found.smallest_list == 4
        assert len(found.records) == (count if count >= 4 else 0)
    assert "Fewer than 4 could not have been listed" in str(found)
    assert "Fewer" not in str(exposed_records(outliers, np.arange(399.0), 0.1))


@pytest.mark.parametrize("step", [None, 0.5])
def test_without_exposure_few_audits_list_a_record(step):
    """The level is kept over draws of both, calibration included: 10 % of 800 audits at most (error 1e-4)."""
    rng, runs, listed = np.random.default_rng(0), 800, 0
    for _ in range(runs):
        audited, calibration = rng.normal(size=50), rng.normal(size=1000)
        if step is not None:
            audited, calibration = (np.round(x / step) * step for x in (audited, calibration))
        listed += bool(exposed_records(audited, calibration, 0.1).records)
    assert listed <= stats.binom.isf(1e-4, runs, 0.1)
    # Not by never listing anything.
    assert step is not None or listed > runs * 0.02


def test_that_calibration_would_notice_p_values_without_correction():
    rng, runs = np.random.default_rng(1), 100
    listed = sum(
        bool((conformal_p_values(rng.normal(size=50), rng.normal(size=200)) <= 0.1).any()) for _ in range(runs)
    )
    assert listed > stats.binom.isf(1e-4, runs, 0.1)


def test_the_share_of_false_entries_is_kept_and_exposed_records_are_found():
    """A tenth is exposed: of the list at most a fifth is false on average, and most of the tenth is on it."""
    rng, runs = np.random.default_rng(2), 200
    exposed = np.arange(200) < 20
    false, found = [], []
    for _ in range(runs):
        result = exposed_records(rng.normal(size=200) + 4 * exposed, rng.normal(size=2000), 0.2)
        hits = exposed[list(result.records)]
        false.append(np.mean(~hits) if len(hits) else 0.0)
        found.append(hits.sum() / 20)
    # Mean at most 0.2, tested with error 1e-4 (normal approximation to the mean of 200).
    assert np.mean(false) <= 0.2 + 3.7 * np.std(false) / np.sqrt(runs)
    assert np.mean(false) > 0.05
    assert np.mean(found) > 0.8


def test_what_cannot_be_answered_is_refused():
    with pytest.raises(TooFewRecordsError, match="at least 19 non-members are needed, and 199 to list a single one"):
        exposed_records(np.zeros(10), np.zeros(18), 0.05)
    assert exposed_records(np.zeros(10), np.zeros(19), 0.05).smallest_list == 10
    assert exposed_records(np.zeros(10), np.zeros(199), 0.05).smallest_list == 1
    for bad in (0.0, 1.0, float("nan")):
        with pytest.raises(InvalidArgumentError, match="false discovery rate"):
            exposed_records(np.zeros(10), np.zeros(99), bad)
    with pytest.raises(EmptyDataError):
        exposed_records(np.zeros(0), np.zeros(99))
    with pytest.raises(NonFiniteValueError):
        exposed_records(np.array([np.inf]), np.zeros(99))
