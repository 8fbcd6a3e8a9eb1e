"""The privacy of DP-PG: the paper's statement, what is wrong with it, and the version that can be proven.

Paper: Mao et al., "Secure Deep Neural Network Models Publishing Against Membership Inference Attacks Via
Training Task Parallelism", IEEE TPDS 2022, Section 4.1, Definition 3, Corollary 1.

The exponential mechanism with P(r) proportional to exp(lambda u(r)), u from Eq. 3 over M members:

* Sensitivity. Replacing one member changes u(r) by (w - w') / M with both terms in [0, w_max], so by at
  most w_max / M, and both bounds are attained. The paper's 1 / (M (M - 1)) keeps only the change of the
  normaliser and drops the kernel of the removed member; it is too small by the factor (M - 1) w_max.
* Composition. Replacing one member changes all N slices, so N draws compose. The paper's maximum over the
  parameters holds only for neighbours that differ in one scalar of one member.
* Range and bandwidth. If they are computed from the members, the grid differs between neighbours and the
  value drawn can identify the data: no finite epsilon. They must be public.
* Accept loop (Algorithm 1, line 2). A test on public records that may repeat without end conditions the release on a
  public set. That keeps the range of the privacy loss, N eta, but not the zCDP of N separate draws: in a rare set the
  loss can be N eta for certain. With at most k tries the k N draws compose as usual.
  The range of N draws is the sum of theirs only if none depends on the outcome of another (docs/accounting.md,
  Statement 14.2; adaptive draws would count twice). In DP-PG none does: given the members the N draws are independent,
  each with its own slice, its public grid and bandwidth, and random bits of its own.

With lambda = eta M / (2 w_max) a draw is eta-bounded-range for one replaced member, and s eta for s of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, TooFewMembersError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, check_epsilon, compose
from privkernels.privacy.accounting.budget import LARGEST, check_amount, check_count, check_positive
from privkernels.privacy.events import BoundedRangeEvent, Event
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit, round_up

if TYPE_CHECKING:
    from privkernels.ops.kde_em import KdeEmAccuracy

PAPER = "Mao et al., IEEE TPDS 2022 (DP-PG)"
_ROOM = 3.0  # t in the utility bound of Corollary 2: it fails with probability exp(-3) per parameter


def density_peak(window_ratio: float) -> float:
    """w_max = 2 Phi(window_ratio / 2) - 1, as the kernel has it."""
    # Here, because the kernels bring torch, which accounting does without.
    from privkernels.ops.kde_em import kde_peak

    return kde_peak(window_ratio)


def kde_sensitivity(num_members: int, window_ratio: float) -> float:
    """w_max / M: how much one replaced member can change the score u of Eq. 3; attained.

    Raises:
        TooFewMembersError: fewer than 2 members.
        InvalidArgumentError: a window ratio outside [1e-6, 1e6].
    """
    _check_members(num_members)
    _check_window(window_ratio)
    return density_peak(window_ratio) / num_members


def paper_kde_sensitivity(num_members: int) -> float:
    """1 / (M (M - 1)), the paper's bound (proof of Corollary 1, for a window below the bandwidth). Too small."""
    _check_members(num_members)
    return 1 / (num_members * (num_members - 1))


