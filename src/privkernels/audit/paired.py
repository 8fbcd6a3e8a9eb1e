"""Differences between two sets of scores of the same records: two attacks on one model, or one attack on two models.

Scores of the same records are strongly correlated, and only a paired comparison sees a small difference between them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from privkernels.audit.intervals import CONFIDENCE, Array, Figure, clopper_pearson
from privkernels.audit.metrics import MIN_FALSE_POSITIVES, MIN_PER_GROUP
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

# Scores of members [m] and of non-members [n].
Scores = tuple[Array, Array]


def auc_difference(first: Scores, second: Scores, confidence: float = CONFIDENCE) -> Figure:
    """First minus second area under the ROC curve.

    The interval of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) for correlated ROC curves, with Student's
    t for the smaller of the two groups.

    Args:
        first, second: scores of members [m] and non-members [n], of the same records in the same order.

    Raises:
        EmptyDataError: no member or no non-member.
        InvalidArgumentError: scores of unequal length.
        NonFiniteValueError: a score is NaN or infinite.
    """
    members, nonmembers = _pair(first[0], second[0], "member"), _pair(first[1], second[1], "non-member")
    placements = [_placements(members[i], nonmembers[i]) for i in (0, 1)]
    wins, losses = (placements[0][i] - placements[1][i] for i in (0, 1))
    m, n = len(wins), len(losses)
    if min(m, n) < MIN_PER_GROUP:
        return Figure.unknown(
            f"too few records to say: {m} members and {n} non-members; {MIN_PER_GROUP} of each are needed", confidence
        )
    value = float(wins.mean())
    error = math.sqrt(wins.var(ddof=1) / m + losses.var(ddof=1) / n)
    step = float(stats.t.isf((1 - confidence) / 2, min(m, n) - 1)) * error
    # Attacks that place nearly all records at hand alike, as two perfect ones do, show no variance; yet as many records
    # as Clopper and Pearson allow may be placed otherwise.
    apart = int(max((wins != 0).sum(), (losses != 0).sum()))
    if apart < MIN_PER_GROUP:
        step = max(step, clopper_pearson(apart, min(m, n), confidence)[1])
    return Figure(value, max(-1.0, value - step), min(1.0, value + step), confidence)


def tpr_difference(
    first: Scores, second: Scores, rate: float, confidence: float = CONFIDENCE
) -> tuple[Figure, tuple[int | None, int | None]]:
    """First minus second true positive rate at a false positive rate, and the members that only one of them finds.

    The difference of matched proportions with the interval of Agresti and Min (Statistics in Medicine 24, 2005):
    half a member is added to each cell of the table of found and not found, and Wald's interval taken of it. The two
    thresholds, each the score that a share ``rate`` of the non-members exceeds, are taken as given: what choosing them
    on the non-members at hand makes uncertain is left out.

    Args, Raises: as for :func:`auc_difference`; the counts are None where the non-members do not suffice.
    """
    members, nonmembers = _pair(first[0], second[0], "member"), _pair(first[1], second[1], "non-member")
    n = nonmembers.shape[1]
    if n * rate < MIN_FALSE_POSITIVES:
        reason = (
            f"too few records to say: {n} non-members allow {n * rate:.3g} false positives at a rate of {rate:.3g}; "
            f"{math.ceil(MIN_FALSE_POSITIVES / rate)} non-members are needed"
        )
        return Figure.unknown(reason, confidence), (None, None)
    allowed = min(math.floor(n * rate + 1e-9), n - 1)
    thresholds = np.sort(nonmembers, axis=1)[:, ::-1][:, allowed]
    found: npt.NDArray[np.bool_] = members > thresholds[:, None]
    m = members.shape[1]
    only_first, only_second = int((found[0] & ~found[1]).sum()), int((found[1] & ~found[0]).sum())
    more, less = only_first + 0.5, only_second + 0.5
    center = (more - less) / (m + 2)
    step = float(stats.norm.isf((1 - confidence) / 2)) * math.sqrt(
        (more + less - (more - less) ** 2 / (m + 2)) / (m + 2) ** 2
    )
    value = (only_first - only_second) / m
    return Figure(value, max(-1.0, center - step), min(1.0, center + step), confidence), (only_first, only_second)


def _pair(one: Array, other: Array, kind: str) -> Array:
    """Both scores of each record, [2, n]."""
    first, second = (np.asarray(scores, dtype=np.float64) for scores in (one, other))
    if first.ndim != 1 or first.shape != second.shape:
        raise InvalidArgumentError(
            f"expected two scores per {kind}, of the same records in the same order; got shapes "
            f"{list(first.shape)} and {list(second.shape)}"
        )
    if not len(first):
        raise EmptyDataError(f"there are no {kind} scores: a comparison needs members and non-members")
    both = np.stack([first, second])
    if not np.isfinite(both).all():
        raise NonFiniteValueError(f"{int((~np.isfinite(both)).sum())} {kind} scores are NaN or infinite")
    return both


def _placements(members: Array, nonmembers: Array) -> tuple[Array, Array]:
    """The share of non-members that each member beats, and of members that beat each non-member; ties count half."""
    m, n = len(members), len(nonmembers)
    pooled = stats.rankdata(np.concatenate([members, nonmembers]))
    return (pooled[:m] - stats.rankdata(members)) / n, 1 - (pooled[m:] - stats.rankdata(nonmembers)) / m
