"""The privacy of SecProbe's functional mechanism: noise on the coefficients of a quadratic loss.

Paper: Zhao et al., "Privacy-Preserving Collaborative Deep Learning with Unreliable Participants", Eqs. 8 to 17, Lemmas
3 and 4, Algorithm 3, Section III-D.

One record with hidden outputs h in [0, 1]^b and target y in [0, 1] adds, in the second-order Taylor expansion of the
squared loss around 0, the linear coefficients (1 - 2 y) h_p / 4 and the quadratic ones h_p h_q / 16. The loss is the
SUM over the records; its constant term is not released.

What holds, for FROZEN hidden features, replace-one:

* L1, all b^2 quadratic coefficients: D_1 = (b + 2)^2 / 16 for b >= 2, 1/2 for b = 1. Proof: let M_p and m_p be the
  larger and smaller of h_p, h'_p. The linear part is at most (sum M + sum m) / 4, the quadratic ((sum M)^2 -
  (sum m)^2) / 16. Take sum M = b; the maximum over s = sum m is at s = 2. Attained by h = 1, y = 0 and h' with two
  ones, y' = 1.
* L2, linear and upper triangle (with the diagonal) of the symmetric Q = sum h h^T / 16: D_2^2 = max_k (b + 3 k) / 16
  + (b (b + 1) - k (k + 1)) / 512 over k <= b. Proof: increasing in M, so M = 1, and convex in every m_p, so at a
  vertex. Attained; the terms in k are (95 k - k^2) / 512, largest at 47 and 48 alike, so k = min(b, 47). Gaussian
  noise must be drawn for the b (b + 1) / 2 entries of the triangle and mirrored. Independent noise on all b^2 entries
  releases each pair p != q twice: D_2^2 = max_k (b + 3 k) / 16 + (b^2 - k^2) / 256, by the same proof, which is
  larger for b > 24, and the stated epsilon would be too small. Laplace noise may be drawn for all b^2 entries, which
  D_1 counts, or for the triangle.
* Noise added once to the whole data set's coefficients, which then serve all iterations and rounds: epsilon_2 for
  everything. Independent noise on each of an epoch's disjoint batches: epsilon_2 per epoch, E epochs compose.

The paper's Lemma 3, b / 2 + b^2 / 8, is valid and up to twice too large.

What does not hold: the trained network is not private if its first layer is trained. The noise multiplies monomials of
the second layer's weights, so its gradient for the first layer is 0 and that layer's updates are exact SGD on private
records; and coefficients that contain h(x; W1) are a new query for every W1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from privkernels.errors import InvalidArgumentError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, compose
from privkernels.privacy.accounting.budget import check_count, check_positive
from privkernels.privacy.events import Event, GaussianEvent, LaplaceEvent, Relation
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit, round_up

PAPER = "Zhao et al. (SecProbe, functional mechanism)"
_MOST_UNITS = 10**6


class FunctionalMode(StrEnum):
    """When coefficients are released."""

    RELEASE_ONCE = "release-once"  # frozen features, one noisy quadratic for all iterations and rounds
    PER_EPOCH = "per-epoch"  # frozen features, independent noise for each disjoint batch, anew in every epoch
    TRAINED = "trained"  # the paper's Algorithm 3: the first layer is trained too


class CoefficientNoise(StrEnum):
    """The law of the noise on the coefficients."""

    LAPLACE = "laplace"
    GAUSSIAN = "gaussian"


def coefficient_sensitivity_l1(hidden_units: int, relation: Relation | str = Relation.REPLACE_ONE) -> float:
    """D_1 of the linear and all b^2 quadratic coefficients; attained. Add-or-remove-one: b / 4 + b^2 / 16.

    Raises:
        InvalidArgumentError: no hidden unit.
    """
    b = _check_units(hidden_units)
    if by_name(Relation, relation) is Relation.ADD_OR_REMOVE_ONE:
        return b / 4 + b**2 / 16
    return (b + 2) ** 2 / 16 if b >= 2 else 0.5


def coefficient_sensitivity_l2(hidden_units: int, *, unit_norm: bool = False) -> float:
    """D_2 of the linear coefficients and the upper triangle of Q, replace-one; attained for h in [0, 1]^b.

    Args:
        unit_norm: h has L2 norm 1 or less as well; then sqrt(1/4 + 2/256), for any b (an upper bound).
    """
    b = _check_units(hidden_units)
    if unit_norm:
        # ||h - h'|| / 4 or ||h + h'|| / 4 is at most 1/2, and ||h h^T - h' h'^T||_F / 16 at most sqrt(2) / 16.
        return math.sqrt(1 / 4 + 2 / 256)
    k = min(b, 47)
    return math.sqrt((32 * (b + 3 * k) + b * (b + 1) - k * (k + 1)) / 512)


def class_coefficient_sensitivity_l1(hidden_units: int, num_classes: int) -> float:
    """D_1 of M classes' cross-entropy (Eq. 17: (1/2 - y) h_p and h_p h_q / 8), labels in [0, 1]^M, replace-one.

    The quadratic coefficients are the same for all classes and are released once: (b + 2 M)^2 / 8 for b >= 2 M, else M
    b. Same proof as for one output, with s = 2 M. The paper's Lemma 4, M (b + b^2 / 4), counts them M times.

    Raises:
        InvalidArgumentError: no hidden unit, or fewer than two classes.
    """
    b = _check_units(hidden_units)
    _check_classes(num_classes)
    return (b + 2 * num_classes) ** 2 / 8 if b >= 2 * num_classes else float(num_classes * b)


def paper_coefficient_sensitivity(hidden_units: int, num_classes: int | None = None) -> float:
    """b / 2 + b^2 / 8 (Lemma 3), or M (b + b^2 / 4) for M classes (Lemma 4): valid, and loose.

    Raises:
        InvalidArgumentError: no hidden unit, or fewer than two classes.
    """
    b = _check_units(hidden_units)
    return b / 2 + b**2 / 8 if num_classes is None else _check_classes(num_classes) * (b + b**2 / 4)


@dataclass(frozen=True, kw_only=True)
class FunctionalPlan:
    """How coefficients are released, settled before a record is read. Regression, h in [0, 1]^b, y in [0, 1].

    Attributes:
        mode: when.
        hidden_units: b.
        noise: its law. Gaussian noise is for the linear coefficients and the upper triangle of Q, mirrored; Laplace
            noise for the linear coefficients and up to all b^2 entries of Q.
        noise_scale: Laplace scale or Gaussian standard deviation, per coefficient of the sum over the records.
        num_records: n, public.
        epochs: E.
        batches: disjoint batches per epoch, each with independent noise (1 for release-once).
        delta: delta of the guarantee.

    Raises:
        InvalidArgumentError, InvalidBudgetError: a value out of range.
    """

    mode: FunctionalMode
    hidden_units: int
    noise: CoefficientNoise
    noise_scale: float
    num_records: int
    delta: float
    epochs: int = 1
    batches: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", by_name(FunctionalMode, self.mode))
        object.__setattr__(self, "noise", by_name(CoefficientNoise, self.noise))
        _check_units(self.hidden_units)
        check_delta(self.delta)
        check_positive("noise_scale", self.noise_scale)
        for name in ("num_records", "epochs", "batches"):
            check_count(name, getattr(self, name))
        if self.mode is FunctionalMode.RELEASE_ONCE and self.batches != 1:
            raise InvalidArgumentError("release-once adds noise once, to the whole data set: batches must be 1")

    @property
    def sensitivity(self) -> float:
        """L1 for Laplace noise, L2 for Gaussian."""
        if self.noise is CoefficientNoise.LAPLACE:
            return coefficient_sensitivity_l1(self.hidden_units)
        return coefficient_sensitivity_l2(self.hidden_units)

    @property
    def noise_draws(self) -> int:
        """Noise vectors drawn in all."""
        return 1 if self.mode is FunctionalMode.RELEASE_ONCE else self.epochs * self.batches


def events_of(plan: FunctionalPlan) -> tuple[Event, ...]:
    """What the releases cost one training record, for an accountant or the ledger.

    Raises:
        InvalidArgumentError: a trained first layer, which has no finite cost.
    """
    if plan.mode is FunctionalMode.TRAINED:
        raise InvalidArgumentError(
            "with a trained first layer nothing can be charged: freeze the features, or train by DP-SGD"
        )
    return (_event(plan, 1 if plan.mode is FunctionalMode.RELEASE_ONCE else plan.epochs),)


def bound_of(plan: FunctionalPlan) -> Bound:
    """(epsilon, delta) of all releases for one training record; raises as :func:`events_of`."""
    return compose(events_of(plan), plan.delta)


def functional_guarantee(
    plan: FunctionalPlan,
    *,
    independent_noise: bool = True,
    features_are_clipped: bool,
    features_source: str,
    assumptions: tuple[Assumption, ...] = (),
    reproducible: bool = False,
) -> Guarantee:
    """The guarantee of the functional mechanism for one training record.

    Args:
        plan: how coefficients are released.
        independent_noise: each release has noise of its own. One noise vector on two batches cancels in the difference.
        features_are_clipped: the code keeps h and y in [0, 1].
        features_source: for example "random, fixed" or "pre-trained on public images".
        assumptions: what the caller knows.
        reproducible: the key came from a seed.
    """
    reasons = _why_not(plan, independent_noise, features_are_clipped, reproducible)
    bound = None if reasons else bound_of(plan)
    return Guarantee(
        mechanism=f"functional mechanism, {plan.mode}: {plan.noise} noise on the quadratic loss over "
        f"{plan.hidden_units} hidden outputs",
        unit=Unit.EXAMPLE,
        neighbouring="two data sets of the same public size in which one training record is replaced by another"
        + (", batch membership being the same" if plan.mode is FunctionalMode.PER_EPOCH else ""),
        claimed=_claim(plan),
        proven=None if bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=assumptions + _assumptions(plan),
        implementation=_implementation(plan, features_source),
        warnings=_warnings(plan),
        reproducible=reproducible,
    )


def _event(plan: FunctionalPlan, count: int) -> Event:
    ratio = plan.sensitivity / plan.noise_scale
    if plan.noise is CoefficientNoise.LAPLACE:
        return LaplaceEvent(epsilon=ratio, count=count)
    return GaussianEvent(mu=ratio, count=count)


def _claim(plan: FunctionalPlan) -> Claim | None:
    if plan.noise is CoefficientNoise.GAUSSIAN:
        return None  # the paper has Laplace noise only
    paper = plan.mode is FunctionalMode.TRAINED
    return Claim(
        epsilon=paper_coefficient_sensitivity(plan.hidden_units) / plan.noise_scale,
        delta=0.0,
        paper=PAPER if paper else f"{PAPER}, its formula applied to this release",
        equation="Lemma 3 and Section III-D",
        formula="epsilon_2 in each epoch with Laplace noise of scale (b / 2 + b^2 / 8) / epsilon_2",
    )


def _why_not(plan: FunctionalPlan, independent: bool, clipped: bool, reproducible: bool) -> list[str]:
    reasons = []
    if plan.mode is FunctionalMode.TRAINED:
        reasons.append(
            "The first layer is trained on private records: the noise stands only at products of the second layer's "
            "weights, so the first layer's updates contain none of it and can identify a record. The paper's epsilon "
            "refers to the second layer's objective for fixed hidden outputs. Freeze the features, or train by DP-SGD."
        )
    if not independent and plan.mode is not FunctionalMode.RELEASE_ONCE:
        reasons.append(
            "One noise vector serves more than one batch or epoch, so it cancels in the difference of two perturbed "
            "objectives, which is then exact."
        )
    if not clipped:
        reasons.append("The hidden outputs or the targets are not kept in [0, 1], so a record's effect has no bound.")
    if reproducible:
        reasons.append("The noise came from a seed, so it can be drawn again and subtracted: for experiments only.")
    return reasons


def _assumptions(plan: FunctionalPlan) -> tuple[Assumption, ...]:
    if plan.mode is FunctionalMode.TRAINED:
        return ()
    stated = [
        "The hidden features are fixed or public: they were not trained on these records.",
        "The constant term of the loss is not released, and the sum over the records is not divided by a private "
        "number.",
        "The noise has the stated law: what finite precision adds is not in this number.",
        "One noise value is drawn for each linear coefficient and for each entry of the upper triangle of Q with its "
        "diagonal, and the lower triangle is mirrored; independent noise on all b^2 entries would release more than "
        "the L2 sensitivity counts."
        if plan.noise is CoefficientNoise.GAUSSIAN
        else "No more is released than one noisy value for each linear coefficient and for each of the b^2 entries of "
        "Q.",
    ]
    if plan.mode is FunctionalMode.PER_EPOCH:
        stated.append("The batches of an epoch share no record.")
    return tuple(Assumption(text) for text in stated)


def _implementation(plan: FunctionalPlan, features_source: str) -> dict[str, float | int | str | None]:
    laplace = plan.noise is CoefficientNoise.LAPLACE
    std = math.sqrt(2) * plan.noise_scale if laplace else plan.noise_scale
    of_epoch = plan.sensitivity / plan.noise_scale
    return {
        "mode": str(plan.mode),
        "first_layer": "trained" if plan.mode is FunctionalMode.TRAINED else "frozen",
        "features_source": features_source,
        "hidden_units_b": plan.hidden_units,
        "records_n": plan.num_records,
        "coefficients": "linear and all b^2 quadratic" if laplace else "linear and upper triangle only",
        "sensitivity_L1": coefficient_sensitivity_l1(plan.hidden_units),
        "sensitivity_L2": coefficient_sensitivity_l2(plan.hidden_units),
        "paper_sensitivity_L1": paper_coefficient_sensitivity(plan.hidden_units),
        "noise": str(plan.noise),
        "noise_scale": plan.noise_scale,
        "noise_std": std,
        "largest_linear_coefficient_over_noise_std": plan.num_records / plan.batches / 4 / std,
        "largest_quadratic_coefficient_over_noise_std": plan.num_records / plan.batches / 16 / std,
        "noise_draws": plan.noise_draws,
        "epsilon_of_one_epoch": of_epoch if laplace else None,
        "mu_of_one_epoch": None if laplace else of_epoch,
    }


def _warnings(plan: FunctionalPlan) -> tuple[str, ...]:
    warnings = [
        "After noise the quadratic may have no minimum: a floor on its eigenvalues or a regulariser is needed, which "
        "is post-processing and costs nothing."
    ]
    terms = _implementation(plan, "")
    share = terms["largest_linear_coefficient_over_noise_std"]
    if isinstance(share, float) and share < 1:
        warnings.append(
            f"The noise is {round_up(1 / share, 3):.3g} times the largest coefficient that "
            f"{plan.num_records / plan.batches:.4g} records can have: what is learnt is noise."
        )
    return tuple(warnings)


def _check_classes(num_classes: int) -> int:
    if check_count("num_classes", num_classes) < 2:
        raise InvalidArgumentError(f"a classifier has 2 or more classes, got {num_classes}")
    return num_classes


def _check_units(hidden_units: int) -> int:
    if check_count("hidden_units (b)", hidden_units) > _MOST_UNITS:
        raise InvalidArgumentError(
            f"hidden_units (b) is at most {_MOST_UNITS}, got {hidden_units}: b^2 coefficients would not fit into memory"
        )
    return hidden_units
