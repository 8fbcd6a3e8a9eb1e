"""Sensitivities of a normalised activation, and the three formulae of the offloading paper beside the exact one.

Paper: Mao et al., "Privacy-Preserving Computation Offloading for Parallel Deep Neural Networks Training", IEEE TPDS
2021, Eq. 4, Sections 4.1 and 5, Figure 3.

DP-A, zCDP-A and RDP-A are three analyses of one and the same mechanism, Gaussian noise, so none can be more private
than another at the same noise, and the exact epsilon (Balle and Wang 2018) is below all that hold. Departures found:

* The curves of Figure 3 and the text of Section 5.3 use natural logarithms for DP-A and decimal ones for zCDP-A and
  RDP-A. With natural logarithms zCDP-A is 1 / (4 sigma^2) + 3.035 / sigma, not 2 / sigma, and the order of the curves
  turns: the paper's crossing at sigma = 0.233 moves to 6.84.
* DP-A's formula is proved for epsilon < 1 only and is false for small noise.
* Eq. 2 writes the noise as S_f sigma, Section 5 as sigma. Here ``noise_std`` is always the noise's standard deviation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from privkernels.errors import InvalidArgumentError
from privkernels.privacy.accounting import check_delta, gaussian_epsilon, zcdp_to_epsilon
from privkernels.privacy.accounting.budget import check_count, check_positive

# Section 4.1: S_f < 1 / sqrt(2), for u = 5, alpha = 1, beta = 1/2, gamma = 2
PAPER_SCALAR_SENSITIVITY = 1 / math.sqrt(2)


def lrn_scalar_sensitivity(
    clamp: float, *, alpha: float = 1.0, beta: float = 0.5, gamma: float = 2.0, signed: bool = False
) -> float:
    """Largest change of one f_i = a_i / (gamma + alpha sum_W(i) a_j^2)^beta (Eq. 4), a in [0, clamp]; attained.

    The supremum has all other channels of the window at 0: a / (gamma + alpha a^2)^beta at a = clamp if beta <= 1/2,
    else at a = min(clamp, sqrt(gamma / (alpha (2 beta - 1)))). Signed activations, in [-clamp, clamp], have twice that.
    ``clamp`` may be infinite. The paper's 1 / sqrt(2) needs clamp <= sqrt(2) and is loose on [0, 1], where it is
    1 / sqrt(3); unbounded activations reach 1.

    Raises:
        InvalidArgumentError: a parameter that is not positive, or a supremum that is infinite.
    """
    _check_normalization(clamp, alpha, beta, gamma)
    largest: float
    if beta > 0.5:
        largest = _normalized(min(clamp, math.sqrt(gamma / (alpha * (2 * beta - 1)))), alpha, beta, gamma)
    elif math.isfinite(clamp):
        largest = _normalized(clamp, alpha, beta, gamma)
    elif beta == 0.5:
        largest = 1 / math.sqrt(alpha)
    else:
        raise InvalidArgumentError("with beta < 1/2 an unbounded activation has no finite sensitivity: give a clamp")
    return 2 * largest if signed else largest


@dataclass(frozen=True)
class TensorSensitivity:
    """An upper bound on the L2 distance between the tensors of any two examples, and the argument that gives it."""

    value: float
    bound: str


def lrn_tensor_sensitivity(
    channels: int,
    height: int,
    width: int,
    *,
    clamp: float = math.inf,
    alpha: float = 1.0,
    beta: float = 0.5,
    gamma: float = 2.0,
    window: int = 5,
) -> TensorSensitivity:
    """L2 sensitivity of a whole tensor [channels, height, width] of Eq. 4 for a in [0, clamp], replace-one-example.

    The least of two bounds per spatial position, times sqrt(height width):

    * coordinates: two numbers in [0, S] differ by at most S, so d^2 <= channels S^2, S the scalar sensitivity;
    * blocks (beta = 1/2): any h + 1 = window // 2 + 1 neighbouring channels lie in each other's windows, so with s the
      sum of their squares their outputs have sum of squares at most s / (gamma + alpha s), s <= (h + 1) clamp^2; the
      outputs are not negative, so d^2 <= ||y||^2 + ||y'||^2.

    With the paper's constants: sqrt(m h w / 3) for clamp 1, sqrt(2 ceil(m / 3) h w) without a clamp.

    Raises:
        InvalidArgumentError: a size below 1, a parameter that is not positive, or no finite bound.
    """
    for name, value in (("channels", channels), ("height", height), ("width", width), ("window", window)):
        check_count(name, value)
    scalar = lrn_scalar_sensitivity(clamp, alpha=alpha, beta=beta, gamma=gamma)
    bounds = [(channels * scalar**2, "coordinates")]
    if beta == 0.5:
        block = window // 2 + 1
        squares = block * clamp * clamp  # infinite where it overflows, which is the bound without a clamp
        of_block = squares / (gamma + alpha * squares) if squares <= 1 else 1 / (gamma / squares + alpha)
        bounds.append((2 * math.ceil(channels / block) * of_block, "blocks of channels"))
    square, name = min(bounds)
    return TensorSensitivity(math.sqrt(square * height * width), name)


def clipped_tensor_sensitivity(norm: float, *, nonnegative: bool = True) -> TensorSensitivity:
    """L2 sensitivity of a tensor that is clipped to L2 norm ``norm`` per example, replace-one-example; attained.

    sqrt(2) C where no entry is negative (two such tensors have no negative inner product), 2 C otherwise.
    """
    check_positive("the clipping norm", norm)
    factor = math.sqrt(2) if nonnegative else 2.0
    return TensorSensitivity(factor * norm, "clipped, not negative" if nonnegative else "clipped, signed")


def dp_a_epsilon(noise_std: float, sensitivity: float, delta: float) -> float:
    """sqrt(2 ln(1.25 / delta)) S / std, the paper's DP-A (Section 5.3). Proved for epsilon < 1 only."""
    _check_noise(noise_std, sensitivity, delta)
    return math.sqrt(2 * (math.log(1.25) - math.log(delta))) * sensitivity / noise_std


