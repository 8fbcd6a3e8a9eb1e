"""What an attack's scores say about membership, each figure with its 95 % interval.

Scores are float64, one per record, higher for likelier members. Where the records are too few
to say, a figure is None and gives the reason; it is never a number that means nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import (
    CONFIDENCE,
    Array,
    Figure,
    auc,
    clopper_pearson,
    mean_of_proportions,
    proportion,
)
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError

Labels = npt.NDArray[np.int64]

# A rate below this many expected false positives is not measurable: with 100 non-members, one
# false positive already is 1 %.
MIN_FALSE_POSITIVES = 5
# An AUC, over all records or within a class, and an accuracy need this many of each kind.
MIN_PER_GROUP = 10
FALSE_POSITIVE_RATES = (0.01, 0.001)


@dataclass(frozen=True)
class Roc(JsonValue):
    """A ROC curve: points from (0, 0) to (1, 1), one per distinct score, straight runs merged."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class TprAtFpr(JsonValue):
    """True positive rate at a low false positive rate.

    Attributes:
        nominal_fpr: the rate asked for.
        threshold: a record is called a member when its score is greater; None when unknown.
        tpr: share of members found, with its exact interval. The threshold is a function of the
            non-members alone, so given the threshold the count is binomial over the members.
        fpr: share of the non-members at hand above the threshold, and an interval for the true
            rate. This, not ``tpr``, is what choosing the threshold on the same non-members makes
            uncertain.
    """

    nominal_fpr: float
    threshold: float | None
    tpr: Figure
    fpr: Figure


@dataclass(frozen=True)
class HeldOutThreshold(JsonValue):
    """Accuracy of the attack at one threshold, chosen on one half of the records.

    The threshold maximises balanced accuracy on a random half of the members and of the
    non-members; every figure is from the other half, so the choice does not flatter it. A record
    is called a member when its score is at least the threshold.

    Attributes:
        threshold: None when the halves are too small.
        balanced_accuracy: mean of the shares of members and non-members called right; 0.5 is
            guessing. The interval is MOVER's from Clopper-Pearson limits.
        precision: share of members among the records called members, at the evaluated mixture
            of members and non-members; Clopper-Pearson.
        recall: share of members called members; Clopper-Pearson.
        n_selection, n_evaluation: records (members and non-members together) in each half.
        seed: of the split.
    """

    threshold: float | None
    balanced_accuracy: Figure
    precision: Figure
    recall: Figure
    n_selection: int
    n_evaluation: int
    seed: int


@dataclass(frozen=True)
class ClassFigures(JsonValue):
    """The attack within one class; ``balanced_accuracy`` at the common held-out threshold."""

    label: int
    n_members: int
    n_nonmembers: int
    auc: Figure
    tpr_at_fpr: TprAtFpr
    balanced_accuracy: Figure


@dataclass(frozen=True)
class AttackMetrics(JsonValue):
    """All figures of one attack on one target."""

    n_members: int
    n_nonmembers: int
    auc: Figure
    tpr_at_fpr: tuple[TprAtFpr, ...]
    at_threshold: HeldOutThreshold
    per_class: tuple[ClassFigures, ...]
    roc: Roc


