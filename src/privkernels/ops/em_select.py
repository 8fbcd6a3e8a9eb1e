"""em_select: choose candidates by their scores, with the exponential mechanism or with permute-and-flip.

The contract (layout, weights, draw, randomness, accuracy, time) is csrc/include/privkernels/em_select.h.
Sources: McSherry and Talwar, FOCS 2007 (exponential mechanism); McKenna and Sheldon, NeurIPS 2020, Algorithm 1
(permute-and-flip). Departures: probabilities are those of integer weights of 80 bits (:func:`em_select_accuracy`
states what this costs), and permute-and-flip tosses all coins beforehand instead of stopping at the first success,
so that its time does not depend on the scores.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from privkernels import _native
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, define, implement, key_bytes
from privkernels.randomness import Key

Mechanism = Literal["exponential", "permute-and-flip"]

_MECHANISMS = ("exponential", "permute-and-flip")
_UNIT = 2.0**-53  # the rounding unit of float64
_NON_FINITE = 2  # csrc/include/privkernels/status.h
_LARGEST_MULTIPLIER = 1e300
_MOST_CANDIDATES = 2**32

define(
    "em_select(Tensor scores, Tensor? offsets, Tensor key, float multiplier, int k, bool permute_and_flip, "
    "int first_segment) -> Tensor",
    outside_graphs=KEYED,
)


def em_select(
    scores: torch.Tensor,
    *,
    multiplier: float,
    key: Key,
    label: str,
    offsets: torch.Tensor | None = None,
    k: int | None = None,
    mechanism: Mechanism = "exponential",
    first_segment: int = 0,
) -> torch.Tensor:
    """Draw from every segment of scores; a higher score is likelier.

    With a_i = exp(multiplier * (score_i - max)): "exponential" draws i with probability a_i / sum a_j,
    "permute-and-flip" with probability a_i * integral over [0, 1] of prod_{j != i} (1 - a_j v) dv. Both are
    eps-differentially private with eps = multiplier * d, where d is the largest
    |(s_i - s'_i) - (s_j - s'_j)| over candidates i, j and neighbouring inputs (at most twice the sensitivity of a
    score); the exponential mechanism is moreover eps-bounded-range, permute-and-flip is not.
    What finite arithmetic adds is in :func:`em_select_accuracy`.

    A draw is a function of (key, label), ``first_segment`` + segment, the number of the draw and the segment's scores
    alone, bit for bit on every CPU instruction set; CUDA is written to agree, which no GPU has confirmed yet. The
    time does not depend on the scores (em_select.h says what that leaves out).

    Args:
        scores: float32 or float64, finite and at most 2**1022 in magnitude: [n], one segment; [B, n] with any
            strides, a segment for each row; or [N] with ``offsets``.
        multiplier: in [0, 1e300], per unit of score.
        key, label: a (key, label) pair must be used for one release only.
        offsets: int64 [S + 1] on the device of the scores, not decreasing, from 0 to N: segment s is
            ``scores[offsets[s]:offsets[s + 1]]`` and has 1 to 2**32 candidates.
        k: how many candidates to draw without replacement, each draw like the first among those that are left;
            None for one draw without a dimension of its own. Privacy is that of k draws.
        mechanism: "exponential" or "permute-and-flip".
        first_segment: index of segment 0 within the release; lets a release be drawn in slices.
            first_segment + segments is at most 2**32.

    Returns:
        int64 indices within the segment, in the order of drawing: [], [B] or [S] for k = None, else [k], [B, k] or
        [S, k].

    Raises:
        InvalidArgumentError: a shape, dtype, device or value is wrong (the message says which).
        EmptyDataError: a segment has no candidates.
        NonFiniteValueError: a score is NaN, infinite or too large (segment and candidate are named).
    """
    if not isinstance(scores, torch.Tensor):
        raise InvalidArgumentError(f"scores must be a float32 or float64 tensor, not {type(scores).__name__}")
    if not isinstance(key, Key):
        raise InvalidArgumentError(f"key is a privkernels.Key, not {type(key).__name__}")
    if mechanism not in _MECHANISMS:
        raise InvalidArgumentError(f"mechanism is one of {', '.join(_MECHANISMS)}, not {mechanism!r}")
    _check_numbers(multiplier, 1 if k is None else k, first_segment)
    single = scores.dim() == 1 and offsets is None
    index: torch.Tensor = torch.ops.privkernels.em_select(
        scores.detach().unsqueeze(0) if single else scores.detach(), offsets, key.derive(label).tensor(),
        float(multiplier), 1 if k is None else k, mechanism == "permute-and-flip", first_segment,
    )  # fmt: skip
    if single:
        index = index.squeeze(0)
    return index.squeeze(-1) if k is None else index


@dataclass(frozen=True)
class EmSelectAccuracy:
    """What the implementation adds to the privacy of one draw (csrc/include/privkernels/em_select.h).

    Attributes:
        log_weight_error: e, the largest error of the logarithm of a weight that is not cut to zero.
        epsilon_shift: how much the epsilon (bounded range or pure) of one draw grows by it, 4 e.
        total_variation: of one draw from the mechanism with epsilon so grown, by cutting weights to integers, by the
            128-bit uniform and, in permute-and-flip, by ties of priorities; it goes into delta.
    """

    log_weight_error: float
    epsilon_shift: float
    total_variation: float


def em_select_accuracy(
    candidates: int, *, multiplier: float | None = None, score_range: float | None = None,
    mechanism: Mechanism = "exponential",
) -> EmSelectAccuracy:  # fmt: skip
    """Bounds on what rounding and finite randomness cost one draw; public inputs only. k draws cost k times both.

    Args:
        candidates: n, the largest number of candidates in a segment.
        multiplier, score_range: where both are given, and the scores of a segment are known to lie within an interval
            of length ``score_range`` whatever the data, the error of a weight is smaller.
        mechanism: as in :func:`em_select`.

    Raises:
        InvalidArgumentError: a number is out of range, or the mechanism unknown.
    """
    if mechanism not in _MECHANISMS:
        raise InvalidArgumentError(f"mechanism is one of {', '.join(_MECHANISMS)}, not {mechanism!r}")
    if not 1 <= candidates <= _MOST_CANDIDATES:
        raise InvalidArgumentError(f"a segment has 1 to 2**32 candidates, got {candidates}")
    swing = 81 * math.log(2)
    if multiplier is not None and score_range is not None:
        _check_numbers(multiplier, 1, 0)
        if not 0 <= score_range < math.inf:
            raise InvalidArgumentError(f"score_range must be 0 or more and finite, got {score_range}")
        swing = min(swing, multiplier * score_range)
    error = swing * 4.01 * _UNIT + 2.0**-50
    ties = 2.0**-128 * candidates if mechanism == "exponential" else 2.0**-129 * candidates**2
    return EmSelectAccuracy(error, 4 * error, candidates * 2.0**-80 + ties)


def em_select_probabilities_reference(scores: torch.Tensor, multiplier: float) -> torch.Tensor:
    """The exponential mechanism's probabilities in float64: softmax(multiplier * s) over the last axis."""
    return torch.softmax(multiplier * scores.double(), dim=-1)


