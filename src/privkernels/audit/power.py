"""What an audit could have found: the smallest true leak that it would have noticed with stated power.

A null result is worth as much as its power. Each function answers for the test that a verdict rests on
(:mod:`privkernels.audit.null_tests`, and the one-run bound), at the level that one figure gets:
``1 - confidence``, divided by ``statements`` where several share the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special, stats

from privkernels.audit._json import JsonValue
from privkernels.audit.epsilon_bounds import check_one_run, guess_grid, one_run_p_value
from privkernels.audit.intervals import CONFIDENCE, check_confidence
from privkernels.audit.metrics import MIN_FALSE_POSITIVES, MIN_PER_GROUP, allowed_false_positives
from privkernels.audit.null_tests import auc_p_value, tpr_p_value
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

POWER = 0.8
# Points of the average over the unknown true false positive rate.
_QUANTILES = 400


@dataclass(frozen=True)
class MinimumDetectable(JsonValue):
    """The smallest true value that an audit of this size finds with probability ``power`` or more.

    Attributes:
        quantity: ``"AUC"``, ``"TPR at RATE FPR"`` or ``"epsilon"``.
        value: that value; None where not even the largest possible one is found with this power.
        guessing: the value when nothing leaks.
        power: the probability of finding it.
        level: the probability of finding something when nothing leaks, at most.
        n_members, n_nonmembers: records; for epsilon, canaries and 0.
        model: what a true value means for the scores, in words.
    """

    quantity: str
    value: float | None
    guessing: float
    power: float
    level: float
    n_members: int
    n_nonmembers: int
    model: str

    def __str__(self) -> str:
        records = (
            f"{self.n_members} members and {self.n_nonmembers} non-members"
            if self.n_nonmembers
            else f"{self.n_members} canaries"
        )
        found = (
            f"no {self.quantity}, however high, is found with {self.power:.0%} power"
            if self.value is None
            else f"the smallest {self.quantity} that is found with {self.power:.0%} power is {self.value:.4g} "
            f"(nothing leaks: {self.guessing:.4g})"
        )
        return f"With {records} and false alarms in at most {100 * self.level:.3g}% of audits, {found}; {self.model}."


def detectable_auc(
    n_members: int, n_nonmembers: int, *, confidence: float = CONFIDENCE, power: float = POWER, statements: int = 1
) -> MinimumDetectable:
    """The smallest AUC that the test of the area finds, when scores are normal with equal variances (binormal model).

    The estimate is taken as normal with its exact variance under that model (Bamber 1975): with A the AUC,
    ``(A (1 - A) + (m + n - 2) (Q - A^2)) / (m n)``, where Q is the probability that two members both exceed one
    non-member, a bivariate normal one with correlation 1/2. Scores of another shape with the same area have another
    variance, and another power.

    Raises:
        TooFewRecordsError: fewer than 10 of either kind, for which there is no AUC.
        InvalidArgumentError: confidence, power or statements out of range.
    """
    level = _level(confidence, power, statements)
    m, n = n_members, n_nonmembers
    if min(m, n) < MIN_PER_GROUP:
        raise TooFewRecordsError(f"an AUC needs {MIN_PER_GROUP} members and non-members, got {m} and {n}")
    critical = _first(lambda wins: auc_p_value(wins / (m * n), m, n) <= level, m * n)

    def finds(area: float) -> float:
        if critical is None:
            return 0.0
        h = float(special.ndtri(area))
        both = area - 2 * float(special.owens_t(h, 1 / math.sqrt(3)))
        variance = (area * (1 - area) + (m + n - 2) * (both - area * area)) / (m * n)
        return float(special.ndtr((area - (critical - 0.5) / (m * n)) / math.sqrt(variance)))

    return MinimumDetectable(
        quantity="AUC",
        value=_smallest(finds, 0.5, 1 - 1e-9, power),
        guessing=0.5,
        power=power,
        level=level,
        n_members=m,
        n_nonmembers=n,
        model="for normal scores of equal variance (binormal model)",
    )


def detectable_tpr(
    n_members: int,
    n_nonmembers: int,
    rate: float,
    *,
    confidence: float = CONFIDENCE,
    power: float = POWER,
    statements: int = 1,
) -> MinimumDetectable:
    """The smallest TPR at the false positive rate ``rate`` that the test of the TPR finds.

    Exact binomials: the threshold is the (k+1)-th highest of n non-members, so its true false positive rate F is
    Beta(k+1, n-k), and the number of members above it is Binomial(m, TPR at F). Where F is below ``rate``, the TPR
    at F is at least F / rate of the TPR at ``rate`` for every concave ROC curve, and where it is above, at least as
    high: the power holds for all of them, whatever the distribution of the scores.

    Raises:
        TooFewRecordsError: fewer than 5 expected false positives, or no members.
        InvalidArgumentError: rate, confidence, power or statements out of range.
    """
    level = _level(confidence, power, statements)
    m, n = n_members, n_nonmembers
    if not 0 < rate < 1:
        raise InvalidArgumentError(f"a false positive rate lies in (0, 1), got {rate}")
    if m < 1 or n * rate < MIN_FALSE_POSITIVES:
        raise TooFewRecordsError(
            f"a TPR at a rate of {rate:g} needs members and {math.ceil(MIN_FALSE_POSITIVES / rate)} non-members, "
            f"got {m} and {n}"
        )
    allowed = allowed_false_positives(n, rate)
    critical = _first(lambda found: tpr_p_value(found, allowed, m, n) <= level, m)
    middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    share = np.minimum(1.0, stats.beta.ppf(middles, allowed + 1, n - allowed) / rate)

    def finds(tpr: float) -> float:
        return 0.0 if critical is None else float(np.mean(stats.binom.sf(critical - 1, m, tpr * share)))

    return MinimumDetectable(
        quantity=f"TPR at {rate:g} FPR",
        value=_smallest(finds, rate, 1.0, power),
        guessing=rate,
        power=power,
        level=level,
        n_members=m,
        n_nonmembers=n,
        model="for every concave ROC curve",
    )


def detectable_epsilon(
    n_canaries: int, delta: float, *, confidence: float = CONFIDENCE, power: float = POWER
) -> MinimumDetectable:
    """The smallest epsilon for which :func:`~privkernels.audit.epsilon_bounds.one_run_bound` exceeds 0.

    Under an attack that guesses as well as epsilon allows: each guess is right with probability
    e^epsilon / (1 + e^epsilon), on its own, as for randomised response of every canary. A weaker attack needs a larger
    epsilon. The power is exact for guesses about all canaries alone, so with the whole grid it is at least that.

    Raises:
        TooFewRecordsError, InvalidArgumentError: as ``one_run_bound``.
    """
    _level(confidence, power, 1)
    check_one_run(n_canaries, delta, confidence)
    level = (1 - confidence) / len(guess_grid(n_canaries))
    critical = _first(lambda correct: one_run_p_value(0.0, n_canaries, n_canaries, correct, delta) < level, n_canaries)

    def finds(epsilon: float) -> float:
        right = float(special.expit(epsilon))
        return 0.0 if critical is None else float(stats.binom.sf(critical - 1, n_canaries, right))

    return MinimumDetectable(
        quantity="epsilon",
        value=_smallest(finds, 0.0, 40.0, power),
        guessing=0.0,
        power=power,
        level=1 - confidence,
        n_members=n_canaries,
        n_nonmembers=0,
        model=f"at delta = {delta:g}, for an attack that guesses as well as epsilon allows",
    )


def _level(confidence: float, power: float, statements: int) -> float:
    check_confidence(confidence)
    if not 0 < power < 1 or statements < 1:
        raise InvalidArgumentError(f"expected 0 < power < 1 and statements >= 1, got {power} and {statements}")
    return (1 - confidence) / statements


def _first(significant: Callable[[int], bool], most: int) -> int | None:
    """The smallest count in 0..most that is significant, where larger counts are too; None if none is."""
    if not significant(most):
        return None
    low, high = -1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if significant(middle) else (middle, high)
    return high


def _smallest(finds: Callable[[float], float], low: float, high: float, power: float) -> float | None:
    """Where ``finds``, which does not decrease, reaches ``power`` in [low, high]; None if it does not."""
    if finds(high) < power:
        return None
    if finds(low) >= power:
        return low
    return float(optimize.brentq(lambda value: finds(value) - power, low, high, xtol=1e-9))
