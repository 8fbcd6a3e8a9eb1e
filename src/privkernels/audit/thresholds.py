"""Whether a figure lies below, above or undecided against what a publisher allows."""

from __future__ import annotations

import bisect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import CONFIDENCE, Array, auc, check_confidence, clopper_pearson
from privkernels.audit.metrics import checked_scores
from privkernels.errors import EmptyDataError, InvalidArgumentError
from privkernels.privacy.guarantee import round_up

Outcome = Literal["below", "above", "undecided"]
EXIT_CODES: dict[str, int] = {"below": 0, "above": 1, "undecided": 2}

_TPR = re.compile(r"([0-9.eE+-]+)@([0-9.eE+-]+)")


@dataclass(frozen=True)
class Threshold(JsonValue):
    """The largest figure that is allowed.

    Attributes:
        most: the figure: a true positive rate in (0, 1), or an AUC in (0.5, 1).
        fpr: the false positive rate of a true positive rate, in (0, 1) and below ``most``; None for an AUC.
    """

    most: float
    fpr: float | None = None

    def __post_init__(self) -> None:
        least = 0.5 if self.fpr is None else 0.0
        if not least < self.most < 1:
            raise InvalidArgumentError(f"a threshold lies above {least} (guessing) and below 1, got {self.most}")
        if self.fpr is not None and not 0 < self.fpr < self.most:
            raise InvalidArgumentError(
                f"guessing finds as many members as it accuses, so a TPR of {self.most:g} cannot be asked for at a "
                f"FPR of {self.fpr:g}: the FPR lies above 0 and below the TPR"
            )

    @classmethod
    def parse_tpr(cls, text: str) -> Threshold:
        """``0.01@0.001``: at a false positive rate of 0.001, a true positive rate of at most 0.01.

        Raises:
            InvalidArgumentError: another form, or numbers out of range.
        """
        found = _TPR.fullmatch(text.strip())
        try:
            if found:
                return cls(float(found[1]), float(found[2]))
        except InvalidArgumentError:
            raise
        except ValueError:
            pass
        raise InvalidArgumentError(f"a threshold is TPR@FPR, such as 0.01@0.001, not {text!r}")

    def __str__(self) -> str:
        return f"AUC at most {self.most:g}" if self.fpr is None else f"TPR at most {self.most:g} at {self.fpr:g} FPR"


@dataclass(frozen=True)
class Decision(JsonValue):
    """What one attack's scores say about one threshold.

    Attributes:
        threshold: what was asked.
        attack: whose scores.
        outcome: ``"below"`` where the upper confidence limit is at most the threshold, ``"above"`` where the lower one
            exceeds it, ``"undecided"`` otherwise. Each of the two is wrong with a probability of at most
            (1 - confidence) / 2. "Below" is said of this attack, and promises nothing of others.
        low, high: the limits of the attack's true figure.
        confidence: of the two together.
        reason: the outcome in words.
    """

    threshold: Threshold
    attack: str
    outcome: str
    low: float
    high: float
    confidence: float
    reason: str


def decide(
    threshold: Threshold,
    members: Array,
    nonmembers: Array,
    confidence: float = CONFIDENCE,
    *,
    attack: str = "the attack",
) -> Decision:
    """Compare an attack's scores, float64 [m] and [n], with a threshold.

    The attack must have been chosen without these scores: the best of several attacks on one target decides nothing.

    Raises:
        EmptyDataError: no member or no non-member scores.
        NonFiniteValueError: a score is NaN or infinite: compared with a threshold, a NaN would count as not found.
        InvalidArgumentError: scores that are not [n], or a confidence outside (0, 1).
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    check_confidence(confidence)
    if threshold.fpr is None:
        figure = auc(members, nonmembers, confidence)
        low, high = figure.low or 0.0, 1.0 if figure.high is None else figure.high
    else:
        low, high = tpr_limits(members, nonmembers, threshold.fpr, confidence)
    outcome: Outcome = "above" if low > threshold.most else "below" if high <= threshold.most else "undecided"
    # Outwards: a printed limit is one that holds.
    least, most = -round_up(-low), round_up(high)
    words = {
        "above": f"at least {least:.4g}, above the {threshold.most:g} that is allowed",
        "below": f"at most {most:.4g}, which is allowed ({threshold.most:g})",
        "undecided": f"between {least:.4g} and {most:.4g}: with {len(members)} members and {len(nonmembers)} "
        f"non-members it cannot be said whether it is above {threshold.most:g}",
    }
    what = "AUC" if threshold.fpr is None else f"TPR at {threshold.fpr:g} FPR"
    reason = f"{attack}: {what} {words[outcome]} ({100 * confidence:.4g}% confidence)"
    return Decision(threshold, attack, outcome, low, high, confidence, reason)


def tpr_limits(members: Array, nonmembers: Array, fpr: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Limits of an attack's true positive rate at the TRUE false positive rate ``fpr``.

    The threshold whose true false positive rate is ``fpr`` is not known; it lies between order statistics of the
    non-members. Below: a threshold above which there is, with confidence, a mass of at most ``fpr``, and the lower
    limit of the members above it. Above: likewise from the other side. Four one-sided statements share the error, so
    that each limit alone holds with probability 1 - (1 - confidence) / 2. Ties make both limits wider, never wrong: the
    mass strictly above the (k+1)-th highest of n scores is at most a Beta(k+1, n-k) variable, that at or above the
    k-th highest at least a Beta(k, n-k+1) one.

    Where the non-members are too few to say anything, the limits are 0 and 1.

    Raises as :func:`decide` does.
    """
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    check_confidence(confidence)
    m, n = len(members), len(nonmembers)
    ordered = np.sort(nonmembers)[::-1]
    # Half of the error of each limit goes to the false positive rate, half to the true positive rate.
    inner = 1 - (1 - confidence) / 2
    low, high = 0.0, 1.0
    strict, loose = false_positive_ranks(n, fpr, inner)
    if strict > 0:
        above = int((members > ordered[strict - 1]).sum())
        low = clopper_pearson(above, m, inner)[0]
    if loose <= n:
        above = int((members >= ordered[loose - 1]).sum())
        high = clopper_pearson(above, m, inner)[1]
    return low, high


def false_positive_ranks(n: int, fpr: float, confidence: float) -> tuple[int, int]:
    """Between which of n descending non-members' scores the one with the true false positive rate ``fpr`` lies.

    Returns:
        ``strict``: above the ``strict``-th highest lies a mass of at most ``fpr``; 0 where no score can say so.
        ``loose``: at or above the ``loose``-th highest lies at least ``fpr``; n + 1 where no score can. Each holds with
        probability 1 - (1 - confidence) / 2.
    """
    strict = bisect.bisect_left(range(n), True, key=lambda k: clopper_pearson(k, n, confidence)[1] > fpr)
    loose = bisect.bisect_left(range(n + 1), True, key=lambda k: clopper_pearson(k, n, confidence)[0] >= fpr)
    return strict, loose


def worst(decisions: Sequence[Decision]) -> Outcome:
    """``"above"`` if any is, else ``"undecided"`` if any is, else ``"below"``.

    Raises:
        EmptyDataError: no decision.
    """
    if not decisions:
        raise EmptyDataError("there is no threshold to decide: give at least one")
    outcomes = {decision.outcome for decision in decisions}
    return "above" if "above" in outcomes else "undecided" if "undecided" in outcomes else "below"
