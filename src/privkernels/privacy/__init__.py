"""What can be claimed and what can be proven: guarantees, composition, and the plan of each mechanism."""

from privkernels.privacy.accounting import (
    Bound,
    compose_bounded_range,
    zcdp_to_epsilon,
)
from privkernels.privacy.dp_pg import (
    DpPgPlan,
    dp_pg_guarantee,
    kde_sensitivity,
    paper_kde_sensitivity,
    plan_paper_dp_pg,
    plan_proven_dp_pg,
)
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit

__all__ = [
    "Assumption",
    "Bound",
    "Claim",
    "DpPgPlan",
    "Guarantee",
    "Proof",
    "Unit",
    "compose_bounded_range",
    "dp_pg_guarantee",
    "kde_sensitivity",
    "paper_kde_sensitivity",
    "plan_paper_dp_pg",
    "plan_proven_dp_pg",
    "zcdp_to_epsilon",
]
