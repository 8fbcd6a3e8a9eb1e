"""The functional mechanism: Lemma 3's noise, and what it is worth for frozen and for trained features."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from privkernels.privacy._names import by_name
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    check_counts,
    largest_count,
    missing,
    number_words,
    row_of,
    smallest,
)
from privkernels.privacy.functional import (
    CoefficientNoise,
    FunctionalMode,
    FunctionalPlan,
    bound_of,
    coefficient_sensitivity_l1,
    functional_guarantee,
    paper_coefficient_sensitivity,
)
from privkernels.privacy.guarantee import Guarantee


def functional(
    *,
    hidden_units: int,
    records: int,
    noise_scale: float | None = None,
    epsilon: float | None = None,
    epochs: int | None = None,
    delta: float = 1e-5,
    noise: str = "laplace",
    mode: str = "release-once",
    batches: int = 1,
) -> Calculation:
    """Noise on the coefficients of b = ``hidden_units``; one of noise_scale and epsilon is None.

    Without ``epochs`` it is 1, or the largest number of them if noise_scale and epsilon are both given.
    ``mode``: release-once, per-epoch or trained (the paper's). For the trained mode nothing is proven: ``epsilon`` is
    then the paper's, which sets the noise.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, a number out of range, or no number
            satisfies the others.
    """
    check_counts(hidden_units=hidden_units, records=records, epochs=epochs, batches=batches)
    if epochs is None and None in (noise_scale, epsilon):
        epochs = 1
    unknown = missing(noise_scale=noise_scale, epsilon=epsilon, epochs=epochs)
    kind, law = by_name(FunctionalMode, mode), by_name(CoefficientNoise, noise)

    def plan(noise_scale: float, epochs: int) -> FunctionalPlan:
        return FunctionalPlan(
            mode=kind, hidden_units=hidden_units, noise=law, noise_scale=noise_scale, num_records=records,
            delta=delta, epochs=epochs, batches=batches,
        )  # fmt: skip

    def fits(noise_scale: float, epochs: int) -> bool:
        bound = bound_of(plan(noise_scale, epochs))
        return bound.epsilon <= limit and bound.delta <= delta

    s, t, limit, limited = noise_scale or 1.0, epochs or 1, epsilon or 1.0, False
    paper = paper_coefficient_sensitivity(hidden_units)
    if unknown == "noise_scale" and kind is FunctionalMode.TRAINED:
        s = paper / limit
    elif unknown == "noise_scale":
        s, limited = smallest(lambda x: fits(x, t), "noise-scale")
    elif unknown == "epochs":
        t, limited = largest_count(lambda n: fits(s, n), "epoch")
    solved = plan(s, t)
    guarantee = _guarantee(solved)
    numbers = {
        "hidden_units": hidden_units, "noise_scale": s,
        "epsilon": guarantee.proven.epsilon if guarantee.proven else None, "epochs": t, "records": records,
        "delta": delta, "noise": noise, "mode": mode,
    }  # fmt: skip
    sensitivity = number_words(coefficient_sensitivity_l1(hidden_units), digits=4)
    return Calculation(
        f"functional mechanism, {mode}",
        numbers | ({unknown: None} if limited else {}),
        unknown,
        (row_of(guarantee), Row("L1 sensitivity", f"{number_words(paper, digits=4)} (Lemma 3)", sensitivity)),
        guarantee.warnings,
        limit=(t if unknown == "epochs" else s) if limited else None,
        curve_of=partial(_curve, solved),
    )


def _guarantee(plan: FunctionalPlan) -> Guarantee:
    return functional_guarantee(plan, features_are_clipped=True, features_source="public")


def _curve(plan: FunctionalPlan) -> Curve:
    scales = np.geomspace(plan.noise_scale / 10, plan.noise_scale * 10, 60).tolist()
    plans = [replace(plan, noise_scale=s) for s in scales]
    paper = paper_coefficient_sensitivity(plan.hidden_units)
    lines = {"claimed in each epoch": [paper / s for s in scales]}
    if plan.mode is not FunctionalMode.TRAINED:
        lines[f"proven, {plan.mode}"] = [bound_of(p).epsilon for p in plans]
    title = f"Functional mechanism, b = {plan.hidden_units}"
    return Curve(f"scale of the {plan.noise} noise", "ε", scales, lines, title)
