"""Gaussian noise: the exact epsilon beside the offloading paper's three formulae for it."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from privkernels.errors import InvalidBudgetError
from privkernels.privacy.accounting import check_delta, gaussian_delta, gaussian_epsilon, gaussian_mu
from privkernels.privacy.activation_formulae import dp_a_epsilon, formula_curves, rdp_a_epsilon, zcdp_a_epsilon
from privkernels.privacy.calculator.base import (
    Calculation,
    Curve,
    Row,
    budget_row,
    check_counts,
    largest,
    missing,
    number_words,
)

_MOST_RELEASES = 10**12


def gaussian(
    *,
    noise_std: float | None = None,
    sensitivity: float | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    releases: int | None = None,
) -> Calculation:
    """``releases`` Gaussian releases with this noise and L2 sensitivity; one of the four other numbers is None.

    Without ``releases`` it is 1, or the largest number of them if the other four are given. The claims are the paper's
    formulae with natural logarithms, for one release with sqrt(releases) times the sensitivity, which is what the
    releases together are.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, a number out of range, or no number
            satisfies the others.
    """
    if delta is not None:
        check_delta(delta)
    check_counts(releases=releases)
    unknowns = {"noise_std": noise_std, "sensitivity": sensitivity, "epsilon": epsilon, "delta": delta}
    if releases is None and None not in unknowns.values():
        unknowns["releases"] = None
    unknown = missing(**unknowns)
    std, one, budget, share = noise_std or 1.0, sensitivity or 1.0, epsilon or 0.0, delta or 0.0
    root, limited = math.sqrt(releases or 1), False

    if unknown == "epsilon":
        budget = gaussian_epsilon(root * one / std, share)
    elif unknown == "delta":
        share = gaussian_delta(root * one / std, budget)
    elif unknown == "noise_std":
        std = math.nextafter(root * one / gaussian_mu(budget, share), math.inf)
    elif unknown == "sensitivity":
        one = math.nextafter(gaussian_mu(budget, share) * std / root, 0.0)
    else:
        releases, limited = _most_releases(one / std, budget, share)
        root = math.sqrt(releases)
    releases = releases or 1
    numbers = {
        "noise_std": std, "sensitivity": one, "epsilon": budget, "delta": share,
        "releases": None if limited else releases,
    }  # fmt: skip
    return Calculation(
        "Gaussian noise" + (f", {releases} releases" if releases > 1 else ""),
        numbers,
        unknown,
        _rows(std, root * one, budget, share),
        (
            "The three formulae are analyses of this one mechanism (Mao et al. 2021, Section 5, natural logarithms); "
            "none makes it more private than it is.",
        ),
        frozenset({"sensitivity"}),
        releases if limited else None,
        partial(_curve, std, root * one, share),
    )


def _most_releases(mu: float, epsilon: float, delta: float) -> tuple[int, bool]:
    """How many releases of ``mu`` each keep (epsilon, delta), and whether there are more than are counted."""
    ratio = gaussian_mu(epsilon, delta) / mu
    if ratio >= math.sqrt(_MOST_RELEASES):
        return _MOST_RELEASES, True
    most = math.floor(ratio * ratio)
    if most < 1:
        raise InvalidBudgetError("not even one release satisfies this: relax the other numbers")
    return most, False


def _rows(noise_std: float, sensitivity: float, epsilon: float, delta: float) -> tuple[Row, ...]:
    exact = budget_row(
        "exact", claimed=None, proven=(epsilon, delta), by="Gaussian mechanism, Balle and Wang 2018"
    )  # fmt: skip
    if not 0 < delta < 1:
        return (exact,)
    mu = sensitivity / noise_std
    proven = (gaussian_epsilon(mu, delta), delta)
    dp_a = dp_a_epsilon(noise_std, sensitivity, delta)
    true_delta = gaussian_delta(mu, dp_a)
    false_here = f"; false here: δ is {number_words(true_delta, digits=3)}" if true_delta > delta else ""
    formulae = {
        "DP-A": (dp_a, "" if dp_a < 1 else f"proved for ε < 1 only{false_here}"),
        "zCDP-A": (zcdp_a_epsilon(noise_std, sensitivity, delta), ""),
        "RDP-A, order 2": (rdp_a_epsilon(noise_std, sensitivity, delta), ""),
    }
    rows = [
        budget_row(name, claimed=(value, delta), proven=proven, by=note) for name, (value, note) in formulae.items()
    ]
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
    shown = (0.23, 0.5, 1.0, 2.0, 3.1, 10.0)
    table = formula_curves(shown)
    rows = []
    for i, std in enumerate(shown):
        # What the paper prints is quoted, to the nearest; what holds is rounded up.
        claims = f"DP-A {table.dp_a[i]:.4g}, zCDP-A {table.zcdp_a_printed[i]:.4g}, RDP-A {table.rdp_a_printed[i]:.4g}"
        exact, cks = float(table.exact[i]), float(table.cks[i])
        natural = (
            f"natural log: zCDP-A {table.zcdp_a[i]:.4g}, RDP-A {table.rdp_a[i]:.4g}; "
            f"best zCDP {number_words(cks, digits=4)}"
        )
        proven = f"exact {number_words(exact, digits=4)}"
        rows.append(Row(f"σ = {std:g}", claims, proven, natural, None, None, exact, 1e-4))
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
        frozenset({"sensitivity"}),
        curve_of=_curve_of_figure3,
    )


def _curve_of_figure3() -> Curve:
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
    return Curve(
        "σ", "ε", stds.tolist(), {name: line.tolist() for name, line in lines.items()},
        "Figure 3, as printed and as it should be",
    )  # fmt: skip


def _crossing() -> float:
    """Where DP-A and zCDP-A with natural logarithms cross: DP-A is the lower one below it."""
    scale, delta = 1 / math.sqrt(2), 1e-4
    crossing, _ = largest(
        lambda s: dp_a_epsilon(s, scale, delta) <= zcdp_a_epsilon(s, scale, delta), "crossing", low=0.1, high=100
    )
    return crossing
