"""The privacy of noisy activations sent to a server that trains the rest of the network.

Paper: Mao et al., "Privacy-Preserving Computation Offloading for Parallel Deep Neural Networks Training", IEEE TPDS
2021, Sections 4 and 5, Corollaries 1 to 3. The proofs are not in the paper.

Setting: the server sees every noisy tensor, the labels, and which examples are in which batch. The unit is one
example's activation tensor, replaced by any other; its label is the same unless labels are randomised.

What holds, with L2 sensitivity D of one example's whole tensor and noise std s per entry, each example once per epoch:

* Frozen client layer: T releases compose to mu = sqrt(T) D / s, exactly (Dong, Roth, Su 2022). Sending each noisy
  tensor once and caching it gives D / s, whatever T is. Loss, gradients and weights of the server are post-processing.
* Client layer trained by DP-SGD (per-example clip G, noise z G): given the released weights, a row depends on its own
  example only: mu^2 = T D^2 / s^2 + T (2 / z)^2. Sampling does not amplify, because the server sees the batches.
* Client layer trained without noise: no guarantee. The weights after one example's step depend on it, and with them the
  rows of all other examples; only the useless bound of :func:`moving_layer_rho` holds.
* Labels: public, or each sent once through K-ary randomised response, which adds epsilon_l once.

What the paper states and what is wrong with it:

* S_f is the sensitivity of one number; an example changes the whole tensor.
* Corollary 1: epsilon_1 = p q epsilon - c, pure. A function of an (epsilon, delta) output of Gaussian noise has an
  unbounded likelihood ratio, so no pure epsilon holds; the m filters are not counted; c is not given.
* Corollary 2: (O(p_b epsilon_0 sqrt(T)), delta_0). epsilon_0 = c' + c with c' < 0 may be negative, and sampling does
  not amplify where every example is sent in every epoch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from privkernels.errors import InvalidArgumentError
from privkernels.privacy._names import by_name
from privkernels.privacy.accounting import Bound, check_delta, check_epsilon, compose, gaussian_epsilon
from privkernels.privacy.accounting.budget import check_count, check_positive
from privkernels.privacy.activation_formulae import (
    PAPER_SCALAR_SENSITIVITY,
    TensorSensitivity,
    dp_a_epsilon,
    rdp_a_epsilon,
    zcdp_a_epsilon,
)
from privkernels.privacy.events import Event, GaussianEvent, PureEvent
from privkernels.privacy.guarantee import Assumption, Claim, Guarantee, Proof, Unit, round_up

PAPER = "Mao et al., IEEE TPDS 2021 (computation offloading)"


class ClientLayer(StrEnum):
    """How the layers that stay with the client are trained."""

    FROZEN = "frozen"  # fixed or public weights
    DP_SGD = "dp-sgd"  # per-example clipping and Gaussian noise
    UNNOISED = "unnoised"  # by the returned gradient as it is: the paper's way


class PaperAnalysis(StrEnum):
    """Which of the paper's three formulae is the claim."""

    DP_A = "DP-A"
    ZCDP_A = "zCDP-A"
    RDP_A = "RDP-A"


