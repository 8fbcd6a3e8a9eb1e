"""What can be claimed and what can be proven: guarantees, events, composition, and the plan of each mechanism."""

from privkernels.privacy.accounting import (
    Bound,
    compose,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
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
from privkernels.privacy.events import (
    ApproximateEvent,
    BoundedRangeEvent,
    ConcentratedEvent,
    Event,
    GaussianEvent,
    LaplaceEvent,
    PureEvent,
    Relation,
    SampledGaussianEvent,
)
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit
from privkernels.privacy.mechanisms import (
    Drawn,
    discrete_gaussian,
    discrete_laplace,
    exponential_mechanism,
    permute_and_flip,
    randomized_response,
)

__all__ = [
    "ApproximateEvent",
    "Assumption",
    "Bound",
    "BoundedRangeEvent",
    "Claim",
    "ConcentratedEvent",
    "DpPgPlan",
    "Drawn",
    "Event",
    "GaussianEvent",
    "Guarantee",
    "LaplaceEvent",
    "Proof",
    "PureEvent",
    "Relation",
    "SampledGaussianEvent",
    "Unit",
    "compose",
    "discrete_gaussian",
    "discrete_laplace",
    "dp_pg_guarantee",
    "exponential_mechanism",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "kde_sensitivity",
    "paper_kde_sensitivity",
    "permute_and_flip",
    "plan_paper_dp_pg",
    "plan_proven_dp_pg",
    "randomized_response",
    "zcdp_to_epsilon",
]
