"""mask_sum: the ChaCha20 streams of many seeds, added to or subtracted from a vector of integers without storing them.

The contract (stream, addresses, run time) is csrc/include/privkernels/mask_sum.h. In secure aggregation a client i
sends ``x_i + PRG(b_i) + sum over j > i of PRG(s_ij) - sum over j < i of PRG(s_ij)`` modulo 2**32 or 2**64: its own mask
and one with each other client, with opposite signs at the two ends, so that the sum over all clients holds the self
masks alone (:mod:`privkernels.privacy.secure_aggregation` says what this promises, and what it does not).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import KEYED, define, implement, refuse_capture
from privkernels.ops._memory import cuda_place, mark_changed, refuse_overlaps
from privkernels.randomness import Key

Seeds = torch.Tensor | Sequence[Key]
Signs = torch.Tensor | Sequence[int]

_NARROW = (torch.int32, torch.uint32)
_WIDE = (torch.int64, torch.uint64)
_SIGNS = (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8)

define(
    "mask_sum_(Tensor(a!) values, Tensor seeds, Tensor signs, int round, int first_element) -> ()",
    outside_graphs=KEYED,
)
define(
    "mask_sum(Tensor values, Tensor seeds, Tensor signs, int round, int first_element) -> Tensor", outside_graphs=KEYED
)


def mask_sum(
    values: torch.Tensor, seeds: Seeds, signs: Signs, *, round: int = 0, first_element: int = 0
) -> torch.Tensor:
    """``values + sum over s of signs[s] * stream(seeds[s])``, modulo 2**32 or 2**64.

    The stream of a seed is the ChaCha20 key stream of RFC 8439 with the seed as its key, the nonce
    ``struct.pack("<3I", 0, round, 7)`` and a block counter from 0, read as little-endian words of the width of
    ``values``; element j of ``values`` in row-major order meets word ``first_element + j``. Any ChaCha20 gives the same
    masks. Opposite signs give the input back bit for bit.

    Whoever has the seed has the mask. A pair of seed and round must mask one vector only: the difference of two vectors
    under one mask is their difference.

    Args:
        values: int32 or int64 (two's complement), uint32 or uint64, of any shape and strides.
        seeds: uint8 [n, 32] on any device, or n :class:`Key`, whose secrets are taken as they are; n >= 0.
        signs: n numbers, 1 to add and -1 to subtract: a sequence or an integer tensor [n].
        round: which vector of this seed, 0 to 2**32 - 1.
        first_element: position of the first element in the streams, 0 to 2**63 - 1; lets a vector be masked in slices.

    Returns:
        As ``values`` in shape, dtype and device; contiguous.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which).

    Source: Bonawitz et al., CCS 2017, Section 4, and Mao et al., TPDS 2021, Section 6.2, S2. Departures from the
    latter, whose masks do not cancel as printed: addition modulo a power of two instead of XOR, and a sign.
    """
    _check_values(values)
    arguments = _arguments(seeds, signs, round, first_element)
    result: torch.Tensor = torch.ops.privkernels.mask_sum(values, *arguments)
    return result


def mask_sum_(
    values: torch.Tensor, seeds: Seeds, signs: Signs, *, round: int = 0, first_element: int = 0
) -> torch.Tensor:
    """:func:`mask_sum` in place: changes ``values``, which may not overlap itself, and returns it."""
    _check_values(values)
    refuse_capture("mask_sum_", [values])
    refuse_overlaps([values])
    torch.ops.privkernels.mask_sum_(values, *_arguments(seeds, signs, round, first_element))
    return values


def mask_sum_reference(values: torch.Tensor, streams: Sequence[Sequence[int]], signs: Sequence[int]) -> torch.Tensor:
    """What :func:`mask_sum` gives for these streams (a list of unsigned words for each seed), in Python's integers."""
    _check_values(values)
    bits = 8 * values.dtype.itemsize
    signed = values.dtype in (torch.int32, torch.int64)
    sums = []
    for j, value in enumerate(values.flatten().tolist()):
        total = (value + sum(sign * stream[j] for stream, sign in zip(streams, signs, strict=True))) % 2**bits
        sums.append(total - 2**bits if signed and total >> (bits - 1) else total)
    return torch.tensor(sums, dtype=values.dtype).reshape(values.shape)


