"""The privacy of SecProbe's choice of participants: K of n by the exponential mechanism, in each of R rounds.

Paper: Zhao et al., "Privacy-Preserving Collaborative Deep Learning with Unreliable Participants", Eqs. 6 and 7,
Algorithm 2, Lemma 2, Theorem 5, Section III-D.

Two units, two sensitivities:

* one validation record, replaced, their number d being public. It enters every participant's score. A term of Eq. 6
  lies in [-1, 1] (once max is read as min, see below), so a score changes by at most 2 / d; an accuracy by at most 1 /
  d. A draw with multiplier lambda has range 2 lambda times that. The paper's 1 and 1/2 (Lemma 2) do not use d and are
  loose by d / 2.
* one participant's score, replaced by any other, which is the "data quality" that the paper's text wants to hide. Only
  one candidate's weight changes, so a draw has range lambda times the range of a score, 2 or 1. With the paper's
  multiplier, epsilon / (2 K Delta u), that is epsilon / K: Theorem 5 holds for this unit, by another proof.

K draws without replacement compose, adaptively: epsilon_1, and rho = epsilon_1^2 / (8 K) instead of epsilon_1^2 / 8.

What is wrong with the paper's statements:

* Eq. 6 has max(z, 3 y) where min is meant: with max every term is at most -1 and has no lower bound. With min it needs
  z >= 0 and y >= a public y_min > 0.
* The rounds compose, R epsilon_1 or R epsilon_1^2 / (8 K): all use the same validation set and the same participants.
* max(epsilon_1, epsilon_2) mixes two units.
* Only the chosen indices are protected. The averaged weights are released too and contain those of the chosen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from privkernels.errors import InvalidArgumentError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, check_epsilon, compose
from privkernels.privacy.accounting.budget import LARGEST, SMALLEST, check_count
from privkernels.privacy.events import BoundedRangeEvent, Relation
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit, round_up

PAPER = "Zhao et al. (SecProbe)"


class ScoreTask(StrEnum):
    """What a score is the mean of."""

    REGRESSION = "regression"  # 1 - |min(z, 3 y) - y| / y, in [-1, 1]
    CLASSIFICATION = "classification"  # correct or not, in [0, 1]


def score_range(task: ScoreTask | str) -> float:
    """Largest minus smallest possible score: 2 for regression, 1 for classification."""
    return 2.0 if by_name(ScoreTask, task) is ScoreTask.REGRESSION else 1.0


def score_sensitivity(
    task: ScoreTask | str, num_records: int, relation: Relation | str = Relation.REPLACE_ONE
) -> float:
    """By how much one validation record can change a score; attained. range / d.

    Args:
        num_records: d; for add-or-remove-one the size of the larger set.

    Raises:
        InvalidArgumentError: no record, or only one where it may be the one that is left out.
    """
    relation = by_name(Relation, relation)
    least = 1 if relation is Relation.REPLACE_ONE else 2
    if check_count("num_records", num_records, low=0) < least:
        raise InvalidArgumentError(
            f"a mean score ({relation}) needs {least} or more validation records, got {num_records}"
        )
    return score_range(task) / num_records


def paper_score_sensitivity(task: ScoreTask | str) -> float:
    """The paper's Delta u: 1 for regression (below Eq. 7), 1/2 for classification (Lemma 2)."""
    return score_range(task) / 2


def regression_term(prediction: float, target: float) -> float:
    """1 - |min(z, 3 y) - y| / y, the term of Eq. 6 with min for the printed max; in [-1, 1].

    Raises:
        InvalidArgumentError: z < 0 or y <= 0, for which it has no lower bound, or one that is not finite.
    """
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (prediction, target))
    if not numbers or not 0 <= prediction <= LARGEST or not SMALLEST <= target <= LARGEST:
        raise InvalidArgumentError(
            f"needs a prediction of 0 or more and a positive, finite target, got {prediction!r} and {target!r}: clip "
            "predictions to [0, 3 y] and targets to a public floor"
        )
    return 1 - abs(min(prediction, 3 * target) - target) / target


