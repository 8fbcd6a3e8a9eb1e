"""prune_random_mask: every entry is kept by itself, with a probability that its importance sets.

The contract is csrc/include/privkernels/prune.h. Source: Mao et al., IEEE TPDS 2022, Section 4.3, Eq. 7 (DP-PGC).
Departures: where all importances are equal the equation divides zero by zero, and everything is kept; probabilities
are rounded up to multiples of 2**-52, and drawn with exactly that probability. As printed the equation has no setting:
the least important entry is always pruned, the most important one always kept, and the share that is kept is whatever
the mean of the normalised importances is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, check_key, define, implement, key_bytes, refuse_capture
from privkernels.ops._memory import FORMATS, cuda_place, flat_view, stride_of, tensors_of
from privkernels.ops.mask_bits import pack_mask
from privkernels.ops.prune import Tensors
from privkernels.randomness import Key

_STEP = 2.0**52
_INVALID_PARAMETER = 3  # csrc/include/privkernels/status.h

define(
    "prune_random_mask(Tensor importance, float low, float high, Tensor key, int first_element) -> Tensor",
    outside_graphs=KEYED,
)


def prune_random_mask(
    importance: Tensors,
    *,
    key: Key,
    label: str,
    first_element: int = 0,
    bounds: tuple[float, float] | None = None,
    as_bits: bool = False,
) -> list[torch.Tensor]:
    """Keep entry j with probability (w_j - min w) / (max w - min w), min and max over all tensors together.

    :func:`prune_keep_probabilities` gives the probabilities, exactly as they are drawn. A draw is a function of (key,
    label), ``first_element`` + the entry's number (row-major, counting on through the tensors) and its probability
    alone, bit for bit on every CPU instruction set; CUDA is written to agree, which no GPU has confirmed yet. Denormals
    must not be flushed (``torch.set_flush_denormal``), or denormal importances count as 0.

    Args:
        importance: a tensor or a sequence of them, float32, float16, bfloat16 or float64, finite, of any shapes and
            strides. Importances that were computed from private records make the mask a function of them: that is new
            access to the records, which nothing here accounts for.
        key, label: a (key, label) pair must be used for one release only.
        first_element: number of the first entry within the release; lets a release be drawn in slices.
        bounds: min and max of the whole release, for slices of it; taken from ``importance`` if None.
        as_bits: bits instead of bools (:func:`unpack_mask` has the format).

    Returns:
        The masks, one for each tensor: bool of its shape, or uint8 [ceil(size / 8)].

    Raises:
        InvalidArgumentError: an argument is wrong, or an importance outside the bounds (it is named).
        NonFiniteValueError: an importance is NaN or infinite (tensor and element are named).
    """
    tensors = _checked(importance)
    if not isinstance(key, Key):
        raise InvalidArgumentError(f"key is a privkernels.Key, not {type(key).__name__}")
    whole = isinstance(first_element, int) and not isinstance(first_element, bool)
    size = sum(x.numel() for x in tensors)
    if not whole or not 0 <= first_element < 2**63 - size:
        raise InvalidArgumentError(f"first_element must be an integer in [0, 2**63 - size), got {first_element!r}")
    refuse_capture("prune_random_mask", tensors)
    low, high = _bounds(tensors, bounds)
    secret = key.derive(label).tensor()
    masks = []
    for x in tensors:
        masks.append(torch.ops.privkernels.prune_random_mask(x.detach(), low, high, secret, first_element))
        first_element += x.numel()
    return [pack_mask(mask) for mask in masks] if as_bits else masks


def prune_keep_probabilities(
    importance: Tensors, *, bounds: tuple[float, float] | None = None
) -> list[torch.Tensor]:  # fmt: skip
    """The probabilities that :func:`prune_random_mask` keeps entries with, exactly: float64, multiples of 2**-52.

    Eq. 7 in float64 (a subtraction on each side and a division), rounded up to such a multiple. Arguments and errors as
    there; this is also the reference that the kernel is tested against.
    """
    tensors = _checked(importance)
    refuse_capture("prune_keep_probabilities", tensors)
    low, high = _bounds(tensors, bounds)
    results = []
    for i, x in enumerate(tensors):
        w = x.detach().double()
        outside = (w < low) | (w > high)
        if bool(outside.any()):
            raise _out_of_bounds(int(outside.reshape(-1).to(torch.uint8).argmax()), low, high, i)
        p = (w - low) / (high - low) if high > low else torch.ones_like(w)
        results.append(torch.ceil(p * _STEP) / _STEP)
    return results


def _checked(importance: Tensors) -> list[torch.Tensor]:
    tensors: list[torch.Tensor] = tensors_of(importance, "importance")
    if len(tensors) == 0:
        raise InvalidArgumentError("prune_random_mask needs at least one tensor")
    for i, x in enumerate(tensors):
        if not isinstance(x, torch.Tensor):
            raise InvalidArgumentError(f"importance {i} must be a tensor, not {type(x).__name__}")
        _check(x)
    return tensors


def _check(importance: torch.Tensor) -> None:
    if importance.dtype not in FORMATS or importance.layout != torch.strided:
        raise InvalidArgumentError(
            "importances must be dense float32, float16, bfloat16 or float64 tensors, "
            f"got {importance.dtype} ({importance.layout})"
        )


def _bounds(tensors: Sequence[torch.Tensor], bounds: tuple[float, float] | None) -> tuple[float, float]:
    """The smallest and the largest importance, or the given bounds; raises for what is not finite."""
    low, high = math.inf, -math.inf
    for i, x in enumerate(tensors):
        if x.numel() == 0:
            continue
        ends = [float(end) for end in torch.aminmax(x.detach())]
        if not all(math.isfinite(end) for end in ends):
            element = int((~x.detach().isfinite()).reshape(-1).to(torch.uint8).argmax())
            raise NonFiniteValueError(
                f"prune_random_mask: importance {i} is NaN or infinite in element {element} (in row-major order); "
                "every importance must be finite"
            )
        low, high = min(low, ends[0]), max(high, ends[1])
    if bounds is not None:
        try:
            low, high = (float(bound) for bound in bounds)
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidArgumentError(f"bounds are two finite numbers, got {bounds!r}") from error
    elif low > high:  # no entries
        low = high = 0.0
    _check_bounds(low, high)
    return low, high


def _check_bounds(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high and math.isfinite(high - low)):
        raise InvalidArgumentError(
            f"the bounds of importance must be finite, in order and differ by a finite number, got [{low}, {high}]: "
            "scale the importances down"
        )


def _out_of_bounds(element: int, low: float, high: float, tensor: int | None = None) -> InvalidArgumentError:
    where = "" if tensor is None else f" of importance {tensor}"
    return InvalidArgumentError(
        f"prune_random_mask: element {element}{where} (in row-major order) is outside the bounds [{low}, {high}]; "
        "bounds must hold the whole release"
    )


def _prune_random_mask(
    importance: torch.Tensor, low: float, high: float, key: torch.Tensor, first_element: int
) -> torch.Tensor:
    _check(importance)
    _check_bounds(low, high)
    check_key(key)
    if not 0 <= first_element < 2**63 - importance.numel():
        raise InvalidArgumentError(f"first_element must be in [0, 2**63 - size), got {first_element}")
    flat = flat_view(importance)
    mask = torch.empty(importance.shape, dtype=torch.bool, device=importance.device)
    arguments = (
        flat.data_ptr(), stride_of(flat), flat.numel(), FORMATS[flat.dtype], low, high, key_bytes(key),
        first_element, mask.data_ptr(),
    )  # fmt: skip
    if flat.device.type == "cuda":
        failure = torch.full((1,), -1, dtype=torch.int64, device=flat.device)
        status = _native.cuda().prune_random(*arguments, failure.data_ptr(), *cuda_place(flat.device))
        _native.raise_for_status(status, "prune_random_mask")
        failed = int(failure.item())
    else:
        status = _native.cpu().prune_random(*arguments, torch.get_num_threads())
        failed = status[2] if status[0] == _INVALID_PARAMETER else -1
        if failed < 0:
            _native.raise_for_status(status, "prune_random_mask")
    if failed >= 0:
        raise _out_of_bounds(failed, low, high)
    return mask


def _fake_prune_random_mask(
    importance: torch.Tensor, low: float, high: float, key: torch.Tensor, first_element: int
) -> torch.Tensor:
    _check(importance)
    return torch.empty(importance.shape, dtype=torch.bool, device=importance.device)


implement("prune_random_mask", _prune_random_mask, _fake_prune_random_mask)
