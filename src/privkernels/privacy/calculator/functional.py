"""The functional mechanism: Lemma 3's noise, and what it is worth for frozen and for trained features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from privkernels.privacy._names import by_name
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    largest_count,
    missing,
    row_of,
    smallest,
)
from privkernels.privacy.functional import (
    CoefficientNoise,
    FunctionalMode,
    FunctionalPlan,
    bound_of,
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
    epochs: int | None = 1,
    delta: float = 1e-5,
    noise: str = "laplace",
    mode: str = "release-once",
    batches: int = 1,
) -> Calculation:
    """Noise on the coefficients of b = ``hidden_units``; one of noise_scale, epsilon and epochs is None.

    ``mode``: release-once, per-epoch or trained (the paper's). For the trained mode nothing is proven: ``epsilon`` is
    then the paper's, which sets the noise.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, or no number satisfies the others.
    """
    unknown = missing(noise_scale=noise_scale, epsilon=epsilon, epochs=epochs)
    kind, law = by_name(FunctionalMode, mode), by_name(CoefficientNoise, noise)

    def plan(noise_scale: float, epochs: int) -> FunctionalPlan:
        return FunctionalPlan(
            mode=kind, hidden_units=hidden_units, noise=law, noise_scale=noise_scale, num_records=records,
            delta=delta, epochs=epochs, batches=batches,
        )  # fmt: skip

    s, t, limit = noise_scale or 1.0, int(epochs or 1), epsilon or 0.0
    paper = paper_coefficient_sensitivity(hidden_units)
    if unknown == "noise_scale" and kind is FunctionalMode.TRAINED:
        s = paper / limit
    elif unknown == "noise_scale":
        s = smallest(lambda x: bound_of(plan(x, t)).epsilon <= limit, "noise-scale")
    elif unknown == "epochs":
        t = largest_count(lambda n: bound_of(plan(s, n)).epsilon <= limit, "epoch")
    solved = plan(s, t)
    guarantee = _guarantee(solved)
    total = guarantee.proven.epsilon if guarantee.proven else None
    terms = guarantee.implementation
    numbers = {"hidden_units": hidden_units, "noise_scale": s, "epsilon": total, "epochs": t, "records": records}
    return Calculation(
        f"functional mechanism, {mode}",
        numbers | {"delta": delta, "noise": noise, "mode": mode},
        unknown,
        (row_of(guarantee), Row("L1 sensitivity", f"{paper:.4g} (Lemma 3)", f"{terms['sensitivity_L1']:.4g}")),
        guarantee.warnings,
        _curve(solved),
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
