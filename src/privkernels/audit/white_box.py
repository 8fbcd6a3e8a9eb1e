"""Does access to the weights tell more about membership than access to the outputs? Two attacks, compared in pairs.

White-box access has to beat the best black-box attack before it is reported as a risk of its own. Two attacks on the
same records are strongly correlated, and only a paired comparison sees a small difference between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, Figure, clopper_pearson
from privkernels.audit.metrics import MIN_FALSE_POSITIVES, MIN_PER_GROUP
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError


@dataclass(frozen=True)
class WhiteBoxAdvantage(JsonValue):
    """What a white-box attack gains over a black-box attack on the same records.

    Attributes:
        n_members, n_nonmembers: records compared.
        white_auc, black_auc: the two areas under the ROC curve.
        auc_difference: white minus black, with its paired interval.
        nominal_fpr: the false positive rate at which true positive rates are compared.
        tpr_difference: white minus black, with its paired interval at thresholds that are given.
        only_white, only_black: members above the threshold of one attack and not of the other's; None when the
            non-members do not suffice for thresholds.
        verdict: one sentence.
    """

    n_members: int
    n_nonmembers: int
    white_auc: float
    black_auc: float
    auc_difference: Figure
    nominal_fpr: float
    tpr_difference: Figure
    only_white: int | None
    only_black: int | None
    verdict: str


def white_box_advantage(
    white: tuple[Array, Array],
    black: tuple[Array, Array],
    *,
    rate: float = 0.01,
    confidence: float = CONFIDENCE,
) -> WhiteBoxAdvantage:
    """Compare two attacks' scores of the same records.

    The AUC difference has the interval of DeLong, DeLong and Clarke-Pearson (Biometrics 44, 1988) for correlated ROC
    curves, with Student's t for the smaller of the two groups. The interval of the difference in true positive rates
    is for matched pairs (below), and takes the two thresholds, each the score that a share ``rate`` of the non-members
    exceeds, as given: what choosing them on the non-members at hand makes uncertain is left out of it.

    The verdict is from the AUC alone, so that one test at level 1 - ``confidence`` stands behind it. It holds for two
    attacks that were chosen beforehand. Where the white-box attack is the best of several on these very records, its
    advantage is flattered: choose it on other records.

    Args:
        white, black: scores of members [m] and of non-members [n] by either attack, in the same order of records,
            higher for likelier members.
        rate: false positive rate in (0, 1).
        confidence: of each interval, for itself.

    Raises:
        EmptyDataError: no member or no non-member.
        InvalidArgumentError: scores of unequal length, or a rate or confidence outside (0, 1).
        NonFiniteValueError: a score is NaN or infinite.
    """
    if not (0 < rate < 1 and 0 < confidence < 1):
        raise InvalidArgumentError(f"rate and confidence lie in (0, 1), got {rate} and {confidence}")
    members = _pair(white[0], black[0], "member")
    nonmembers = _pair(white[1], black[1], "non-member")
    m, n = members.shape[1], nonmembers.shape[1]
    placements = [_placements(members[i], nonmembers[i]) for i in (0, 1)]
    areas = [float(wins.mean()) for wins, _ in placements]
    difference = _auc_difference(placements, confidence)
    tpr, only = _tpr_difference(members, nonmembers, rate, confidence)
    return WhiteBoxAdvantage(
        m, n, areas[0], areas[1], difference, rate, tpr, *only, _verdict(difference, areas, confidence)
    )


def _pair(white: Array, black: Array, kind: str) -> Array:
    """Both attacks' scores, [2, n]."""
    first, second = (np.asarray(scores, dtype=np.float64) for scores in (white, black))
    if first.ndim != 1 or first.shape != second.shape:
        raise InvalidArgumentError(
            f"expected one score of either attack per {kind}, of the same records in the same order; got shapes "
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


def _auc_difference(placements: list[tuple[Array, Array]], confidence: float) -> Figure:
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


def _tpr_difference(
    members: Array, nonmembers: Array, rate: float, confidence: float
) -> tuple[Figure, tuple[int | None, int | None]]:
    """The difference of matched proportions with the interval of Agresti and Min (Statistics in Medicine 24, 2005).

    Half a member is added to each cell of the table of found and not found, and Wald's interval taken of it.
    """
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
    only_white, only_black = int((found[0] & ~found[1]).sum()), int((found[1] & ~found[0]).sum())
    white, black = only_white + 0.5, only_black + 0.5
    center = (white - black) / (m + 2)
    step = float(stats.norm.isf((1 - confidence) / 2)) * math.sqrt(
        (white + black - (white - black) ** 2 / (m + 2)) / (m + 2) ** 2
    )
    value = (only_white - only_black) / m
    return Figure(value, max(-1.0, center - step), min(1.0, center + step), confidence), (only_white, only_black)


def _verdict(difference: Figure, areas: list[float], confidence: float) -> str:
    if difference.value is None or difference.low is None or difference.high is None:
        return f"Whether white-box access tells more is not known: {difference.reason}."
    figures = (
        f"AUC {areas[0]:.3f} against {areas[1]:.3f}, difference {difference.value:+.3f} "
        f"[{difference.low:+.3f}, {difference.high:+.3f}] at {confidence:.0%} confidence"
    )
    if difference.low > 0:
        return f"White-box access beats black-box access here: {figures}."
    if difference.high < 0:
        return f"The white-box attack is weaker than the black-box attack here: {figures}."
    return f"No difference between white-box and black-box access was found here: {figures}."