def measure(
    members: Array,
    nonmembers: Array,
    *,
    member_classes: Labels | None = None,
    nonmember_classes: Labels | None = None,
    seed: int = 0,
    false_positive_rates: Sequence[float] = FALSE_POSITIVE_RATES,
    confidence: float = CONFIDENCE,
) -> AttackMetrics:
    """All figures of one attack from its scores.

    Args:
        members, nonmembers: scores, float [m] and [n].
        member_classes, nonmember_classes: true class per record, int64 [m] and [n]; without
            them the per-class table is empty.
        seed: of the split that the accuracy threshold is chosen on.
        false_positive_rates: each in (0, 1); the per-class table uses the first.
        confidence: of every interval, each for itself.

    Raises:
        EmptyDataError: no member or no non-member scores.
        NonFiniteValueError: a score is NaN or infinite.
        InvalidArgumentError: scores that are not one-dimensional, labels of another length, or
            a rate outside (0, 1).
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    if not false_positive_rates:
        raise InvalidArgumentError("expected at least one false positive rate, got none")
    labels: tuple[Labels, Labels] | None = None
    if member_classes is not None or nonmember_classes is not None:
        labels = (_classes(member_classes, members), _classes(nonmember_classes, nonmembers))
    rng = np.random.default_rng(seed)
    selection = (_random_half(len(members), rng), _random_half(len(nonmembers), rng))
    at_threshold = _held_out_threshold(members, nonmembers, selection, seed, confidence)
    rates = tuple(tpr_at_fpr(members, nonmembers, rate, confidence) for rate in false_positive_rates)
    return AttackMetrics(
        n_members=len(members),
        n_nonmembers=len(nonmembers),
        auc=_too_few(len(members), len(nonmembers), "", confidence) or auc(members, nonmembers, confidence),
        tpr_at_fpr=rates,
        at_threshold=at_threshold,
        per_class=()
        if labels is None
        else _per_class(
            (members, nonmembers),
            labels,
            selection,
            at_threshold.threshold,
            false_positive_rates[0],
            confidence,
        ),
        roc=roc_curve(members, nonmembers),
    )


def roc_curve(members: Array, nonmembers: Array) -> Roc:
    """The ROC curve, one step per distinct score: tied scores move both rates at once.

    Raises as :func:`measure` does.
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    # Descending distinct scores; counts of records at or above each.
    levels = np.unique(np.concatenate([members, nonmembers]))[::-1]
    true = len(members) - np.searchsorted(np.sort(members), levels, side="left")
    false = len(nonmembers) - np.searchsorted(np.sort(nonmembers), levels, side="left")
    true, false = np.concatenate([[0], true]), np.concatenate([[0], false])
    # A point between two steps of the same slope lies on the line between its neighbours.
    bend = np.diff(true)[1:] * np.diff(false)[:-1] != np.diff(true)[:-1] * np.diff(false)[1:]
    keep = np.concatenate([[True], bend, [True]])
    return Roc(tuple((false[keep] / len(nonmembers)).tolist()), tuple((true[keep] / len(members)).tolist()))


