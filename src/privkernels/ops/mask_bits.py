"""Masks as bits: entry i of a mask, in row-major order, is bit i mod 8 of byte i div 8 (numpy's "little")."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from privkernels.errors import InvalidArgumentError
from privkernels.ops._library import refuse_capture


def pack_mask(mask: torch.Tensor) -> torch.Tensor:
    """A bool mask of any shape as uint8 [ceil(size / 8)], the unused bits of the last byte 0.

    Raises:
        InvalidArgumentError: the mask is not a bool tensor.
    """
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        raise InvalidArgumentError(f"a mask to pack is a bool tensor, not {_described(mask)}")
    flat = mask.reshape(-1).to(torch.uint8)
    padded = torch.nn.functional.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    bits = padded[:, 0].clone()
    for i in range(1, 8):
        bits |= padded[:, i] << i
    return bits


def unpack_mask(bits: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The bool mask of this shape that :func:`pack_mask` made the bits of.

    Raises:
        InvalidArgumentError: the bits are not uint8 [ceil(size / 8)] for this shape.
    """
    if not isinstance(shape, Sequence) or any(not isinstance(n, int) or n < 0 for n in shape):
        raise InvalidArgumentError(f"a shape is a sequence of integers from 0 on, got {shape!r}")
    size = math.prod(shape)
    check_bits(bits, size)
    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits.unsqueeze(1) >> places) & 1).to(torch.bool).reshape(-1)[:size].reshape(list(shape))


def count_kept(mask: torch.Tensor) -> int:
    """How many entries a mask keeps: a bool tensor, or the uint8 bits of one.

    Raises:
        InvalidArgumentError: the mask is neither.
    """
    refuse_capture("count_kept", [mask])
    if isinstance(mask, torch.Tensor) and mask.dtype == torch.bool:
        return int(mask.sum())
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.uint8:
        raise InvalidArgumentError(f"a mask is a bool or uint8 tensor, not {_described(mask)}")
    pairs = mask - ((mask >> 1) & 0x55)  # counts of bits in fields of two bits, then of four, then of eight
    fours = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return int(((fours + (fours >> 4)) & 0x0F).sum())


def check_bits(bits: torch.Tensor, size: int) -> None:
    """Raise unless these are the bits of a mask with ``size`` entries."""
    expected = (size + 7) // 8
    if not isinstance(bits, torch.Tensor) or bits.dtype != torch.uint8 or bits.shape != (expected,):
        raise InvalidArgumentError(f"the bits of {size} entries are uint8 [{expected}], got {_described(bits)}")


def _described(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
