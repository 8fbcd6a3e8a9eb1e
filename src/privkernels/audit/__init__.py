"""Auditing a release (attacks on models, figures with intervals, the report), or a mechanism by its draws.

The audit knows attacks and guarantees, never a defence.
"""

from privkernels.audit.audit import AttackResult, AuditResult, RecordsFacts, Target, TargetResult, audit
from privkernels.audit.canaries import Canaries, make_canaries
from privkernels.audit.compare import Comparison, compare
from privkernels.audit.divergence import DivergenceBound, cross_entropy_bound, decision_bound
from privkernels.audit.epsilon_bounds import EpsilonBound, one_run_bound, one_run_gaussian_bound, runs_bound
from privkernels.audit.exposed_records import ExposedRecords, conformal_p_values, exposed_records
from privkernels.audit.figures import KdePanel
from privkernels.audit.guards import Guard
from privkernels.audit.intervals import Figure
from privkernels.audit.inversions import InversionPanel
from privkernels.audit.mechanism import MechanismAudit, audit_mechanism
from privkernels.audit.metrics import AttackMetrics, measure, roc_curve, tpr_at_fpr
from privkernels.audit.model_audit import ModelAudit, TargetVerdict, audit_models
from privkernels.audit.plan import all_attacks, parse_duration
from privkernels.audit.power import MinimumDetectable, detectable_auc, detectable_epsilon, detectable_tpr
from privkernels.audit.reconstructions import Reconstruction, reconstruct
from privkernels.audit.report import write_report
from privkernels.audit.selection import AttackChoice, choose_attack
from privkernels.audit.self_test import SelfTest, self_test
from privkernels.audit.subgroups import Subgroups, groups_by_attribute, groups_by_label, measure_subgroups
from privkernels.audit.summary import COLUMNS, SummaryRow, Verdict, summary_rows, verdicts
from privkernels.audit.thresholds import EXIT_CODES, Decision, Threshold, decide
from privkernels.audit.white_box import WhiteBoxAdvantage, white_box_advantage

__all__ = [
    "COLUMNS",
    "EXIT_CODES",
    "AttackChoice",
    "AttackMetrics",
    "AttackResult",
    "AuditResult",
    "Canaries",
    "Comparison",
    "Decision",
    "DivergenceBound",
    "EpsilonBound",
    "ExposedRecords",
    "Figure",
    "Guard",
    "InversionPanel",
    "KdePanel",
    "MechanismAudit",
    "MinimumDetectable",
    "ModelAudit",
    "Reconstruction",
    "RecordsFacts",
    "SelfTest",
    "Subgroups",
    "SummaryRow",
    "Target",
    "TargetResult",
    "TargetVerdict",
    "Threshold",
    "Verdict",
    "WhiteBoxAdvantage",
    "all_attacks",
    "audit",
    "audit_mechanism",
    "audit_models",
    "choose_attack",
    "compare",
    "conformal_p_values",
    "cross_entropy_bound",
    "decide",
    "decision_bound",
    "detectable_auc",
    "detectable_epsilon",
    "detectable_tpr",
    "exposed_records",
    "groups_by_attribute",
    "groups_by_label",
    "make_canaries",
    "measure",
    "measure_subgroups",
    "one_run_bound",
    "one_run_gaussian_bound",
    "parse_duration",
    "reconstruct",
    "roc_curve",
    "runs_bound",
    "self_test",
    "summary_rows",
    "tpr_at_fpr",
    "verdicts",
    "white_box_advantage",
    "write_report",
]