def zcdp_a_epsilon(noise_std: float, sensitivity: float, delta: float, *, decimal_log: bool = False) -> float:
    """rho + 2 sqrt(rho log(1 / delta)), rho = S^2 / (2 std^2): the paper's zCDP-A (Section 5.1).

    ``decimal_log`` gives the number as the paper prints and plots it; it does not hold.
    """
    _check_noise(noise_std, sensitivity, delta)
    rho = sensitivity**2 / (2 * noise_std**2)
    return rho + 2 * math.sqrt(rho * _log_of_inverse(delta, decimal_log))


def rdp_a_epsilon(
    noise_std: float, sensitivity: float, delta: float, *, order: float = 2.0, decimal_log: bool = False
) -> float:
    """alpha S^2 / (2 std^2) + log(1 / delta) / (alpha - 1): the paper's RDP-A (Section 5.2), alpha = 2 in Figure 3.

    At the best order, 1 + std sqrt(2 ln(1 / delta)) / S, this is zCDP-A. ``decimal_log`` as for :func:`zcdp_a_epsilon`.

    Raises:
        InvalidArgumentError: an order of 1 or less, or noise or sensitivity that is not positive.
    """
    _check_noise(noise_std, sensitivity, delta)
    if not check_positive("a Renyi order", order) > 1:
        raise InvalidArgumentError(f"a Renyi order lies above 1 and is finite, got {order!r}")
    return order * sensitivity**2 / (2 * noise_std**2) + _log_of_inverse(delta, decimal_log) / (order - 1)


Curve = NDArray[np.float64]


@dataclass(frozen=True)
class FormulaCurves:
    """epsilon at one delta for each noise standard deviation; all arrays float64 [n], n the length of ``noise_std``.

    Attributes:
        dp_a, zcdp_a_printed, rdp_a_printed: the three curves of Figure 3 as the paper computed them.
        zcdp_a, rdp_a: the same two with natural logarithms.
        cks: zCDP by the better conversion (Canonne, Kamath, Steinke 2020).
        exact: the Gaussian mechanism's own epsilon (Balle and Wang 2018); the least that holds.
        dp_a_is_proved: bool [n], where DP-A's formula is proved (epsilon < 1).
    """

    noise_std: Curve
    dp_a: Curve
    zcdp_a_printed: Curve
    rdp_a_printed: Curve
    zcdp_a: Curve
    rdp_a: Curve
    cks: Curve
    exact: Curve
    dp_a_is_proved: NDArray[np.bool_]


def formula_curves(
    noise_std: ArrayLike, *, sensitivity: float = PAPER_SCALAR_SENSITIVITY, delta: float = 1e-4, order: float = 2.0
) -> FormulaCurves:
    """The curves of Figure 3, as printed and as they should be, for ``noise_std`` [n]; defaults as in the paper.

    Raises:
        InvalidArgumentError: noise_std is empty, not one-dimensional, or not positive and finite throughout.
    """
    stds = np.asarray(noise_std, dtype=np.float64)
    if stds.ndim != 1 or not stds.size or not np.all(np.isfinite(stds) & (stds > 0)):
        raise InvalidArgumentError("noise_std must be a list of positive, finite numbers: one per point of the curve")
    points = [float(std) for std in stds]
    dp_a = np.array([dp_a_epsilon(s, sensitivity, delta) for s in points])
    return FormulaCurves(
        noise_std=stds,
        dp_a=dp_a,
        zcdp_a_printed=np.array([zcdp_a_epsilon(s, sensitivity, delta, decimal_log=True) for s in points]),
        rdp_a_printed=np.array([rdp_a_epsilon(s, sensitivity, delta, order=order, decimal_log=True) for s in points]),
        zcdp_a=np.array([zcdp_a_epsilon(s, sensitivity, delta) for s in points]),
        rdp_a=np.array([rdp_a_epsilon(s, sensitivity, delta, order=order) for s in points]),
        cks=np.array([zcdp_to_epsilon(sensitivity**2 / (2 * s**2), delta) for s in points]),
        exact=np.array([gaussian_epsilon(sensitivity / s, delta) for s in points]),
        dp_a_is_proved=dp_a < 1,
    )


def _normalized(activation: float, alpha: float, beta: float, gamma: float) -> float:
    """Eq. 4 for one channel that is alone in its window."""
    try:
        if activation <= 1:
            return float(activation / (gamma + alpha * activation**2) ** beta)
        # The same, without the square, which may overflow.
        return float(activation ** (1 - 2 * beta) / (gamma / activation / activation + alpha) ** beta)
    except (OverflowError, ZeroDivisionError):
        raise InvalidArgumentError(
            f"alpha {alpha:g}, beta {beta:g} and gamma {gamma:g} leave the range of float64: use smaller ones"
        ) from None


def _log_of_inverse(delta: float, decimal: bool) -> float:
    return -math.log10(delta) if decimal else -math.log(delta)


def _check_noise(noise_std: float, sensitivity: float, delta: float) -> None:
    check_delta(delta)
    check_positive("noise_std", noise_std)
    check_positive("sensitivity", sensitivity)


def _check_normalization(clamp: float, alpha: float, beta: float, gamma: float) -> None:
    if clamp != math.inf:
        check_positive("clamp (infinite for none)", clamp)
    for name, value in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        check_positive(name, value)
