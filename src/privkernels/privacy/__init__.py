"""What can be claimed and what can be proven: guarantees, events, composition, and the plan of each mechanism."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from privkernels.privacy.accounting import (
    Bound,
    compose,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_mu,
    zcdp_to_epsilon,
)
from privkernels.privacy.activation_formulae import (
    FormulaCurves,
    TensorSensitivity,
    clipped_tensor_sensitivity,
    formula_curves,
    lrn_scalar_sensitivity,
    lrn_tensor_sensitivity,
)
from privkernels.privacy.activations import (
    ActivationPlan,
    ClientLayer,
    PaperAnalysis,
    activation_guarantee,
)
from privkernels.privacy.dp_pg import (
    DpPgPlan,
    dp_pg_guarantee,
    kde_sensitivity,
    paper_kde_sensitivity,
    plan_paper_dp_pg,
    plan_proven_dp_pg,
)
from privkernels.privacy.dp_pgc import DpPgcPlan, dp_pgc_guarantee, paper_dp_pgc_epsilon
from privkernels.privacy.dp_pgp import (
    DpPgpPlan,
    DpPgpVariant,
    dp_pgp_guarantee,
    lloyd_sensitivity_l1,
    lloyd_sensitivity_l2,
    paper_dp_pgp_epsilon,
    plan_member_dp_pgp,
    plan_paper_dp_pgp,
    plan_scalar_dp_pgp,
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
from privkernels.privacy.functional import (
    CoefficientNoise,
    FunctionalMode,
    FunctionalPlan,
    class_coefficient_sensitivity_l1,
    coefficient_sensitivity_l1,
    coefficient_sensitivity_l2,
    functional_guarantee,
    paper_coefficient_sensitivity,
)
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit
from privkernels.privacy.pruning import (
    LayerNoise,
    attack_accuracy_bounds,
    jensen_shannon_from_accuracy,
    jensen_shannon_from_gain,
    layer_noise,
    layer_sensitivity,
    mia_pruning_guarantee,
    net_pruning_guarantee,
    private_attack_accuracy,
    total_variation_bounds,
)
from privkernels.privacy.secprobe import (
    ScoreTask,
    SelectionPlan,
    paper_score_sensitivity,
    plan_selection,
    regression_term,
    score_range,
    score_sensitivity,
    selection_guarantee,
)
from privkernels.privacy.secure_aggregation import (
    AggregationNoise,
    AggregationPlan,
    aggregation_guarantee,
    isolated_clients,
)

if TYPE_CHECKING:
    from privkernels.privacy.mechanisms import (
        Drawn,
        discrete_gaussian,
        discrete_laplace,
        exponential_mechanism,
        permute_and_flip,
        randomized_response,
    )

# Loaded on first use: they bring torch, which accounting does without.
_DRAWING = (
    "Drawn",
    "discrete_gaussian",
    "discrete_laplace",
    "exponential_mechanism",
    "permute_and_flip",
    "randomized_response",
)

__all__ = [
    "ActivationPlan",
    "AggregationNoise",
    "AggregationPlan",
    "ApproximateEvent",
    "Assumption",
    "Bound",
    "BoundedRangeEvent",
    "Claim",
    "ClientLayer",
    "CoefficientNoise",
    "ConcentratedEvent",
    "DpPgPlan",
    "DpPgcPlan",
    "DpPgpPlan",
    "DpPgpVariant",
    "Drawn",
    "Event",
    "FormulaCurves",
    "FunctionalMode",
    "FunctionalPlan",
    "GaussianEvent",
    "Guarantee",
    "LaplaceEvent",
    "LayerNoise",
    "PaperAnalysis",
    "Proof",
    "PureEvent",
    "Relation",
    "SampledGaussianEvent",
    "ScoreTask",
    "SelectionPlan",
    "TensorSensitivity",
    "Unit",
    "activation_guarantee",
    "aggregation_guarantee",
    "attack_accuracy_bounds",
    "class_coefficient_sensitivity_l1",
    "clipped_tensor_sensitivity",
    "coefficient_sensitivity_l1",
    "coefficient_sensitivity_l2",
    "compose",
    "discrete_gaussian",
    "discrete_laplace",
    "dp_pg_guarantee",
    "dp_pgc_guarantee",
    "dp_pgp_guarantee",
    "exponential_mechanism",
    "formula_curves",
    "functional_guarantee",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "isolated_clients",
    "jensen_shannon_from_accuracy",
    "jensen_shannon_from_gain",
    "kde_sensitivity",
    "layer_noise",
    "layer_sensitivity",
    "lloyd_sensitivity_l1",
    "lloyd_sensitivity_l2",
    "lrn_scalar_sensitivity",
    "lrn_tensor_sensitivity",
    "mia_pruning_guarantee",
    "net_pruning_guarantee",
    "paper_coefficient_sensitivity",
    "paper_dp_pgc_epsilon",
    "paper_dp_pgp_epsilon",
    "paper_kde_sensitivity",
    "paper_score_sensitivity",
    "permute_and_flip",
    "plan_member_dp_pgp",
    "plan_paper_dp_pg",
    "plan_paper_dp_pgp",
    "plan_proven_dp_pg",
    "plan_scalar_dp_pgp",
    "plan_selection",
    "private_attack_accuracy",
    "randomized_response",
    "regression_term",
    "score_range",
    "score_sensitivity",
    "selection_guarantee",
    "total_variation_bounds",
    "zcdp_to_epsilon",
]


def __getattr__(name: str) -> Any:
    if name not in _DRAWING:
        raise AttributeError(f"module 'privkernels.privacy' has no attribute {name!r}")
    value = getattr(importlib.import_module("privkernels.privacy.mechanisms"), name)
    globals()[name] = value
    return value
