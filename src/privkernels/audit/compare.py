"""Models side by side: accuracy, size, claimed, proven, measured, and which differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy import stats
from torch import nn

from privkernels.attacks.base import target_logits
from privkernels.audit._json import JsonFile, JsonValue
from privkernels.audit.audit import Target
from privkernels.audit.guarantees import guarantee_words
from privkernels.audit.intervals import CONFIDENCE, Figure, proportion
from privkernels.audit.model_audit import ModelAudit
from privkernels.audit.paired import auc_difference, tpr_difference
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError

_RATE = 0.01


@dataclass(frozen=True)
class Size(JsonValue):
    """How large a model is.

    Attributes:
        parameters: numbers in its state.
        nonzero: those that are not 0.
        bytes: of its state as stored, dense.
    """

    parameters: int
    nonzero: int
    bytes: int


@dataclass(frozen=True)
class ModelRow(JsonValue):
    """One model.

    Attributes:
        accuracy: share of the test records that are right, with its Clopper-Pearson interval.
        size: None for a prediction function.
        claimed, proven: in words.
        attack: whose figures ``auc`` and ``tpr`` are: the one chosen on held-out shadow models.
        auc, tpr: measured; the latter at 1 % false positives.
        outcome: against the thresholds; see :class:`~privkernels.audit.TargetVerdict`.
    """

    name: str
    accuracy: Figure
    size: Size | None
    claimed: str
    proven: str
    attack: str
    auc: Figure
    tpr: Figure
    outcome: str


@dataclass(frozen=True)
class PairRow(JsonValue):
    """The first model against another, on the same records.

    Attributes:
        first, other: names.
        accuracy_difference: other minus first.
        accuracy_p_value: McNemar's exact test of no difference.
        auc_difference, tpr_difference: other minus first, of the same attack.
        sentence: what follows, with the error of all pairs and figures together.
    """

    first: str
    other: str
    accuracy_difference: Figure
    accuracy_p_value: float
    auc_difference: Figure
    tpr_difference: Figure
    sentence: str


@dataclass(frozen=True)
class Comparison(JsonFile):
    """The outcome of :func:`compare`. Holds what :class:`~privkernels.audit.ModelAudit` holds: private data.

    Attributes:
        audit: of all models, with the same attacks on the same records.
        rows: one per model, in the order given.
        pairs: the first model against each other one.
        confidence: with which all sentences of ``pairs`` are true together.
    """

    FORMAT: ClassVar[str] = "privkernels comparison 1"
    WORK: ClassVar[str] = "comparison"

    format: str
    audit: ModelAudit
    rows: tuple[ModelRow, ...]
    pairs: tuple[PairRow, ...]
    confidence: float


def compare(
    targets: Sequence[Target], audit: ModelAudit, test: Records, *, confidence: float = CONFIDENCE
) -> Comparison:
    """Set models side by side that were audited together.

    All faced the same attack, the one chosen on held-out shadow models (without those, the first that was made), on
    the same members and non-members: the differences are paired. Each of the sentences about a difference in
    accuracy or AUC has its share of the error (Bonferroni over pairs and figures).

    Args:
        targets: the audited models, in the audit's order; at least two.
        audit: of :func:`privkernels.audit.audit_models`.
        test: records for the accuracies.

    Raises:
        InvalidArgumentError: fewer than two models, or not those of the audit.
    """
    names = [target.name for target in targets]
    if len(targets) < 2 or names != [target.name for target in audit.result.targets]:
        raise InvalidArgumentError(
            f"a comparison needs two or more models, those of the audit: got {names} and "
            f"{[target.name for target in audit.result.targets]}"
        )
    right = [target_logits(target.model, test).argmax(axis=1) == test.y.cpu().numpy() for target in targets]
    attack = audit.choice.name if audit.choice is not None else audit.result.targets[0].attacks[0].attack
    measured = [next(a for a in target.attacks if a.attack == attack) for target in audit.result.targets]
    rows, pairs = [], []
    for number, (target, result, verdict) in enumerate(zip(targets, audit.result.targets, audit.verdicts, strict=True)):
        words, metrics = guarantee_words(result.guarantee), measured[number].metrics
        tpr = next(rate.tpr for rate in metrics.tpr_at_fpr if math.isclose(rate.nominal_fpr, _RATE))
        accuracy = proportion(int(right[number].sum()), len(test), confidence)
        size = size_of(target.model) if isinstance(target.model, nn.Module) else None
        rows.append(
            ModelRow(
                target.name, accuracy, size, words.claimed, words.proven, attack, metrics.auc, tpr, verdict.outcome
            )
        )
    # Two sentences for each pair.
    each = 1 - (1 - confidence) / (2 * (len(targets) - 1))
    for number in range(1, len(targets)):
        difference, p_value = accuracy_difference(right[number], right[0], each)
        area = auc_difference(measured[number].scores, measured[0].scores, each)
        tpr, _ = tpr_difference(measured[number].scores, measured[0].scores, _RATE, each)
        sentence = _sentence(names[0], names[number], difference, p_value <= 1 - each, area)
        pairs.append(PairRow(names[0], names[number], difference, p_value, area, tpr, sentence))
    return Comparison(Comparison.FORMAT, audit, tuple(rows), tuple(pairs), confidence)


def size_of(model: nn.Module) -> Size:
    """Numbers, non-zeros and bytes of a network's state; tied tensors count once."""
    tensors = {tensor.data_ptr(): tensor for tensor in model.state_dict().values()}.values()
    return Size(
        sum(tensor.numel() for tensor in tensors),
        sum(int(torch.count_nonzero(tensor)) for tensor in tensors),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def accuracy_difference(other: np.ndarray, first: np.ndarray, confidence: float = CONFIDENCE) -> tuple[Figure, float]:
    """The difference in accuracy on the same records, other minus first, and McNemar's exact p-value of none.

    The interval is that of Agresti and Min (Statistics in Medicine 24, 2005): half a record is added to each cell of
    the table of right and wrong, and Wald's interval taken of it.

    Args:
        other, first: bool [n]: whether each record is right.
    """
    n = len(other)
    gained, lost = int((other & ~first).sum()), int((first & ~other).sum())
    p_value = float(stats.binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    more, less = gained + 0.5, lost + 0.5
    center = (more - less) / (n + 2)
    step = float(stats.norm.isf((1 - confidence) / 2)) * math.sqrt(more + less - (more - less) ** 2 / (n + 2)) / (n + 2)
    value = (gained - lost) / n
    return Figure(value, max(-1.0, min(value, center - step)), min(1.0, max(value, center + step)), confidence), p_value


def _sentence(first: str, other: str, accuracy: Figure, differs: bool, area: Figure) -> str:
    value = accuracy.value or 0.0
    words = f"{other} is {abs(value):.2%} {'more' if value > 0 else 'less'} accurate than {first}"
    if not differs:
        words = f"No difference in accuracy between {other} and {first} was found ({value:+.2%})"
    if area.value is None or area.low is None or area.high is None:
        return f"{words}. Whether the attack finds more is not known: {area.reason}."
    figures = f"AUC {area.value:+.3f}, between {area.low:+.3f} and {area.high:+.3f}"
    if area.high < 0:
        return f"{words}. The attack finds less in {other} ({figures})."
    if area.low > 0:
        return f"{words}. The attack finds more in {other} ({figures})."
    return f"{words}. No difference in what the attack finds was found ({figures})."
