"""Noisy activations: what one number's epsilon claims, and what the transcript of a training proves."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import gaussian_epsilon
from privkernels.privacy.activation_formulae import TensorSensitivity, clipped_tensor_sensitivity
from privkernels.privacy.activations import (
    ActivationPlan,
    ClientLayer,
    PaperAnalysis,
    activation_guarantee,
    bound_of,
)
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    budget_row,
    check_counts,
    check_sizes,
    largest,
    largest_count,
    missing,
    row_of,
    smallest,
)


def activations(
    *,
    noise_std: float | None = None,
    clip: float | None = None,
    epochs: int | None = None,
    epsilon: float | None = None,
    delta: float = 1e-5,
    sensitivity: TensorSensitivity | None = None,
    client_layer: str = "frozen",
    release_once: bool = False,
    signed: bool = False,
    sgd_noise_multiplier: float | None = None,
    label_epsilon: float | None = None,
) -> Calculation:
    """Training on noisy activations; one of noise_std, clip, epochs and epsilon is None.

    ``clip`` is the L2 norm that each example's tensor is clipped to; with ``sensitivity`` (a bound without clipping) it
    must not be given. A client layer trained without noise has no epsilon to solve for: then everything else is given.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, ``signed`` with ``sensitivity`` (whose bound
            is for tensors that are not negative), a number out of range, or no number satisfies the others.
    """
    if signed and sensitivity is not None:
        raise InvalidArgumentError(
            "signed is for clipped tensors: the bound of a normalised tensor is for activations of 0 or more"
        )
    known_clip = sensitivity.value if sensitivity is not None else clip
    unknown = missing(noise_std=noise_std, clip=known_clip, epochs=epochs, epsilon=epsilon)
    check_sizes(sgd_noise_multiplier=sgd_noise_multiplier, label_epsilon=label_epsilon)
    check_counts(epochs=epochs)
    layer = by_name(ClientLayer, client_layer)

    def plan(noise_std: float, clip: float, epochs: int) -> ActivationPlan:
        return ActivationPlan(
            sensitivity=sensitivity or clipped_tensor_sensitivity(clip, nonnegative=not signed), noise_std=noise_std,
            epochs=epochs, delta=delta, client_layer=layer, release_once=release_once,
            sgd_noise_multiplier=sgd_noise_multiplier, label_epsilon=label_epsilon,
        )  # fmt: skip

    def fits(noise_std: float, clip: float, epochs: int) -> bool:
        bound = bound_of(plan(noise_std, clip, epochs))
        return bound.epsilon <= limit and bound.delta <= delta

    s, c, t, limit, limited = noise_std or 1.0, known_clip or 1.0, epochs or 1, epsilon or 0.0, False
    if unknown == "noise_std":
        s, limited = smallest(lambda x: fits(x, c, t), "noise-std")
    elif unknown == "clip":
        c, limited = largest(lambda x: fits(s, x, t), "clip")
    elif unknown == "epochs":
        t, limited = largest_count(lambda n: fits(s, c, n), "epoch")
    solved = plan(s, c, t)
    numbers = {
        "noise_std": s, "clip": c if sensitivity is None else None, "epochs": t,
        "epsilon": bound_of(solved).epsilon if layer is not ClientLayer.UNNOISED else None, "delta": delta,
        "sensitivity": solved.sensitivity.value, "sensitivity_bound": solved.sensitivity.bound,
        "label_epsilon": label_epsilon, "releases": solved.releases,
    }  # fmt: skip
    at = {"noise_std": s, "clip": c, "epochs": t}
    return Calculation(
        f"noisy activations, client layer {client_layer}",
        numbers | ({unknown: None} if limited else {}),
        unknown,
        _rows(solved),
        activation_guarantee(solved).warnings,
        # A sensitivity that comes from a shape is a bound, and one that comes from a clip goes down with it.
        frozenset({"clip"} if sensitivity is not None else {"clip", "sensitivity"}),
        at[unknown] if limited else None,
        partial(_curve, solved),
    )


def _rows(plan: ActivationPlan) -> tuple[Row, ...]:
    """The paper's three claims, which are for one number sent once, and what holds for an example's tensors."""
    scalar = gaussian_epsilon(plan.scalar_sensitivity / plan.noise_std, plan.delta)
    rows = []
    for analysis in PaperAnalysis:
        claim = activation_guarantee(replace(plan, analysis=analysis)).claimed
        if claim is not None:
            rows.append(
                budget_row(
                    f"one number, sent once: {analysis}", claimed=(claim.epsilon, claim.delta),
                    proven=(scalar, plan.delta), source=f" ({claim.equation})",
                )
            )  # fmt: skip
    whole = row_of(activation_guarantee(plan))
    return (*rows, replace(whole, about=f"{whole.about}, sent {plan.releases} times", claimed="the same"))


def _curve(plan: ActivationPlan) -> Curve:
    stds = np.geomspace(plan.noise_std / 10, plan.noise_std * 10, 60).tolist()
    plans = [replace(plan, noise_std=s) for s in stds]
    lines = {"claimed (zCDP-A, one number)": [_claimed(p) for p in plans]}
    if plan.client_layer is not ClientLayer.UNNOISED:
        lines["proven"] = [bound_of(p).epsilon for p in plans]
        if plan.client_layer is ClientLayer.FROZEN and not plan.release_once and plan.epochs > 1:
            lines["proven, each tensor sent once"] = [bound_of(replace(p, release_once=True)).epsilon for p in plans]
    return Curve("noise standard deviation", f"ε at δ = {plan.delta:g}", stds, lines, "Noisy activations")


def _claimed(plan: ActivationPlan) -> float:
    claim = activation_guarantee(plan).claimed
    return math.nan if claim is None else claim.epsilon
