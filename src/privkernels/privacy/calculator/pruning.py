"""Pruning: no guarantee, and what an attack's accuracy and an epsilon say about each other."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting import check_epsilon
from privkernels.privacy.calculator.base import Calculation, Curve, Row, missing, number_words, row_of
from privkernels.privacy.pruning import (
    attack_accuracy_bounds,
    jensen_shannon_from_accuracy,
    mia_pruning_guarantee,
    net_pruning_guarantee,
    private_attack_accuracy,
)


def prune(
    *, accuracy: float | None = None, epsilon: float | None = None, delta: float = 0.0, kept: float = 0.1
) -> Calculation:
    """What pruning promises (nothing), and the epsilon that an attack's balanced accuracy rules out, or the reverse.

    One of ``accuracy`` (measured, in (1/2, 1)) and ``epsilon`` (of a private training to compare with) is None.

    Raises:
        InvalidArgumentError, InvalidBudgetError: not exactly one unknown, or a number out of range.
    """
    unknown = missing(accuracy=accuracy, epsilon=epsilon)
    if not 0 <= delta < 1:
        raise InvalidArgumentError(f"delta must lie in [0, 1), got {delta!r}")
    if unknown == "accuracy":
        accuracy = private_attack_accuracy(check_epsilon(float(epsilon or 0)), delta)
    elif not 0.5 < float(accuracy or 0) < 1:
        raise InvalidArgumentError(
            f"an attack's balanced accuracy lies between 1/2, which shows nothing, and 1, got {accuracy!r}"
        )
    else:
        # accuracy <= (e^eps + delta) / (1 + e^eps), so e^eps >= (accuracy - delta) / (1 - accuracy).
        epsilon = max(0.0, math.log(max(float(accuracy or 0) - delta, 1e-300) / (1 - float(accuracy or 0))))
    rate, least = float(accuracy or 0), float(epsilon or 0)
    divergence = jensen_shannon_from_accuracy(rate)
    low, high = attack_accuracy_bounds(divergence)
    # What an attack shows is a lower bound on the leak: rounded down.
    shows = (
        f"shows ε ≥ {number_words(least, down=True, digits=4)} at δ = {number_words(delta, down=True, digits=4)}, "
        f"JS ≥ {number_words(divergence, down=True, digits=4)} nats"
    )
    best = f"accuracy {number_words(low, down=True, digits=4)} to {number_words(high, digits=4)}"
    rows = (
        row_of(mia_pruning_guarantee(kept=kept), "MIA-Pruning"),
        row_of(net_pruning_guarantee(kept=kept), "magnitude pruning (net pruning)"),
        Row("an attack with this accuracy", "", shows),
        Row("the best attack at that JS", "", best, "Hellman and Raviv 1970; Fano"),
    )
    return Calculation(
        f"pruning, {kept:.4g} of the weights kept",
        {"accuracy": rate, "epsilon": least, "delta": delta, "kept": kept},
        unknown,
        rows,
        (
            "A measured accuracy is a lower bound on the leak: use the lower end of its confidence interval. No "
            "measurement gives an upper bound on ε.",
        ),
        # A measured accuracy and the epsilon that it shows are lower bounds, the accuracy at an epsilon an upper one.
        frozenset({"epsilon", "accuracy"} if unknown == "epsilon" else {"epsilon"}),
        curve_of=partial(_curve, delta),
    )


def _curve(delta: float) -> Curve:
    epsilons = np.linspace(0.01, 8, 100).tolist()
    lines = {"largest balanced accuracy of any attack": [private_attack_accuracy(e, delta) for e in epsilons]}
    return Curve("ε of a private training", "accuracy", epsilons, lines, "What differential privacy allows an attack")