@dataclass(frozen=True)
class DpPgPlan:
    """How one DP-PG release draws, settled before a member is read.

    Attributes:
        mode: "paper" or "proven".
        unit: what the budget is for; the paper's mode has the paper's unit, one scalar of one member.
        num_members, num_parameters: M and N, both public.
        grid_points, window_ratio: R, and the window in bandwidths; public.
        max_tries: tries of the quality loop that are paid for; None if it repeats until a public test accepts.
        overlap: s, the largest number of members that one record was used in (1 for unit member).
        epsilon_draw: eta_j; in the paper's mode the paper's epsilon_j.
        multiplier: lambda of the exponential mechanism.
        delta: asked for; the paper's mode has none (0).

    Raises:
        InvalidArgumentError, InvalidBudgetError, TooFewMembersError: a value out of range.
    """

    mode: str
    unit: Unit
    num_members: int
    num_parameters: int
    grid_points: int
    window_ratio: float
    max_tries: int | None
    overlap: int
    epsilon_draw: float
    multiplier: float
    delta: float

    def __post_init__(self) -> None:
        if self.mode not in ("paper", "proven"):
            raise InvalidArgumentError(f"DP-PG's mode is 'paper' or 'proven', got {self.mode!r}")
        object.__setattr__(self, "unit", _hidden_unit(self.unit))
        _check_shape(self.num_members, self.num_parameters, self.grid_points, self.max_tries)
        _check_window(self.window_ratio)
        _check_overlap(self.overlap, self.num_members)
        check_amount("epsilon_draw", self.epsilon_draw, high=LARGEST)
        check_amount("multiplier", self.multiplier, high=LARGEST)
        if self.mode == "proven":
            check_delta(self.delta)

    @property
    def swing(self) -> float:
        """lambda w_max: by how many nats the likeliest grid value can stand out."""
        return self.multiplier * density_peak(self.window_ratio)

    @property
    def accuracy(self) -> KdeEmAccuracy:
        """What the implementation adds to one draw."""
        from privkernels.ops.kde_em import kde_em_accuracy

        return kde_em_accuracy(
            self.num_members,
            multiplier=self.multiplier,
            window_ratio=self.window_ratio,
            grid_points=self.grid_points,
        )

    def near_uniform(self) -> bool:
        """Whether the budget is too small for the draw to carry information (theory: Corollary 2 vacuous)."""
        return self.swing < math.log(self.grid_points) + _ROOM


def plan_paper_dp_pg(
    epsilon: float,
    *,
    num_members: int,
    num_parameters: int,
    grid_points: int,
    window_ratio: float,
    max_tries: int | None = 1,
) -> DpPgPlan:
    """DP-PG as printed: epsilon_j = epsilon, lambda = epsilon_j / (2 * paper's sensitivity).

    Raises :class:`InvalidArgumentError` unless window_ratio < 1, which the paper's sensitivity needs.
    """
    check_epsilon(epsilon)
    _check_shape(num_members, num_parameters, grid_points, max_tries)
    _check_window(window_ratio)
    if window_ratio >= 1:
        raise InvalidArgumentError(
            f"the paper's sensitivity needs a window below the bandwidth: window_ratio < 1, got {window_ratio}"
        )
    multiplier = epsilon / (2 * paper_kde_sensitivity(num_members))
    return DpPgPlan(
        "paper", Unit.PARAMETER, num_members, num_parameters, grid_points, window_ratio, max_tries, 1,
        float(epsilon), multiplier, 0.0,
    )  # fmt: skip


def plan_proven_dp_pg(
    epsilon: float,
    *,
    delta: float,
    unit: Unit | str,
    num_members: int,
    num_parameters: int,
    grid_points: int,
    window_ratio: float,
    overlap: int | None = None,
    max_tries: int | None = 1,
) -> DpPgPlan:
    """The largest epsilon per draw whose composition over everything that is released stays within budget.

    Args:
        epsilon, delta: the budget of the whole release for one ``unit``, all tries included.
        unit: parameter, member or example.
        overlap: for unit example, the largest number of members that one record was used in; M if None.
        max_tries: tries of the quality loop; None for a loop without end, which costs the sum of all ranges.

    Raises:
        InvalidArgumentError: another unit, or a shape, overlap or number of tries that cannot be.
        InvalidBudgetError: the budget is not positive and finite, or below what rounding alone costs.
    """
    unit = _hidden_unit(unit)
    check_epsilon(epsilon)
    check_delta(delta)
    _check_shape(num_members, num_parameters, grid_points, max_tries)
    share = num_members if overlap is None else overlap
    if unit is Unit.EXAMPLE:
        _check_overlap(share, num_members)
    per_unit = share if unit is Unit.EXAMPLE else 1
    sensitivity = kde_sensitivity(num_members, window_ratio)

    def plan(eta: float) -> DpPgPlan:
        return DpPgPlan(
            "proven", unit, num_members, num_parameters, grid_points, window_ratio, max_tries, per_unit,
            eta, eta / (2 * sensitivity), float(delta),
        )  # fmt: skip

    low, high = 0.0, float(epsilon)
    # A draw may cost more than the whole where delta pays for the rest.
    while _within(plan(high), epsilon, delta):
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if _within(plan(middle), epsilon, delta):
            low = middle
        else:
            high = middle
        if high - low <= 1e-12 * high:
            break
    if low == 0.0 and _within(plan(0.0), epsilon, delta):
        raise InvalidBudgetError(f"epsilon {epsilon} with delta {delta} is beyond what can be computed: ask for less")
    if low == 0.0:
        raise InvalidBudgetError(
            f"epsilon {epsilon} is below what float32 rounding alone costs over {num_parameters} draws: "
            "ask for a larger epsilon"
        )
    return plan(low)


