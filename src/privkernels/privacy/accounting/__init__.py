"""Composition of private operations, always by the least of the bounds that are valid."""

from privkernels.privacy.accounting.accountant import compose
from privkernels.privacy.accounting.budget import Bound, check_delta, check_epsilon
from privkernels.privacy.accounting.concentrated import zcdp_to_epsilon
from privkernels.privacy.accounting.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu

__all__ = [
    "Bound",
    "check_delta",
    "check_epsilon",
    "compose",
    "gaussian_delta",
    "gaussian_epsilon",
    "gaussian_mu",
    "zcdp_to_epsilon",
]
