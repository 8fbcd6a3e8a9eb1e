"""What can be said of pruned networks: no guarantee, lower bounds on the leak, and the noise that a guarantee would
take.

Papers: Wang et al., "Against Membership Inference Attack: Pruning is All You Need", IJCAI 2021 (MIA-Pruning), Eqs. 1,
2, 8 and 9, Theorem 1; Huang et al., "Privacy-preserving Learning via Deep Net Pruning", Theorem 4.2, Claims 4.3 and
4.4.

MIA-Pruning. The gain of the best attacker that sees f(x) only is -log 4 + 2 JS(p_f || p'_f): the identity holds. That
pruning lowers JS is an intuition, not a theorem, and Theorem 1 (some subnetwork approximates any f) says nothing of
privacy. Pruning is deterministic given the seed, so no (epsilon, delta) with delta < 1 holds.

Net pruning. Theorem 4.2 is about one random layer and its input at inference, not about training records, and states
that some h that is differentially private lies near the pruned g. Closeness does not transfer privacy: g is
deterministic. For the weights that the theorem needs, the constant phi(b) is as near, to the unpruned layer as well.
The h of the proof sketch adds noise whose scale depends on the input, and is not differentially private for wide
layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scipy.optimize import brentq

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.privacy.accounting import check_delta, check_epsilon, gaussian_mu
from privkernels.privacy.accounting.budget import check_positive
from privkernels.privacy.guarantee import Claim, Guarantee, Unit

if TYPE_CHECKING:
    import torch

MIA_PRUNING_PAPER = "Wang et al., IJCAI 2021 (MIA-Pruning)"
NET_PRUNING_PAPER = "Huang et al. (deep net pruning)"


def total_variation_bounds(jensen_shannon: float) -> tuple[float, float]:
    """(least, largest) total variation of two laws with this Jensen-Shannon divergence, in nats.

    JS / ln 2 <= TV <= t with ln 2 - h((1 - t) / 2) = JS, h the binary entropy (Hellman and Raviv 1970; Fano).

    Raises:
        InvalidArgumentError: not within [0, ln 2].
    """
    if not _is_number(jensen_shannon) or not 0 <= jensen_shannon <= math.log(2) * (1 + 1e-12):
        raise InvalidArgumentError(f"a Jensen-Shannon divergence lies in [0, ln 2] nats, got {jensen_shannon!r}")
    if jensen_shannon >= math.log(2):
        return 1.0, 1.0
    if jensen_shannon == 0:
        return 0.0, 0.0
    largest = brentq(lambda t: math.log(2) - _binary_entropy((1 - t) / 2) - jensen_shannon, 0.0, 1.0, xtol=1e-14)
    return jensen_shannon / math.log(2), float(largest)


def attack_accuracy_bounds(jensen_shannon: float) -> tuple[float, float]:
    """(least, largest) balanced accuracy, (1 + TV) / 2, of the best attacker at this Jensen-Shannon divergence."""
    least, largest = total_variation_bounds(jensen_shannon)
    return (1 + least) / 2, (1 + largest) / 2


def jensen_shannon_from_gain(gain: float) -> float:
    """(G + log 4) / 2, a lower bound on JS from any attacker's held-out gain (Eq. 1, natural logarithm); 0 at least.

    Raises:
        InvalidArgumentError: a gain above 0 or NaN; it is a mean of logarithms of probabilities.
    """
    if not _is_number(gain) or not gain <= 0:
        raise InvalidArgumentError(f"a gain is a sum of mean log probabilities, so 0 or less, got {gain!r}")
    return max(0.0, (gain + math.log(4)) / 2)


def jensen_shannon_from_accuracy(accuracy: float) -> float:
    """ln 2 - h(1 - accuracy), a lower bound on JS from any attacker's held-out balanced accuracy; 0 at 1/2 or less.

    Use the lower end of a confidence interval.

    Raises:
        InvalidArgumentError: not within [0, 1].
    """
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        raise InvalidArgumentError(f"an accuracy lies in [0, 1], got {accuracy!r}")
    return math.log(2) - _binary_entropy(1 - accuracy) if accuracy > 0.5 else 0.0


def private_attack_accuracy(epsilon: float, delta: float = 0.0) -> float:
    """(e^epsilon + delta) / (1 + e^epsilon), which no balanced attack on an (epsilon, delta) release exceeds.

    Raises:
        InvalidBudgetError: epsilon is not positive and finite.
        InvalidArgumentError: delta is not within [0, 1].
    """
    check_epsilon(epsilon)
    if not _is_number(delta) or not 0 <= delta <= 1:
        raise InvalidArgumentError(f"delta lies in [0, 1], got {delta!r}")
    odds = math.exp(-epsilon)
    return (1 + delta * odds) / (1 + odds)


def layer_sensitivity(weight: torch.Tensor, order: int) -> float:
    """GS_p = max_j ||W[:, j]||_p of x -> phi(W x + b) for ||x - y||_1 <= 1 and phi 1-Lipschitz per coordinate.

    Args:
        weight: [out, in], floating point, finite.
        order: p, 1 for Laplace noise or 2 for Gaussian.

    Raises:
        InvalidArgumentError: not a non-empty floating-point matrix, or another order.
        NonFiniteValueError: NaN or infinity in the weights.
    """
    if weight.dim() != 2 or not weight.numel() or not weight.is_floating_point():
        raise InvalidArgumentError(
            f"expected a floating-point weight matrix [out, in], got {tuple(weight.shape)} of {weight.dtype}"
        )
    if order not in (1, 2):
        raise InvalidArgumentError(f"the order is 1 or 2, got {order!r}")
    import torch  # here, because most of this module computes with numbers

    if not bool(torch.isfinite(weight).all()):
        raise NonFiniteValueError("the weights hold NaN or infinity: the layer has no sensitivity")
    columns: torch.Tensor = torch.linalg.vector_norm(weight.detach().double(), ord=order, dim=0)
    return float(columns.max())


@dataclass(frozen=True)
class LayerNoise:
    """Sensitivities of a layer to its input and the fixed noise that (epsilon, delta) for the input would take.

    Attributes:
        gs_1, gs_2: sensitivities of :func:`layer_sensitivity`.
        laplace_scale: GS_1 / epsilon, per output (delta 0).
        gaussian_std: GS_2 / mu(epsilon, delta), per output.
    """

    gs_1: float
    gs_2: float
    laplace_scale: float
    gaussian_std: float


def layer_noise(weight: torch.Tensor, epsilon: float, delta: float) -> LayerNoise:
    """Noise on a layer's outputs for (epsilon, delta) about its input, weights [out, in] being public.

    Raises:
        InvalidBudgetError: epsilon or delta is out of range.
        InvalidArgumentError, NonFiniteValueError: as :func:`layer_sensitivity`.
    """
    check_epsilon(epsilon)
    check_delta(delta)
    gs_1, gs_2 = layer_sensitivity(weight, 1), layer_sensitivity(weight, 2)
    return LayerNoise(gs_1, gs_2, gs_1 / epsilon, gs_2 / gaussian_mu(epsilon, delta))


def mia_pruning_guarantee(*, kept: float, min_max_game: bool = False, reproducible: bool = False) -> Guarantee:
    """MIA-Pruning's guarantee: none.

    Args:
        kept: share of the weights that remain, in (0, 1].
        min_max_game: trained with the attacker's gain in the loss as well (Eq. 3).
        reproducible: training can be repeated from a seed.

    Raises:
        InvalidArgumentError: kept out of range.
    """
    _check_share(kept)
    return Guarantee(
        mechanism=f"MIA-Pruning{' with the min-max game' if min_max_game else ''}, {kept:.4g} of the weights kept",
        unit=Unit.EXAMPLE,
        neighbouring="two data sets in which one training record is replaced by another",
        claimed=None,
        proven=None,
        not_proven_because="Pruning adds no noise: the pruned network is a function of the training records, and which "
        "weights remain is one too. That it leaks less is an observation about the attackers that were tried, not a "
        "bound on those that were not. Measure it by attacks; a measurement shows a leak, never its absence.",
        implementation={
            "kept": kept,
            "paper_claims": "the subnetwork 'can prevent the privacy leakage from MIA': the best attacker's gain is "
            "-log(4) + 2 JS(p_f || p'_f), so a random guess where JS = 0; no epsilon",
            "dp": "none: deterministic given the seed",
            "number_of_weights_chosen_by": "the least gain of a trained attacker on private records",
        },
        warnings=(
            "An attack's success is a lower bound on the leak. It says nothing about a better attack, and an average "
            "hides records that are fully exposed.",
        ),
        reproducible=reproducible,
    )


def net_pruning_guarantee(
    *,
    kept: float,
    before: LayerNoise | None = None,
    after: LayerNoise | None = None,
    claimed_epsilon: float | None = None,
    claimed_delta: float | None = None,
    reproducible: bool = False,
) -> Guarantee:
    """The guarantee of magnitude-based pruning: none.

    Args:
        kept: share of the weights that remain, in (0, 1].
        before, after: :func:`layer_noise` of one layer's weights before and after pruning, to be shown.
        claimed_epsilon, claimed_delta: epsilon_dp and delta_dp of the paper's Theorem 4.2, which an unspecified
            constant ties to the weights' standard deviation; both or neither.
        reproducible: training can be repeated from a seed.

    Raises:
        InvalidArgumentError: kept out of range, or one of the claimed numbers without the other.
    """
    _check_share(kept)
    if (claimed_epsilon is None) != (claimed_delta is None):
        raise InvalidArgumentError("Theorem 4.2 has both an epsilon_dp and a delta_dp: give both, or neither")
    claim = None
    if claimed_epsilon is not None and claimed_delta is not None:
        claim = Claim(
            epsilon=check_epsilon(claimed_epsilon),
            delta=check_delta(claimed_delta),
            paper=NET_PRUNING_PAPER,
            equation="Theorem 4.2",
            formula="there is a function h that is (epsilon_dp, delta_dp)-differentially private in the layer's input "
            "(||x - y||_1 <= 1) and (epsilon_ap, delta_ap)-close to the pruned layer; nothing about the pruned layer "
            "itself, nor about training records",
        )
    numbers: dict[str, float | int | str | None] = {"kept": kept, "dp": "pruned network: none, deterministic"}
    for name, layer in (("before", before), ("after", after)):
        if layer is not None:
            numbers |= {
                f"GS_1_{name}": layer.gs_1,
                f"GS_2_{name}": layer.gs_2,
                f"laplace_scale_needed_{name}": layer.laplace_scale,
                f"gaussian_std_needed_{name}": layer.gaussian_std,
            }
    return Guarantee(
        mechanism=f"magnitude-based pruning, {kept:.4g} of the weights kept",
        unit=Unit.EXAMPLE,
        neighbouring="two data sets in which one training record is replaced by another; the paper compares two inputs "
        "of a layer at inference instead",
        claimed=claim,
        proven=None,
        not_proven_because="The pruned network has no noise: it is deterministic, and two inputs or two training sets "
        "that give different outputs are told apart for certain. The paper shows that a private function lies near it, "
        "which does not make it private, and which a constant function does as well.",
        implementation=numbers,
        warnings=("The paper's privacy is about a layer's input at inference, not about training records.",),
        reproducible=reproducible,
    )


def _binary_entropy(p: float) -> float:
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_share(kept: float) -> None:
    if check_positive("the share of weights that are kept", kept) > 1:
        raise InvalidArgumentError(f"the share of weights that are kept lies in (0, 1], got {kept!r}")