def bound_of(plan: DpPgPlan) -> Bound:
    """(epsilon, delta) of a release by ``plan`` for its unit, implementation terms included.

    Holds in proven mode only. Rounding enters the range of every draw. Sampling resolution enters it too
    where it is a small relative error; otherwise its total variation, tau over all draws, turns
    (epsilon, delta) into (epsilon, delta + (1 + e^epsilon) tau).
    """
    return compose([event_of(plan)], plan.delta)


def event_of(plan: DpPgPlan) -> BoundedRangeEvent:
    """What a release by ``plan`` costs its unit, for an accountant or the ledger."""
    accuracy = plan.accuracy
    # From the multiplier that is drawn with, not from what the plan says it is worth.
    range_of_one = 2 * plan.multiplier * kde_sensitivity(plan.num_members, plan.window_ratio)
    relative = math.isfinite(accuracy.resolution_epsilon)
    eta = plan.overlap * range_of_one + accuracy.epsilon_shift + (accuracy.resolution_epsilon if relative else 0.0)
    draws = 1 if plan.unit is Unit.PARAMETER else plan.num_parameters
    if plan.max_tries is None:
        # The N draws, independent given the members, are one draw of the whole model, whose range a public acceptance
        # set cannot widen (Statement 14.2). A total variation is not kept by conditioning on a set that may be rare.
        return BoundedRangeEvent(eta=draws * eta, total_variation=0.0 if relative else 1.0)
    return BoundedRangeEvent(
        eta=eta, count=plan.max_tries * draws, total_variation=0.0 if relative else min(1.0, accuracy.resolution_tv)
    )


def events_of(plan: DpPgPlan, overlap: int | None = None) -> dict[Unit, Event]:
    """What a release by ``plan`` costs each of the three units; ``overlap`` as in :func:`plan_proven_dp_pg`."""
    shared = plan.overlap if plan.unit is Unit.EXAMPLE else (plan.num_members if overlap is None else overlap)
    shares = {Unit.PARAMETER: 1, Unit.MEMBER: 1, Unit.EXAMPLE: shared}
    return {unit: event_of(replace(plan, unit=unit, overlap=share)) for unit, share in shares.items()}


def _within(plan: DpPgPlan, epsilon: float, delta: float) -> bool:
    bound = bound_of(plan)
    return bound.epsilon <= epsilon and bound.delta <= delta


def dp_pg_guarantee(
    plan: DpPgPlan,
    *,
    assumptions: tuple[Assumption, ...] = (),
    reproducible: bool = False,
    private_validation: bool = False,
    unprotected_tensors: tuple[str, ...] = (),
    grid_is_public: bool,
    bandwidth_source: str,
    range_source: str,
) -> Guarantee:
    """The guarantee of a DP-PG release: the paper's number and ours, side by side.

    Args:
        plan: how it was drawn.
        assumptions: what the caller knows about the members (initialisation, subsets, ...).
        reproducible: the key came from a seed.
        private_validation: the quality loop looked at private records.
        unprotected_tensors: names of tensors that are published as they are and may depend on the records.
        grid_is_public: whether range and bandwidth are the same whatever the members are.
        bandwidth_source, range_source: for example "public: clip / 8" or "Silverman's rule on the members".
    """
    bound = bound_of(plan) if plan.mode == "proven" else None
    reasons = _why_not(plan, reproducible, private_validation, unprotected_tensors, grid_is_public, bound)
    return Guarantee(
        mechanism=f"DP-PG, {plan.mode} mode: Gaussian KDE and exponential mechanism for each of "
        f"{plan.num_parameters} parameters over {plan.num_members} members",
        unit=plan.unit,
        neighbouring=_NEIGHBOURING[plan.unit],
        claimed=_claim(plan),
        proven=None if reasons or bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=assumptions + (_LOOP_ASSUMPTIONS if plan.max_tries is None else ()),
        implementation=_implementation(plan, bandwidth_source, range_source),
        warnings=_warnings(plan, bound),
        reproducible=reproducible,
    )


