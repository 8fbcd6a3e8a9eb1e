"""The privacy of DP-PGC: DP-PG, then pruning, clustering and truncation of what was drawn.

Paper: Mao et al., IEEE TPDS 2022, Sections 4.3 and 5.2, Algorithm 3, Corollary 5.

What holds: importance weights, the pruning coin, k-means and truncation read the drawn parameters and public data
only, so they are post-processing and the release keeps DP-PG's epsilon, unchanged.

What the paper states: truncation from p_t to p_r bits divides epsilon by p_t - p_r (Corollary 5). It does not. Two
grid values that differ in their top bits stay apart under truncation, and so do the odds between them. The derivation
multiplies a ratio of probabilities by 1 / log(2^p_t / 2^p_r) and sets the probability of equal outputs to epsilon_j.
For p_r = p_t, where nothing is truncated, the statement divides by zero.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting import check_epsilon
from privkernels.privacy.accounting.budget import check_count
from privkernels.privacy.dp_pg import PAPER as _DP_PG_PAPER
from privkernels.privacy.dp_pg import DpPgPlan, dp_pg_guarantee
from privkernels.privacy.dp_pg import event_of as _dp_pg_event
from privkernels.privacy.events import BoundedRangeEvent
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee

PAPER = _DP_PG_PAPER.replace("DP-PG", "DP-PGC")


@dataclass(frozen=True)
class DpPgcPlan:
    """A DP-PG release and what is done to it afterwards.

    Attributes:
        draws: the plan of the draws.
        parameter_bits: p_t, bits of a drawn parameter.
        residual_bits: p_r, bits that truncation leaves; p_r = p_t leaves all.

    Raises:
        InvalidArgumentError: not 0 <= p_r <= p_t with p_t >= 1.
    """

    draws: DpPgPlan
    parameter_bits: int
    residual_bits: int

    def __post_init__(self) -> None:
        _check_bits(self.parameter_bits, self.residual_bits)


def paper_dp_pgc_epsilon(epsilon: float, parameter_bits: int, residual_bits: int) -> float | None:
    """epsilon / (p_t - p_r), the paper's Corollary 5, which is false; None for p_r = p_t, where it divides by zero.

    Raises:
        InvalidBudgetError: epsilon is not positive and finite.
        InvalidArgumentError: not 0 <= p_r <= p_t with p_t >= 1.
    """
    check_epsilon(epsilon)
    _check_bits(parameter_bits, residual_bits)
    truncated = parameter_bits - residual_bits
    return epsilon / truncated if truncated else None


def event_of(plan: DpPgcPlan) -> BoundedRangeEvent:
    """What the release costs its unit: what its draws cost."""
    return _dp_pg_event(plan.draws)


def dp_pgc_guarantee(
    plan: DpPgcPlan,
    *,
    grid_is_public: bool,
    bandwidth_source: str,
    range_source: str,
    private_steps: tuple[str, ...] = (),
    assumptions: tuple[Assumption, ...] = (),
    reproducible: bool = False,
    private_validation: bool = False,
    unprotected_tensors: tuple[str, ...] = (),
) -> Guarantee:
    """The guarantee of a DP-PGC release: DP-PG's, with the paper's quotient as the claim.

    Args:
        plan: how it was drawn and compressed.
        private_steps: steps after the draw that read private records (importance weights on training data,
            fine-tuning, ...). They are new access to the records, so nothing is proven where there is one.
        assumptions, reproducible, private_validation, unprotected_tensors, grid_is_public, bandwidth_source,
        range_source: as for :func:`privkernels.privacy.dp_pg_guarantee`.
    """
    drawn = dp_pg_guarantee(
        plan.draws,
        assumptions=assumptions,
        reproducible=reproducible,
        private_validation=private_validation,
        unprotected_tensors=unprotected_tensors,
        grid_is_public=grid_is_public,
        bandwidth_source=bandwidth_source,
        range_source=range_source,
    )
    reason = drawn.not_proven_because
    if private_steps:
        accessed = (
            f"Steps after the draw read private records without noise ({', '.join(private_steps)}); run them on public "
            "records, or leave them out."
        )
        reason = f"{reason} {accessed}" if reason else accessed
    return replace(
        drawn,
        mechanism=f"DP-PGC, pruning, clustering and truncation from {plan.parameter_bits} to {plan.residual_bits} bits "
        f"after {drawn.mechanism}",
        claimed=_claim(plan, drawn.claimed),
        proven=None if private_steps else drawn.proven,
        not_proven_because=reason,
        assumptions=drawn.assumptions if private_steps else (*drawn.assumptions, _POST_PROCESSING),
        implementation={
            **drawn.implementation,
            "parameter_bits_p_t": plan.parameter_bits,
            "residual_bits_p_r": plan.residual_bits,
            "epsilon_saved_by_truncation": 0.0,
        },
        warnings=(
            *drawn.warnings,
            "Truncation costs no privacy and brings none: whether a drawn value was in the upper or the lower half of "
            "the range is as visible after it as before.",
        ),
    )


_POST_PROCESSING = Assumption("Pruning, clustering and truncation read what was drawn and public data only.")


def _claim(plan: DpPgcPlan, drawn: Claim | None) -> Claim | None:
    if drawn is None:
        return None
    epsilon = paper_dp_pgc_epsilon(drawn.epsilon, plan.parameter_bits, plan.residual_bits)
    if epsilon is None:
        return None
    return Claim(
        epsilon=epsilon,
        delta=0.0,
        paper=drawn.paper.replace(_DP_PG_PAPER, PAPER),
        equation="Corollary 5",
        formula=f"epsilon_j / (p_t - p_r) = {drawn.epsilon:.4g} / ({plan.parameter_bits} - {plan.residual_bits})",
    )


def _check_bits(parameter_bits: int, residual_bits: int) -> None:
    check_count("parameter_bits (p_t)", parameter_bits)
    if check_count("residual_bits (p_r)", residual_bits, low=0) > parameter_bits:
        raise InvalidArgumentError(
            "truncation leaves at most all bits, residual_bits (p_r) <= parameter_bits (p_t): got p_r = "
            f"{residual_bits} and p_t = {parameter_bits}"
        )
