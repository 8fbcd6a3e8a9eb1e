"""DP-PG: what the paper's maximum over the parameters claims for each unit, and what composes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.ops import kde_peak
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    budget_words,
    largest,
    largest_count,
    missing,
)
from privkernels.privacy.dp_pg import DpPgPlan, bound_of, dp_pg_guarantee, kde_sensitivity
from privkernels.privacy.guarantee import Guarantee, Unit


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

    One of ``epsilon`` (of one draw), ``total`` (of the release for one ``unit``) and ``parameters`` is None.
    ``overlap``: most members that one record was used in; all if None.
    """
    unknown = missing(epsilon=epsilon, total=total, parameters=parameters)
    check_delta(delta)
    share = members if overlap is None else overlap
    if not 1 <= share <= members:
        raise InvalidArgumentError(f"the overlap must be between 1 and {members} members, got {share}")
    target = by_name(Unit, unit)

    def plan(of: Unit, epsilon: float, parameters: int) -> DpPgPlan:
        return DpPgPlan(
            "proven", of, members, parameters, grid_points, window_ratio, tries, share if of is Unit.EXAMPLE else 1,
            epsilon, epsilon / (2 * kde_sensitivity(members, window_ratio)), delta,
        )  # fmt: skip

    def cost(epsilon: float, parameters: int) -> Bound:
        return bound_of(plan(target, epsilon, parameters))

    if unknown == "epsilon":
        n, limit = int(parameters or 1), float(total or 0)
        epsilon = largest(lambda e: cost(e, n).epsilon <= limit, "epsilon of one draw", high=limit)
    elif unknown == "parameters":
        one, limit = float(epsilon or 0), float(total or 0)
        parameters = largest_count(lambda n: cost(one, n).epsilon <= limit, "parameter")
    one, n = float(epsilon or 0), int(parameters or 1)
    rows = [_row(plan(of, one, n)) for of in (Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE)]
    notes = list(_guarantee(plan(target, one, n)).warnings)
    factor = (members - 1) * kde_peak(window_ratio)
    notes.append(
        f"Drawn with the paper's sensitivity 1/(M(M-1)) instead of w_max/M, each draw would cost {factor:.3g} times "
        f"the ε that it claims, {factor * one:.4g}; and with the paper's range and bandwidth, which come from the "
        "members, no ε holds."
    )
    numbers = {"epsilon": one, "total": cost(one, n).epsilon, "parameters": n, "members": members, "overlap": share}
    return Calculation(
        f"DP-PG, {n} parameters, {members} members",
        numbers | {"unit": unit, "delta": delta, "tries": tries},
        unknown,
        tuple(rows),
        tuple(notes),
        _curve(plan, n, delta),
    )


def _guarantee(plan: DpPgPlan) -> Guarantee:
    return dp_pg_guarantee(plan, grid_is_public=True, bandwidth_source="public", range_source="public")


def _row(plan: DpPgPlan) -> Row:
    bound = bound_of(plan)
    about = f"one {plan.unit}" + (f", in {plan.overlap} members" if plan.unit is Unit.EXAMPLE else "")
    return Row(
        about, budget_words(plan.epsilon_draw, 0.0) + " (Corollary 1)", budget_words(bound.epsilon, bound.delta),
        bound.accountant,
    )  # fmt: skip


def _curve(plan: Callable[[Unit, float, int], DpPgPlan], parameters: int, delta: float) -> Curve:
    draws = np.geomspace(1e-5, 1, 40).tolist()
    lines = {
        f"one {unit}": [bound_of(plan(unit, e, parameters)).epsilon for e in draws]
        for unit in (Unit.PARAMETER, Unit.MEMBER, Unit.EXAMPLE)
    }
    lines["claimed for all"] = draws
    return Curve("ε of one draw", f"ε of the release at δ = {delta:g}", draws, lines, f"DP-PG, N = {parameters}")
