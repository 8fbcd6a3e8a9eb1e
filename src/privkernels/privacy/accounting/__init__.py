"""Composition of private operations, always by the least of the bounds that are valid (docs/accounting.md)."""

from privkernels.privacy.accounting.accountant import compose, composed_delta
from privkernels.privacy.accounting.bounded_range import (
    bounded_range_delta,
    bounded_range_epsilon,
    bounded_range_rho,
    nonadaptive_bounded_range_delta,
)
from privkernels.privacy.accounting.budget import Bound, Comparison, check_delta, check_epsilon
from privkernels.privacy.accounting.concentrated import (
    classic_zcdp_epsilon,
    epsilon_to_zcdp,
    zcdp_to_delta,
    zcdp_to_epsilon,
)
from privkernels.privacy.accounting.gaussian import (
    classic_gaussian_epsilon,
    compose_mu,
    discrete_gaussian_mu,
    discrete_gaussian_rho,
    gaussian_delta,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_mu,
    gaussian_noise_std,
)
from privkernels.privacy.accounting.groups import inclusion_quantile, inclusion_tail
from privkernels.privacy.accounting.laplace import discrete_laplace_epsilon, laplace_rho, pure_rho
from privkernels.privacy.accounting.private_selection import (
    fixed_tries,
    geometric_stopping,
    private_threshold,
    unlimited_public_acceptance,
)

__all__ = [
    "Bound",
    "Comparison",
    "bounded_range_delta",
    "bounded_range_epsilon",
    "bounded_range_rho",
    "check_delta",
    "check_epsilon",
    "classic_gaussian_epsilon",
    "classic_zcdp_epsilon",
    "compose",
    "compose_mu",
    "composed_delta",
    "discrete_gaussian_mu",
    "discrete_gaussian_rho",
    "discrete_laplace_epsilon",
    "epsilon_to_zcdp",
    "fixed_tries",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_log_delta",
    "gaussian_mu",
    "gaussian_noise_std",
    "geometric_stopping",
    "inclusion_quantile",
    "inclusion_tail",
    "laplace_rho",
    "nonadaptive_bounded_range_delta",
    "private_threshold",
    "pure_rho",
    "unlimited_public_acceptance",
    "zcdp_to_delta",
    "zcdp_to_epsilon",
]