_LOOP_ASSUMPTIONS = (
    Assumption(
        "No draw of a try depends on the outcome of another: given the members each reads its own parameter, a public "
        "grid and bandwidth, and random bits of its own. So their ranges add up (docs/accounting.md, Statement 14.2)."
    ),
    Assumption("The quality loop accepts by a rule that was fixed beforehand and reads public records only."),
    Assumption(
        "Nobody learns how many tries the quality loop took, from the time that it took either: their number follows a "
        "geometric law whose parameter depends on the members."
    ),
)
_NEIGHBOURING = {
    Unit.PARAMETER: "two collections in which one scalar of one member is replaced by another finite one (the slices "
    "of the paper's Definition 3, which removes it instead)",
    Unit.MEMBER: "two collections of the same public size M in which one member is replaced by another finite one",
    Unit.EXAMPLE: "two data sets in which one record is replaced, the members' index sets being the same",
}


def _claim(plan: DpPgPlan) -> Claim | None:
    if plan.window_ratio >= 1:
        return None  # Corollary 1 needs a window below the bandwidth
    # The paper reads its multiplier as epsilon_j M (M - 1) / 2. In proven mode the paper never made the release that
    # we make; what its formula would say of these draws is told as just that.
    epsilon = plan.multiplier * 2 * paper_kde_sensitivity(plan.num_members)
    return Claim(
        epsilon=epsilon,
        delta=0.0,
        paper=PAPER if plan.mode == "paper" else f"{PAPER}, its formula applied to these draws",
        equation="Corollary 1",
        formula="max_j epsilon_j with P(r) ~ exp(epsilon_j u / (2 D)), D = 1 / (M (M - 1)); 'model privacy', "
        "read by the paper as protection of training samples",
    )


def _why_not(
    plan: DpPgPlan,
    reproducible: bool,
    private_validation: bool,
    tensors: tuple[str, ...],
    public: bool,
    bound: Bound | None,
) -> list[str]:
    reasons = []
    if plan.mode == "paper":
        factor = (plan.num_members - 1) * density_peak(plan.window_ratio)
        # With very few members the paper's bound happens to be the larger one.
        too_small = (
            f"the paper's sensitivity is too small by a factor of {round_up(factor, 3):.3g} (true epsilon of one draw "
            f"on a public grid: {round_up(plan.epsilon_draw * factor):.4g}), and "
        )
        reasons.append(
            "The range and the bandwidth are computed from the private members, so the grid itself depends on them and "
            f"no finite epsilon holds. Besides, {too_small if factor > 1 else ''}the maximum over the parameters, "
            "which the paper takes for the release, protects one scalar of one member, not a member "
            f"(all {plan.num_parameters} parameters change) and not a training record."
        )
    elif not public:
        reasons.append("The range or the bandwidth depends on the private members, so no finite epsilon holds.")
    if tensors:
        reasons.append(
            f"Tensors that are published as they are may depend on the records ({', '.join(tensors)}); declare them "
            "public if they do not."
        )
    if private_validation:
        reasons.append("The quality loop accepted or rejected on private records without noise, which can reveal them.")
    if bound is not None and bound.delta >= 1:
        reasons.append("Sampling resolution alone gives delta = 1 at this epsilon.")
    if reproducible:
        held = (
            f" With a secret key, epsilon = {round_up(bound.epsilon):.4g} would hold." if bound and not reasons else ""
        )
        reasons.append(
            f"The noise came from a seed, so it can be drawn again and subtracted: for experiments only.{held}"
        )
    return reasons


