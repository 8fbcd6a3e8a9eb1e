"""SecProbe's choice of participants: Theorem 5 beside both units, over all rounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from privkernels.privacy._names import by_name
from privkernels.privacy.calculator.base import Calculation, Curve, largest, largest_count, missing, row_of
from privkernels.privacy.guarantee import Guarantee, Unit
from privkernels.privacy.secprobe import ScoreTask, SelectionPlan, bound_of, plan_selection, selection_guarantee

_LOOSE = (
    "These draws use the tight sensitivity. With the paper's the same epsilon buys a smaller multiplier, which chooses "
    "more nearly at random; its formula, applied to these draws, gives the claims above."
)
_UNITS = (Unit.VALIDATION_RECORD, Unit.PARTICIPANT_SCORE)


def secprobe(
    *,
    participants: int,
    selected: int,
    records: int,
    epsilon: float | None = None,
    rounds: int | None = None,
    total: float | None = None,
    delta: float = 1e-5,
    task: str = "classification",
    unit: str = "validation record",
    paper_sensitivity: bool = False,
) -> Calculation:
    """K = ``selected`` of n = ``participants`` in each round, scored on d = ``records``.

    One of ``epsilon`` (epsilon_1, of one round), ``rounds`` and ``total`` (of all rounds, for ``unit``) is None.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, or no number satisfies the others.
    """
    unknown = missing(epsilon=epsilon, rounds=rounds, total=total)

    target, kind = by_name(Unit, unit), by_name(ScoreTask, task)

    def plan(epsilon: float, rounds: int, of: Unit = target) -> SelectionPlan:
        return plan_selection(
            epsilon, task=kind, unit=of, num_records=records, num_participants=participants,
            num_selected=selected, delta=delta, rounds=rounds, paper_sensitivity=paper_sensitivity,
        )  # fmt: skip

    one, count, limit = epsilon or 1.0, int(rounds or 1), total or 0.0
    if unknown == "epsilon":
        one = largest(lambda e: bound_of(plan(e, count)).epsilon <= limit, "epsilon of one round", high=limit)
    elif unknown == "rounds":
        count = largest_count(lambda n: bound_of(plan(one, n)).epsilon <= limit, "round")
    guarantees = [_guarantee(plan(one, count, of)) for of in _UNITS]
    solved = plan(one, count)
    numbers = {"epsilon": one, "rounds": count, "total": bound_of(solved).epsilon, "participants": participants}
    return Calculation(
        f"SecProbe: {selected} of {participants} participants, {count} rounds",
        numbers | {"selected": selected, "records": records, "unit": unit, "delta": delta, "tilt": solved.tilt},
        unknown,
        tuple(row_of(guarantee) for guarantee in guarantees),
        _guarantee(solved).warnings + (() if paper_sensitivity else (_LOOSE,)),
        _curve(solved, one),
    )


def _guarantee(plan: SelectionPlan) -> Guarantee:
    return selection_guarantee(plan, scores_are_clipped=True)


def _curve(plan: SelectionPlan, epsilon: float) -> Curve:
    rounds = np.unique(np.geomspace(1, max(1000, 10 * plan.rounds), 60).round().astype(int)).tolist()
    lines = {
        "claimed": [epsilon] * len(rounds),
        "basic composition": [epsilon * n for n in rounds],
        "proven": [bound_of(replace(plan, rounds=n)).epsilon for n in rounds],
    }
    return Curve("rounds", f"ε at δ = {plan.delta:g}", rounds, lines, "SecProbe, indices chosen in all rounds")
