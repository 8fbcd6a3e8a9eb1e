"""The parts of a :class:`~privkernels.audit.ModelAudit` as the report's template shows them: plain values and words."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from privkernels.audit.audit import AttackResult, AuditResult, TargetResult
from privkernels.audit.exposed_records import ExposedRecords
from privkernels.audit.figures import groups_figure
from privkernels.audit.guarantees import guarantee_words
from privkernels.audit.guards import voided
from privkernels.audit.intervals import Figure, auc
from privkernels.audit.metrics import tpr_at_fpr
from privkernels.audit.model_audit import ModelAudit, TargetVerdict
from privkernels.audit.subgroups import SubgroupFigures
from privkernels.audit.summary import listed, number_with_interval, percent_with_interval, verdicts
from privkernels.audit.thresholds import tpr_limits

# Rows of the list of exposed records.
MOST_EXPOSED = 20

# Outcome of the thresholds -> how it is marked, its name, what it means.
OUTCOMES = {
    "below": (
        "good",
        "Below the thresholds",
        "Even the upper limits of what was measured are allowed. A stronger attack may find more.",
    ),
    "above": ("alarm", "Above a threshold", "Even the lower limit of what was measured is more than is allowed."),
    "undecided": (
        "unsure",
        "Undecided",
        "A threshold lies between the limits of what was measured: with so few records it cannot be said whether the "
        "attack finds more than is allowed.",
    ),
    "void": (
        "alarm",
        "Void",
        "Nothing was decided: members and non-members differ even without the model, or share records, so no figure "
        "here measures membership.",
    ),
    "not asked": ("plain", "No threshold was asked for", "Nothing was decided; the figures stand for themselves."),
    "not judged": ("plain", "For comparison", "No threshold is decided for this model; it has no part in the outcome."),
}
# Instead of that, where every decision is below and the outcome is not.
CONTRADICTED = (
    "The attack that was chosen beforehand is below the thresholds, but another one of this audit is above: see the "
    "notes. The shadow models that it was chosen on may not resemble this model."
)

_CHECKS: dict[bool | None, tuple[str, str, str]] = {
    False: ("✗", "failed", "alarm"),
    None: ("?", "could not be made", "unsure"),
    True: ("✓", "passed", "good"),
}

_ASSUMPTIONS = (
    "Members and non-members were drawn at random from the same records. The blind baseline looks for a difference "
    "and can miss one.",
    "The records are independent of each other: intervals are too narrow for records that repeat or nearly do.",
    "The model was not trained on the non-members, nor chosen by its results on them.",
)


def outcome_cards(audit: ModelAudit | None, result: AuditResult) -> list[dict[str, Any]]:
    """One card per target: the outcome, the three numbers, and the words behind them."""
    cards: list[dict[str, Any]] = []
    for number, (target, verdict) in enumerate(zip(result.targets, verdicts(result), strict=True)):
        card: dict[str, Any] = {
            "name": target.name,
            "headline": verdict.headline,
            "words": guarantee_words(target.guarantee),
            "kind": "alarm" if verdict.leak_measured else "note",
            "outcome": None,
            "decisions": (),
            "sentences": verdict.sentences,
        }
        if audit is None:
            card["measured"] = [(attack.attack, _figures(attack)) for attack in target.attacks]
        else:
            card |= _judged_card(audit, result, target, audit.verdicts[number])
        cards.append(card)
    return cards


def _judged_card(
    audit: ModelAudit, result: AuditResult, target: TargetResult, verdict: TargetVerdict
) -> dict[str, Any]:
    kind, words, meaning = OUTCOMES[verdict.outcome]
    if verdict.contradicted:
        meaning = CONTRADICTED
    card: dict[str, Any] = {"kind": kind, "outcome": words, "meaning": meaning, "decisions": verdict.decisions}
    judged = judged_attacks(audit, target)
    if verdict.outcome == "void":
        judged = []
        card |= {"headline": None, "decisions": ()}
    # The attacks that do not count here have their figures further down.
    alone = dataclasses.replace(result, targets=(dataclasses.replace(target, attacks=tuple(judged)),))
    confidence = interval_confidence(audit)
    return card | {
        "sentences": (*verdicts(alone)[0].sentences, *(() if verdict.outcome == "void" else _further(verdict))),
        "measured": [(attack.attack, _limited_figures(attack, verdict, confidence)) for attack in judged],
        "void": verdict.outcome == "void",
        "shared": len(judged) if audit.choice is None and len(judged) > 1 else 0,
        "confidence": f"{100 * confidence:.4g}%",
        "wrong": f"{100 * (1 - confidence) / 2:.3g}%",
    }


def _further(verdict: TargetVerdict) -> list[str]:
    """Bounds from canaries, and whether the weights tell more than the outputs."""
    bounds = [f"The training's {bound}" for bound in verdict.epsilon]
    return bounds if verdict.white_box is None else [*bounds, verdict.white_box.verdict]


def judged_attacks(audit: ModelAudit, target: TargetResult) -> list[AttackResult]:
    """The attack that was chosen beforehand; all of them where none was."""
    return [attack for attack in target.attacks if audit.choice is None or attack.attack == audit.choice.name]


def interval_confidence(audit: ModelAudit) -> float:
    """The confidence of each interval of one attack: the decisions' own, or as if one were made of each attack."""
    decisions = [decision for verdict in audit.verdicts for decision in verdict.decisions]
    if decisions:
        return decisions[0].confidence
    return 1 - (1 - audit.confidence) / len(judged_attacks(audit, audit.result.targets[0]))


