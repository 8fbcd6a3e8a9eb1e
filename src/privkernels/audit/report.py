"""The audit as one HTML file that opens without a network."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import jinja2

from privkernels._files import write_text
from privkernels.audit import sections
from privkernels.audit.audit import AuditResult, TargetResult
from privkernels.audit.drawing import Picture
from privkernels.audit.figures import KdePanel, kde_figure, loss_figure
from privkernels.audit.inversions import InversionPanel, inversion_grid
from privkernels.audit.model_audit import ModelAudit
from privkernels.audit.roc_figures import roc_figure
from privkernels.audit.summary import (
    COLUMNS,
    LIMITS,
    SummaryRow,
    listed,
    number_with_interval,
    percent_with_interval,
    summary_rows,
)
from privkernels.errors import InvalidArgumentError

_MARKS: dict[bool | None, tuple[str, str, str]] = {
    True: ("✓", "checked", "good"),
    False: ("✗", "not shown to hold", "alarm"),
    None: ("?", "not checked", "unsure"),
}


def write_report(
    result: AuditResult,
    path: str | os.PathLike[str],
    *,
    audit: ModelAudit | None = None,
    panels: Sequence[KdePanel] = (),
    pictures: Sequence[InversionPanel] = (),
    how: Mapping[str, Any] | None = None,
    title: str = "What this release gives away",
) -> None:
    """Write the report of an audit as one self-contained HTML file, atomically.

    The report is for the publisher alone: it shows losses of training records, names those that are exposed, and may
    show values of the trained models and pictures of records. It says so at its top; a void audit says that first.

    Args:
        audit: what ``result`` is part of: checks, choice of the attack, thresholds, exposed records. With it the attack
            that was chosen beforehand is the measured figure, and the others stand further down.
        panels: published parameters to show with what they were drawn from.
        pictures: reconstructed records to show with what they must be compared with.
        how: facts about how the release was made; nested mappings and lists are spelt out.

    Raises:
        InvalidArgumentError: ``result`` is not that of ``audit``.
        OutputExistsError: ``path`` cannot be written.
    """
    text = render_report(result, audit=audit, panels=panels, pictures=pictures, how=how, title=title)
    write_text(path, text)


def render_report(
    result: AuditResult,
    *,
    audit: ModelAudit | None = None,
    panels: Sequence[KdePanel] = (),
    pictures: Sequence[InversionPanel] = (),
    how: Mapping[str, Any] | None = None,
    title: str = "What this release gives away",
) -> str:
    """The HTML text that :func:`write_report` writes."""
    if audit is not None and [each.name for each in audit.verdicts] != [each.name for each in result.targets]:
        raise InvalidArgumentError(
            f"the audit judges {[each.name for each in audit.verdicts]}, the result is of "
            f"{[each.name for each in result.targets]}: give the audit's own .result"
        )
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number_with_interval, percent=percent_with_interval)
    chosen, others = _roc(result, audit)
    groups = [] if audit is None else sections.group_tables(audit, result.class_names)
    return environment.get_template("report.html.j2").render(
        title=title,
        date=f"{result.date[:16].replace('T', ' ')} UTC",
        result=result,
        private=_private(audit, panels, pictures),
        void=sections.void_reasons(audit),
        cards=sections.outcome_cards(audit, result),
        limits=LIMITS,
        warnings=sections.merged_warnings(result),
        columns=COLUMNS,
        rows=[_short_row(row) for row in summary_rows(result)],
        roc=chosen,
        other_roc=others,
        losses=[loss_figure(result, target) for target in result.targets],
        panels=[kde_figure(panel) for panel in panels],
        grids=[inversion_grid(panel) for panel in pictures],
        groups=groups,
        # The same classes again would say the same with intervals that do not hold together.
        per_class=[] if groups else [_class_table(result, target) for target in result.targets],
        how=key_values(how or {}),
        guarantees=[_guarantee(target) for target in result.targets if target.guarantee is not None],
        attacks=[key_values(description) for description in result.attacks],
        environment=key_values(result.environment),
        audit=audit,
        reconstructions=[] if audit is None else sections.reconstruction_rows(audit),
        **({} if audit is None else _audited(audit)),
    )


def _template(name: str) -> str:
    return importlib.resources.files("privkernels.audit").joinpath("templates", name).read_text(encoding="utf-8")


def _private(audit: ModelAudit | None, panels: Sequence[KdePanel], pictures: Sequence[InversionPanel]) -> str:
    """What the report shows that must not be published."""
    shown = ["losses of single training records"]
    if audit is not None and any(entry["rows"] for entry in sections.exposed_lists(audit)):
        shown.append("which training records are exposed")
    if pictures:
        shown.append("pictures of training records")
    if panels:
        shown.append("values of the trained models' parameters")
    return listed(shown)


def _audited(audit: ModelAudit) -> dict[str, Any]:
    return {
        "outcome": sections.OUTCOMES[audit.outcome][1],
        "check_summary": sections.check_summary(audit),
        "checks": sections.check_rows(audit),
        "n_judged": sum(verdict.outcome != "not judged" for verdict in audit.verdicts),
        "group_kinds": sections.group_kinds(audit),
        "exposed": sections.exposed_lists(audit),
        "choice": sections.choice_table(audit),
        "fidelity": sections.fidelity_rows(audit.result),
        "detectable": sections.detectable_rows(audit),
        "assumptions": sections.assumptions(audit),
    }


def _roc(result: AuditResult, audit: ModelAudit | None) -> tuple[list[Picture], list[Picture]]:
    """Figures of what counts, and of the rest: one per model of the chosen attack, one per attack of the others."""
    names = [attack.attack for attack in result.targets[0].attacks]
    if audit is None:
        return [], [roc_figure(result, number) for number in range(len(names))]
    confidence = sections.interval_confidence(audit)
    if audit.choice is None:
        return [roc_figure(result, number, confidence=confidence) for number in range(len(names))], []
    best = names.index(audit.choice.name)
    others = [
        replace(
            roc_figure(result, number, confidence=confidence),
            caption=f"{name}. To be read like the figures of the chosen attack.",
        )
        for number, name in enumerate(names)
        if number != best
    ]
    positions = range(len(result.targets))
    return [roc_figure(result, best, targets=[number], confidence=confidence) for number in positions], others


def _short_row(row: SummaryRow) -> dict[str, Any]:
    """A row of the table; why nothing is proven stands above it, once."""
    reason = row.proven.startswith("none: ")
    return row.to_dict() | ({"proven": "none (why: see above)"} if reason else {})


def key_values(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested facts as flat (name, text) pairs: ``{"a": {"b": 1}}`` gives ``[("a: b", "1")]``."""
    pairs: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            pairs += key_values(value, f"{name}: ")
        elif isinstance(value, list | tuple) and any(isinstance(item, Mapping) for item in value):
            for number, item in enumerate(value, 1):
                pairs += key_values(item if isinstance(item, Mapping) else {"": item}, f"{name} {number}: ")
        else:
            pairs.append((name, _text(value)))
    return pairs


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    return str(value)