@dataclass(frozen=True, kw_only=True)
class ActivationPlan:
    """What is sent to the server, settled before an example is read.

    Attributes:
        sensitivity: L2 sensitivity D of one example's whole tensor, replace-one, and the bound that gives it.
        noise_std: s, standard deviation of the Gaussian noise on each entry.
        epochs: T; each example is sent once per epoch.
        delta: delta of the guarantee.
        client_layer: how the client's layers are trained.
        release_once: each noisy tensor is sent once and cached by the server; needs a frozen layer.
        sgd_noise_multiplier: z of DP-SGD, noise over clipping norm; needed for and only for ``dp-sgd``.
        label_epsilon: epsilon_l of randomised response on the label, sent once; None means labels are public.
        scalar_sensitivity: S_f of one number, for the paper's formulae.
        analysis: which of them is the claim.

    Raises:
        InvalidArgumentError, InvalidBudgetError: a value out of range, or settings that contradict each other.
    """

    sensitivity: TensorSensitivity
    noise_std: float
    epochs: int
    delta: float
    client_layer: ClientLayer
    release_once: bool = False
    sgd_noise_multiplier: float | None = None
    label_epsilon: float | None = None
    scalar_sensitivity: float = PAPER_SCALAR_SENSITIVITY
    analysis: PaperAnalysis = PaperAnalysis.ZCDP_A

    def __post_init__(self) -> None:
        object.__setattr__(self, "client_layer", by_name(ClientLayer, self.client_layer))
        object.__setattr__(self, "analysis", by_name(PaperAnalysis, self.analysis))
        check_delta(self.delta)
        for name, value in (
            ("sensitivity", self.sensitivity.value),
            ("noise_std", self.noise_std),
            ("scalar_sensitivity", self.scalar_sensitivity),
        ):
            check_positive(name, value)
        check_count("epochs", self.epochs)
        if self.label_epsilon is not None:
            check_epsilon(self.label_epsilon)
        if self.release_once and self.client_layer is not ClientLayer.FROZEN:
            raise InvalidArgumentError("a tensor can be sent once and cached only if the client layer is frozen")
        if (self.sgd_noise_multiplier is None) == (self.client_layer is ClientLayer.DP_SGD):
            raise InvalidArgumentError("sgd_noise_multiplier is needed for client_layer dp-sgd, and for no other")
        if self.sgd_noise_multiplier is not None:
            check_positive("sgd_noise_multiplier", self.sgd_noise_multiplier)

    @property
    def releases(self) -> int:
        """How often one example's tensor is sent."""
        return 1 if self.release_once else self.epochs

    @property
    def mu(self) -> float:
        """mu of all Gaussian releases together; meaningless for an unnoised client layer."""
        return math.sqrt(math.fsum(e.count * e.mu**2 for e in _gaussians(self)))

    @property
    def unit(self) -> Unit:
        """One example's tensor; the whole example, its label included, where labels are randomised."""
        return Unit.ACTIVATION if self.label_epsilon is None else Unit.EXAMPLE


def moving_layer_rho(*, sensitivity: float, noise_std: float, batch_size: int, steps: int) -> float:
    """steps * B D^2 / (2 s^2): all that can be proven where the client layer is trained without noise.

    One example moves the layer, and then every row of every later batch by as much as D.
    """
    check_positive("sensitivity", sensitivity)
    check_positive("noise_std", noise_std)
    check_count("batch_size", batch_size)
    check_count("steps", steps)
    return steps * batch_size * sensitivity**2 / (2 * noise_std**2)


def events_of(plan: ActivationPlan) -> tuple[Event, ...]:
    """What the releases cost the plan's unit, for an accountant or the ledger.

    Raises:
        InvalidArgumentError: a client layer that is trained without noise, which has no such cost.
    """
    if plan.client_layer is ClientLayer.UNNOISED:
        raise InvalidArgumentError(
            "with a client layer trained without noise there is no cost that could be charged: freeze it, or train it "
            "by DP-SGD"
        )
    labels = () if plan.label_epsilon is None else (PureEvent(epsilon=plan.label_epsilon),)
    return (*_gaussians(plan), *labels)


def bound_of(plan: ActivationPlan) -> Bound:
    """(epsilon, delta) of all releases for the plan's unit; raises as :func:`events_of`.

    The Gaussian releases together are one of their mu, whose epsilon is exact; epsilon_l is added to it.
    """
    composed = compose(events_of(plan), plan.delta)
    exact = gaussian_epsilon(plan.mu, plan.delta) + (plan.label_epsilon or 0.0)
    if composed.epsilon <= exact and composed.delta <= plan.delta:
        return composed
    labels = "" if plan.label_epsilon is None else ", plus epsilon of the label"
    return Bound(exact, plan.delta, f"Gaussian mechanism, exact, mu = {round_up(plan.mu):.4g}{labels}")