def _figures(attack: AttackResult) -> list[str]:
    metrics = attack.metrics
    return [
        f"AUC {number_with_interval(metrics.auc)}",
        f"TPR at 1% FPR {percent_with_interval(metrics.tpr_at_fpr[0].tpr)}",
    ]


def _limited_figures(attack: AttackResult, verdict: TargetVerdict, confidence: float) -> list[str]:
    """The area and the true positive rates, with limits at the true false positive rate, as thresholds have them."""
    members, nonmembers = attack.scores
    area = attack.metrics.auc if attack.metrics.auc.value is None else auc(members, nonmembers, confidence)
    texts = [f"AUC {number_with_interval(area)}"]
    rates = {rate.nominal_fpr for rate in attack.metrics.tpr_at_fpr}
    rates |= {decision.threshold.fpr for decision in verdict.decisions if decision.threshold.fpr is not None}
    for rate in sorted(rates, reverse=True):
        figure = tpr_at_fpr(members, nonmembers, rate).tpr
        if figure.value is not None:
            figure = Figure(figure.value, *tpr_limits(members, nonmembers, rate, confidence), confidence)
        texts.append(f"TPR at {100 * rate:.3g}% FPR {percent_with_interval(figure)}")
    return texts


def merged_warnings(result: AuditResult) -> list[str]:
    """The warnings, where those that only differ in the attack's name become one with all names."""
    merged: dict[str, list[str]] = {}
    for warning in result.warnings:
        said_of = [attack.attack for attack in result.targets[0].attacks if warning.startswith(f"{attack.attack}: ")]
        # The longest name, because one attack's name may start with another's.
        name = max(said_of, key=len, default="")
        text = warning.removeprefix(f"{name}: ") if name else warning
        merged.setdefault(text, []).extend([name] if name else [])
    return [f"{', '.join(names)}: {text}" if names else text for text, names in merged.items()]


def check_rows(audit: ModelAudit) -> list[dict[str, Any]]:
    """The guards, failed ones first."""
    order = list(_CHECKS)
    rows = []
    for guard in sorted(audit.guards, key=lambda guard: order.index(guard.passed)):
        mark, words, kind = _CHECKS[guard.passed]
        if guard.voids and guard.passed is False:
            words = "failed: the audit is void"
        rows.append({"mark": mark, "words": words, "kind": kind, "guard": guard})
    return rows


def check_summary(audit: ModelAudit) -> str:
    """``3 passed, 1 failed (near duplicates), 0 could not be made``."""
    parts = []
    for passed in (True, False, None):
        names = [guard.name for guard in audit.guards if guard.passed is passed]
        listed = f" ({', '.join(names)})" if names and passed is not True else ""
        parts.append(f"{len(names)} {_CHECKS[passed][1]}{listed}")
    return ", ".join(parts)


