"""How likely an attack's figures are when it knows nothing: p-values under exchangeable members and non-members.

The hypothesis is that, given the pooled scores of one attack, every choice of which of them are the members' is
equally likely: what guessing gives, whatever the distribution of the scores. A p-value p here is below a level a
with probability at most a. Equal scores only make the p-values larger.
"""

from __future__ import annotations

import math

from scipy import stats

from privkernels.audit.metrics import AttackMetrics, allowed_false_positives


def auc_p_value(area: float, n_members: int, n_nonmembers: int) -> float:
    """The chance of an area under the ROC curve of ``area`` or more by guessing.

    Mann and Whitney's (1947) normal approximation with continuity correction, and the variance for scores without
    ties, which is above the one with ties. Below 0.03 it is not below the exact probability (checked from 3 records
    against 50 up), because the exact tails are shorter than the normal's; at 0.05 it is short by up to 1 % of itself.
    """
    m, n = n_members, n_nonmembers
    deviation = math.sqrt(m * n * (m + n + 1) / 12)
    return float(stats.norm.sf((area * m * n - m * n / 2 - 0.5) / deviation))


def found_p_value(found: int, accused: int, n_members: int, n_nonmembers: int) -> float:
    """The chance that guessing finds ``found`` or more members among ``accused`` of the pooled records.

    Hypergeometric (Fisher 1935), exact. The accused must have been chosen without knowing who is a member, as by a
    threshold from other records.
    """
    return float(stats.hypergeom.sf(found - 1, n_members + n_nonmembers, n_members, accused))


def tpr_p_value(found: int, allowed: int, n_members: int, n_nonmembers: int) -> float:
    """The chance that ``found`` or more members score above the (``allowed`` + 1)-th highest non-member by guessing.

    Exact, with the randomness of the threshold: ``found`` members come before the (allowed + 1)-th non-member if and
    only if at most ``allowed`` of the ``found + allowed`` highest are non-members.
    """
    return float(stats.hypergeom.cdf(allowed, n_members + n_nonmembers, n_nonmembers, found + allowed))


def leak_p_values(metrics: AttackMetrics) -> dict[str, float]:
    """A p-value per figure of one attack: those above guessing, and ``"auc below"`` for an attack that is reversed.

    Figures that are unknown for want of records have none. Which ones are there depends on the numbers of records
    alone, so that a level may be shared among them.

    Returns:
        Under ``"auc"``, ``"auc below"``, ``"accuracy"`` and ``"tpr@RATE"``.
    """
    m, n = metrics.n_members, metrics.n_nonmembers
    values = {}
    if metrics.auc.value is not None:
        values["auc"] = auc_p_value(metrics.auc.value, m, n)
        values["auc below"] = auc_p_value(1 - metrics.auc.value, m, n)
    accuracy, recall = metrics.at_threshold.balanced_accuracy.value, metrics.at_threshold.recall.value
    if accuracy is not None and recall is not None:
        # The evaluated halves are those that measure() leaves: shares times their sizes are whole numbers.
        held_m, held_n = m - m // 2, n - n // 2
        found, wrong = round(recall * held_m), round((1 - 2 * accuracy + recall) * held_n)
        values["accuracy"] = found_p_value(found, found + wrong, held_m, held_n)
    for rate in metrics.tpr_at_fpr:
        if rate.tpr.value is not None:
            allowed = allowed_false_positives(n, rate.nominal_fpr)
            values[f"tpr@{rate.nominal_fpr:g}"] = tpr_p_value(round(rate.tpr.value * m), allowed, m, n)
    return values
