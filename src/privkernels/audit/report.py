"""The audit as one HTML file that opens without a network."""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from privkernels._files import write_text
from privkernels.audit.audit import AuditResult, TargetResult
from privkernels.audit.figures import KdePanel, kde_figure, loss_figure, roc_figure
from privkernels.audit.guarantees import guarantee_words
from privkernels.audit.model_audit import ModelAudit
from privkernels.audit.summary import (
    COLUMNS,
    LIMITS,
    SummaryRow,
    number_with_interval,
    percent_with_interval,
    summary_rows,
    verdicts,
)

_MARKS: dict[bool | None, tuple[str, str]] = {
    True: ("✓", "checked"),
    False: ("✗", "not shown to hold"),
    None: ("?", "not checked"),
}


def write_report(
    result: AuditResult,
    path: str | os.PathLike[str],
    *,
    audit: ModelAudit | None = None,
    panels: Sequence[KdePanel] = (),
    how: Mapping[str, Any] | None = None,
    title: str = "What this release gives away",
) -> None:
    """Write the report of an audit as one self-contained HTML file, atomically.

    The report is for the publisher alone: it shows losses of training records and values of the
    trained models. It says so at its top.

    Args:
        audit: what ``result`` is part of: checks, choice of the attack, thresholds, exposed records.
        panels: published parameters to show with what they were drawn from.
        how: facts about how the release was made; nested mappings and lists are spelt out.
    """
    write_text(path, render_report(result, audit=audit, panels=panels, how=how, title=title))


def render_report(
    result: AuditResult,
    *,
    audit: ModelAudit | None = None,
    panels: Sequence[KdePanel] = (),
    how: Mapping[str, Any] | None = None,
    title: str = "What this release gives away",
) -> str:
    """The HTML text that :func:`write_report` writes."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number_with_interval, percent=percent_with_interval)
    source = importlib.resources.files("privkernels.audit").joinpath("templates", "report.html.j2")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(
        title=title,
        date=f"{result.date[:16].replace('T', ' ')} UTC",
        result=result,
        audit=audit,
        targets=[
            {"result": target, "verdict": verdict, "words": guarantee_words(target.guarantee)}
            for target, verdict in zip(result.targets, verdicts(result), strict=True)
        ],
        limits=LIMITS,
        columns=COLUMNS,
        rows=[_short_row(row) for row in summary_rows(result)],
        roc=[roc_figure(result, number) for number in range(len(result.attacks))],
        losses=[loss_figure(result, target) for target in result.targets],
        panels=[kde_figure(panel) for panel in panels],
        per_class=[_class_table(result, target) for target in result.targets],
        how=key_values(how or {}),
        guarantees=[_guarantee(target) for target in result.targets if target.guarantee is not None],
        attacks=[key_values(description) for description in result.attacks],
        environment=key_values(result.environment),
    )


def _short_row(row: SummaryRow) -> dict[str, Any]:
    """A row of the table; why nothing is proven stands in the verdict above it, once."""
    reason = row.proven.startswith("none: ")
    return row.to_dict() | ({"proven": "none (why: see the verdict)"} if reason else {})


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
    """Rows of (class name, members, non-members, figures per attack)."""
    tables = [attack.metrics.per_class for attack in target.attacks]
    rows = []
    for figures in zip(*tables, strict=True):
        label = figures[0].label
        name = str(label) if result.class_names is None else result.class_names[label]
        rows.append({"name": name, "n": figures[0], "figures": figures})
    return {"target": target.name, "attacks": [attack.attack for attack in target.attacks], "rows": rows}


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
