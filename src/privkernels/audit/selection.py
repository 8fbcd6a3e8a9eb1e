"""Choosing one attack before the target is looked at, so that its figures on the target need no correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import Array, auc
from privkernels.audit.metrics import checked_scores, tpr_at_fpr
from privkernels.errors import EmptyDataError, InvalidArgumentError, TooFewRecordsError

# Member and non-member scores of one attack on one held-out shadow model.
ShadowScores = tuple[Array, Array]


@dataclass(frozen=True)
class AttackRow(JsonValue):
    """One attack: its criterion on each held-out shadow model, and the mean."""

    name: str
    mean: float
    values: tuple[float, ...]


@dataclass(frozen=True)
class AttackChoice(JsonValue):
    """The attack to judge the target by.

    Attributes:
        name: the attack with the highest mean; of several, the first in alphabetical order.
        criterion: what was compared.
        table: every attack, best first.
    """

    name: str
    criterion: str
    table: tuple[AttackRow, ...]

    def __str__(self) -> str:
        best = self.table[0]
        return (
            f"{self.name} was chosen among {len(self.table)} attacks by its mean {self.criterion} of "
            f"{best.mean:.4g} on {len(best.values)} held-out shadow models, before the target was attacked: the "
            "intervals of its figures on the target hold without a correction for the choice. Assumed: no attack "
            "had used these shadow models, and the choice did not see the target's scores."
        )


def choose_attack(results: Mapping[str, Sequence[ShadowScores]], criterion: str = "tpr@0.001") -> AttackChoice:
    """Choose the attack with the highest mean criterion over held-out shadow models.

    A held-out shadow model plays the target: the attacks were fitted without it, and its members and non-members
    are known. The highest of several figures on the target itself would overstate the attack (and its interval would
    not cover): the choice must not see the target. Afterwards, report the chosen attack's figure as the estimate; the
    figures of the others may be printed, but not picked from.

    Args:
        results: attack -> (member scores [m], non-member scores [n]) for each held-out shadow model, the same shadow
            models in the same order for every attack.
        criterion: ``"auc"``, or ``"tpr@RATE"`` with a rate in (0, 1).

    Raises:
        EmptyDataError: no attack, or no shadow model.
        InvalidArgumentError: an unknown criterion, or attacks with different numbers of shadow models.
        TooFewRecordsError: too few non-members for the rate.
        NonFiniteValueError: a score that is not finite.
    """
    if not results or not all(results.values()):
        raise EmptyDataError("expected scores of at least one attack on at least one held-out shadow model, got none")
    counts = {name: len(shadows) for name, shadows in results.items()}
    if len(set(counts.values())) > 1:
        raise InvalidArgumentError(f"expected every attack on the same held-out shadow models, got {counts}")
    rate = _rate(criterion)
    rows = []
    for name, shadows in results.items():
        values = tuple(_value(name, members, nonmembers, rate) for members, nonmembers in shadows)
        # fsum, so that the order of the shadow models cannot break a tie.
        rows.append(AttackRow(name, math.fsum(values) / len(values), values))
    rows.sort(key=lambda row: (-row.mean, row.name))
    return AttackChoice(rows[0].name, criterion, tuple(rows))


def _rate(criterion: str) -> float | None:
    """The rate of ``"tpr@RATE"``; None for the area."""
    if criterion == "auc":
        return None
    kind, _, text = criterion.partition("@")
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if kind != "tpr" or not 0 < rate < 1:
        raise InvalidArgumentError(f"the criterion is 'auc', or 'tpr@RATE' such as 'tpr@0.001', not {criterion!r}")
    return rate


def _value(name: str, members: Array, nonmembers: Array, rate: float | None) -> float:
    members, nonmembers = checked_scores(members, "member"), checked_scores(nonmembers, "non-member")
    figure = auc(members, nonmembers) if rate is None else tpr_at_fpr(members, nonmembers, rate).tpr
    if figure.value is None:
        raise TooFewRecordsError(f"{name} on a held-out shadow model: {figure.reason}, or a higher rate")
    return figure.value
