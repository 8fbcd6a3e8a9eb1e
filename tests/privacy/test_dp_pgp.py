"""DP-PGP: what Algorithm 2 does, by counterexample, and the three versions that can be proven, by worst cases."""

import math
from itertools import product

import numpy as np
import pytest

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, TooFewMembersError
from privkernels.privacy import (
    Guarantee,
    Unit,
    dp_pgp_guarantee,
    gaussian_epsilon,
    lloyd_sensitivity_l1,
    lloyd_sensitivity_l2,
    paper_dp_pgp_epsilon,
    plan_member_dp_pgp,
    plan_paper_dp_pg,
    plan_paper_dp_pgp,
    plan_proven_dp_pg,
    plan_scalar_dp_pgp,
)
from privkernels.privacy.dp_pgp import bound_of, events_of

SHAPE = {"num_members": 50, "num_parameters": 1000, "grid_points": 64, "window_ratio": 0.99}
PUBLIC = {
    "selection_is_public": True,
    "selection_source": "public mask",
    "range_is_public": True,
    "range_source": "public clip",
}


def draws(epsilon=0.5, unit="parameter", **changes):
    return plan_proven_dp_pg(epsilon, **({"delta": 1e-5, "unit": unit} | SHAPE | changes))


def laplace_log_density(x, centre, scale):
    return -np.abs(x - centre) / scale - math.log(2 * scale)


# What is wrong with Algorithm 2


def test_the_centroid_cancels():
    rng = np.random.default_rng(0)
    theta, centroid, noise = rng.normal(size=1000) * 0.1, rng.normal(size=1000) * 0.1, rng.laplace(size=1000) * 0.1
    published = centroid + (theta - centroid + noise)
    assert np.abs(published - (theta + noise)).max() < 1e-15


def test_a_scale_from_the_cluster_has_an_unbounded_ratio():
    """Widths .05 and .10: the log ratio grows with |x| |1/s - 1/s'|, past any epsilon."""
    x = np.array([1.0, 10.0, 100.0])
    ratio = laplace_log_density(x, 0, 0.10) - laplace_log_density(x, 0, 0.05)
    assert np.diff(ratio) == pytest.approx(np.diff(x) * 10)
    assert ratio[-1] > 900


def test_the_width_of_a_cluster_is_not_the_range_of_a_parameter():
    """Width .05 at epsilon 1, values anywhere in a range of .4: the true epsilon of one scalar is 8."""
    scale = 0.05 / 1.0
    x = np.linspace(-2, 2, 4001)
    ratio = np.abs(laplace_log_density(x, -0.2, scale) - laplace_log_density(x, 0.2, scale)).max()
    assert ratio == pytest.approx(8)
    assert plan_paper_dp_pgp(1.0, draws=None, num_selected=1, cluster_width=0.05).noise_scale == scale


def test_selected_positions_can_be_seen():
    """Grid values and values with continuous noise: the positions that were selected are read off without error."""
    rng = np.random.default_rng(0)
    grid = np.linspace(-0.1, 0.1, 64)
    private = rng.normal(size=(2, 200))
    for values in private:
        selected = np.argsort(-np.abs(values))[:20]
        released = rng.choice(grid, size=200)
        released[selected] = values[selected] + rng.laplace(size=20)
        seen = np.flatnonzero(~np.isin(released, grid))
        assert set(seen) == set(selected)
    tops = [set(np.argsort(-np.abs(values))[:20]) for values in private]
    assert tops[0] != tops[1], "so the two inputs are told apart for certain"


def test_the_maximum_over_positions_fails_for_a_model():
    """Ten positions, each moved by the whole range: the joint epsilon is ten times that of one."""
    plan = plan_scalar_dp_pgp(1.0, draws=None, num_selected=10, value_range=0.4)
    losses = [laplace_log_density(1.0, 0.2, plan.noise_scale) - laplace_log_density(1.0, -0.2, plan.noise_scale)] * 10
    assert sum(losses) == pytest.approx(10)
    assert bound_of(plan).epsilon == pytest.approx(1)


def test_paper_mode_claims_eq_8_and_proves_nothing():
    plan = plan_paper_dp_pgp(
        0.5, draws=plan_paper_dp_pg(1.2, **SHAPE), num_selected=100, cluster_width=0.05, centroid_epsilon=0.3
    )
    guarantee = dp_pgp_guarantee(plan, **PUBLIC)
    assert guarantee.claimed.epsilon == pytest.approx(1.2)
    assert guarantee.claimed.equation == "Eq. 8 and Corollary 4"
    assert guarantee.proven is None
    assert "no finite epsilon" in guarantee.not_proven_because
    assert "centroid cancels" in guarantee.not_proven_because
    with pytest.raises(InvalidArgumentError, match="no finite cost"):
        events_of(plan)


