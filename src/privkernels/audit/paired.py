"""Differences between two sets of scores of the same records: two attacks on one model, or one attack on two models.

Scores of the same records are strongly correlated, and only a paired comparison sees a small difference between them.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

from privkernels.audit.intervals import CONFIDENCE, Array, Figure, clopper_pearson
from privkernels.audit.metrics import MIN_FALSE_POSITIVES, MIN_PER_GROUP, allowed_false_positives
from privkernels.audit.thresholds import false_positive_ranks
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

    The value is at the two scores that a share ``rate`` of the non-members exceeds. Where the true false positive rate
    is ``rate`` is not known: for either it lies, by Clopper and Pearson's limits, between two scores of non-members (as
    in :func:`privkernels.audit.thresholds.tpr_limits`). The lower limit is that of the first at its higher score minus
    the second at its lower one, the upper limit that of the first at its lower and the second at its higher one, each
    with the interval of Agresti and Min (Statistics in Medicine 24, 2005) for matched proportions: half a member is
    added to each cell of the table of found and not found, and Wald's interval taken of it. Half of the error is for
    the members, half for the four scores. With the two scores taken as given the interval would exclude 0 for 12 to
    70 % of pairs of equal attacks (300 members and non-members, rate 0.05).

    Args, Raises: as for :func:`auc_difference`; the counts are None where the non-members do not suffice.
    """
    members, nonmembers = _pair(first[0], second[0], "member"), _pair(first[1], second[1], "non-member")
    n, m = nonmembers.shape[1], members.shape[1]
    if n * rate < MIN_FALSE_POSITIVES:
        reason = (
            f"too few records to say: {n} non-members allow {n * rate:.3g} false positives at a rate of {rate:.3g}; "
            f"{math.ceil(MIN_FALSE_POSITIVES / rate)} non-members are needed"
        )
        return Figure.unknown(reason, confidence), (None, None)
    ordered = np.sort(nonmembers, axis=1)[:, ::-1]
    found: npt.NDArray[np.bool_] = members > ordered[:, allowed_false_positives(n, rate), None]
    # Half of the error is shared by the lower and the upper score of either attack.
    strict, loose = false_positive_ranks(n, rate, 1 - (1 - confidence) / 4)
    least = members > ordered[:, strict - 1, None] if strict else np.zeros_like(found)
    most = members >= ordered[:, loose - 1, None] if loose <= n else np.ones_like(found)
    members_confidence = 1 - (1 - confidence) / 2
    low = _matched(least[0], most[1], members_confidence)[0]
    high = _matched(most[0], least[1], members_confidence)[1]
    only_first, only_second = int((found[0] & ~found[1]).sum()), int((found[1] & ~found[0]).sum())
    value = (only_first - only_second) / m
    return Figure(value, max(-1.0, low), min(1.0, high), confidence), (only_first, only_second)


def _matched(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], confidence: float) -> tuple[float, float]:
    """Agresti and Min's limits of the first minus the second share, of the same members [m]."""
    more, less, m = (one & ~other).sum() + 0.5, (other & ~one).sum() + 0.5, len(one)
    center = (more - less) / (m + 2)
    step = float(stats.norm.isf((1 - confidence) / 2)) * math.sqrt(more + less - (more - less) ** 2 / (m + 2)) / (m + 2)
    return float(center - step), float(center + step)


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