@dataclass(frozen=True)
class SelectionPlan:
    """How participants are chosen, settled before a score is computed. Use :func:`plan_selection`.

    Attributes:
        task, unit: what the scores are and what the budget is for.
        num_records: d, validation records; public.
        num_participants, num_selected: n and K.
        rounds: R.
        epsilon_round: epsilon_1, of one round.
        multiplier: lambda.
        delta: delta of the guarantee over all rounds.
    """

    task: ScoreTask
    unit: Unit
    num_records: int
    num_participants: int
    num_selected: int
    rounds: int
    epsilon_round: float
    multiplier: float
    delta: float

    @property
    def eta(self) -> float:
        """Range of the privacy loss of one draw, from the multiplier that is drawn with."""
        if self.unit is Unit.PARTICIPANT_SCORE:
            return self.multiplier * score_range(self.task)
        return 2 * self.multiplier * score_sensitivity(self.task, self.num_records)

    @property
    def tilt(self) -> float:
        """e^(lambda range): how many times likelier the best possible participant is than the worst (inf if above)."""
        exponent = self.multiplier * score_range(self.task)
        return math.exp(exponent) if exponent < 700 else math.inf


def plan_selection(
    epsilon_round: float,
    *,
    task: ScoreTask | str,
    unit: Unit | str,
    num_records: int,
    num_participants: int,
    num_selected: int,
    delta: float,
    rounds: int = 1,
    paper_sensitivity: bool = False,
) -> SelectionPlan:
    """The largest multiplier that costs ``unit`` no more than ``epsilon_round`` in one round.

    Args:
        epsilon_round: epsilon_1, for the K draws of one round together.
        paper_sensitivity: use the paper's Delta u instead of the tight one, for unit validation record. For unit
            participant score the two multipliers are the same.

    Raises:
        InvalidBudgetError: epsilon_round or delta is out of range.
        InvalidArgumentError: another unit, or numbers that do not fit.
    """
    task, unit = by_name(ScoreTask, task), by_name(Unit, unit)
    check_epsilon(epsilon_round)
    check_delta(delta)
    if unit not in _NEIGHBOURING:
        raise InvalidArgumentError(f"the choice hides one of {', '.join(_NEIGHBOURING)}, not {unit}")
    for name, value in (("num_participants", num_participants), ("num_selected", num_selected), ("rounds", rounds)):
        check_count(name, value)
    if num_selected > num_participants:
        raise InvalidArgumentError(
            f"needs num_selected (K) <= num_participants (n), got K = {num_selected} and n = {num_participants}"
        )
    tight = score_sensitivity(task, num_records)
    sensitivity = tight if unit is Unit.VALIDATION_RECORD and not paper_sensitivity else paper_score_sensitivity(task)
    multiplier = epsilon_round / (2 * num_selected * sensitivity)
    plan = SelectionPlan(
        task, unit, num_records, num_participants, num_selected, rounds, float(epsilon_round), multiplier, float(delta)
    )
    if plan.eta * num_selected > epsilon_round * (1 + 1e-9):
        # One record: a replacement moves a score by its whole range, twice the paper's value.
        raise InvalidArgumentError(
            f"with {num_records} validation record(s) the paper's sensitivity is too small: use the tight one"
        )
    return plan


def event_of(plan: SelectionPlan) -> BoundedRangeEvent:
    """What all rounds cost the plan's unit, for an accountant or the ledger."""
    return BoundedRangeEvent(eta=plan.eta, count=plan.num_selected * plan.rounds)


def bound_of(plan: SelectionPlan) -> Bound:
    """(epsilon, delta) of the indices chosen in all rounds, for the plan's unit."""
    return compose([event_of(plan)], plan.delta)