def encode_fixed_point(x: torch.Tensor, *, fraction_bits: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """``round(x * 2**fraction_bits)``, half to even, as integers that can be masked and summed.

    A sum of encoded vectors is right while it stays within the dtype: n clients need
    ``n * max|x| * 2**fraction_bits < 2**31`` (int32) or ``2**63`` (int64).

    Args:
        x: floating point, of any shape, finite.
        fraction_bits: 0 to 60.
        dtype: torch.int32 or torch.int64.

    Raises:
        InvalidArgumentError: an argument is wrong, or a value does not fit into the dtype.
        NonFiniteValueError: x holds NaN or infinity (the element is named).
    """
    _check_fixed_point(fraction_bits, dtype)
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise InvalidArgumentError(f"x must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    refuse_capture("encode_fixed_point", [x])
    bad = (~x.detach().isfinite()).flatten()
    if bad.any():
        raise NonFiniteValueError(f"x holds NaN or infinity in element {int(bad.int().argmax())} (in row-major order)")
    steps = torch.ldexp(x.detach().double(), torch.tensor(fraction_bits)).round()  # may be infinite, and is refused
    limit = 2.0 ** (8 * dtype.itemsize - 1)
    if ((steps >= limit) | (steps < -limit)).any():
        raise InvalidArgumentError(f"values times 2**{fraction_bits} do not fit into {dtype}: use fewer fraction bits")
    return steps.to(dtype)


def decode_fixed_point(steps: torch.Tensor, *, fraction_bits: int) -> torch.Tensor:
    """``steps / 2**fraction_bits`` as float64: of int32 or int64 sums of vectors from :func:`encode_fixed_point`.

    Raises:
        InvalidArgumentError: an argument is wrong.
    """
    _check_fixed_point(fraction_bits, getattr(steps, "dtype", None))
    return torch.ldexp(steps.double(), torch.tensor(-fraction_bits))


def _check_fixed_point(fraction_bits: int, dtype: object) -> None:
    if dtype not in (torch.int32, torch.int64):
        raise InvalidArgumentError(f"the integers are torch.int32 or torch.int64, got {dtype}")
    if not isinstance(fraction_bits, int) or isinstance(fraction_bits, bool) or not 0 <= fraction_bits <= 60:
        raise InvalidArgumentError(f"fraction_bits must be an integer from 0 to 60, got {fraction_bits!r}")


def _check_values(values: torch.Tensor) -> None:
    if not isinstance(values, torch.Tensor) or values.dtype not in _NARROW + _WIDE:
        raise InvalidArgumentError(
            "values must be an int32, int64, uint32 or uint64 tensor, got "
            f"{getattr(values, 'dtype', type(values).__name__)}; encode_fixed_point makes integers of floats"
        )
    if values.layout != torch.strided:
        raise InvalidArgumentError(f"values must be a dense tensor, got layout {values.layout}; call .to_dense()")


def _arguments(
    seeds: Seeds, signs: Signs, round: int, first_element: int
) -> tuple[torch.Tensor, torch.Tensor, int, int]:
    """The operator's arguments; numbers are checked here because its schema refuses with a bare RuntimeError."""
    for name, number in (("round", round), ("first_element", first_element)):
        if not isinstance(number, int) or isinstance(number, bool):
            raise InvalidArgumentError(f"{name} is an integer, got {number!r}")
    _check_address(round, first_element)
    if not isinstance(seeds, torch.Tensor):
        if not isinstance(seeds, Sequence) or not all(isinstance(seed, Key) for seed in seeds):
            raise InvalidArgumentError("seeds are a uint8 tensor [n, 32] or a list of privkernels.Key")
        secrets = b"".join(seed.secret for seed in seeds)
        seeds = (
            torch.frombuffer(bytearray(secrets), dtype=torch.uint8) if secrets else torch.empty(0, dtype=torch.uint8)
        )
        seeds = seeds.reshape(-1, 32)
    if not isinstance(signs, torch.Tensor):
        if not isinstance(signs, Iterable):
            raise InvalidArgumentError(f"signs are a sequence or an integer tensor, not {type(signs).__name__}")
        if any(sign not in (1, -1) for sign in signs):
            raise InvalidArgumentError(f"signs are 1 (add) or -1 (subtract), got {list(signs)!r}")
        signs = torch.tensor(list(signs), dtype=torch.int8)
    return seeds, signs, round, first_element


def _check_address(round: int, first_element: int) -> None:
    if not 0 <= round < 2**32:
        raise InvalidArgumentError(f"round must be in [0, 2**32), got {round}")
    if not 0 <= first_element < 2**63:
        raise InvalidArgumentError(f"first_element must be in [0, 2**63), got {first_element}")


def _check_seeds(seeds: torch.Tensor, signs: torch.Tensor) -> None:
    if seeds.dtype != torch.uint8 or seeds.dim() != 2 or seeds.shape[1] != 32:
        raise InvalidArgumentError(f"seeds are uint8 [n, 32], got {seeds.dtype} {list(seeds.shape)}")
    if signs.shape != seeds.shape[:1] or signs.dtype not in _SIGNS:
        raise InvalidArgumentError(
            f"one integer sign for each of the {seeds.shape[0]} seeds, got {signs.dtype} {list(signs.shape)}"
        )


def _run(values: torch.Tensor, seeds: torch.Tensor, signs: torch.Tensor, round: int, first_element: int) -> None:
    """Mask a contiguous tensor in place."""
    _check_address(round, first_element)
    _check_seeds(seeds, signs)
    if not bool((signs.abs() == 1).all()):
        raise InvalidArgumentError(f"signs are 1 (add) or -1 (subtract), got {signs.tolist()}")
    seeds = seeds.to(values.device).contiguous()
    signs = signs.to(values.device, torch.int8).contiguous()
    arguments = (
        values.data_ptr(), values.dtype in _WIDE, values.numel(), seeds.data_ptr(), signs.data_ptr(), seeds.shape[0],
        round, first_element,
    )  # fmt: skip
    if values.device.type == "cuda":
        status = _native.cuda().mask_sum(*arguments, *cuda_place(values.device))
    else:
        status = _native.cpu().mask_sum(*arguments, torch.get_num_threads())
    _native.raise_for_status(status, "mask_sum")


def _mask_sum(
    values: torch.Tensor, seeds: torch.Tensor, signs: torch.Tensor, round: int, first_element: int
) -> torch.Tensor:
    _check_values(values)
    result = torch.empty(values.shape, dtype=values.dtype, device=values.device).copy_(values)
    _run(result, seeds, signs, round, first_element)
    return result


def _mask_sum_(values: torch.Tensor, seeds: torch.Tensor, signs: torch.Tensor, round: int, first_element: int) -> None:
    _check_values(values)
    refuse_overlaps([values])
    if values.is_contiguous():
        _run(values, seeds, signs, round, first_element)
    else:
        values.copy_(_mask_sum(values, seeds, signs, round, first_element))
    mark_changed([values])


def _fake_mask_sum(
    values: torch.Tensor, seeds: torch.Tensor, signs: torch.Tensor, round: int, first_element: int
) -> torch.Tensor:
    _check_values(values)
    _check_seeds(seeds, signs)
    return torch.empty(values.shape, dtype=values.dtype, device=values.device)


def _fake_mask_sum_(
    values: torch.Tensor, seeds: torch.Tensor, signs: torch.Tensor, round: int, first_element: int
) -> None:
    _check_values(values)
    _check_seeds(seeds, signs)


implement("mask_sum", _mask_sum, _fake_mask_sum)
implement("mask_sum_", _mask_sum_, _fake_mask_sum_)
