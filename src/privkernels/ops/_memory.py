"""Where the entries of tensors lie: flat views for the kernels, and what in-place operators must refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from privkernels.errors import InvalidArgumentError
from privkernels.ops._library import refuse_capture

# The dtypes that kernels take, numbered as FloatFormat in csrc/include/privkernels/format.h.
FORMATS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}


def tensors_of(value: Any, what: str) -> list[Any]:
    """A list of what may be one tensor or several; the entries are not checked."""
    if isinstance(value, torch.Tensor):
        return [value]
    try:
        return list(value)
    except TypeError as error:
        raise InvalidArgumentError(
            f"{what} must be a tensor or a sequence of tensors, not {type(value).__name__}"
        ) from error


def flat_view(x: torch.Tensor) -> torch.Tensor:
    """The entries in row-major order, without a copy where one stride leads through them."""
    if x.is_neg():
        x = x.resolve_neg()
    flat = x.reshape(-1)
    return flat.clone() if flat.data_ptr() % x.element_size() else flat


def stride_of(flat: torch.Tensor) -> int:
    """The stride for the kernel: 1 where it does not matter."""
    return flat.stride(0) if flat.numel() > 1 else 1


def cuda_place(device: torch.device) -> tuple[int, int]:
    """The device's number and its current stream."""
    number = device.index if device.index is not None else torch.cuda.current_device()
    return number, torch.cuda.current_stream(device).cuda_stream


def mark_changed(tensors: Sequence[torch.Tensor]) -> None:
    """Tell autograd, which does not see what a kernel writes: a graph that saved the old values then refuses to run
    backward, where it would give wrong gradients."""
    for x in tensors:
        if not x.is_inference():
            torch.autograd.graph.increment_version(x)


def refuse_overlaps(tensors: Sequence[torch.Tensor]) -> None:
    """Raise where two entries share one place: expanded tensors, tied weights, a weight and its transpose, windows.

    Views that interleave without sharing a place (the columns of a matrix) are fine. Only where extents overlap is it
    counted out, in 8 bytes for each place.
    """
    extents = []
    for i, x in enumerate(tensors):
        if x.numel() == 0:
            continue
        if any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
            raise InvalidArgumentError(f"tensor {i} is expanded: several entries share one place; clone it first")
        extents.append((x.data_ptr(), x.data_ptr() + _span(x) * x.element_size(), i))
    extents.sort()
    cluster: list[int] = []
    begin, reached = 0, 0
    for start, end, i in extents:
        if start >= reached:
            _count_out(tensors, cluster, begin, reached)
            cluster, begin, reached = [], start, end
        cluster.append(i)
        reached = max(reached, end)
    _count_out(tensors, cluster, begin, reached)


def _span(x: torch.Tensor) -> int:
    """Places from the first entry to the last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))


def _is_apart(x: torch.Tensor) -> bool:
    """Whether every stride leads beyond all that the smaller ones reach, so that no two entries share a place."""
    reached = 0
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride <= reached:
                return False
            reached += (size - 1) * stride
    return True


def _count_out(tensors: Sequence[torch.Tensor], cluster: Sequence[int], begin: int, end: int) -> None:
    """Raise if entries of these tensors, which lie in the bytes from ``begin`` to ``end``, share a place."""
    if len(cluster) == 0 or (len(cluster) == 1 and _is_apart(tensors[cluster[0]])):
        return
    bytes_each = tensors[cluster[0]].element_size()
    if all(tensors[i].is_contiguous() for i in cluster) or any(
        (tensors[i].data_ptr() - begin) % bytes_each for i in cluster
    ):
        _refuse(cluster[0], cluster[1] if len(cluster) > 1 else cluster[0])
    refuse_capture("an operator that works in place on tensors that interleave", [tensors[i] for i in cluster])
    # Every entry writes its number into its place, and finds it there unless another one wrote there too.
    places = torch.empty((end - begin) // bytes_each, dtype=torch.int64, device=tensors[cluster[0]].device)
    views, numbers, first = [], [], 0
    for i in cluster:
        x = tensors[i]
        views.append(places.as_strided(x.shape, x.stride(), (x.data_ptr() - begin) // bytes_each))
        numbers.append(torch.arange(first, first + x.numel(), device=x.device).view(x.shape))
        views[-1].copy_(numbers[-1])
        first += x.numel()
    for i, view, own in zip(cluster, views, numbers, strict=True):
        lost = view[view != own]
        if lost.numel() > 0:
            writer, left = 0, int(lost[0])
            while left >= tensors[cluster[writer]].numel():
                left -= tensors[cluster[writer]].numel()
                writer += 1
            _refuse(i, cluster[writer])


def _refuse(i: int, j: int) -> None:
    if i == j:
        raise InvalidArgumentError(f"entries of tensor {i} share memory (a view of windows?): clone it first")
    raise InvalidArgumentError(
        f"tensors {min(i, j)} and {max(i, j)} share memory (tied weights?): pass shared ones once"
    )
