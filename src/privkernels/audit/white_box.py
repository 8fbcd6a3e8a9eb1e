"""Does access to the weights tell more about membership than access to the outputs? Two attacks, compared in pairs.

White-box access has to beat the best black-box attack before it is reported as a risk of its own. Two attacks on the
same records are strongly correlated, and only a paired comparison sees a small difference between them.
"""

from __future__ import annotations

from dataclasses import dataclass

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, Figure, auc
from privkernels.audit.paired import auc_difference, tpr_difference
from privkernels.errors import InvalidArgumentError


@dataclass(frozen=True)
class WhiteBoxAdvantage(JsonValue):
    """What a white-box attack gains over a black-box attack on the same records.

    Attributes:
        n_members, n_nonmembers: records compared.
        white_auc, black_auc: the two areas under the ROC curve.
        auc_difference: white minus black, with its paired interval.
        nominal_fpr: the false positive rate at which true positive rates are compared.
        tpr_difference: white minus black at the true false positive rate, with its paired interval.
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
    is for matched pairs and allows for the true false positive rates, which are not known
    (:func:`privkernels.audit.paired.tpr_difference`).

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
    difference = auc_difference(white, black, confidence)
    tpr, only = tpr_difference(white, black, rate, confidence)
    ours, theirs = (float(auc(*scores).value or 0.0) for scores in (white, black))
    verdict = _verdict(difference, [ours, theirs], confidence)
    return WhiteBoxAdvantage(len(white[0]), len(white[1]), ours, theirs, difference, rate, tpr, *only, verdict)


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