def tpr_at_fpr(members: Array, nonmembers: Array, rate: float, confidence: float = CONFIDENCE) -> TprAtFpr:
    """True positive rate when at most a share ``rate`` of the non-members scores higher.

    With n non-members and k = floor(n * rate), the threshold is the (k+1)-th highest non-member
    score, and a record must exceed it. With fewer than 5 expected false positives the answer is
    "too few records to say".

    The interval of the true false positive rate comes from order statistics: the mass above the
    (k+1)-th highest of n draws is Beta(k+1, n-k) without ties and stochastically below that
    with them, which gives the upper limit; with j <= k scores strictly above the threshold the
    lower limit is the quantile of Beta(j, n-j+1). Both hold with ties.

    Raises as :func:`measure` does.
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    if not 0 < rate < 1:
        raise InvalidArgumentError(f"a false positive rate lies in (0, 1), got {rate}")
    n = len(nonmembers)
    if n * rate < MIN_FALSE_POSITIVES:
        reason = (
            f"too few records to say: {n} non-members allow {n * rate:.3g} false positives at a rate of "
            f"{rate:.3g}; {math.ceil(MIN_FALSE_POSITIVES / rate)} non-members are needed"
        )
        return TprAtFpr(rate, None, Figure.unknown(reason, confidence), Figure.unknown(reason, confidence))
    allowed = allowed_false_positives(n, rate)
    threshold = float(np.sort(nonmembers)[::-1][allowed])
    above = int((nonmembers > threshold).sum())
    low, _ = clopper_pearson(above, n, confidence)
    _, high = clopper_pearson(allowed, n, confidence)
    return TprAtFpr(
        rate,
        threshold,
        proportion(int((members > threshold).sum()), len(members), confidence),
        Figure(above / n, low, high, confidence),
    )


def allowed_false_positives(n: int, rate: float) -> int:
    """How many of n non-members may lie above the threshold at ``rate``: floor(n rate), and at most n - 1."""
    # The small term undoes rounding such as 0.29 * 100 = 28.999999999999996.
    return min(math.floor(n * rate + 1e-9), n - 1)


def _held_out_threshold(
    members: Array,
    nonmembers: Array,
    selection: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    seed: int,
    confidence: float,
) -> HeldOutThreshold:
    n_selection = int(selection[0].sum() + selection[1].sum())
    n_evaluation = len(members) + len(nonmembers) - n_selection
    held_members, held_nonmembers = members[~selection[0]], nonmembers[~selection[1]]
    smallest = min(int(part.sum()) for part in selection)
    if smallest < MIN_PER_GROUP:
        unknown = Figure.unknown(
            f"too few records to say: {len(members)} members and {len(nonmembers)} non-members; half of "
            f"each chooses the threshold, and a half needs {MIN_PER_GROUP}",
            confidence,
        )
        return HeldOutThreshold(None, unknown, unknown, unknown, n_selection, n_evaluation, seed)
    threshold = _best_threshold(members[selection[0]], nonmembers[selection[1]])
    found = int((held_members >= threshold).sum())
    wrong = int((held_nonmembers >= threshold).sum())
    if found + wrong:
        precision = proportion(found, found + wrong, confidence)
    else:
        precision = Figure.unknown("no evaluated record was called a member", confidence)
    return HeldOutThreshold(
        threshold,
        mean_of_proportions(
            (found, len(held_members)), (len(held_nonmembers) - wrong, len(held_nonmembers)), confidence
        ),
        precision,
        proportion(found, len(held_members), confidence),
        n_selection,
        n_evaluation,
        seed,
    )


def _best_threshold(members: Array, nonmembers: Array) -> float:
    """The score with the highest balanced accuracy; among equals the one that accuses least."""
    levels = np.unique(np.concatenate([members, nonmembers]))[::-1]
    found = len(members) - np.searchsorted(np.sort(members), levels, side="left")
    wrong = len(nonmembers) - np.searchsorted(np.sort(nonmembers), levels, side="left")
    # Integers, so that ties are exact: found / m - wrong / n times m * n.
    return float(levels[np.argmax(found * len(nonmembers) - wrong * len(members))])


def _per_class(
    scores: tuple[Array, Array],
    labels: tuple[Labels, Labels],
    selection: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    threshold: float | None,
    rate: float,
    confidence: float,
) -> tuple[ClassFigures, ...]:
    rows = []
    for label in np.union1d(*labels).tolist():
        masks = [kind == label for kind in labels]
        inside, outside = (kind[mask] for kind, mask in zip(scores, masks, strict=True))
        unknown = _too_few(len(inside), len(outside), "", confidence)
        if unknown is not None:
            area, rates = unknown, TprAtFpr(rate, None, unknown, unknown)
        else:
            area, rates = auc(inside, outside, confidence), tpr_at_fpr(inside, outside, rate, confidence)
        held = [kind[mask & ~half] for kind, mask, half in zip(scores, masks, selection, strict=True)]
        accuracy = _accuracy(held[0], held[1], threshold, confidence)
        rows.append(ClassFigures(int(label), len(inside), len(outside), area, rates, accuracy))
    return tuple(rows)


def _accuracy(members: Array, nonmembers: Array, threshold: float | None, confidence: float) -> Figure:
    if threshold is None:
        return Figure.unknown("too few records to choose a threshold", confidence)
    unknown = _too_few(len(members), len(nonmembers), " in the half that is evaluated", confidence)
    if unknown is not None:
        return unknown
    right = int((members >= threshold).sum()), int((nonmembers < threshold).sum())
    return mean_of_proportions((right[0], len(members)), (right[1], len(nonmembers)), confidence)


def _too_few(n_members: int, n_nonmembers: int, where: str, confidence: float) -> Figure | None:
    if min(n_members, n_nonmembers) >= MIN_PER_GROUP:
        return None
    return Figure.unknown(
        f"too few records to say: {n_members} members and {n_nonmembers} non-members{where}; "
        f"{MIN_PER_GROUP} of each are needed",
        confidence,
    )


def _random_half(n: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    mask = np.zeros(n, dtype=np.bool_)
    mask[rng.permutation(n)[: n // 2]] = True
    return mask


def checked_scores(scores: Array, kind: str) -> Array:
    """``scores`` as float64 [n]; raises as :func:`measure` does, naming ``kind``."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1:
        raise InvalidArgumentError(f"expected one score per record, shape [n], got shape {list(scores.shape)}")
    if not len(scores):
        raise EmptyDataError(f"there are no {kind} scores: an attack needs members and non-members to measure")
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise NonFiniteValueError(
            f"{bad} of {len(scores)} {kind} scores are NaN or infinite: an attack must give a finite score "
            "for every record"
        )
    return scores


def _classes(labels: Labels | None, scores: Array) -> Labels:
    if labels is None:
        raise InvalidArgumentError("give the classes of the members and of the non-members, or of neither")
    labels = np.asarray(labels)
    if labels.shape != scores.shape or not np.issubdtype(labels.dtype, np.integer):
        raise InvalidArgumentError(
            f"expected one integer class per score, shape {list(scores.shape)}, "
            f"got shape {list(labels.shape)} of {labels.dtype}"
        )
    return labels.astype(np.int64)
