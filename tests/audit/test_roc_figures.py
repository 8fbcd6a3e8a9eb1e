"""ROC curves with their bands."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from privkernels.audit import AuditResult, Threshold, decide
from privkernels.audit.roc_figures import roc_band, roc_figure
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

RATES = np.array([0.001, 0.01, 0.05, 0.2, 0.5, 0.9])


def test_the_band_of_a_perfect_attack_and_of_its_reverse() -> None:
    """100 members above 100 non-members, and below; each limit has 1.25 % for the members, 1.25 % for the others."""
    high, low = np.arange(100.0) + 1000, np.arange(100.0)
    found, missed = roc_band(high, low, RATES), roc_band(low, high, RATES)
    # 100 of 100 found, from the rate on at which a threshold above all non-members is known to accuse no more: with
    # none of 100 above it, that is 1 - 0.0125^(1/100) = 0.043.
    least = 0.0125 ** (1 / 100)
    assert found.low == pytest.approx([0, 0, least, least, least, least], abs=1e-9)
    assert found.high == pytest.approx([1] * 6)
    # None of 100 found by whatever accuses a share of at most 0.9 for certain.
    assert missed.low == pytest.approx([0] * 6)
    assert missed.high == pytest.approx([1 - least] * 6, abs=1e-9)


def test_the_band_is_what_thresholds_are_decided_by_and_rises() -> None:
    rng = np.random.default_rng(0)
    members, nonmembers = rng.normal(1, 1, 300), rng.normal(0, 1, 400)
    band = roc_band(members, nonmembers, RATES, 0.9)
    for rate, low, high in zip(RATES[1:4], band.low[1:4], band.high[1:4], strict=True):
        decision = decide(Threshold(0.99, float(rate)), members, nonmembers, 0.9)
        assert (decision.low, decision.high) == (low, high)
    assert np.all(np.diff(band.low) >= 0)
    assert np.all(np.diff(band.high) >= 0)
    assert np.all(band.low < band.high)
    wider = roc_band(members, nonmembers, RATES, 0.99)
    assert np.all(wider.low <= band.low)
    assert np.all(wider.high >= band.high)


def test_the_band_misses_the_true_curve_as_rarely_as_it_says() -> None:
    """400 draws at 80 %: more than 100 misses at one rate have a probability below 1 in 100 if it keeps its level."""
    rng, rates = np.random.default_rng(0), np.array([0.05, 0.3])
    truth = stats.norm.sf(stats.norm.isf(rates) - 1.0)
    missed, runs = np.zeros(2), 400
    for _ in range(runs):
        band = roc_band(rng.normal(1, 1, 60), rng.normal(0, 1, 80), rates, 0.8)
        missed += (truth < band.low) | (truth > band.high)
    assert stats.binom.sf(100, runs, 0.2) < 0.01
    assert np.all(missed <= 100)
    # And not by being useless: the limits lie within (0, 1).
    assert 0 < band.low[1] < band.high[1] < 1


def test_a_band_of_impossible_scores_is_refused() -> None:
    good = np.arange(20.0)
    with pytest.raises(EmptyDataError):
        roc_band(np.array([]), good, RATES)
    with pytest.raises(NonFiniteValueError):
        roc_band(good, np.array([np.nan]), RATES)
    with pytest.raises(InvalidArgumentError):
        roc_band(good, good, RATES, 1.0)


def test_the_caption_says_which_band_it_is(result: AuditResult) -> None:
    picture = roc_figure(result, 1, targets=[0], confidence=0.9)
    assert picture.caption.startswith("shadow models on unprotected.")
    assert "with 90% confidence, at each false positive rate by itself (pointwise; exact" in picture.caption
    assert roc_figure(result, 1, targets=[0]).uri != picture.uri, "the band depends on the confidence"


def test_a_figure_without_a_band_says_why(result: AuditResult) -> None:
    many = dataclasses.replace(
        result, targets=tuple(dataclasses.replace(result.targets[0], name=f"t{number}") for number in range(4))
    )
    assert "No confidence band: more than 3" in roc_figure(many, 0).caption
    attack = dataclasses.replace(result.targets[0].attacks[0], member_scores=(), nonmember_scores=())
    bare = dataclasses.replace(result, targets=(dataclasses.replace(result.targets[0], attacks=(attack,)),))
    without = roc_figure(bare, 0)
    assert "No confidence band: it needs the scores" in without.caption
    single = dataclasses.replace(result, targets=result.targets[:1])
    assert roc_figure(single, 0).uri != without.uri, "the band is drawn"
