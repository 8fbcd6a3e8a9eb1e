"""Auditing a release (attacks on models, figures with intervals, the report), or a mechanism by its draws.

The audit knows attacks and guarantees, never a defence.
"""

from privkernels.audit.audit import AttackResult, AuditResult, RecordsFacts, Target, TargetResult, audit
from privkernels.audit.figures import KdePanel
from privkernels.audit.intervals import Figure
from privkernels.audit.mechanism import MechanismAudit, audit_mechanism
from privkernels.audit.metrics import AttackMetrics, measure, roc_curve, tpr_at_fpr
from privkernels.audit.report import write_report
from privkernels.audit.summary import COLUMNS, SummaryRow, Verdict, summary_rows, verdicts

__all__ = [
    "COLUMNS",
    "AttackMetrics",
    "AttackResult",
    "AuditResult",
    "Figure",
    "KdePanel",
    "MechanismAudit",
    "RecordsFacts",
    "SummaryRow",
    "Target",
    "TargetResult",
    "Verdict",
    "audit",
    "audit_mechanism",
    "measure",
    "roc_curve",
    "summary_rows",
    "tpr_at_fpr",
    "verdicts",
    "write_report",
]