def activation_guarantee(
    plan: ActivationPlan,
    *,
    assumptions: tuple[Assumption, ...] = (),
    aggregates_client_layer: bool = False,
    reproducible: bool = False,
) -> Guarantee:
    """The guarantee of training with noisy activations: the paper's number for one activation and ours for a tensor.

    Args:
        plan: what is sent.
        assumptions: what the caller knows (for example that the client's code clips as the plan says).
        aggregates_client_layer: the mean of the clients' layers is broadcast in each round, as in the paper's Section
            6.
        reproducible: the key came from a seed.
    """
    reasons = _why_not(plan, aggregates_client_layer, reproducible)
    bound = None if reasons else bound_of(plan)
    return Guarantee(
        mechanism=f"activations with Gaussian noise of standard deviation {plan.noise_std}, client layer "
        f"{plan.client_layer}, sent {plan.releases} time(s)",
        unit=plan.unit,
        neighbouring="two data sets in which the activation tensor of one example is replaced by another"
        + (", its label being the same" if plan.label_epsilon is None else ", and its label as well")
        + "; batch membership is public",
        claimed=_claim(plan),
        proven=None if bound is None else Proof(bound.epsilon, bound.delta, bound.accountant),
        not_proven_because=" ".join(reasons) or None,
        assumptions=assumptions + _assumptions(plan),
        implementation=_implementation(plan),
        warnings=_warnings(plan),
        reproducible=reproducible,
    )


def _gaussians(plan: ActivationPlan) -> tuple[GaussianEvent, ...]:
    tensors = GaussianEvent(mu=plan.sensitivity.value / plan.noise_std, count=plan.releases)
    if plan.sgd_noise_multiplier is None:
        return (tensors,)
    # Replacing an example moves the sum of clipped gradients by at most 2 G; the noise is z G.
    return (tensors, GaussianEvent(mu=2 / plan.sgd_noise_multiplier, count=plan.epochs))


def _claim(plan: ActivationPlan) -> Claim:
    noise, scalar, delta = plan.noise_std, plan.scalar_sensitivity, plan.delta
    epsilon, equation, formula = {
        PaperAnalysis.DP_A: (
            dp_a_epsilon(noise, scalar, delta), "Section 5.3", "sqrt(2 ln(1.25 / delta)) S_f / sigma"
        ),
        PaperAnalysis.ZCDP_A: (
            zcdp_a_epsilon(noise, scalar, delta, decimal_log=True), "Sections 5.1 and 5.3",
            "S_f^2 / (2 sigma^2) + 2 sqrt(S_f^2 / (2 sigma^2) log(1 / delta)) with the decimal logarithm of the "
            "paper's numbers"
        ),
        PaperAnalysis.RDP_A: (
            rdp_a_epsilon(noise, scalar, delta, decimal_log=True), "Sections 5.2 and 5.3",
            "alpha S_f^2 / (2 sigma^2) + log(1 / delta) / (alpha - 1), alpha = 2, with the decimal logarithm of the "
            "paper's numbers"
        ),
    }[plan.analysis]  # fmt: skip
    return Claim(
        epsilon=epsilon,
        delta=delta,
        paper=f"{PAPER}, {plan.analysis}",
        equation=equation,
        formula=f"{formula}; for one activation, one time, with S_f = {scalar:.4g}",
    )