def test_eq_8():
    assert paper_dp_pgp_epsilon(0.5, [1.0, 2.0], [2.2]) == 2.5
    assert paper_dp_pgp_epsilon(0.5, [1.0, 2.0], [3.0]) == 3.0
    with pytest.raises(InvalidArgumentError, match="at least one cluster"):
        paper_dp_pgp_epsilon(0.5, [])
    with pytest.raises(InvalidArgumentError, match="not negative"):
        paper_dp_pgp_epsilon(-0.5, [1.0])


# One scalar of one model


def test_scalar_noise_keeps_its_epsilon_and_spends_it():
    plan = plan_scalar_dp_pgp(1.5, draws=None, num_selected=10, value_range=0.4)
    x = np.linspace(-3, 3, 6001)
    ratio = laplace_log_density(x, 0.2, plan.noise_scale) - laplace_log_density(x, -0.2, plan.noise_scale)
    assert np.abs(ratio).max() == pytest.approx(1.5)
    assert bound_of(plan).epsilon == pytest.approx(1.5)
    assert bound_of(plan).delta == 0


def test_centroids_and_assignment_are_paid_for_and_the_noise_is_smaller():
    around = plan_scalar_dp_pgp(
        2.0,
        draws=None,
        num_selected=10,
        value_range=0.4,
        residual_bound=0.02,
        centroid_epsilon=0.5,
        assignment_epsilon=0.5,
    )
    assert around.noise_scale == pytest.approx(2 * 0.02 / 1.0)
    assert bound_of(around).epsilon == pytest.approx(2.0)
    direct = plan_scalar_dp_pgp(2.0, draws=None, num_selected=10, value_range=0.4)
    assert around.noise_scale < direct.noise_scale / 4


def test_assignment_to_centroids_keeps_its_epsilon():
    """Exponential mechanism with utility -|theta - c|: replacing theta in the range costs at most epsilon_a."""
    epsilon, value_range = 0.7, 0.4
    centroids = np.linspace(-0.2, 0.2, 9)
    logits = [-epsilon * np.abs(theta - centroids) / (2 * value_range) for theta in (-0.2, 0.2)]
    laws = [z - np.log(np.exp(z).sum()) for z in logits]
    assert 0.5 * epsilon < np.abs(laws[0] - laws[1]).max() <= epsilon


def test_a_scalar_costs_the_larger_of_the_two_kinds_of_position():
    for selected, drawn in ((1.5, 0.5), (0.5, 1.5)):
        plan = plan_scalar_dp_pgp(selected, draws=draws(drawn), num_selected=10, value_range=0.4)
        assert bound_of(plan).epsilon == pytest.approx(1.5, rel=1e-2)
        guarantee = dp_pgp_guarantee(plan, **PUBLIC)
        assert guarantee.proven.epsilon == bound_of(plan).epsilon
        assert guarantee.unit is Unit.PARAMETER
        assert any("one scalar" in warning for warning in guarantee.warnings)


def test_the_maximum_is_refused_for_a_member():
    with pytest.raises(InvalidArgumentError, match="whose costs add up"):
        plan_scalar_dp_pgp(1.0, draws=draws(unit="member"), num_selected=10, value_range=0.4)


# One member


def member_plan(**changes):
    values = {
        "draws": draws(1.0, "member"), "num_selected": 100, "num_members": 50, "clip_norm": 2.0, "noise_std": 0.1,
        "delta": 1e-5,
    }  # fmt: skip
    return plan_member_dp_pgp(**(values | changes))


def test_the_mean_of_clipped_members_moves_by_at_most_two_norms_over_their_number():
    rng = np.random.default_rng(0)

    def clipped(v):
        return v * np.minimum(1, 2.0 / np.linalg.norm(v, axis=-1, keepdims=True))

    members = clipped(rng.normal(size=(50, 30)) * 3)
    worst = 0.0
    for _ in range(200):
        other = members.copy()
        other[0] = clipped(rng.normal(size=30) * 3)
        worst = max(worst, np.linalg.norm(members.mean(0) - other.mean(0)))
    other = members.copy()
    other[0] = -clipped(members[0] * 1e6)
    members[0] = clipped(members[0] * 1e6)
    attained = np.linalg.norm(members.mean(0) - other.mean(0))
    assert worst < attained
    assert attained == pytest.approx(2 * 2.0 / 50)
    (event,) = events_of(member_plan(draws=None))
    assert event.mu == pytest.approx(attained / 0.1)


def test_a_member_pays_for_the_mean_and_for_every_draw():
    plan = member_plan()
    mean, drawn = events_of(plan)
    rho = mean.mu**2 / 2 + drawn.count * drawn.eta**2 / 8
    assert mean.mu**2 / 2 == pytest.approx(2 * 2.0**2 / (50**2 * 0.1**2))
    assert drawn.count == 1000
    assert dp_pgp_guarantee(plan, **PUBLIC).implementation["rho_of_the_selected_positions"] == pytest.approx(
        mean.mu**2 / 2
    )
    bound = bound_of(plan)
    assert max(gaussian_epsilon(mean.mu, 1e-5), 0.5) < bound.epsilon < rho + 2 * math.sqrt(rho * math.log(1e5))
    assert dp_pgp_guarantee(plan, **PUBLIC).claimed is None