def _class_table(result: AuditResult, target: TargetResult) -> dict[str, Any]:
    """Rows of (class name, members, non-members, figures per attack), and what stands above them."""
    tables = [attack.metrics.per_class for attack in target.attacks]
    rows = []
    for figures in zip(*tables, strict=True):
        label = figures[0].label
        name = str(label) if result.class_names is None else result.class_names[label]
        rows.append({"name": name, "n": figures[0], "figures": figures})
    columns = ["Class", "Members", "Non-members"]
    for attack in target.attacks:
        columns += [f"{attack.attack}: AUC", f"{attack.attack}: balanced accuracy"]
    return {"target": target.name, "columns": columns, "rows": rows}


def _guarantee(target: TargetResult) -> dict[str, Any]:
    guarantee = target.guarantee or {}
    facts: dict[str, Any] = {key: guarantee[key] for key in ("mechanism", "unit", "neighbouring")}
    if guarantee["claimed"] is not None:
        facts["claimed"] = guarantee["claimed"]
    if guarantee["proven"] is not None:
        facts["proven"] = guarantee["proven"]
    else:
        facts["proven"] = f"none: {guarantee['not_proven_because'] or 'no reason was given'}"
    facts["noise can be drawn again from a seed"] = guarantee["reproducible"]
    facts["implementation"] = guarantee["implementation"]
    return {
        "target": target.name,
        "summary": guarantee["summary"],
        "facts": key_values(facts),
        "assumptions": [(*_MARKS[item.get("checked")], item["text"]) for item in guarantee["assumptions"]],
        "warnings": guarantee["warnings"],
    }