def _why_not(plan: ActivationPlan, aggregates: bool, reproducible: bool) -> list[str]:
    reasons = []
    if plan.client_layer is ClientLayer.UNNOISED:
        reasons.append(
            "No guarantee for the transcript: the client layer is trained without noise, so after an example's first "
            "step the layer depends on it, and through the layer so do the tensors of all other examples that are sent "
            "later. Noise that hides one tensor does not hide a whole data set that moves. Freeze the client layer, or "
            "train it by DP-SGD."
        )
    elif aggregates and plan.client_layer is not ClientLayer.DP_SGD:
        # A frozen layer has nothing to aggregate, so what is broadcast was trained in some way that the plan hides.
        reasons.append(
            "The mean of the clients' layers is broadcast although the plan says that they are frozen: what is "
            "broadcast is a function of the records without noise."
        )
    if reproducible:
        reasons.append("The noise came from a seed, so it can be drawn again and subtracted: for experiments only.")
    return reasons


def _assumptions(plan: ActivationPlan) -> tuple[Assumption, ...]:
    if plan.client_layer is ClientLayer.UNNOISED:
        return ()
    stated = [
        f"No two tensors differ by more than {plan.sensitivity.value} in L2 norm ({plan.sensitivity.bound}).",
        "Each example is sent once per epoch, with fresh noise."
        if not plan.release_once
        else "Each noisy tensor is sent once, and the server caches it.",
        "The noise has the stated law: what finite precision adds is not in this number.",
    ]
    if plan.client_layer is ClientLayer.FROZEN:
        stated.append("The client layer was not trained on these examples.")
    else:
        stated.append("Each example has one clipped gradient per epoch, and DP-SGD's noise is fresh in every step.")
    return tuple(Assumption(text) for text in stated)


def _implementation(plan: ActivationPlan) -> dict[str, float | int | str | None]:
    noise, scalar, delta = plan.noise_std, plan.scalar_sensitivity, plan.delta
    frozen_or_sgd = plan.client_layer is not ClientLayer.UNNOISED
    dp_a = dp_a_epsilon(noise, scalar, delta)
    return {
        "noise_std": noise,
        "client_layer": str(plan.client_layer),
        "epochs_T": plan.epochs,
        "releases_per_example": plan.releases,
        "labels": "public" if plan.label_epsilon is None else "randomised response, sent once",
        "label_epsilon": plan.label_epsilon,
        "scalar_sensitivity_S_f": scalar,
        "paper_scalar_sensitivity": PAPER_SCALAR_SENSITIVITY,
        "tensor_sensitivity_L2": plan.sensitivity.value,
        "tensor_sensitivity_bound": plan.sensitivity.bound,
        "mu_of_one_release": plan.sensitivity.value / noise,
        "mu_total": plan.mu if frozen_or_sgd else None,
        "epsilon_of_one_release": gaussian_epsilon(plan.sensitivity.value / noise, delta),
        "epsilon_of_one_scalar": gaussian_epsilon(scalar / noise, delta),
        "looser_formula_DP-A": dp_a,
        "looser_formula_DP-A_is_proved": "yes" if dp_a < 1 else "no: proved for epsilon < 1 only",
        "looser_formula_zCDP-A_natural_log": zcdp_a_epsilon(noise, scalar, delta),
        "looser_formula_RDP-A_natural_log": rdp_a_epsilon(noise, scalar, delta),
        "paper_corollary_1": "epsilon_1 = p q epsilon - c for the loss: no pure epsilon holds",
        "paper_corollary_2": "(O(p_b epsilon_0 sqrt(T)), delta_0) for the weights: not proved in the paper",
    }


def _warnings(plan: ActivationPlan) -> tuple[str, ...]:
    warnings = []
    if plan.label_epsilon is None:
        warnings.append("The labels are sent in clear and count as public.")
    if plan.client_layer is not ClientLayer.UNNOISED and gaussian_epsilon(plan.mu, plan.delta) > 10:
        warnings.append(
            f"mu = {round_up(plan.mu):.4g}: the noise is small beside what one example can change in the whole tensor. "
            "Clip each example's tensor to a smaller norm, reduce its dimension, or send it once."
        )
    return tuple(warnings)
