"""The privacy of DP-PGP: the paper's statement, what is wrong with it, and three versions that can be proven.

Paper: Mao et al., IEEE TPDS 2022, Sections 4.2 and 5.1, Algorithm 2, Eqs. 5, 6 and 8, Corollary 4.

What is wrong with Algorithm 2 as printed:

* Line 19 with Eq. 5: c_i + o_i = c_i + (theta_j - c_i) + Laplace = theta_j + Laplace. The centroid cancels; k-means
  does nothing but set the scale of the noise on one private model's parameters.
* That scale, the cluster's width, is computed from the private parameters. Laplace laws of different scales have an
  unbounded ratio, so no finite epsilon holds.
* The positions that keep their values are the top ones of the private model. Their values are continuous, all others
  lie on the grid, so which positions were chosen can be seen: delta = 1.
* Eq. 8 takes maxima over clusters and positions. That is right for neighbours that differ in one scalar, whose position
  and cluster are public; one model changes every position.

What holds, for values clipped to a public [lo, hi], R = hi - lo, and a public set I of selected positions:

* scalar-laplace, unit one scalar: theta_j + Laplace(R / epsilon_K) on I costs epsilon_K, and DP-PG's draws elsewhere
  cost epsilon_j. A neighbour changes one position, so the release costs the larger of the two: Eq. 8 at this unit.
* scalar-centroid, unit one scalar: private centroids c (epsilon_c), assignment by the exponential mechanism with
  utility -|theta_j - c_i| (sensitivity R, so multiplier epsilon_a / (2 R)), then
  c + clip(theta_j - c, -B, B) + Laplace(2 B / epsilon_K) with B public: epsilon_c + epsilon_a + epsilon_K on I.
* member-gaussian, unit one member (or one record, used in s members): the mean over M members of theta_I clipped to L2
  norm C, plus N(0, sigma^2). Replacing a member moves the mean by at most 2 C / M: mu = 2 C / (M sigma), which is
  rho = 2 C^2 / (M^2 sigma^2), composed with the DP-PG draws elsewhere. Clustering what is noisy is free.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from privkernels.errors import InvalidArgumentError, TooFewMembersError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, check_epsilon, compose
from privkernels.privacy.accounting.budget import LARGEST, check_amount, check_count, check_positive
from privkernels.privacy.dp_pg import PAPER as _DP_PG_PAPER
from privkernels.privacy.dp_pg import DpPgPlan, paper_kde_sensitivity
from privkernels.privacy.dp_pg import event_of as _dp_pg_event
from privkernels.privacy.events import Event, GaussianEvent, PureEvent, Relation
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit

PAPER = _DP_PG_PAPER.replace("DP-PG", "DP-PGP")


class DpPgpVariant(StrEnum):
    """How the selected positions are published."""

    PAPER = "paper"
    SCALAR_LAPLACE = "scalar-laplace"
    SCALAR_CENTROID = "scalar-centroid"
    MEMBER_GAUSSIAN = "member-gaussian"


def lloyd_sensitivity_l1(dimensions: int, radius: float, relation: Relation | str) -> float:
    """L1 sensitivity of one iteration of private k-means: all counts and all coordinate sums together.

    Points lie in [-radius, radius]^d. One point more changes one count by 1 and one sum by up to d radius: d radius +
    1.
    A replacement takes from one cluster and gives to another: twice that. The scale of the Laplace noise is this times
    the number of iterations over epsilon_c (Su et al., CODASPY 2016, DPLloyd).

    Raises:
        InvalidArgumentError: no dimension, or a radius that is not positive and finite.
    """
    _check_ball(dimensions, radius)
    one = dimensions * radius + 1
    return one if by_name(Relation, relation) is Relation.ADD_OR_REMOVE_ONE else 2 * one


def lloyd_sensitivity_l2(dimensions: int, radius: float, relation: Relation | str) -> float:
    """L2 sensitivity of the same release, for Gaussian noise.

    One point more: sqrt(1 + d radius^2). A replacement either moves between two clusters, sqrt(2 (1 + d radius^2)), or
    crosses the cube inside one of them, 2 radius sqrt(d); the larger holds.
    """
    _check_ball(dimensions, radius)
    one = math.sqrt(1 + dimensions * radius**2)
    if by_name(Relation, relation) is Relation.ADD_OR_REMOVE_ONE:
        return one
    return max(math.sqrt(2) * one, 2 * radius * math.sqrt(dimensions))


def paper_dp_pgp_epsilon(
    centroid_epsilon: float, cluster_epsilons: Sequence[float], draw_epsilons: Sequence[float] = ()
) -> float:
    """max(epsilon_c + max_i epsilon_Ki, max_j epsilon_j): Eq. 8, one layer; Corollary 4 takes the largest layer.

    Raises:
        InvalidArgumentError: no cluster, or a negative or infinite epsilon.
    """
    if not cluster_epsilons:
        raise InvalidArgumentError("Eq. 8 needs the epsilon of at least one cluster: give cluster_epsilons")
    for epsilon in (centroid_epsilon, *cluster_epsilons, *draw_epsilons):
        check_amount("an epsilon of Eq. 8", epsilon, high=LARGEST)
    return max(centroid_epsilon + max(cluster_epsilons), *draw_epsilons, 0.0)


@dataclass(frozen=True)
class DpPgpPlan:
    """How one DP-PGP release is made, settled before a member is read. Use one of the ``plan_...`` functions.

    Attributes:
        variant: how the selected positions are published.
        draws: the DP-PG plan of all other positions, or None if every position is selected.
        num_selected: |I|.
        num_members: M.
        noise_scale: scale of the Laplace noise, or sigma of the Gaussian; in units of a parameter.
        value_range: R = hi - lo, public (scalar-laplace, scalar-centroid); cluster width in the paper's variant.
        residual_bound: B (scalar-centroid).
        clip_norm: C (member-gaussian).
        centroid_epsilon, assignment_epsilon: epsilon_c and epsilon_a.
        overlap: s, members that one record was used in (1 for unit member).
        unit: what the budget is for.
        delta: asked for.
    """

    variant: DpPgpVariant
    draws: DpPgPlan | None
    num_selected: int
    num_members: int
    noise_scale: float
    unit: Unit
    delta: float
    value_range: float | None = None
    residual_bound: float | None = None
    clip_norm: float | None = None
    centroid_epsilon: float = 0.0
    assignment_epsilon: float = 0.0
    overlap: int = 1

    def __post_init__(self) -> None:
        if check_count("num_selected", self.num_selected, low=0) < 1:
            raise InvalidArgumentError(
                f"DP-PGP needs at least one selected position, got {self.num_selected}; with none it is DP-PG"
            )
        for name in ("noise_scale", "value_range", "residual_bound", "clip_norm"):
            value = getattr(self, name)
            if value is not None:
                check_positive(name, value)
        for name in ("centroid_epsilon", "assignment_epsilon"):
            check_amount(name, getattr(self, name), high=LARGEST)
        if self.draws is not None and self.draws.max_tries != 1:
            raise InvalidArgumentError("the quality loop of DP-PGP is not accounted for: plan its draws with one try")

    @property
    def cluster_epsilon(self) -> float:
        """epsilon_K: what the Laplace noise on the selected positions costs one scalar (0 for Gaussian noise)."""
        if self.variant is DpPgpVariant.MEMBER_GAUSSIAN:
            return 0.0
        width = 2 * self.residual_bound if self.residual_bound is not None else self.value_range
        assert width is not None
        return width / self.noise_scale


def plan_paper_dp_pgp(
    cluster_epsilon: float,
    *,
    draws: DpPgPlan | None,
    num_selected: int,
    cluster_width: float,
    centroid_epsilon: float = 0.0,
) -> DpPgpPlan:
    """Algorithm 2 as printed: noise scale = cluster width / epsilon_K on one model's parameters. Nothing is proven.

    Raises:
        InvalidBudgetError: cluster_epsilon is not positive and finite.
        InvalidArgumentError: no selected position, or a width that is not positive.
    """
    check_epsilon(cluster_epsilon)
    check_positive("cluster_width", cluster_width)
    return DpPgpPlan(
        DpPgpVariant.PAPER, draws, num_selected, 1, cluster_width / cluster_epsilon, Unit.PARAMETER, 0.0,
        value_range=cluster_width, centroid_epsilon=centroid_epsilon,
    )  # fmt: skip


def plan_scalar_dp_pgp(
    epsilon: float,
    *,
    draws: DpPgPlan | None,
    num_selected: int,
    value_range: float,
    residual_bound: float | None = None,
    centroid_epsilon: float = 0.0,
    assignment_epsilon: float = 0.0,
) -> DpPgpPlan:
    """Laplace noise for one scalar of one model within ``epsilon``, around private centroids if a bound B is given.

    Args:
        epsilon: of one scalar, epsilon_c and epsilon_a included.
        draws: the plan of the other positions, for unit parameter, or None.
        value_range: R = hi - lo of the public clip.
        residual_bound: B; without it the noise is on the value itself, with scale R / epsilon.
        centroid_epsilon, assignment_epsilon: epsilon_c and epsilon_a; both need ``residual_bound``.

    Raises:
        InvalidBudgetError: nothing is left of epsilon after epsilon_c and epsilon_a, or it is not positive and finite.
        InvalidArgumentError: draws planned for another unit than one scalar, or values out of range.
    """
    check_epsilon(epsilon)
    if draws is not None and draws.unit is not Unit.PARAMETER:
        raise InvalidArgumentError(
            f"the maximum over positions holds for unit {Unit.PARAMETER} only: the draws are planned for {draws.unit}; "
            "use plan_member_dp_pgp, whose costs add up"
        )
    check_amount("centroid_epsilon", centroid_epsilon)
    check_amount("assignment_epsilon", assignment_epsilon)
    check_positive("value_range", value_range)
    left = check_epsilon(epsilon - centroid_epsilon - assignment_epsilon)
    if residual_bound is None and (centroid_epsilon or assignment_epsilon):
        raise InvalidArgumentError("centroids that are paid for need residual_bound (B), the public clip around them")
    if residual_bound is not None:
        check_positive("residual_bound", residual_bound)
        if not centroid_epsilon or not assignment_epsilon:
            raise InvalidArgumentError(
                "centroids and the assignment to them are computed from the private values: give both "
                "centroid_epsilon and assignment_epsilon"
            )
    width = value_range if residual_bound is None else 2 * residual_bound
    variant = DpPgpVariant.SCALAR_LAPLACE if residual_bound is None else DpPgpVariant.SCALAR_CENTROID
    return DpPgpPlan(
        variant, draws, num_selected, 1, width / left, Unit.PARAMETER, 0.0, value_range=value_range,
        residual_bound=residual_bound, centroid_epsilon=centroid_epsilon, assignment_epsilon=assignment_epsilon,
    )  # fmt: skip


def plan_member_dp_pgp(
    *,
    draws: DpPgPlan | None,
    num_selected: int,
    num_members: int,
    clip_norm: float,
    noise_std: float,
    delta: float,
    unit: Unit | str = Unit.MEMBER,
    overlap: int = 1,
) -> DpPgpPlan:
    """Gaussian noise on the mean of M clipped members, for one member or one record used in ``overlap`` of them.

    Raises:
        InvalidBudgetError: delta is not strictly between 0 and 1.
        InvalidArgumentError: draws planned for another unit, overlap or M, or values out of range.
        TooFewMembersError: fewer than two members.
    """
    unit = by_name(Unit, unit)
    check_delta(delta)
    if check_count("num_members", num_members, low=0) < 2:
        raise TooFewMembersError(f"a mean of members needs at least 2 of them, got {num_members}")
    for name, value in (("clip_norm", clip_norm), ("noise_std", noise_std)):
        check_positive(name, value)
    allowed = {Unit.MEMBER: 1, Unit.EXAMPLE: num_members}  # the largest overlap of each unit
    if not check_count("overlap", overlap) <= allowed.get(unit, 0):
        raise InvalidArgumentError(
            f"unit member has overlap 1, unit example an overlap of 1 to {num_members} members; got {unit}, {overlap}"
        )
    if draws is not None and (draws.unit, draws.overlap, draws.num_members) != (unit, overlap, num_members):
        raise InvalidArgumentError(
            f"the draws are planned for {draws.unit}, overlap {draws.overlap} and {draws.num_members} members; "
            f"expected {unit}, {overlap} and {num_members}"
        )
    return DpPgpPlan(
        DpPgpVariant.MEMBER_GAUSSIAN, draws, num_selected, num_members, float(noise_std), unit, float(delta),
        clip_norm=clip_norm, overlap=overlap,
    )  # fmt: skip


def events_of(plan: DpPgpPlan) -> tuple[Event, ...]:
    """What a release by ``plan`` costs its unit, for an accountant or the ledger.

    Raises:
        InvalidArgumentError: the paper's variant, which has no finite cost.
    """
    if plan.variant is DpPgpVariant.PAPER:
        raise InvalidArgumentError("DP-PGP as printed has no finite cost: nothing can be charged for it")
    draw = None if plan.draws is None else _dp_pg_event(plan.draws)
    if plan.variant is DpPgpVariant.MEMBER_GAUSSIAN:
        assert plan.clip_norm is not None
        mean = GaussianEvent(mu=plan.overlap * 2 * plan.clip_norm / (plan.num_members * plan.noise_scale))
        return (mean,) if draw is None else (mean, draw)
    selected = plan.centroid_epsilon + plan.assignment_epsilon + plan.cluster_epsilon
    # One scalar lies either in I or outside it, so the release costs the larger of the two.
    if draw is None:
        return (PureEvent(epsilon=selected),)
    return (PureEvent(epsilon=max(selected, draw.eta), total_variation=draw.total_variation),)


def bound_of(plan: DpPgpPlan) -> Bound:
    """(epsilon, delta) of a release by ``plan`` for its unit; raises as :func:`events_of`."""
    events = events_of(plan)
    if plan.variant is DpPgpVariant.MEMBER_GAUSSIAN:
        return compose(events, plan.delta)
    (event,) = events
    assert isinstance(event, PureEvent)
    if event.total_variation == 0:
        return Bound(event.epsilon, 0.0, "larger of the two costs: one scalar has one position")
    assert plan.draws is not None
    return compose(events, plan.draws.delta)


def dp_pgp_guarantee(
    plan: DpPgpPlan,
    *,
    selection_is_public: bool,
    selection_source: str,
    range_is_public: bool,
    range_source: str,
    assumptions: tuple[Assumption, ...] = (),
    reproducible: bool = False,
) -> Guarantee:
    """The guarantee of a DP-PGP release: Eq. 8's number and ours, side by side.

    Args:
        plan: how it was made.
        selection_is_public: whether the selected positions are the same whatever the members are: a fixed mask, the
            positions of a public model, or of an earlier private release that was charged by itself.
        selection_source, range_source: for example "public mask" or "top 10 % of a charged DP-PG draw".
        range_is_public: whether the clips, and for DP-PG draws grid and bandwidth, are public.
        assumptions: what the caller knows about the members.
        reproducible: the key came from a seed.
    """
    reasons = _why_not(plan, selection_is_public, range_is_public, reproducible)
    bound = None if reasons else bound_of(plan)
    if bound is not None and bound.delta >= 1:
        reasons.append("Sampling resolution alone gives delta = 1 at this epsilon.")
    return Guarantee(
        mechanism=f"DP-PGP, {plan.variant}: {_MECHANISM[plan.variant]} on {plan.num_selected} selected positions, "
        + ("no other position" if plan.draws is None else f"DP-PG on {plan.draws.num_parameters} others"),
        unit=plan.unit,
        neighbouring=_NEIGHBOURING[plan.unit],
        claimed=_claim(plan),
        proven=None if reasons or bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=assumptions + _needs(plan),
        implementation=_implementation(plan, selection_source, range_source),
        warnings=_warnings(plan),
        reproducible=reproducible,
    )


_MECHANISM = {
    DpPgpVariant.PAPER: "Laplace noise scaled to the width of a private cluster",
    DpPgpVariant.SCALAR_LAPLACE: "Laplace noise scaled to the public range",
    DpPgpVariant.SCALAR_CENTROID: "private centroid plus clipped residual with Laplace noise",
    DpPgpVariant.MEMBER_GAUSSIAN: "Gaussian noise on the mean of clipped members",
}
_NEIGHBOURING = {
    Unit.PARAMETER: "two collections in which one scalar of one model is replaced by another finite one",
    Unit.MEMBER: "two collections of the same public size M in which one member is replaced by another finite one",
    Unit.EXAMPLE: "two data sets in which one record is replaced, the members' index sets being the same",
}
_EXACT_NOISE = Assumption("The noise has the stated law: what finite precision adds is not in this number.")
_CENTROIDS = Assumption("The private centroids cost no more than the epsilon_c that is stated for them.")


def _needs(plan: DpPgpPlan) -> tuple[Assumption, ...]:
    if plan.variant is DpPgpVariant.PAPER:
        return ()
    return (_EXACT_NOISE, _CENTROIDS) if plan.variant is DpPgpVariant.SCALAR_CENTROID else (_EXACT_NOISE,)


def _claim(plan: DpPgpPlan) -> Claim | None:
    no_corollary_1 = plan.draws is not None and plan.draws.window_ratio >= 1
    if plan.variant is DpPgpVariant.MEMBER_GAUSSIAN or no_corollary_1:
        return None  # the paper has no Gaussian noise, and its draws need a window below the bandwidth
    draws = () if plan.draws is None else (plan.draws.multiplier * 2 * paper_kde_sensitivity(plan.draws.num_members),)
    epsilon = paper_dp_pgp_epsilon(plan.centroid_epsilon + plan.assignment_epsilon, [plan.cluster_epsilon], draws)
    return Claim(
        epsilon=epsilon,
        delta=0.0,
        paper=PAPER if plan.variant is DpPgpVariant.PAPER else f"{PAPER}, its formula applied to this release",
        equation="Eq. 8 and Corollary 4",
        formula="max_l max(epsilon_c + max_i epsilon_Ki, max_j epsilon_j), read by the paper as the budget of the "
        "entire model",
    )


def _why_not(plan: DpPgpPlan, selection_is_public: bool, range_is_public: bool, reproducible: bool) -> list[str]:
    reasons = []
    if plan.variant is DpPgpVariant.PAPER:
        reasons.append(
            "The scale of the noise is the width of a cluster of the private parameters, so it differs between "
            "neighbours and no finite epsilon holds. Besides, the centroid cancels in line 19 of the paper's "
            "algorithm, so that what is published is one private model plus noise, and the maximum over the positions "
            "protects one scalar of one model, not a model (all its positions change) and not a training record."
        )
    elif plan.draws is not None and plan.draws.mode != "proven":
        reasons.append(
            "The positions that are not selected are drawn in the paper's mode, for which nothing is proven."
        )
    if not selection_is_public:
        reasons.append(
            "The selected positions depend on private values and can be read off the release, because their values do "
            "not lie on the grid of the others."
        )
    if not range_is_public:
        reasons.append("The clip, the range or the bandwidth depends on the private members.")
    if reproducible:
        reasons.append("The noise came from a seed, so it can be drawn again and subtracted: for experiments only.")
    return reasons


def _implementation(plan: DpPgpPlan, selection_source: str, range_source: str) -> dict[str, float | int | str | None]:
    gaussian = plan.variant is DpPgpVariant.MEMBER_GAUSSIAN
    mean_change = None if plan.clip_norm is None else 2 * plan.clip_norm / plan.num_members
    rho = None if mean_change is None else (plan.overlap * mean_change / plan.noise_scale) ** 2 / 2
    return {
        "variant": str(plan.variant),
        "selected_positions": plan.num_selected,
        "selection_source": selection_source,
        "range_source": range_source,
        "members_M": plan.num_members,
        "noise": "Gaussian" if gaussian else "Laplace",
        "noise_scale": plan.noise_scale,
        "value_range_R": plan.value_range,
        "residual_bound_B": plan.residual_bound,
        "clip_norm_C": plan.clip_norm,
        "sensitivity_of_the_mean_L2": mean_change,
        "rho_of_the_selected_positions": rho,
        "epsilon_c": plan.centroid_epsilon,
        "epsilon_a": plan.assignment_epsilon,
        "epsilon_K": None if gaussian else plan.cluster_epsilon,
        "epsilon_of_one_draw": None if plan.draws is None else plan.draws.epsilon_draw,
        "overlap_s": plan.overlap if plan.unit is Unit.EXAMPLE else None,
        "centroid": "cancels in line 19 of the paper's Algorithm 2" if plan.variant is DpPgpVariant.PAPER else None,
    }


def _warnings(plan: DpPgpPlan) -> tuple[str, ...]:
    if plan.unit is not Unit.PARAMETER:
        return ()
    return ("The unit is one scalar of one model: this says nothing about a whole model or a training record.",)


def _check_ball(dimensions: int, radius: float) -> None:
    check_count("dimensions", dimensions)
    check_positive("radius", radius)
