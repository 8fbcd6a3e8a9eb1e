"""The table and the verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from privkernels.audit import COLUMNS, AuditResult, Figure, SummaryRow, measure, summary_rows, verdicts
from privkernels.audit.audit import AttackResult
from privkernels.audit.guarantees import read_guarantee
from privkernels.audit.null_tests import leak_p_values
from privkernels.audit.summary import LIMITS, number_with_interval, percent_with_interval, tpr_bound


def with_scores(
    result: AuditResult, members: np.ndarray, nonmembers: np.ndarray, guarantee: dict[str, Any] | None = None
) -> AuditResult:
    """``result`` with one target and one attack, which gave these scores."""
    attack = AttackResult("scripted", measure(members, nonmembers), 0.0)
    target = dataclasses.replace(result.targets[0], name="it", attacks=(attack,), guarantee=read_guarantee(guarantee))
    return dataclasses.replace(result, targets=(target,), attacks=result.attacks[:1])


def test_there_is_a_row_per_target_and_attack(result: AuditResult) -> None:
    rows = summary_rows(result)
    assert [(row.target, row.attack) for row in rows] == [
        (target, attack) for target in ("unprotected", "published") for attack in ("loss threshold", "shadow models")
    ]
    assert list(COLUMNS) == [field.name for field in dataclasses.fields(SummaryRow)]
    assert all(row.claimed == row.proven == "none" for row in rows[:2])
    assert all((row.claimed, row.proven) == ("ε = 1, δ = 0", "ε = 18.76, δ = 0 per parameter") for row in rows[2:])
    assert rows[0].accuracy == f"{result.targets[0].test_accuracy:.1%}"
    assert rows[0].auc.startswith(f"{result.targets[0].attacks[0].metrics.auc.value:.3f} (")


def test_limits_are_rounded_outwards() -> None:
    figure = Figure(0.50049, 0.48951, 0.51041)
    assert number_with_interval(figure) == "0.500 (0.489 to 0.511)"
    assert percent_with_interval(figure) == "50.0% (48.9% to 51.1%)"
    assert percent_with_interval(Figure(0.05, 0.05, 0.05)) == "5.0% (5.0% to 5.0%)"
    assert number_with_interval(Figure.unknown("too few records to say: 3")) == "too few records to say"


def test_the_verdict_names_a_leak(result: AuditResult) -> None:
    leaky, blank = verdicts(result)
    assert leaky.leak_measured
    assert "better than by guessing (found by: loss threshold and shadow models)" in leaky.headline
    assert not blank.leak_measured
    assert "does not show that the model is safe" in blank.headline
    assert any("nothing is proven" in sentence for sentence in leaky.sentences)
    # A file of weights does not say how it was trained.
    assert not any("No protection" in sentence for sentence in leaky.sentences)
    assert any("Claimed by Mao et al. 2022: ε = 1" in s and "Proven: ε = 18.76" in s for s in blank.sentences)
    assert any("nothing about a whole model" in sentence for sentence in blank.sentences)


def test_an_attack_that_is_right_at_both_ends_is_a_leak_though_its_area_is_one_half(
    result: AuditResult,
) -> None:
    rng = np.random.default_rng(0)
    # Members stand out at the bottom and at the top: the area says 0.5, low false positives do not.
    members = np.concatenate([rng.normal(5, 1, 300), rng.normal(-5, 1, 300)])
    audited = with_scores(result, members, rng.normal(size=600))
    metrics = audited.targets[0].attacks[0].metrics
    assert metrics.auc.low < 0.5 < metrics.auc.high
    assert verdicts(audited)[0].leak_measured


@pytest.mark.parametrize(
    ("draw", "figure"),
    [
        (lambda rng: rng.normal(size=600), None),
        # A few members far above all others: only the TPR shows it.
        (lambda rng: np.concatenate([rng.normal(size=584), rng.normal(9, 1, 16)]), "tpr@0.01"),
        # All members in the middle: a threshold below them is right about the non-members there.
        (lambda rng: rng.normal(0, 0.3, 600), "accuracy"),
        (lambda rng: rng.normal(0.2, 1, 600), "auc"),
    ],
    ids=["none", "tpr", "accuracy", "auc"],
)
def test_each_kind_of_figure_alone_can_show_a_leak(
    result: AuditResult, draw: Callable[[np.random.Generator], np.ndarray], figure: str | None
) -> None:
    rng = np.random.default_rng(6)
    audited = with_scores(result, draw(rng), rng.normal(size=600))
    values = leak_p_values(audited.targets[0].attacks[0].metrics)
    assert sorted(values) == ["accuracy", "auc", "auc below", "tpr@0.01"]
    assert [name for name, p in values.items() if p <= 0.05 / 4] == ([] if figure is None else [figure])
    assert verdicts(audited)[0].leak_measured is (figure is not None)


@pytest.mark.parametrize("attacks", [1, 4])
def test_few_targets_that_leak_nothing_are_said_to_leak(result: AuditResult, attacks: int) -> None:
    """Of 200 verdicts on scores that know nothing: at most 5 %, tested with error 1e-4."""
    rng, runs, leaks, by_intervals = np.random.default_rng(4), 200, 0, 0
    for run in range(runs):
        measured = [measure(rng.normal(size=100), rng.normal(size=100), seed=run) for _ in range(attacks)]
        target = dataclasses.replace(
            result.targets[0], attacks=tuple(AttackResult(str(i), one, 0.0) for i, one in enumerate(measured))
        )
        leaks += verdicts(dataclasses.replace(result, targets=(target,)))[0].leak_measured
        by_intervals += any(not one.auc.low <= 0.5 <= one.auc.high for one in measured)
    allowed = stats.binom.isf(1e-4, runs, 0.05)
    assert leaks <= allowed
    # The same test notices intervals that are not corrected for the number of attacks.
    assert attacks == 1 or by_intervals > allowed


def test_an_attack_that_is_reliably_wrong_is_not_called_safe(result: AuditResult) -> None:
    rng = np.random.default_rng(2)
    verdict = verdicts(with_scores(result, rng.normal(-1, 1, 600), rng.normal(size=600)))[0]
    assert verdict.leak_measured
    assert "opposite" in verdict.headline


def test_an_audit_too_small_to_say_anything_claims_no_safety(result: AuditResult) -> None:
    audited = with_scores(result, np.arange(5.0), np.arange(5.0))
    verdict = verdicts(audited)[0]
    assert not verdict.leak_measured
    assert "does not show" in verdict.headline
    assert "too few records" in verdict.sentences[0]
    assert summary_rows(audited)[0].auc == "too few records to say"


def test_a_proven_guarantee_per_record_is_put_into_words(result: AuditResult, guarantee: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(size=600), rng.normal(size=600)
    proven = {"epsilon": 1.0, "delta": 1e-5, "accountant": "-"}
    bounded = guarantee | {"unit": "example", "proven": proven}
    text = " ".join(verdicts(with_scores(result, *scores, bounded))[0].sentences)
    # e * 1 % + 1e-5 = 2.7193 %, rounded up.
    assert "no attack of any kind that wrongly accuses 1% of the others finds more than 2.72%" in text
    for weaker in ({"unit": "member"}, {"reproducible": True}, {"proven": None}):
        text = " ".join(verdicts(with_scores(result, *scores, bounded | weaker))[0].sentences)
        assert "no attack of any kind" not in text


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 5.0, 100.0])
def test_the_bound_is_reached_by_randomised_response(epsilon: float) -> None:
    lie = math.exp(-epsilon) / (1 + math.exp(-epsilon))
    assert tpr_bound(epsilon, 0.0, lie) == pytest.approx(1 - lie)
    assert tpr_bound(0.0, 0.0, 0.01) == pytest.approx(0.01)
    assert tpr_bound(1000.0, 0.0, 0.01) == 1
    # Beyond that point it is the non-members who bound it.
    assert tpr_bound(1.0, 0.0, 0.5) == pytest.approx(1 - 0.5 / math.e)
    assert tpr_bound(epsilon, 1.0, 0.5) == 1


def test_the_limits_say_that_a_low_figure_proves_nothing() -> None:
    assert "never proves" in LIMITS[0]