def _implementation(plan: DpPgPlan, bandwidth_source: str, range_source: str) -> dict[str, float | int | str | None]:
    accuracy = plan.accuracy
    relative = math.isfinite(accuracy.resolution_epsilon)
    return {
        "members_M": plan.num_members,
        "parameters_N": plan.num_parameters,
        "grid_points_R": plan.grid_points,
        "window_ratio": plan.window_ratio,
        "w_max": density_peak(plan.window_ratio),
        "sensitivity": kde_sensitivity(plan.num_members, plan.window_ratio),
        "paper_sensitivity": paper_kde_sensitivity(plan.num_members),
        "sensitivity_over_paper_sensitivity": (plan.num_members - 1) * density_peak(plan.window_ratio),
        "multiplier": plan.multiplier,
        "epsilon_of_one_draw": plan.epsilon_draw,
        "overlap_s": plan.overlap if plan.unit is Unit.EXAMPLE else None,
        "tries_charged": "unlimited" if plan.max_tries is None else plan.max_tries,
        "score_swing_nats": plan.swing,
        "log_grid_points": math.log(plan.grid_points),
        "score_error": accuracy.score_error,
        "score_error_epsilon_per_draw": accuracy.epsilon_shift,
        "sampling_resolution_total_variation_per_draw": accuracy.resolution_tv,
        "sampling_resolution_epsilon_per_draw": accuracy.resolution_epsilon if relative else None,
        "sampling_resolution_is_in": "epsilon" if relative else "delta",
        "bandwidth_source": bandwidth_source,
        "range_source": range_source,
        "random_bits": "ChaCha20, 128 bits per trial, 64 per choice among all scores",
    }


def _warnings(plan: DpPgPlan, bound: Bound | None) -> tuple[str, ...]:
    warnings = []
    if plan.mode == "proven" and plan.near_uniform():
        needed = math.ceil(2 * (math.log(plan.grid_points) + _ROOM) / (plan.overlap * plan.epsilon_draw))
        members = "members" if plan.unit is not Unit.EXAMPLE else "members that share no record"
        warnings.append(
            f"Near-uniform: the likeliest grid value can stand out by {plan.swing:.3g} nats against "
            f"ln R = {math.log(plan.grid_points):.3g}, so the published parameters are mostly noise. It would take "
            f"about {needed} {members} at this budget, or fewer parameters, or a larger epsilon."
        )
    if plan.unit is Unit.PARAMETER:
        warnings.append(
            "The unit is one scalar of one member: this says nothing about a whole member or a training record."
        )
    if bound is not None and bound.epsilon > 10:
        warnings.append(f"epsilon = {round_up(bound.epsilon):.4g} promises next to nothing.")
    return tuple(warnings)


def _check_members(num_members: int) -> None:
    if check_count("num_members", num_members, low=0) < 2:
        raise TooFewMembersError(f"a density estimate needs at least 2 members, got {num_members}: train or add more")


def _hidden_unit(unit: Unit | str) -> Unit:
    unit = by_name(Unit, unit)
    if unit not in _NEIGHBOURING:
        raise InvalidArgumentError(
            f"DP-PG hides one of {', '.join(_NEIGHBOURING)}, not {unit}: the members are all that it reads"
        )
    return unit


def _check_overlap(overlap: int, num_members: int) -> None:
    if not 1 <= check_count("overlap", overlap, low=0) <= num_members:
        raise InvalidArgumentError(f"the overlap must be between 1 and {num_members} members, got {overlap}")


def _check_window(window_ratio: float) -> None:
    # The kernel's limits: within them the peak is above 0 and its error is bounded.
    if not 1e-6 <= check_positive("window_ratio", window_ratio) <= 1e6:
        raise InvalidArgumentError(f"window_ratio is in units of the bandwidth, 1e-6 to 1e6, got {window_ratio}")


def _check_shape(num_members: int, num_parameters: int, grid_points: int, max_tries: int | None) -> None:
    _check_members(num_members)
    if check_count("num_parameters", num_parameters, low=0) < 1:
        raise InvalidArgumentError("the members have no floating-point parameters to publish")
    if not 2 <= check_count("grid_points", grid_points, low=0) <= 65536:
        raise InvalidArgumentError(f"grid_points must be 2 to 65536, got {grid_points}")
    if max_tries is not None:
        check_count("max_tries (None for no limit)", max_tries)