def selection_guarantee(
    plan: SelectionPlan,
    *,
    scores_are_clipped: bool,
    assumptions: tuple[Assumption, ...] = (),
    validation_is_public: bool = False,
    epsilon_training: float | None = None,
    reproducible: bool = False,
) -> Guarantee:
    """The guarantee of SecProbe's choice of participants: of the indices only.

    Args:
        plan: how they are chosen.
        scores_are_clipped: the code keeps every term in its range (min, predictions in [0, 3 y], public floor of y).
        validation_is_public: nobody's private record is in the validation set; as an explanation only.
        epsilon_training: epsilon_2 of the participants' training, for the paper's maximum.
        assumptions: what the caller knows.
        reproducible: the key came from a seed.
    """
    reasons = []
    if not scores_are_clipped:
        reasons.append(
            "The scores are not kept in a public range, so one record or participant can change them without bound. "
            "(As printed, Eq. 6 has max where min is meant: every term is then at most -1 and has no lower bound.)"
        )
    if reproducible:
        reasons.append("The draws came from a seed, so they can be drawn again: for experiments only.")
    bound = None if reasons else bound_of(plan)
    return Guarantee(
        mechanism=f"SecProbe selection: exponential mechanism, {plan.num_selected} of {plan.num_participants} "
        f"participants without replacement in each of {plan.rounds} round(s); indices only",
        unit=plan.unit,
        neighbouring=_NEIGHBOURING[plan.unit],
        claimed=_claim(plan, epsilon_training),
        proven=None if bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=(*assumptions, *_ASSUMPTIONS),
        implementation=_implementation(plan),
        warnings=_warnings(plan, validation_is_public),
        reproducible=reproducible,
    )


_NEIGHBOURING = {
    Unit.VALIDATION_RECORD: "two validation sets of the same public size in which one record is replaced by another",
    Unit.PARTICIPANT_SCORE: "two rounds in which the score of one participant is replaced by another in the same range",
}
_ASSUMPTIONS = (
    Assumption("The draws have the stated law: what finite precision adds is not in this number."),
    Assumption("The participants' weights are the same for both neighbours, up to what earlier choices made of them."),
)


def _claim(plan: SelectionPlan, epsilon_training: float | None) -> Claim:
    epsilon = plan.multiplier * 2 * plan.num_selected * paper_score_sensitivity(plan.task)
    applied = "" if math.isclose(epsilon, plan.epsilon_round) else ", its formula applied to these draws"
    formula = "epsilon_1 per round with P(m) ~ exp(epsilon_1 u / (2 K Delta u))"
    if epsilon_training is None:
        return Claim(epsilon, 0.0, f"{PAPER}{applied}", "Theorem 5", formula)
    return Claim(
        max(epsilon, check_epsilon(epsilon_training)),
        0.0,
        f"{PAPER}{applied}",
        "Theorem 5 and Section III-D",
        f"max(epsilon_1, epsilon_2) in each training epoch, {formula}",
    )


def _implementation(plan: SelectionPlan) -> dict[str, float | int | str | None]:
    per_record = plan.unit is Unit.VALIDATION_RECORD
    total = BoundedRangeEvent(eta=plan.eta, count=plan.num_selected * plan.rounds)
    return {
        "task": str(plan.task),
        "validation_records_d": plan.num_records,
        "participants_n": plan.num_participants,
        "selected_K": plan.num_selected,
        "rounds_R": plan.rounds,
        "sensitivity_or_range": score_sensitivity(plan.task, plan.num_records)
        if per_record
        else score_range(plan.task),
        "paper_sensitivity": paper_score_sensitivity(plan.task),
        "multiplier": plan.multiplier,
        "tilt_best_over_worst": plan.tilt if math.isfinite(plan.tilt) else None,
        "epsilon_of_one_draw": plan.eta,
        "epsilon_of_one_round": plan.eta * plan.num_selected,
        "rho_of_one_round": plan.num_selected * plan.eta**2 / 8,
        "epsilon_of_all_rounds_basic": total.count * total.eta,
        "rho_of_all_rounds": total.count * total.eta**2 / 8,
        "protects": "indices only",
    }


def _warnings(plan: SelectionPlan, validation_is_public: bool) -> tuple[str, ...]:
    warnings = [
        "Indices only: the averaged weights are released too and contain those of the chosen participants; their "
        "training records need a guarantee of their own."
    ]
    if plan.tilt < 1.5:
        warnings.append(
            f"Near-uniform: the best participant is at most {round_up(plan.tilt, 3):.3g} times as likely to be chosen "
            "as the worst, so the choice hardly keeps unreliable participants out."
        )
    if plan.unit is Unit.VALIDATION_RECORD and validation_is_public:
        warnings.append(
            "The validation set is public: the choice costs no training record anything beyond the weights."
        )
    if plan.unit is Unit.VALIDATION_RECORD:
        warnings.append(
            "For one participant's score the same draws cost "
            f"{round_up(plan.multiplier * score_range(plan.task)):.4g} each."
        )
    return tuple(warnings)
