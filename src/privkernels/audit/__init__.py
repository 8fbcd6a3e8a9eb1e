"""Auditing a release (attacks on models, figures with intervals, the report), or a mechanism by its draws.

The audit knows attacks and guarantees, never a defence.
"""

from privkernels.audit.audit import AttackResult, AuditResult, RecordsFacts, Target, TargetResult, audit
from privkernels.audit.figures import KdePanel
from privkernels.audit.guards import Guard
from privkernels.audit.intervals import Figure
from privkernels.audit.mechanism import MechanismAudit, audit_mechanism
from privkernels.audit.metrics import AttackMetrics, measure, roc_curve, tpr_at_fpr
from privkernels.audit.model_audit import ModelAudit, TargetVerdict, audit_models
from privkernels.audit.plan import all_attacks, parse_duration
from privkernels.audit.report import write_report
from privkernels.audit.summary import COLUMNS, SummaryRow, Verdict, summary_rows, verdicts
from privkernels.audit.thresholds import EXIT_CODES, Decision, Threshold, decide

__all__ = [
    "COLUMNS",
    "EXIT_CODES",
    "AttackMetrics",
    "AttackResult",
    "AuditResult",
    "Decision",
    "Figure",
    "Guard",
    "KdePanel",
    "MechanismAudit",
    "ModelAudit",
    "RecordsFacts",
    "SummaryRow",
    "Target",
    "TargetResult",
    "TargetVerdict",
    "Threshold",
    "Verdict",
    "all_attacks",
    "audit",
    "audit_mechanism",
    "audit_models",
    "decide",
    "measure",
    "parse_duration",
    "roc_curve",
    "summary_rows",
    "tpr_at_fpr",
    "verdicts",
    "write_report",
]
