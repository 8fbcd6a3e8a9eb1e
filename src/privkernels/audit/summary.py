"""An audit in one table and in words that do not promise more than was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privkernels.audit._json import JsonValue
from privkernels.audit.audit import AttackResult, AuditResult, TargetResult
from privkernels.audit.guarantees import guarantee_words
from privkernels.audit.intervals import Figure
from privkernels.audit.null_tests import leak_p_values
from privkernels.privacy.guarantee import round_up

# Headings of a SummaryRow's fields.
COLUMNS = {
    "target": "Target",
    "accuracy": "Test accuracy",
    "attack": "Attack",
    "auc": "AUC (95% interval)",
    "tpr": "TPR at 1% FPR (95% interval)",
    "claimed": "Claimed",
    "proven": "Proven",
}

# A target that leaks nothing is said to leak with at most this probability, whatever the number of attacks and figures.
FALSE_ALARMS = 0.05

# What a guarantee's unit protects, for readers who do not know the field.
UNITS = {
    "parameter": "one number of one of the trained models. It says nothing about a whole model, or about a "
    "training record",
    "member": "one of the trained models as a whole. It covers a training record only where that record was "
    "used by one of them alone",
    "example": "one training record",
}

LIMITS = (
    "A low attack figure never proves that a model is safe. It says what these attacks achieved on these "
    "records; a stronger attack, or an attacker who knows more, may achieve more.",
    "The figures are averages over the audited records. Single unusual records can be exposed far more than "
    "the average.",
    "Only a proven ε limits every attack, and it does so for its unit alone and only if its assumptions "
    "hold. What a paper claims is not evidence.",
    "Each interval covers the true figure with 95% confidence by itself, unless it says otherwise. Among many figures, "
    "some intervals miss. "
    "Whether a leak is reported allows for that: a model that leaks nothing is said to leak in at most "
    f"{FALSE_ALARMS:.0%} of audits, however many attacks are tried.",
)


@dataclass(frozen=True)
class SummaryRow(JsonValue):
    """One target under one attack, as plain strings. Not escaped: names may hold any characters."""

    target: str
    accuracy: str
    attack: str
    auc: str
    tpr: str
    claimed: str
    proven: str


@dataclass(frozen=True)
class Verdict:
    """What an audit says about one target.

    Attributes:
        leak_measured: an attack's figure differs from guessing by more than chance explains. A target that leaks
            nothing gets True with probability at most ``FALSE_ALARMS``, which the figures of all its attacks share.
            False means that nothing was measured, never that nothing leaks.
        headline: one sentence.
        sentences: the figures behind it, then what is claimed and proven.
    """

    target: str
    leak_measured: bool
    headline: str
    sentences: tuple[str, ...]


def summary_rows(result: AuditResult) -> tuple[SummaryRow, ...]:
    """The one table of an audit: a row per target and attack, under the headings ``COLUMNS``.

    There is a row per attack, and not only the strongest, because picking the highest of several
    figures after seeing them would overstate it.
    """
    rows = []
    for target in result.targets:
        words = guarantee_words(target.guarantee)
        for attack in target.attacks:
            rows.append(
                SummaryRow(
                    target=target.name,
                    accuracy=f"{target.test_accuracy:.1%}",
                    attack=attack.attack,
                    auc=number_with_interval(attack.metrics.auc),
                    tpr=percent_with_interval(attack.metrics.tpr_at_fpr[0].tpr),
                    claimed=words.claimed,
                    proven=words.proven,
                )
            )
    return tuple(rows)


def verdicts(result: AuditResult) -> tuple[Verdict, ...]:
    """One verdict per target, in words for a reader who is not a specialist."""
    return tuple(_verdict(target) for target in result.targets)


def number_with_interval(figure: Figure) -> str:
    """``0.623 (0.591 to 0.654)``, or why there is no number. Limits are rounded outwards."""
    if figure.value is None or figure.low is None or figure.high is None:
        return _short(figure.reason)
    return f"{figure.value:.3f} ({_outwards(figure, 3)})"


def percent_with_interval(figure: Figure) -> str:
    """``3.2% (1.9% to 5.0%)``, or why there is no number. Limits are rounded outwards."""
    if figure.value is None or figure.low is None or figure.high is None:
        return _short(figure.reason)
    return f"{100 * figure.value:.1f}% ({_outwards(figure, 3, percent=True)})"


def _outwards(figure: Figure, digits: int, *, percent: bool = False) -> str:
    scale = 10**digits
    # The small term keeps 0.05 from becoming 0.051 through rounding errors.
    low = math.floor((figure.low or 0.0) * scale + 1e-9) / scale
    high = math.ceil((figure.high or 0.0) * scale - 1e-9) / scale
    if percent:
        return f"{100 * low:.1f}% to {100 * high:.1f}%"
    return f"{low:.{digits}f} to {high:.{digits}f}"


def _short(reason: str | None) -> str:
    return (reason or "unknown").split(":")[0]


def beats_guessing(attack: AttackResult, level: float = FALSE_ALARMS) -> bool:
    """Whether the AUC, the held-out accuracy, or a TPR at its FPR is above guessing by more than chance explains.

    All count: an attack can be right on half of the records and wrong on the others, which leaves the AUC near 0.5,
    or find a few records with certainty. An attack that knows nothing gets True, or is called reversed, with
    probability at most ``level``: each figure's p-value (:mod:`privkernels.audit.null_tests`) is held against an equal
    share of it (Bonferroni), an AUC below guessing included. Intervals at 95 % each, of which any one may exclude
    guessing, would call one in four audits with four such attacks a leak.
    """
    return any(name != "auc below" for name in _significant(attack, level))


def _reversed(attack: AttackResult, level: float) -> bool:
    return "auc below" in _significant(attack, level)


def _significant(attack: AttackResult, level: float) -> list[str]:
    values = leak_p_values(attack.metrics)
    return [name for name, p in values.items() if p <= level / len(values)]


def leaks(attacks: Sequence[AttackResult]) -> tuple[list[str], list[str]]:
    """Names of the attacks on one target that beat guessing, and of those that are reversed.

    With attacks that know nothing, however many and however alike, any is named with probability at most
    ``FALSE_ALARMS``: each gets an equal share of it.
    """
    level = FALSE_ALARMS / max(1, len(attacks))
    stronger = [attack.attack for attack in attacks if beats_guessing(attack, level)]
    return stronger, [attack.attack for attack in attacks if _reversed(attack, level)]


def _verdict(target: TargetResult) -> Verdict:
    stronger, backwards = leaks(target.attacks)
    if stronger:
        headline = f"Training records can be told from others better than by guessing (found by: {listed(stronger)})."
    elif backwards:
        headline = (
            f"Training records can be told from others, in the direction opposite to what the attack expects "
            f"({listed(backwards)}). Check that members and non-members come from the same source."
        )
    else:
        headline = (
            "The attacks tried here did not do measurably better than guessing. "
            "This does not show that the model is safe."
        )
    sentences = [_measured(attack) for attack in target.attacks]
    sentences += _promised(target.guarantee)
    return Verdict(target.name, bool(stronger or backwards), headline, tuple(sentences))


def _measured(attack: AttackResult) -> str:
    metrics = attack.metrics
    parts = [
        f"{attack.attack}: shown one training record and one other, it picks the training record in "
        f"{percent_with_interval(metrics.auc)} of cases"
    ]
    accuracy = metrics.at_threshold.balanced_accuracy
    if accuracy.value is not None:
        parts.append(f"judging single records, it is right in {percent_with_interval(accuracy)} of cases")
    text = f"{', and '.join(parts)}; guessing gets 50%."
    for rate in metrics.tpr_at_fpr:
        if rate.tpr.value is not None:
            text += (
                f" Wrongly accusing {percent_with_interval(rate.fpr)} of the others, it finds "
                f"{percent_with_interval(rate.tpr)} of the training records; guessing finds as many as it "
                "accuses."
            )
    if all(rate.tpr.value is None for rate in metrics.tpr_at_fpr):
        text += " There are too few records to say how many it finds with few wrong accusations."
    return text


def _promised(guarantee: dict[str, Any] | None) -> list[str]:
    if guarantee is None:
        return ["No guarantee came with this model: nothing is claimed and nothing is proven about it."]
    words = guarantee_words(guarantee)
    source = guarantee["claimed"].get("paper") if guarantee["claimed"] else None
    sentences = [
        f"Claimed{f' by {source}' if source else ''}: {words.claimed}. Proven: {words.proven.rstrip('.')}.",
        f"The guarantee is about {UNITS.get(guarantee['unit'], guarantee['unit'])}.",
    ]
    proven = guarantee["proven"]
    if proven is not None and guarantee["unit"] == "example" and not guarantee["reproducible"]:
        bound = tpr_bound(proven["epsilon"], proven["delta"], 0.01)
        sentences.append(
            "If its assumptions hold, no attack of any kind that wrongly accuses 1% of the others finds more "
            f"than {100 * round_up(bound, 3):.3g}% of the training records, on average over releases."
        )
    return sentences


def tpr_bound(epsilon: float, delta: float, fpr: float) -> float:
    """The highest TPR at ``fpr`` that (epsilon, delta)-differential privacy allows.

    Kairouz, Oh and Viswanath (ICML 2015): TPR <= e^eps FPR + delta and
    1 - FPR <= e^eps (1 - TPR) + delta.
    """
    first = math.exp(min(epsilon, 700.0)) * fpr + delta
    second = 1 - math.exp(-epsilon) * (1 - fpr - delta)
    return min(1.0, first, second)


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