def test_a_record_pays_for_its_overlap():
    one, five = (events_of(member_plan(draws=None, unit="example", overlap=s))[0].mu for s in (1, 5))
    assert five == pytest.approx(5 * one)
    assert member_plan(draws=draws(1.0, "example", overlap=5), unit="example", overlap=5).unit is Unit.EXAMPLE


# Private k-means


@pytest.mark.parametrize(("relation", "expected"), [("add-or-remove-one", 2.0), ("replace-one", 4.0)])
def test_l1_sensitivity_of_lloyd_in_one_dimension(relation, expected):
    assert lloyd_sensitivity_l1(1, 1.0, relation) == expected


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_no_pair_of_points_exceeds_the_sensitivities_of_lloyd_and_one_attains_them(radius):
    """All corners of the cube, in any of two clusters: counts and sums as one vector."""
    statistics = []
    for cluster, corner in product((0, 1), product((-radius, radius), repeat=2)):
        row = np.zeros((2, 3))
        row[cluster] = (1, *corner)
        statistics.append(row.ravel())
    changes = [a - b for a in statistics for b in statistics]
    for norm, function in ((1, lloyd_sensitivity_l1), (2, lloyd_sensitivity_l2)):
        assert max(np.linalg.norm(c, norm) for c in changes) <= function(2, radius, "replace-one") + 1e-12
        assert max(np.linalg.norm(s, norm) for s in statistics) == pytest.approx(
            function(2, radius, "add-or-remove-one")
        )
    assert max(np.linalg.norm(c, 2) for c in changes) == pytest.approx(lloyd_sensitivity_l2(2, radius, "replace-one"))


# The guarantee as a value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"selection_is_public": False}, "can be read off"),
        ({"range_is_public": False}, "depends on the private members"),
        ({"reproducible": True}, "seed"),
    ],
)
def test_what_leaves_no_proof(change, words):
    for plan in (plan_scalar_dp_pgp(1.0, draws=None, num_selected=10, value_range=0.4), member_plan()):
        guarantee = dp_pgp_guarantee(plan, **(PUBLIC | change))
        assert guarantee.proven is None
        assert words in guarantee.not_proven_because
        assert "Proven: nothing" in str(guarantee)


def test_draws_in_the_papers_mode_leave_no_proof():
    plan = plan_scalar_dp_pgp(1.0, draws=plan_paper_dp_pg(1.0, **SHAPE), num_selected=10, value_range=0.4)
    assert "paper's mode" in dp_pgp_guarantee(plan, **PUBLIC).not_proven_because


def test_guarantees_read_and_survive_json():
    for plan in (
        plan_paper_dp_pgp(0.5, draws=None, num_selected=3, cluster_width=0.05),
        plan_scalar_dp_pgp(1.0, draws=draws(), num_selected=10, value_range=0.4),
        member_plan(),
    ):
        guarantee = dp_pgp_guarantee(plan, **PUBLIC)
        assert Guarantee.from_json(guarantee.to_json()) == guarantee
        assert f"Unit: {plan.unit}" in str(guarantee)


def test_bad_arguments():
    with pytest.raises(InvalidBudgetError):
        plan_scalar_dp_pgp(0.0, draws=None, num_selected=1, value_range=1.0)
    with pytest.raises(InvalidBudgetError):
        plan_scalar_dp_pgp(
            1.0,
            draws=None,
            num_selected=1,
            value_range=1.0,
            residual_bound=0.1,
            centroid_epsilon=0.5,
            assignment_epsilon=0.5,
        )
    with pytest.raises(InvalidArgumentError, match="both"):
        plan_scalar_dp_pgp(1.0, draws=None, num_selected=1, value_range=1.0, residual_bound=0.1)
    with pytest.raises(InvalidArgumentError, match="residual_bound"):
        plan_scalar_dp_pgp(1.0, draws=None, num_selected=1, value_range=1.0, centroid_epsilon=0.1)
    with pytest.raises(InvalidArgumentError, match="value_range"):
        plan_scalar_dp_pgp(1.0, draws=None, num_selected=1, value_range=math.nan)
    with pytest.raises(InvalidArgumentError, match="at least one selected"):
        plan_scalar_dp_pgp(1.0, draws=None, num_selected=0, value_range=1.0)
    with pytest.raises(InvalidArgumentError, match="overlap"):
        member_plan(draws=None, overlap=2)
    with pytest.raises(InvalidArgumentError, match="draws are planned for"):
        member_plan(draws=draws(1.0, "example", overlap=5))
    with pytest.raises(InvalidArgumentError, match="one try"):
        member_plan(draws=draws(1.0, "member", max_tries=2))
    with pytest.raises(TooFewMembersError):
        member_plan(draws=None, num_members=1)
    with pytest.raises(InvalidArgumentError, match="noise_std"):
        member_plan(noise_std=0.0)
    with pytest.raises(InvalidArgumentError, match="radius"):
        lloyd_sensitivity_l1(1, 0.0, "replace-one")