def permute_and_flip_probabilities_reference(scores: torch.Tensor, multiplier: float) -> torch.Tensor:
    """Permute-and-flip's probabilities in float64, [n] -> [n]: a_i * integral of prod_{j != i} (1 - a_j v) over [0, 1].

    The integrand is a polynomial of degree n - 1 and positive, so Gauss-Legendre quadrature of n // 2 + 1 points is
    exact but for rounding. Time n**2; meant for small n.
    """
    a = torch.exp(multiplier * (scores.double() - scores.double().max()))
    points, weights = _gauss_legendre(len(a) // 2 + 1)
    factors = 1 - a * points.unsqueeze(1)  # [points, n]; every factor is positive inside (0, 1)
    product = factors.prod(dim=1, keepdim=True)
    return (a * (product / factors) * weights.unsqueeze(1)).sum(0)


def em_select_sequences_reference(
    scores: torch.Tensor, multiplier: float, k: int, mechanism: Mechanism = "exponential"
) -> dict[tuple[int, ...], float]:
    """The probability of every ordered outcome of k draws without replacement, for small n: n! / (n - k)! entries."""
    law: Callable[[torch.Tensor, float], torch.Tensor] = (
        em_select_probabilities_reference if mechanism == "exponential" else permute_and_flip_probabilities_reference
    )
    result = {}
    for sequence in itertools.permutations(range(len(scores)), k):
        left = list(range(len(scores)))
        probability = 1.0
        for drawn in sequence:
            probability *= law(scores[left], multiplier)[left.index(drawn)].item()
            left.remove(drawn)
        result[sequence] = probability
    return result


def _gauss_legendre(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights on [0, 1], from the eigenvalues of the Jacobi matrix (Golub and Welsch 1969)."""
    i = torch.arange(1, count, dtype=torch.float64)
    off = i / torch.sqrt(4 * i * i - 1)
    values, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return (values + 1) / 2, vectors[0] ** 2


def _check_numbers(multiplier: float, k: int, first_segment: int) -> None:
    # Before the operator is called, because its schema refuses what does not fit with a bare RuntimeError.
    if isinstance(multiplier, bool) or not isinstance(multiplier, int | float):
        raise InvalidArgumentError(f"multiplier must be a number, not {multiplier!r}")
    if not 0 <= multiplier <= _LARGEST_MULTIPLIER:
        raise InvalidArgumentError(f"multiplier must be in [0, 1e300], got {multiplier}")
    for name, value, low, high in (("k", k, 1, _MOST_CANDIDATES), ("first_segment", first_segment, 0, 2**32)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise InvalidArgumentError(f"{name} must be an integer in [{low}, {high}], got {value!r}")


def _check(scores: torch.Tensor, offsets: torch.Tensor | None, k: int) -> int:
    """Check dtype, device and shape; returns the number of segments. Also runs on fake tensors, without memory."""
    if scores.dtype not in (torch.float32, torch.float64):
        raise InvalidArgumentError(f"scores must be float32 or float64, got {scores.dtype}")
    if offsets is None:
        if scores.dim() != 2:
            raise InvalidArgumentError(
                f"scores must be [n], [B, n], or [N] with offsets, not of shape {list(scores.shape)}"
            )
        if scores.shape[0] > 0:
            _check_lengths(scores.shape[1], scores.shape[1], k)
        return scores.shape[0]
    if scores.dim() != 1:
        raise InvalidArgumentError(f"with offsets, scores must be [N], not of shape {list(scores.shape)}")
    if offsets.dtype != torch.int64 or offsets.dim() != 1 or offsets.device != scores.device or len(offsets) == 0:
        raise InvalidArgumentError(
            f"offsets must be int64 [segments + 1] on {scores.device}, "
            f"got {offsets.dtype} {list(offsets.shape)} on {offsets.device}"
        )
    return len(offsets) - 1


def _check_lengths(shortest: int, longest: int, k: int) -> None:
    if shortest == 0:
        raise EmptyDataError("em_select: a segment has no candidates; leave empty segments out")
    if k > shortest:
        raise InvalidArgumentError(f"k = {k} candidates cannot be drawn from a segment of {shortest}")
    if longest > _MOST_CANDIDATES:
        raise InvalidArgumentError(f"a segment has at most 2**32 candidates, got {longest}")


def _check_offsets(offsets: torch.Tensor, size: int, k: int) -> None:
    first, last = int(offsets[0]), int(offsets[-1])
    if first != 0 or last != size:
        raise InvalidArgumentError(f"offsets must run from 0 to the number of scores, {size}; got {first} to {last}")
    if len(offsets) == 1:
        return
    lengths = offsets.diff()
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 0:
        at = int((lengths < 0).to(torch.int8).argmax())
        raise InvalidArgumentError(f"offsets must not decrease, but segment {at} ends before it begins")
    _check_lengths(shortest, longest, k)


def _not_finite(segment: int, candidate: int) -> NonFiniteValueError:
    return NonFiniteValueError(
        f"em_select: score {candidate} of segment {segment} is NaN, infinite or beyond 2**1022; "
        "every score must be finite"
    )


def _run_cpu(arguments: tuple[object, ...]) -> None:
    status = _native.cpu().em_select(*arguments, torch.get_num_threads())
    code, segment, candidate, _ = status
    if code == _NON_FINITE:
        raise _not_finite(segment, candidate)
    _native.raise_for_status(status, "em_select")


def _run_cuda(arguments: tuple[object, ...], scores: torch.Tensor, offsets: torch.Tensor | None, k: int) -> None:
    device = scores.device
    number = device.index if device.index is not None else torch.cuda.current_device()
    copy = torch.empty(scores.numel() if k > 1 else 0, dtype=scores.dtype, device=device)
    failure = torch.full((1,), -1, dtype=torch.int64, device=device)
    status = _native.cuda().em_select(
        *arguments, copy.data_ptr(), failure.data_ptr(), number, torch.cuda.current_stream(device).cuda_stream
    )
    _native.raise_for_status(status, "em_select")
    position = int(failure.item())
    if position < 0:
        return
    if offsets is None:
        raise _not_finite(*divmod(position, scores.shape[1]))
    segment = int(torch.searchsorted(offsets, position, right=True)) - 1
    raise _not_finite(segment, position - int(offsets[segment]))


def _em_select(
    scores: torch.Tensor, offsets: torch.Tensor | None, key: torch.Tensor, multiplier: float, k: int,
    permute_and_flip: bool, first_segment: int,
) -> torch.Tensor:  # fmt: skip
    segments = _check(scores, offsets, k)
    _check_numbers(multiplier, k, first_segment)
    if first_segment + segments > 2**32:
        raise InvalidArgumentError(f"first_segment + segments is at most 2**32, got {first_segment} + {segments}")
    if scores.data_ptr() % scores.element_size():
        scores = scores.clone()
    if offsets is not None:
        offsets = offsets.contiguous()
        _check_offsets(offsets, len(scores), k)
    index = torch.empty((segments, k), dtype=torch.int64, device=scores.device)
    rows = offsets is None
    arguments = (
        scores.data_ptr(), scores.dtype == torch.float64, segments, 0 if offsets is None else offsets.data_ptr(),
        scores.shape[1] if rows else 0, scores.stride(0) if rows else 0, scores.stride(-1), multiplier, k,
        permute_and_flip, key_bytes(key), first_segment, index.data_ptr(),
    )  # fmt: skip
    if scores.device.type == "cuda":
        _run_cuda(arguments, scores, offsets, k)
    else:
        _run_cpu(arguments)
    return index


def _fake_em_select(
    scores: torch.Tensor, offsets: torch.Tensor | None, key: torch.Tensor, multiplier: float, k: int,
    permute_and_flip: bool, first_segment: int,
) -> torch.Tensor:  # fmt: skip
    return scores.new_empty((_check(scores, offsets, k), k), dtype=torch.int64)


implement("em_select", _em_select, _fake_em_select)
