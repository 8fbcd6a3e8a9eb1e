"""Gaussian noise: the exact epsilon beside the offloading paper's three formulae for it."""

from __future__ import annotations

import math

import numpy as np

from privkernels.privacy.accounting import check_delta, gaussian_delta, gaussian_epsilon
from privkernels.privacy.activation_formulae import dp_a_epsilon, formula_curves, rdp_a_epsilon, zcdp_a_epsilon
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    budget_words,
    largest,
    missing,
    smallest,
)


def gaussian(
    *,
    noise_std: float | None = None,
    sensitivity: float | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    releases: int = 1,
) -> Calculation:
    """``releases`` Gaussian releases with this noise and L2 sensitivity; one of the four numbers is None.

    The claims are the paper's formulae with natural logarithms, for one release with sqrt(releases) times the
    sensitivity, which is what the releases together are.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, or no number satisfies the others.
    """
    unknown = missing(noise_std=noise_std, sensitivity=sensitivity, epsilon=epsilon, delta=delta)
    numbers = {"noise_std": noise_std or 1.0, "sensitivity": sensitivity or 1.0, "epsilon": epsilon or 1.0}
    if delta is not None:
        check_delta(delta)

    def mu(noise_std: float, sensitivity: float) -> float:
        return math.sqrt(releases) * sensitivity / noise_std

    def holds(**change: float) -> bool:
        at = numbers | change
        return gaussian_delta(mu(at["noise_std"], at["sensitivity"]), at["epsilon"]) <= (delta or 0.0)

    if unknown == "epsilon":
        numbers["epsilon"] = gaussian_epsilon(mu(numbers["noise_std"], numbers["sensitivity"]), float(delta or 0))
    elif unknown == "delta":
        delta = gaussian_delta(mu(numbers["noise_std"], numbers["sensitivity"]), numbers["epsilon"])
    elif unknown == "noise_std":
        numbers["noise_std"] = smallest(lambda s: holds(noise_std=s), "noise-std")
    else:
        numbers["sensitivity"] = largest(lambda s: holds(sensitivity=s), "sensitivity")
    delta = float(delta or 0.0)
    whole = math.sqrt(releases) * numbers["sensitivity"]
    return Calculation(
        "Gaussian noise" + (f", {releases} releases" if releases > 1 else ""),
        {**numbers, "delta": delta, "releases": releases},
        unknown,
        _rows(numbers["noise_std"], whole, numbers["epsilon"], delta),
        (
            "The three formulae are analyses of this one mechanism (Mao et al. 2021, Section 5, natural logarithms); "
            "none makes it more private than it is.",
        ),
        _curve(numbers["noise_std"], whole, delta),
    )


def _rows(noise_std: float, sensitivity: float, epsilon: float, delta: float) -> tuple[Row, ...]:
    exact = Row("exact", "", budget_words(epsilon, delta), "Gaussian mechanism, Balle and Wang 2018")
    if not 0 < delta < 1:
        return (exact,)
    mu = sensitivity / noise_std
    proven = budget_words(gaussian_epsilon(mu, delta), delta)
    dp_a = dp_a_epsilon(noise_std, sensitivity, delta)
    true_delta = gaussian_delta(mu, dp_a)
    state = "proved for ε < 1 only" + (f"; false here: δ is {true_delta:.3g}" if true_delta > delta else "")
    formulae = {
        "DP-A": (dp_a, "" if dp_a < 1 else state),
        "zCDP-A": (zcdp_a_epsilon(noise_std, sensitivity, delta), ""),
        "RDP-A, order 2": (rdp_a_epsilon(noise_std, sensitivity, delta), ""),
    }
    rows = [Row(name, budget_words(value, delta), proven, note) for name, (value, note) in formulae.items()]
    return (exact, *rows)


def _curve(noise_std: float, sensitivity: float, delta: float) -> Curve | None:
    if not 0 < delta < 1:
        return None
    stds = np.geomspace(noise_std / 10, noise_std * 10, 80)
    curves = formula_curves(stds, sensitivity=sensitivity, delta=delta)
    lines = {"exact": curves.exact, "zCDP, best conversion": curves.cks, "DP-A": curves.dp_a, "zCDP-A": curves.zcdp_a}
    return Curve(
        "noise standard deviation", f"ε at δ = {delta:g}", stds.tolist(),
        {name: line.tolist() for name, line in lines.items()}, f"Gaussian noise, sensitivity {sensitivity:.4g}",
    )  # fmt: skip


def figure3() -> Calculation:
    """Figure 3 of the offloading paper (S = 1 / sqrt(2), delta = 1e-4), as printed and as it should be."""
    stds = np.geomspace(0.1, 10, 200)
    curves = formula_curves(stds)
    lines = {
        "DP-A, as printed (natural log)": curves.dp_a,
        "zCDP-A, as printed (decimal log)": curves.zcdp_a_printed,
        "RDP-A, as printed (decimal log)": curves.rdp_a_printed,
        "zCDP-A, natural log": curves.zcdp_a,
        "RDP-A, natural log": curves.rdp_a,
        "zCDP, best conversion": curves.cks,
        "exact": curves.exact,
    }
    shown = (0.23, 0.5, 1.0, 2.0, 3.1, 10.0)
    table = formula_curves(shown)
    rows = []
    for i, std in enumerate(shown):
        claims = f"DP-A {table.dp_a[i]:.4g}, zCDP-A {table.zcdp_a_printed[i]:.4g}, RDP-A {table.rdp_a_printed[i]:.4g}"
        proven = f"exact {table.exact[i]:.4g}"
        natural = f"natural log: zCDP-A {table.zcdp_a[i]:.4g}, RDP-A {table.rdp_a[i]:.4g}; best zCDP {table.cks[i]:.4g}"
        rows.append(Row(f"σ = {std:g}", claims, proven, natural))
    return Calculation(
        "Figure 3 of the offloading paper: ε at δ = 1e-4, sensitivity 1/√2",
        {"sensitivity": 1 / math.sqrt(2), "delta": 1e-4},
        "",
        tuple(rows),
        (
            "As printed, DP-A uses the natural logarithm and the other two the decimal one; with one logarithm "
            f"for all, DP-A is below zCDP-A for every σ below {_crossing():.3g}, not only for σ < 0.23.",
            "All curves are of one mechanism. What holds is the exact one; the printed zCDP-A is below it, that is "
            "false, wherever it lies lower.",
        ),
        Curve(
            "σ", "ε", stds.tolist(), {name: line.tolist() for name, line in lines.items()},
            "Figure 3, as printed and as it should be",
        ),
    )  # fmt: skip


def _crossing() -> float:
    """Where DP-A and zCDP-A with natural logarithms cross: DP-A is the lower one below it."""
    scale, delta = 1 / math.sqrt(2), 1e-4
    return largest(
        lambda s: dp_a_epsilon(s, scale, delta) <= zcdp_a_epsilon(s, scale, delta), "crossing", low=0.1, high=100
    )
