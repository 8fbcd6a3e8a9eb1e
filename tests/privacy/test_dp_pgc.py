"""DP-PGC: truncation saves no privacy, whatever Corollary 5 says; the release keeps DP-PG's guarantee."""

import math

import numpy as np
import pytest
from scipy import special

from privkernels.errors import InvalidArgumentError, InvalidBudgetError
from privkernels.privacy import (
    DpPgcPlan,
    Guarantee,
    Unit,
    dp_pg_guarantee,
    dp_pgc_guarantee,
    kde_sensitivity,
    paper_dp_pgc_epsilon,
    plan_paper_dp_pg,
    plan_proven_dp_pg,
)
from privkernels.privacy.dp_pg import event_of as dp_pg_event
from privkernels.privacy.dp_pgc import event_of

SHAPE = {"num_members": 50, "num_parameters": 1000, "grid_points": 64, "window_ratio": 0.99}
SOURCES = {"grid_is_public": True, "bandwidth_source": "public", "range_source": "public"}


def plan(**changes):
    draws = plan_proven_dp_pg(1.0, **({"delta": 1e-5, "unit": "member"} | SHAPE | changes))
    return DpPgcPlan(draws, parameter_bits=8, residual_bits=4)


def drawn_laws(epsilon):
    """The law of one draw on an 8-bit grid over [0, 1), for 49 members together and the last one here or far away."""
    grid = np.arange(256) / 256
    bandwidth = 0.05
    laws = []
    for last in (0.25, 0.75):
        z = (grid[:, None] - np.array([0.25] * 49 + [last])) / bandwidth
        score = (special.ndtr(z + 0.5) - special.ndtr(z - 0.5)).mean(axis=1)
        laws.append(special.softmax(epsilon * score / (2 * kde_sensitivity(50, 1.0))))
    return laws


def truncated(law, bits):
    return law.reshape(2**bits, -1).sum(axis=1)


@pytest.mark.parametrize(("epsilon", "bits", "expected"), [(1.0, 4, 0.9033), (2.0, 6, 1.9818)])
def test_truncation_does_not_divide_epsilon_by_the_bits_it_drops(epsilon, bits, expected):
    first, second = drawn_laws(epsilon)
    before = np.abs(np.log(first / second)).max()
    after = np.abs(np.log(truncated(first, bits) / truncated(second, bits))).max()
    claimed = paper_dp_pgc_epsilon(epsilon, 8, bits)
    assert claimed == epsilon / (8 - bits)
    assert 0.99 * epsilon - 1e-3 < before <= epsilon
    assert claimed < after <= before
    assert after == pytest.approx(expected, rel=2e-3)


def test_values_that_differ_in_the_top_bit_keep_their_odds():
    """Randomised response between the grid's ends: dropping any number of low bits changes nothing."""
    odds = math.e
    law = np.zeros((2, 256))
    law[0, [0, 255]] = np.array([odds, 1]) / (1 + odds)
    law[1, [0, 255]] = np.array([1, odds]) / (1 + odds)
    for bits in range(1, 9):
        kept = [truncated(row, bits) for row in law]
        ends = [row[[0, -1]] for row in kept]
        assert np.abs(np.log(ends[0] / ends[1])).max() == pytest.approx(1, rel=1e-12)


def test_no_truncation_has_no_claim_instead_of_a_division_by_zero():
    assert paper_dp_pgc_epsilon(1.0, 8, 8) is None
    whole = DpPgcPlan(plan().draws, parameter_bits=8, residual_bits=8)
    assert dp_pgc_guarantee(whole, **SOURCES).claimed is None


def test_the_release_keeps_the_epsilon_of_its_draws():
    compressed = dp_pgc_guarantee(plan(), **SOURCES)
    assert compressed.proven == dp_pg_guarantee(plan().draws, **SOURCES).proven
    assert event_of(plan()) == dp_pg_event(plan().draws)
    assert compressed.implementation["epsilon_saved_by_truncation"] == 0


def test_the_papers_claim_is_its_quotient():
    draws = plan_paper_dp_pg(1.0, **SHAPE)
    guarantee = dp_pgc_guarantee(DpPgcPlan(draws, 8, 4), **SOURCES)
    assert guarantee.claimed.epsilon == pytest.approx(0.25)
    assert guarantee.claimed.equation == "Corollary 5"
    assert "DP-PGC" in guarantee.claimed.paper
    assert "applied" not in guarantee.claimed.paper
    assert guarantee.proven is None
    assert "applied" in dp_pgc_guarantee(plan(), **SOURCES).claimed.paper


def test_a_window_above_the_bandwidth_has_no_claim():
    assert dp_pgc_guarantee(plan(window_ratio=2.0), **SOURCES).claimed is None


def test_private_steps_after_the_draw_leave_no_proof():
    guarantee = dp_pgc_guarantee(plan(), private_steps=("fine-tuning",), **SOURCES)
    assert guarantee.proven is None
    assert "fine-tuning" in guarantee.not_proven_because
    both = dp_pgc_guarantee(plan(), private_steps=("fine-tuning",), reproducible=True, **SOURCES)
    assert "seed" in both.not_proven_because
    assert "fine-tuning" in both.not_proven_because


def test_the_guarantee_reads_and_survives_json():
    guarantee = dp_pgc_guarantee(plan(), **SOURCES)
    assert Guarantee.from_json(guarantee.to_json()) == guarantee
    text = str(guarantee)
    assert f"Unit: {Unit.MEMBER}" in text
    assert "truncation from 8 to 4 bits" in text
    assert "Truncation costs no privacy and brings none" in text


@pytest.mark.parametrize("bits", [(8, 9), (8, -1), (0, 0), (8, 4.0), (True, 1)])
def test_bad_bits(bits):
    with pytest.raises(InvalidArgumentError, match=r"(parameter|residual)_bits"):
        DpPgcPlan(plan().draws, *bits)


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan])
def test_bad_epsilons(epsilon):
    with pytest.raises(InvalidBudgetError):
        paper_dp_pgc_epsilon(epsilon, 8, 4)