def void_reasons(audit: ModelAudit | None) -> list[str]:
    """What the failed checks say that make an audit void; empty for one that is not."""
    if audit is None or not (voided(audit.guards) or audit.outcome == "void"):
        return []
    failed = [guard.statement for guard in audit.guards if guard.voids and guard.passed is False]
    return [reason[:1].upper() + reason[1:] for reason in failed] or ["A check failed that the figures depend on"]


def group_tables(audit: ModelAudit, class_names: Sequence[str] | None) -> list[dict[str, Any]]:
    """One table per target that has subgroups: leaking ones first, then by area, unknown ones last."""
    tables = []
    for verdict in audit.verdicts:
        if verdict.subgroups is None or verdict.outcome == "void":
            continue
        rows = sorted(verdict.subgroups.groups, key=_group_order)
        names = {group.name: _class_name(group.name, class_names) for group in rows}
        tables.append(
            {
                "target": verdict.name,
                "words": _group_words(rows, names),
                "rate": f"{100 * verdict.subgroups.rate:.3g}%",
                "confidence": f"{100 * verdict.subgroups.confidence:.4g}%",
                "rows": rows,
                "names": names,
                "picture": groups_figure(verdict.name, rows, names),
            }
        )
    return tables


def _group_words(rows: Sequence[SubgroupFigures], names: Mapping[str, str]) -> str:
    leaking = [names[group.name] for group in rows if group.leaks]
    untested = sum(group.p_value is None for group in rows)
    found = f"Shown to leak more than guessing: {listed(leaking)}" if leaking else "No group is shown to leak"
    return (
        f"{found} (of {len(rows) - untested} tested{f'; {untested} had too few records' if untested else ''}). "
        "A group that is not shown to leak is not shown to be safe."
    )


def _group_order(group: SubgroupFigures) -> tuple[bool, bool, float, str]:
    area = group.auc.value
    return not group.leaks, area is None, -(area or 0.0), group.name


def _class_name(name: str, class_names: Sequence[str] | None) -> str:
    """The class that is called ``class 3`` by its own name; the value of an attribute as it is."""
    number = name.removeprefix("class ")
    if class_names is not None and number != name and number.isdecimal() and int(number) < len(class_names):
        return class_names[int(number)]
    return name


def group_kinds(audit: ModelAudit) -> str:
    """``each class and each value of sex and age``."""
    return f"each class and each value of {listed(audit.attributes)}" if audit.attributes else "each class"


def exposed_lists(audit: ModelAudit) -> list[dict[str, Any]]:
    """Per target: how many records are exposed, and the first of them."""
    lists = []
    for verdict in audit.verdicts:
        found = verdict.exposed
        entry: dict[str, Any] = {"target": verdict.name, "rows": [], "n": 0}
        if verdict.outcome == "void":
            entry["words"] = "Not listed: the audit is void."
        elif found is not None:
            rows = zip(found.records[:MOST_EXPOSED], found.p_values[:MOST_EXPOSED], strict=True)
            entry |= {
                "words": _exposed_words(found),
                "n": len(found.records),
                "fdr": f"{100 * found.fdr:g}%",
                "rows": [(record, f"{p:.2g}") for record, p in rows],
            }
        elif audit.choice is None:
            entry["words"] = "Not listed: it takes an attack that was chosen beforehand, and so shadow models."
        else:
            entry["words"] = "Not listed: too few non-members for any list at this false discovery rate."
        lists.append(entry)
    return lists


def _exposed_words(found: ExposedRecords) -> str:
    limit = (
        f" Fewer than {found.smallest_list} could not have been listed: that takes more non-members."
        if found.smallest_list > 1
        else ""
    )
    return (
        f"{len(found.records)} of {found.n_audited} records are exposed by this attack, at a false discovery rate of "
        f"{100 * found.fdr:g}%: on average over audits, at most that share of such a list is there by chance.{limit}"
    )


