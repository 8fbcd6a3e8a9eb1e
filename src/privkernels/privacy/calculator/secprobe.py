"""SecProbe's choice of participants: Theorem 5 beside both units, over all rounds."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from privkernels.privacy._names import by_name
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Number,
    check_counts,
    largest,
    largest_count,
    missing,
    row_of,
)
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

    One of ``epsilon`` (epsilon_1, of one round), ``rounds`` and ``total`` (of all rounds, for ``unit``) is None. Both
    rows are of the same draws, those that cost ``unit`` epsilon_1 in a round.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, a number out of range, or no number
            satisfies the others.
    """
    unknown = missing(epsilon=epsilon, rounds=rounds, total=total)
    check_counts(rounds=rounds, participants=participants, selected=selected, records=records)
    target, kind = by_name(Unit, unit), by_name(ScoreTask, task)

    def plan(epsilon: float, rounds: int) -> SelectionPlan:
        return plan_selection(
            epsilon, task=kind, unit=target, num_records=records, num_participants=participants,
            num_selected=selected, delta=delta, rounds=rounds, paper_sensitivity=paper_sensitivity,
        )  # fmt: skip

    def fits(epsilon: float, rounds: int) -> bool:
        bound = bound_of(plan(epsilon, rounds))
        return bound.epsilon <= limit and bound.delta <= delta

    one, count, limit, limited = float(epsilon or 1), rounds or 1, float(total or 1), False
    if unknown == "epsilon":
        # A round may cost more than the whole where delta pays for the rest.
        one, limited = largest(lambda e: fits(e, count), "epsilon of one round")
    elif unknown == "rounds":
        count, limited = largest_count(lambda n: fits(one, n), "round")
    solved = plan(one, count)
    numbers: dict[str, Number | str | None] = {
        "epsilon": one, "rounds": count, "total": bound_of(solved).epsilon, "participants": participants,
        "selected": selected, "records": records, "unit": unit, "delta": delta, "tilt": solved.tilt,
    }  # fmt: skip
    tight = target is Unit.VALIDATION_RECORD and not paper_sensitivity
    return Calculation(
        f"SecProbe: {selected} of {participants} participants, {count} rounds",
        numbers | ({unknown: None} if limited else {}),
        unknown,
        tuple(row_of(_guarantee(replace(solved, unit=of))) for of in _UNITS),
        _guarantee(solved).warnings + ((_LOOSE,) if tight else ()),
        frozenset({"epsilon"}),  # the epsilon of a round is a setting here: a larger one costs more than the total
        (count if unknown == "rounds" else one) if limited else None,
        partial(_curve, solved),
    )


def _guarantee(plan: SelectionPlan) -> Guarantee:
    return selection_guarantee(plan, scores_are_clipped=True)


def _curve(plan: SelectionPlan) -> Curve:
    rounds = np.unique(np.geomspace(1, max(1000, 10 * plan.rounds), 60).round().astype(int)).tolist()
    claim = _guarantee(plan).claimed
    lines = {
        "basic composition": [plan.eta * plan.num_selected * n for n in rounds],
        "proven": [bound_of(replace(plan, rounds=n)).epsilon for n in rounds],
    }
    if claim is not None:
        lines["claimed"] = [claim.epsilon] * len(rounds)
    return Curve("rounds", f"ε at δ = {plan.delta:g}", rounds, lines, f"SecProbe, {plan.unit}, all rounds' indices")
