"""ROC curves on logarithmic axes, with the confidence band that thresholds are decided by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from privkernels.audit.audit import AttackResult, AuditResult
from privkernels.audit.drawing import COLOURS, LINES, Legend, Picture, render
from privkernels.audit.intervals import CONFIDENCE, Array, check_confidence
from privkernels.audit.metrics import MIN_FALSE_POSITIVES, checked_scores
from privkernels.audit.summary import number_with_interval, percent_with_interval
from privkernels.audit.thresholds import tpr_limits

# More bands in one figure hide one another.
_MOST_BANDS = 3
_BAND_POINTS = 80


@dataclass(frozen=True)
class Band:
    """Limits of the true positive rate at each of several true false positive rates, float64 [points] each.

    Attributes:
        confidence: of both limits together, at each rate by itself.
    """

    fpr: Array
    low: Array
    high: Array
    confidence: float


def roc_band(members: Array, nonmembers: Array, rates: Array, confidence: float = CONFIDENCE) -> Band:
    """A pointwise confidence band of the true ROC curve.

    At each rate it is :func:`privkernels.audit.thresholds.tpr_limits`: exact limits (Clopper and Pearson) that allow
    for the members and for the non-members, whose scores fix where the rate is reached. They hold at each rate by
    itself, not for the whole curve at once, and are the very limits that a threshold is decided by: at one confidence,
    what the figure shows and what the decision says cannot disagree.

    Args:
        members, nonmembers: scores, float [m] and [n].
        rates: true false positive rates in (0, 1], float64 [points].

    Raises:
        EmptyDataError, NonFiniteValueError, InvalidArgumentError: no scores, scores that are not finite or not [n], or
            a confidence outside (0, 1).
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    check_confidence(confidence)
    limits = np.array([tpr_limits(members, nonmembers, float(rate), confidence) for rate in rates])
    return Band(rates, limits[:, 0], limits[:, 1], confidence)


def roc_figure(
    result: AuditResult, attack: int, *, targets: Sequence[int] | None = None, confidence: float = CONFIDENCE
) -> Picture:
    """ROC curves of one attack on some targets, both axes logarithmic, with bands for up to three of them.

    Args:
        attack, targets: by position; all targets where None.
    """
    chosen = [result.targets[number] for number in (range(len(result.targets)) if targets is None else targets)]
    made = [target.attacks[attack] for target in chosen]
    metrics = [item.metrics for item in made]
    smallest = 0.5 / max(m.n_nonmembers for m in metrics)
    lowest = min(smallest, 0.5 / max(m.n_members for m in metrics))
    bands = _bands(made, smallest, confidence)

    def draw(axes: Axes) -> Legend:
        unsure = MIN_FALSE_POSITIVES / max(m.n_nonmembers for m in metrics)
        axes.axvspan(smallest, min(1.0, unsure), color="0.93", zorder=0, linewidth=0)
        lines = axes.plot([lowest, 1], [lowest, 1], color="0.55", linewidth=1, zorder=1)
        for number, band in enumerate(bands):
            colour = COLOURS[number % len(COLOURS)]
            axes.fill_between(
                band.fpr, np.maximum(band.low, lowest), band.high, color=colour, alpha=0.16, linewidth=0, zorder=1
            )
        for number, item in enumerate(metrics):
            lines += axes.plot(
                np.maximum(item.roc.fpr, smallest),
                np.maximum(item.roc.tpr, lowest),
                color=COLOURS[number % len(COLOURS)],
                linestyle=LINES[number % len(LINES)],
                linewidth=1.8,
            )
        axes.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(lowest, 1.05))
        axes.set(xlabel="false positive rate", ylabel="true positive rate")
        axes.grid(True, which="major", color="0.88", linewidth=0.6)
        names = ["guessing", *(target.name for target in chosen)]
        return list(zip(lines, names, strict=True))

    name = made[0].attack
    shown = "; ".join(
        f"{target.name}: AUC {number_with_interval(item.auc)}, "
        f"true positive rate at 1% false positives {percent_with_interval(item.tpr_at_fpr[0].tpr)}"
        for target, item in zip(chosen, metrics, strict=True)
    )
    where = name if len(chosen) > 1 or targets is None else f"{name} on {chosen[0].name}"
    return Picture(
        render(draw, f"Attack: {name}", height=4.4),
        f"ROC curves of the attack {name}, logarithmic axes. {shown}.",
        f"{where}. Above the grey line the attack beats guessing. In the grey part there are fewer than "
        f"{MIN_FALSE_POSITIVES} false positives: too few records to say. {_band_words(bands, len(made))}",
    )


def _bands(made: Sequence[AttackResult], smallest: float, confidence: float) -> list[Band]:
    """One band per curve; none for too many curves, or where the scores were not kept."""
    if len(made) > _MOST_BANDS or not all(item.member_scores and item.nonmember_scores for item in made):
        return []
    rates = np.logspace(np.log10(smallest), 0, _BAND_POINTS)
    return [roc_band(*item.scores, rates, confidence) for item in made]


def _band_words(bands: Sequence[Band], curves: int) -> str:
    if not bands:
        return "No confidence band: " + (
            f"more than {_MOST_BANDS} would hide one another."
            if curves > _MOST_BANDS
            else "it needs the scores of the records, and this result does not hold them."
        )
    return (
        f"Coloured: where the true curve lies with {100 * bands[0].confidence:.4g}% confidence, at each false positive "
        "rate by itself (pointwise; exact, after Clopper and Pearson, for members and non-members)."
    )
