"""DP-PG's privacy: the paper's sensitivity and composition by counterexample, ours by exact worst cases."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, TooFewMembersError
from privkernels.ops import kde_em_probabilities_reference, kde_peak, kde_scores_reference
from privkernels.privacy import (
    Unit,
    dp_pg_guarantee,
    kde_sensitivity,
    paper_kde_sensitivity,
    plan_paper_dp_pg,
    plan_proven_dp_pg,
)
from privkernels.privacy.accounting import nonadaptive_bounded_range_delta
from privkernels.privacy.dp_pg import bound_of

SHAPE = {"num_members": 50, "num_parameters": 1000, "grid_points": 64, "window_ratio": 0.99}
SOURCES = {"grid_is_public": True, "bandwidth_source": "public", "range_source": "public"}


def proven(epsilon, **changes):
    return plan_proven_dp_pg(epsilon, **({"delta": 1e-5, "unit": "member"} | SHAPE | changes))


def probabilities(values, grid, multiplier, ratio=0.99):
    scores = kde_scores_reference(torch.tensor(values).reshape(-1, 1), grid, 1.0, ratio)
    return kde_em_probabilities_reference(scores, multiplier)[0]


GRID = torch.linspace(-10, 10, 64)
ON_GRID, ELSEWHERE = float(GRID[20]), float(GRID[44])
# The score's worst pair: all other members far away. The draw's: all others where the normaliser is decided.
FAR = [100.0] * 49
TOGETHER = [ON_GRID] * 49


def test_sensitivity_is_attained_and_the_papers_is_exceeded():
    with_one = kde_scores_reference(torch.tensor([*FAR, ON_GRID]).reshape(-1, 1), GRID, 1.0, 0.99)
    without = kde_scores_reference(torch.tensor([*FAR, 100.0]).reshape(-1, 1), GRID, 1.0, 0.99)
    change = float((with_one - without).abs().max())
    assert change == pytest.approx(kde_sensitivity(50, 0.99), rel=1e-6)
    assert change > 18 * paper_kde_sensitivity(50)


def test_random_replacements_never_exceed_the_sensitivity():
    rng = np.random.default_rng(0)
    for _ in range(200):
        members = rng.normal(0, rng.uniform(0.1, 5), 50)
        other = members.copy()
        other[0] = rng.normal(0, 10)
        a, b = (kde_scores_reference(torch.tensor(v).reshape(-1, 1), GRID, 1.0, 0.99) for v in (members, other))
        assert float((a - b).abs().max()) <= kde_sensitivity(50, 0.99) * (1 + 1e-9)


def log_ratio(multiplier):
    a = probabilities([*TOGETHER, ON_GRID], GRID, multiplier)
    b = probabilities([*TOGETHER, ELSEWHERE], GRID, multiplier)
    return float((a.log() - b.log()).abs().max())


def test_one_draw_keeps_its_epsilon_and_nearly_spends_it():
    plan = proven(1.0, num_parameters=1)
    assert 0.95 * plan.epsilon_draw < log_ratio(plan.multiplier) <= plan.epsilon_draw


def test_the_papers_multiplier_spends_far_more_than_it_claims():
    plan = plan_paper_dp_pg(1.0, **SHAPE)
    factor = 49 * kde_peak(0.99)
    assert log_ratio(plan.multiplier) == pytest.approx(factor, rel=0.02)
    reason = dp_pg_guarantee(plan, **SOURCES).not_proven_because
    assert f"too small by a factor of {factor:.3g}" in reason


def test_a_proven_release_does_not_put_words_into_the_papers_mouth():
    claim = dp_pg_guarantee(proven(1.0), **SOURCES).claimed
    assert "its formula applied to these draws" in claim.paper
    assert "applied" not in dp_pg_guarantee(plan_paper_dp_pg(1.0, **SHAPE), **SOURCES).claimed.paper
    assert dp_pg_guarantee(proven(1.0, window_ratio=2.0), **SOURCES).claimed is None


def test_with_three_members_the_papers_sensitivity_is_large_enough_and_is_not_blamed():
    assert paper_kde_sensitivity(3) > kde_sensitivity(3, 0.99)
    plan = plan_paper_dp_pg(1.0, **(SHAPE | {"num_members": 3}))
    assert "too small" not in dp_pg_guarantee(plan, **SOURCES).not_proven_because


def test_composition_by_maximum_fails_for_a_member():
    """Three parameters of one replaced member: the joint loss is three times that of one."""
    plan = proven(1.0, num_parameters=1)
    one = log_ratio(plan.multiplier)
    assert 3 * one > 2.8 * plan.epsilon_draw
    three = plan_proven_dp_pg(1.0, delta=1e-5, unit="member", **(SHAPE | {"num_parameters": 3}))
    # Exactly, for the worst three draws of that range: epsilon = 1 fails at delta = 0 and holds at 1e-5.
    assert 0 < nonadaptive_bounded_range_delta(three.epsilon_draw, 3, 1.0) <= 1e-5
    assert bound_of(three).epsilon == pytest.approx(1.0, rel=1e-6)
    per_scalar = plan_proven_dp_pg(1.0, delta=1e-5, unit="parameter", **(SHAPE | {"num_parameters": 3}))
    assert per_scalar.epsilon_draw == pytest.approx(plan.epsilon_draw, rel=1e-3)


def test_a_unit_that_dp_pg_cannot_hide_is_refused():
    with pytest.raises(InvalidArgumentError, match="not participant score"):
        proven(1.0, unit="participant score")


@pytest.mark.parametrize("unit", [Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE])
@pytest.mark.parametrize("epsilon", [0.1, 1, 8, 15])
@pytest.mark.parametrize("tries", [1, 5])
def test_the_budget_is_kept_and_used(unit, epsilon, tries):
    plan = proven(epsilon, unit=unit, overlap=10, max_tries=tries)
    bound = bound_of(plan)
    assert bound.epsilon <= epsilon
    assert bound.epsilon > 0.999 * epsilon
    assert bound.delta <= 1e-5
    assert dp_pg_guarantee(plan, **SOURCES).proven.epsilon == bound.epsilon


def test_budgets_known_from_the_composition_of_a_whole_network():
    plan = proven(8.0, num_parameters=1_199_882)
    assert plan.epsilon_draw == pytest.approx(0.00286, rel=2e-3)
    assert proven(1.0, num_parameters=7_850).epsilon_draw == pytest.approx(0.00558, rel=2e-3)


def test_an_example_pays_for_its_largest_overlap():
    one, ten = (proven(1.0, unit="example", overlap=s).epsilon_draw for s in (1, 10))
    assert one / ten == pytest.approx(10, rel=1e-2)
    assert proven(1.0, unit="member").epsilon_draw == pytest.approx(one, rel=1e-9)
    assert proven(1.0, unit="example").overlap == 50, "unknown index sets: all members are assumed"


def test_replacing_s_members_costs_s_times_the_range():
    plan = proven(3.0, unit="example", overlap=3, num_parameters=1)
    a = probabilities([*TOGETHER[:47], *[ON_GRID] * 3], GRID, plan.multiplier)
    b = probabilities([*TOGETHER[:47], *[ELSEWHERE] * 3], GRID, plan.multiplier)
    ratio = float((a.log() - b.log()).abs().max())
    assert 0.9 * 3 * plan.epsilon_draw < ratio <= 3.0


def test_every_try_is_charged():
    assert proven(1.0, max_tries=4).epsilon_draw < 0.6 * proven(1.0).epsilon_draw


def test_rounding_and_resolution_are_in_the_guarantee():
    guarantee = dp_pg_guarantee(proven(1.0), **SOURCES)
    terms = guarantee.implementation
    plan = proven(1.0)
    assert terms["score_error_epsilon_per_draw"] >= 4 * plan.multiplier * terms["score_error"] > 0
    assert terms["sampling_resolution_is_in"] == "epsilon"
    ideal = math.sqrt(1000) * plan.epsilon_draw
    spent = math.sqrt(1000) * (plan.epsilon_draw + terms["score_error_epsilon_per_draw"])
    assert spent > ideal


def test_sampling_resolution_goes_into_delta_where_epsilon_is_large():
    plan = proven(60.0, num_parameters=10, grid_points=256)
    guarantee = dp_pg_guarantee(plan, **SOURCES)
    assert guarantee.implementation["sampling_resolution_is_in"] == "delta"
    assert 0 < guarantee.proven.delta <= 1e-5


def test_near_uniform_is_said_when_the_budget_carries_nothing():
    small = dp_pg_guarantee(proven(1.0, num_parameters=1_000_000), **SOURCES)
    assert any("Near-uniform" in warning for warning in small.warnings)
    large = dp_pg_guarantee(proven(20.0, num_parameters=1), **SOURCES)
    assert not any("Near-uniform" in warning for warning in large.warnings)


def test_paper_mode_claims_and_never_proves():
    guarantee = dp_pg_guarantee(plan_paper_dp_pg(0.5, **SHAPE), **SOURCES)
    assert guarantee.claimed.epsilon == pytest.approx(0.5)
    assert guarantee.claimed.equation == "Corollary 1"
    assert guarantee.proven is None
    assert "no finite epsilon" in guarantee.not_proven_because
    assert guarantee.unit is Unit.PARAMETER


def test_a_private_grid_leaves_no_proof():
    guarantee = dp_pg_guarantee(proven(1.0), **(SOURCES | {"grid_is_public": False}))
    assert guarantee.proven is None
    assert "no finite epsilon" in guarantee.not_proven_because


def test_the_bound_is_that_of_the_multiplier_that_is_drawn_with():
    plan = proven(1.0)
    assert bound_of(replace(plan, multiplier=10 * plan.multiplier)).epsilon > 5


def test_the_members_asked_for_would_do():
    """With as many members as the warning says, on disjoint records, it is gone; with random ones it is not."""
    few = proven(1.0, unit="example", overlap=45)
    (warning,) = dp_pg_guarantee(few, **SOURCES).warnings
    needed = round(1.05 * int(warning.split("about ")[1].split()[0]))  # rounding costs more with more members
    assert "share no record" in warning
    assert not proven(1.0, unit="example", overlap=1, num_members=needed).near_uniform()
    assert proven(1.0, unit="example", overlap=1, num_members=needed // 2).near_uniform()
    assert proven(1.0, unit="example", overlap=9 * needed // 10, num_members=needed).near_uniform()


@pytest.mark.parametrize(("flag", "words"), [("reproducible", "seed"), ("private_validation", "private records")])
def test_seeded_noise_and_private_validation_leave_no_proof(flag, words):
    guarantee = dp_pg_guarantee(proven(1.0), **SOURCES, **{flag: True})
    assert guarantee.proven is None
    assert words in guarantee.not_proven_because


def test_numbers_in_reasons_and_warnings_are_rounded_up():
    nearest_is_below = 0
    one = proven(10.0, num_parameters=1)
    for factor in (1.234321, 1.4142136, 1.7320508, 1.6180339):
        plan = replace(one, multiplier=factor * one.multiplier)
        bound = bound_of(plan).epsilon
        seeded = dp_pg_guarantee(plan, **SOURCES, reproducible=True).not_proven_because
        held = float(seeded.split("secret key, epsilon = ")[1].split()[0])
        (large,) = (w for w in dp_pg_guarantee(plan, **SOURCES).warnings if "next to nothing" in w)
        assert bound <= held == float(large.split()[2]) < bound * 1.001
        nearest_is_below += float(f"{bound:.4g}") < bound
    assert nearest_is_below >= 2, "or the test could not fail"


def test_the_cost_of_the_papers_draw_is_rounded_up():
    for window in (0.5, 0.77, 0.99):
        factor = 49 * kde_peak(window)
        reason = dp_pg_guarantee(plan_paper_dp_pg(1.0, **(SHAPE | {"window_ratio": window})), **SOURCES)
        words = reason.not_proven_because.split("too small by a factor of ")[1]
        assert float(words.split()[0]) >= factor
        assert float(words.split("grid: ")[1].split(")")[0]) >= factor


@pytest.mark.parametrize("epsilon", [0, -1, math.inf, math.nan])
def test_bad_budgets(epsilon):
    with pytest.raises(InvalidBudgetError):
        proven(epsilon)
    with pytest.raises(InvalidBudgetError):
        plan_paper_dp_pg(epsilon, **SHAPE)


def test_a_budget_below_rounding_is_refused():
    with pytest.raises(InvalidBudgetError, match="rounding"):
        proven(1e-9, num_parameters=10**9)


def test_bad_shapes():
    with pytest.raises(TooFewMembersError):
        proven(1.0, num_members=1)
    with pytest.raises(TooFewMembersError):
        kde_sensitivity(1, 1.0)
    with pytest.raises(InvalidArgumentError, match="overlap"):
        proven(1.0, unit="example", overlap=51)
    with pytest.raises(InvalidArgumentError, match="max_tries"):
        proven(1.0, max_tries=0)
    with pytest.raises(InvalidArgumentError, match="DP-PG hides one of"):
        proven(1.0, unit=Unit.ACTIVATION)
    with pytest.raises(InvalidArgumentError, match="window_ratio < 1"):
        plan_paper_dp_pg(1.0, **(SHAPE | {"window_ratio": 1.0}))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"unit": Unit.VALIDATION_RECORD}, "not validation record"),
        ({"num_members": 1}, "at least 2 members"),
        ({"num_parameters": 0}, "no floating-point parameters"),
        ({"max_tries": 0}, "max_tries"),
        ({"grid_points": 1}, "grid_points"),
        ({"grid_points": 65537}, "grid_points"),
        ({"window_ratio": 0.0}, "window_ratio"),
        ({"window_ratio": -1.0}, "window_ratio"),
        ({"window_ratio": math.nan}, "window_ratio"),
        ({"window_ratio": 1e7}, "window_ratio"),
        ({"overlap": 51}, "overlap"),
        ({"multiplier": -1.0}, "multiplier"),
        ({"epsilon_draw": math.nan}, "epsilon_draw"),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_is_refused(change, error):
    with pytest.raises((InvalidArgumentError, TooFewMembersError), match=error):
        replace(proven(1.0), **change)


def test_a_window_without_width_has_no_sensitivity():
    for ratio in (0.0, -1.0, math.inf):
        with pytest.raises(InvalidArgumentError, match="window_ratio"):
            kde_sensitivity(50, ratio)