def choice_table(audit: ModelAudit) -> dict[str, Any] | None:
    """The attacks on the held-out shadow models, best first; None where no choice was made."""
    if audit.choice is None:
        return None
    area = audit.choice.criterion == "auc"
    criterion = "AUC" if area else f"TPR at {100 * float(audit.choice.criterion.partition('@')[2]):.3g}% FPR"
    shown = "{:.3f}".format if area else "{:.2%}".format
    return {
        "criterion": criterion,
        "held_out": _counted(len(audit.choice.table[0].values), "held-out shadow model"),
        "rows": [
            (row.name, row.name == audit.choice.name, shown(row.mean), [shown(value) for value in row.values])
            for row in audit.choice.table
        ],
    }


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def fidelity_rows(result: AuditResult) -> list[tuple[str, ...]]:
    """(whose, records, training accuracy, test accuracy, training loss) of shadow models, then of the targets.

    Empty without shadow models. Attacks that share their shadow models share a row.
    """
    shadows: dict[tuple[str, ...], list[str]] = {}
    for attack in result.attacks:
        fidelity = attack.get("fidelity")
        if fidelity is not None:
            facts = (
                _counted(fidelity["n_models"], "shadow model"), str(fidelity["n_records"]),
                *(f"{fidelity[f'{kind}_accuracy']:.1%}" for kind in ("train", "test")), f"{fidelity['train_loss']:.3g}",
            )  # fmt: skip
            shadows.setdefault(facts, []).append(str(attack["name"]))
    rows = [(f"{facts[0]} ({', '.join(names)})", *facts[1:]) for facts, names in shadows.items()]
    if rows:
        rows += [
            (
                target.name, f"{result.members.n} audited", f"{target.member_accuracy:.1%}",
                f"{target.test_accuracy:.1%}", f"{float(np.mean(target.member_losses)):.3g}",
            )
            for target in result.targets
        ]  # fmt: skip
    return rows


def detectable_rows(audit: ModelAudit) -> list[tuple[str, ...]]:
    """(quantity, smallest that is found, when nothing leaks, power, false alarms, for which scores), each once."""
    rows = (
        (
            found.quantity,
            "none, however high" if found.value is None else f"{found.value:.3g}",
            f"{found.guessing:.3g}",
            f"{found.power:.0%}",
            f"{100 * found.level:.3g}%",
            found.model,
        )
        for verdict in audit.verdicts
        for found in verdict.detectable
    )
    return list(dict.fromkeys(rows))


def assumptions(audit: ModelAudit) -> list[str]:
    """What the statements of the report rest on, each once."""
    return list(dict.fromkeys([*_ASSUMPTIONS, *_of_lists(audit)]))


def _of_lists(audit: ModelAudit) -> Iterable[str]:
    if audit.choice is not None:
        yield (
            "The attack was chosen without the scores of the audited models, and none of the attacks had used the "
            "shadow models that it was chosen on."
        )
    if any(verdict.exposed is not None for verdict in audit.verdicts):
        # Stated as this audit makes it true: its shadow models see the calibration records, but not other than members.
        yield (
            "Exposed records: the non-members are drawn like the members, so that a member whose membership left no "
            "trace scores like one of them; the attack learnt from both kinds in the same way, on shadow models "
            "trained on random halves of all of them."
        )
    if any(verdict.subgroups is not None for verdict in audit.verdicts):
        yield "Groups: within each group, too, members and non-members come from the same source."


def reconstruction_rows(audit: ModelAudit) -> list[tuple[str, ...]]:
    """Per model and layer: records found again with the interval, a blind guess, similarities, what the search left."""
    return [
        (
            found.target,
            found.layer,
            f"{percent_with_interval(found.identified)} of {found.n_records}",
            f"{found.chance:.1%}",
            f"{found.psnr:.1f}",
            f"{found.neighbour_psnr:.1f}",
            f"{found.class_mean_psnr:.1f}",
            "" if found.ssim is None else f"{found.ssim:.2f}",
            f"{found.relative_error:.2g}",
        )
        for found in audit.reconstructions
    ]
