"""DP-PG: what the paper's maximum over the parameters claims for each unit, and what composes."""

from __future__ import annotations

from functools import partial

import numpy as np

from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import check_delta
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Number,
    Row,
    budget_row,
    check_counts,
    largest,
    largest_count,
    missing,
    number_words,
)
from privkernels.privacy.dp_pg import DpPgPlan, bound_of, density_peak, dp_pg_guarantee, kde_sensitivity
from privkernels.privacy.guarantee import Guarantee, Unit

_UNITS = (Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE)


def dp_pg(
    *,
    epsilon: float | None = None,
    total: float | None = None,
    parameters: int | None = None,
    members: int = 50,
    overlap: int | None = None,
    unit: str = "example",
    delta: float = 1e-5,
    grid_points: int = 256,
    window_ratio: float = 0.99,
    tries: int = 1,
) -> Calculation:
    """A release of N = ``parameters`` draws of ``epsilon`` each (public range and bandwidth).

    One of ``epsilon`` (of one draw), ``total`` (of the release for one ``unit``) and ``parameters`` is None. If none
    is, and the unit is an example, the largest ``overlap`` is solved for: most members that one record was used in.
    Otherwise no ``overlap`` means all members.

    Raises:
        InvalidArgumentError, InvalidBudgetError, TooFewMembersError: not exactly one unknown, a number out of range,
            or no number satisfies the others.
    """
    target = by_name(Unit, unit)
    unknowns = {"epsilon": epsilon, "total": total, "parameters": parameters}
    if overlap is None and target is Unit.EXAMPLE and None not in unknowns.values():
        unknowns["overlap"] = None
    unknown = missing(**unknowns)
    check_delta(delta)
    check_counts(parameters=parameters, members=members, tries=tries, overlap=overlap)
    per_epsilon = 1 / (2 * kde_sensitivity(members, window_ratio))
    one, limit, n = float(epsilon or 1), float(total or 1), parameters or 1
    share, limited = overlap or members, False

    def plan(epsilon: float, parameters: int, share: int) -> DpPgPlan:
        return DpPgPlan(
            "proven", target, members, parameters, grid_points, window_ratio, tries,
            share if target is Unit.EXAMPLE else 1, epsilon, epsilon * per_epsilon, delta,
        )  # fmt: skip

    def fits(epsilon: float, parameters: int, share: int) -> bool:
        bound = bound_of(plan(epsilon, parameters, share))
        return bound.epsilon <= limit and bound.delta <= delta

    if unknown == "epsilon":
        # A draw may cost more than the whole where delta pays for the rest.
        one, limited = largest(lambda e: fits(e, n, share), "epsilon of one draw")
    elif unknown == "parameters":
        n, limited = largest_count(lambda count: fits(one, count, share), "parameter")
    elif unknown == "overlap":
        share, _ = largest_count(lambda s: fits(one, n, s), "member for each record", high=members)
    solved = plan(one, n, share)
    numbers: dict[str, Number | str | None] = {
        "epsilon": one, "total": bound_of(solved).epsilon, "parameters": n, "members": members, "overlap": share,
        "unit": unit, "delta": delta, "tries": tries,
    }  # fmt: skip
    return Calculation(
        f"DP-PG, {n} parameters, {members} members",
        numbers | ({unknown: None} if limited else {}),
        unknown,
        tuple(_row(_for(solved, of, share)) for of in _UNITS),
        _guarantee(solved).warnings + _notes(solved),
        frozenset({"epsilon"}),  # the epsilon of a draw is a setting here: a larger one costs more than the total
        (n if unknown == "parameters" else one) if limited else None,
        partial(_curve, solved, share),
    )


def _for(plan: DpPgPlan, unit: Unit, share: int, epsilon: float | None = None) -> DpPgPlan:
    """The same release for another unit, or with another epsilon of a draw."""
    one = plan.epsilon_draw if epsilon is None else epsilon
    return DpPgPlan(
        plan.mode, unit, plan.num_members, plan.num_parameters, plan.grid_points, plan.window_ratio, plan.max_tries,
        share if unit is Unit.EXAMPLE else 1, one, one / (2 * kde_sensitivity(plan.num_members, plan.window_ratio)),
        plan.delta,
    )  # fmt: skip


def _guarantee(plan: DpPgPlan) -> Guarantee:
    return dp_pg_guarantee(plan, grid_is_public=True, bandwidth_source="public", range_source="public")


def _row(plan: DpPgPlan) -> Row:
    """The claim is the paper's rule of composition alone: the maximum over the draws, which cost epsilon_draw each."""
    guarantee = _guarantee(plan)
    proven = guarantee.proven
    return budget_row(
        f"one {plan.unit}" + (f", in {plan.overlap} members" if plan.unit is Unit.EXAMPLE else ""),
        claimed=None if guarantee.claimed is None else (plan.epsilon_draw, 0.0),
        proven=None if proven is None else (proven.epsilon, proven.delta),
        source=": the paper's maximum, Corollary 1",
        by=guarantee.not_proven_because or "" if proven is None else proven.accountant,
    )


def _notes(plan: DpPgPlan) -> tuple[str, ...]:
    """What the paper's own formula would say of these draws, and what its draws would cost."""
    claim = _guarantee(plan).claimed
    if claim is None:
        return (
            "No claim: the paper's Corollary 1 needs a window below the bandwidth, and the window ratio is "
            f"{plan.window_ratio:g}.",
        )
    factor = (plan.num_members - 1) * density_peak(plan.window_ratio)
    return (
        "The claims are the paper's maximum over the parameters, applied to the ε that one of these draws costs with "
        "the sensitivity w_max/M. With its own sensitivity, 1/(M(M-1)), the paper's formula would claim "
        f"ε = {number_words(claim.epsilon, digits=3)} for these draws.",
        "Drawn with the paper's sensitivity instead, each draw would cost "
        f"{number_words(factor, digits=3)} times the ε that it claims, "
        f"{number_words(factor * plan.epsilon_draw, digits=4)}; and with the paper's range and bandwidth, which come "
        "from the members, no ε holds.",
    )


def _curve(plan: DpPgPlan, share: int) -> Curve:
    draws = np.geomspace(1e-5, 1, 40).tolist()
    lines = {f"one {unit}": [bound_of(_for(plan, unit, share, e)).epsilon for e in draws] for unit in _UNITS}
    if plan.window_ratio < 1:
        lines["claimed for all"] = draws
    title = f"DP-PG, N = {plan.num_parameters}"
    return Curve("ε of one draw", f"ε of the release at δ = {plan.delta:g}", draws, lines, title)
