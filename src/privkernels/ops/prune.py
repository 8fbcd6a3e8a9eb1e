"""prune: masks that keep the largest entries of a tensor or a model, their application, and N:M patterns.

The contract (order, ties, bits, input, time) is csrc/include/privkernels/prune.h; pruning at random is in
:mod:`privkernels.ops.prune_random`. Sources: magnitude pruning, Han et al., NeurIPS 2015; the projection of ADMM
pruning, Zhang et al., ECCV 2018, Eq. 8; N:M, Mishra et al. 2021. Pruning is no mechanism: it gives no privacy,
and costs none where it reads nothing but what is released.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch

from privkernels import _native
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.ops._library import READS_BACK, define, implement
from privkernels.ops._memory import FORMATS, cuda_place, flat_view, mark_changed, refuse_overlaps, stride_of, tensors_of
from privkernels.ops.mask_bits import check_bits

Tensors = torch.Tensor | Sequence[torch.Tensor]
RankBy = Literal["magnitude", "value"]

# csrc/include/privkernels/prune.h: PruneFormat and PruneOutput.
_BOOLS, _BITS, _VALUES, _IN_PLACE = 0, 1, 2, 3
_NON_FINITE = 2  # csrc/include/privkernels/status.h
_LARGEST_PATTERN = 64

define(
    "prune_mask(Tensor[] scores, int keep, bool magnitude, bool as_bits) -> (Tensor[] masks, Tensor threshold)",
    outside_graphs=READS_BACK,
)
define("prune_project(Tensor[] tensors, int keep) -> Tensor[]", outside_graphs=READS_BACK)
define("prune_project_(Tensor(a!)[] tensors, int keep) -> ()", outside_graphs=READS_BACK)
define("prune_apply_(Tensor(a!)[] tensors, Tensor[] masks) -> ()", outside_graphs=None)
define("prune_pattern_mask(Tensor scores, int n, int m, int dim) -> Tensor", outside_graphs=READS_BACK)


def prune_mask(
    tensors: Tensors, *, sparsity: float | None = None, keep: int | None = None, rank_by: RankBy = "magnitude",
    as_bits: bool = False,
) -> tuple[list[torch.Tensor], torch.Tensor]:  # fmt: skip
    """Masks that keep exactly the ``keep`` largest entries of all tensors together (a whole model, say).

    Ties go to the earlier tensor, and within a tensor to the lower index in row-major order. Infinities are ranked.
    For N entries, a sparsity prunes round(sparsity * N) of them, half to even, as torch.nn.utils.prune does.

    Args:
        tensors: a tensor or a sequence of them, float32, float16, bfloat16 or float64, of one dtype and device, any
            shapes and strides: the parameters, or scores of their importance in their place. Not differentiated.
        sparsity: share of the entries to prune, in [0, 1]; or
        keep: how many to keep, 0 to N.
        rank_by: "magnitude", largest absolute value; "value", largest value, for scores that may be negative.
        as_bits: bits instead of bools (:func:`unpack_mask` has the format).

    Returns:
        The masks, one for each tensor: bool of its shape, or uint8 [ceil(size / 8)]; and the threshold, of the dtype of
        the tensors and no dimensions: the smallest magnitude or value that is kept, +infinity where none is.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which).
        NonFiniteValueError: a tensor holds NaN (tensor and element are named).
    """
    scores = _tensor_list(tensors)
    if rank_by not in ("magnitude", "value"):
        raise InvalidArgumentError(f"rank_by must be 'magnitude' or 'value', not {rank_by!r}")
    count = _keep(sum(x.numel() for x in scores), sparsity, keep)
    result: tuple[list[torch.Tensor], torch.Tensor] = torch.ops.privkernels.prune_mask(
        [x.detach() for x in scores], count, rank_by == "magnitude", bool(as_bits)
    )
    return result[0], result[1]


def prune_project(
    tensors: Tensors, *, sparsity: float | None = None, keep: int | None = None
) -> list[torch.Tensor]:  # fmt: skip
    """The nearest point, in the Euclidean norm, with at most ``keep`` non-zeros in all tensors together.

    The entries that :func:`prune_mask` keeps by magnitude, unchanged, and +0 elsewhere. Arguments and errors as there.

    Returns:
        New contiguous tensors of the shapes of ``tensors``, detached.
    """
    found = _tensor_list(tensors)
    count = _keep(sum(x.numel() for x in found), sparsity, keep)
    result: list[torch.Tensor] = torch.ops.privkernels.prune_project([x.detach() for x in found], count)
    return result


def prune_project_(tensors: Tensors, *, sparsity: float | None = None, keep: int | None = None) -> None:
    """As :func:`prune_project`, in place; the tensors must not overlap. On an error nothing is changed."""
    found = _tensor_list(tensors)
    count = _keep(sum(x.numel() for x in found), sparsity, keep)
    torch.ops.privkernels.prune_project_([x.detach() for x in found], count)


def prune_apply_(tensors: Tensors, masks: Tensors) -> None:
    """Set the entries that a mask does not keep to +0, in place; kept entries keep their bits, NaN included.

    Args:
        tensors: float32, float16, bfloat16 or float64, any shapes and strides that do not overlap.
        masks: one for each: bool of the tensor's shape, or uint8 [ceil(size / 8)], on its device.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which).
    """
    found = _tensor_list(tensors)
    given = tensors_of(masks, "masks")
    _check_masks(found, given)  # the schema would refuse what is no tensor with a bare RuntimeError
    torch.ops.privkernels.prune_apply_([x.detach() for x in found], given)


def prune_pattern_mask(tensor: torch.Tensor, n: int, m: int, *, dim: int = -1) -> torch.Tensor:
    """Keep the n largest magnitudes of every m consecutive entries along ``dim`` (2:4, 1:4, 4:8, ...).

    Ties go to the lower index. Where m does not divide the length, the last r entries are a group that keeps its
    min(n, r) largest, as if it were filled up with zeros.

    Args:
        tensor: float32, float16, bfloat16 or float64, of any shape of one dimension or more, without NaN.
        n, m: 1 <= n <= m <= 64.
        dim: the axis along which sparse kernels contract, usually the last of a weight.

    Returns:
        bool of the shape of ``tensor``, contiguous.

    Raises:
        InvalidArgumentError: an argument is wrong (the message says which).
        NonFiniteValueError: the tensor holds NaN (the element is named).
    """
    for name, value in (("n", n), ("m", m), ("dim", dim)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidArgumentError(f"{name} must be an integer, got {value!r}")
    (found,) = _tensor_list([tensor])
    _check_pattern(found, n, m, dim)
    result: torch.Tensor = torch.ops.privkernels.prune_pattern_mask(found.detach(), n, m, dim)
    return result


def prune_mask_reference(
    tensors: Sequence[torch.Tensor], keep: int, rank_by: RankBy = "magnitude"
) -> tuple[list[torch.Tensor], float]:
    """What :func:`prune_mask` gives, by a stable sort in float64; bool masks and the threshold."""
    flat = torch.cat([x.detach().reshape(-1).double() for x in tensors])
    flat = flat.abs() if rank_by == "magnitude" else flat + 0.0  # -0 becomes 0
    order = torch.sort(flat, descending=True, stable=True).indices[:keep]
    mask = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    mask[order] = True
    parts = torch.split(mask, [x.numel() for x in tensors])
    threshold = float(flat[order[-1]]) if keep > 0 else math.inf
    return [part.reshape(x.shape) for part, x in zip(parts, tensors, strict=True)], threshold


def prune_pattern_mask_reference(tensor: torch.Tensor, n: int, m: int, dim: int = -1) -> torch.Tensor:
    """What :func:`prune_pattern_mask` gives, by stable sorts in float64."""
    rows = tensor.detach().double().abs().movedim(dim, -1)
    parts = []
    for group in torch.split(rows, m, dim=-1) if rows.shape[-1] else [rows]:
        order = torch.sort(group, dim=-1, descending=True, stable=True).indices[..., :n]
        parts.append(torch.zeros(group.shape, dtype=torch.bool, device=rows.device).scatter_(-1, order, True))
    return torch.cat(parts, dim=-1).movedim(-1, dim).contiguous()


def _tensor_list(tensors: Tensors) -> list[torch.Tensor]:
    found = tensors_of(tensors, "tensors")
    _check_tensors(found)
    return found


def _check_tensors(tensors: Sequence[torch.Tensor]) -> None:
    if len(tensors) == 0:
        raise InvalidArgumentError("prune needs at least one tensor")
    for i, x in enumerate(tensors):
        if not isinstance(x, torch.Tensor):
            raise InvalidArgumentError(f"tensor {i} must be a tensor, not {type(x).__name__}")
        if x.dtype not in FORMATS or x.layout != torch.strided:
            raise InvalidArgumentError(
                f"tensor {i} must be dense float32, float16, bfloat16 or float64, got {x.dtype} ({x.layout})"
            )
        if x.dtype != tensors[0].dtype or x.device != tensors[0].device:
            raise InvalidArgumentError(
                f"tensors must have one dtype and device: tensor 0 is {tensors[0].dtype} on {tensors[0].device}, "
                f"tensor {i} is {x.dtype} on {x.device}; convert them, or prune each group by itself"
            )


def _keep(total: int, sparsity: float | None, keep: int | None) -> int:
    if (sparsity is None) == (keep is None):
        raise InvalidArgumentError("give either sparsity or keep")
    if keep is not None:
        if isinstance(keep, bool) or not isinstance(keep, int) or not 0 <= keep <= total:
            raise InvalidArgumentError(f"keep must be an integer in [0, {total}], the number of entries; got {keep!r}")
        return keep
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float) or not 0 <= sparsity <= 1:
        raise InvalidArgumentError(f"sparsity must be in [0, 1], got {sparsity!r}")
    return total - round(sparsity * total)


def _not_a_number(what: str, tensor: int | None, element: int) -> NonFiniteValueError:
    where = "the tensor" if tensor is None else f"tensor {tensor}"
    return NonFiniteValueError(
        f"{what}: {where} holds NaN in element {element} (in row-major order); NaN has no rank: replace it first"
    )


def _select(
    flats: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], keep: int, magnitude: bool, output: int,
    threshold: torch.Tensor | None, what: str,
) -> None:  # fmt: skip
    """Run prune_mask of the compiled module."""
    device = flats[0].device
    sizes = [flat.numel() for flat in flats]
    segments = (
        [flat.data_ptr() for flat in flats], [stride_of(flat) for flat in flats], sizes, [o.data_ptr() for o in outputs]
    )  # fmt: skip
    form = FORMATS[flats[0].dtype]
    address = 0 if threshold is None else threshold.data_ptr()
    if device.type == "cuda":
        module = _native.cuda()
        workspace = torch.empty(module.prune_mask_workspace(sizes, form), dtype=torch.uint8, device=device)
        failure = torch.full((len(flats),), -1, dtype=torch.int64, device=device)
        status = module.prune_mask(
            *segments, form, magnitude, keep, output, address, workspace.data_ptr(), failure.data_ptr(),
            *cuda_place(device),
        )  # fmt: skip
        _native.raise_for_status(status, what)
        for tensor, element in enumerate(failure.tolist()):
            if element >= 0:
                raise _not_a_number(what, tensor, element)
        return
    status = _native.cpu().prune_mask(*segments, form, magnitude, keep, output, address, torch.get_num_threads())
    if status[0] == _NON_FINITE:
        raise _not_a_number(what, status[1], status[2])
    _native.raise_for_status(status, what)


def _check_keep(tensors: Sequence[torch.Tensor], keep: int) -> None:
    total = sum(x.numel() for x in tensors)
    if not 0 <= keep <= total:
        raise InvalidArgumentError(f"keep must be in [0, {total}], the number of entries; got {keep}")


def _new_masks(scores: Sequence[torch.Tensor], as_bits: bool) -> list[torch.Tensor]:
    if as_bits:
        return [x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8) for x in scores]
    return [torch.empty(x.shape, dtype=torch.bool, device=x.device) for x in scores]


def _prune_mask(
    scores: list[torch.Tensor], keep: int, magnitude: bool, as_bits: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    _check_tensors(scores)
    _check_keep(scores, keep)
    masks = _new_masks(scores, as_bits)
    threshold = scores[0].new_empty(())
    flats = [flat_view(x) for x in scores]
    _select(flats, masks, keep, magnitude, _BITS if as_bits else _BOOLS, threshold, "prune_mask")
    return masks, threshold


def _fake_prune_mask(
    scores: list[torch.Tensor], keep: int, magnitude: bool, as_bits: bool
) -> tuple[list[torch.Tensor], torch.Tensor]:
    _check_tensors(scores)
    return _new_masks(scores, as_bits), scores[0].new_empty(())


def _prune_project(tensors: list[torch.Tensor], keep: int) -> list[torch.Tensor]:
    _check_tensors(tensors)
    _check_keep(tensors, keep)
    results = _fake_prune_project(tensors, keep)
    _select([flat_view(x) for x in tensors], results, keep, True, _VALUES, None, "prune_project")
    return results


def _fake_prune_project(tensors: list[torch.Tensor], keep: int) -> list[torch.Tensor]:
    _check_tensors(tensors)
    return [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in tensors]


def _workable(x: torch.Tensor) -> bool:
    return x.is_contiguous() and not x.is_neg() and x.data_ptr() % x.element_size() == 0


def _prune_project_(tensors: list[torch.Tensor], keep: int) -> None:
    _check_tensors(tensors)
    _check_keep(tensors, keep)
    refuse_overlaps(tensors)
    work = [x if _workable(x) else x.resolve_neg().contiguous().clone() for x in tensors]
    _select([x.view(-1) for x in work], work, keep, True, _IN_PLACE, None, "prune_project_")
    for x, changed in zip(tensors, work, strict=True):
        if changed is not x:
            x.copy_(changed)
    mark_changed(tensors)


def _fake_prune_project_(tensors: list[torch.Tensor], keep: int) -> None:
    _check_tensors(tensors)


def _check_masks(tensors: Sequence[torch.Tensor], masks: Sequence[torch.Tensor]) -> None:
    _check_tensors(tensors)
    if len(tensors) != len(masks):
        raise InvalidArgumentError(f"one mask for each tensor: got {len(masks)} masks for {len(tensors)} tensors")
    for i, (x, mask) in enumerate(zip(tensors, masks, strict=True)):
        if not isinstance(mask, torch.Tensor) or mask.device != x.device:
            raise InvalidArgumentError(f"mask {i} must be a tensor on {x.device}")
        if mask.dtype == torch.uint8:
            check_bits(mask, x.numel())
        elif mask.dtype != torch.bool or mask.shape != x.shape:
            raise InvalidArgumentError(
                f"mask {i} must be bool {list(x.shape)} or uint8 [{(x.numel() + 7) // 8}], "
                f"got {mask.dtype} {list(mask.shape)}"
            )


def _prune_apply_(tensors: list[torch.Tensor], masks: list[torch.Tensor]) -> None:
    _check_masks(tensors, masks)
    refuse_overlaps(tensors)
    for x, mask in zip(tensors, masks, strict=True):
        work = x if _workable(x) else x.resolve_neg().contiguous().clone()
        flat = mask.contiguous()
        arguments = work.data_ptr(), work.numel(), work.element_size(), flat.data_ptr(), mask.dtype == torch.uint8
        if x.device.type == "cuda":
            status = _native.cuda().prune_apply(*arguments, *cuda_place(x.device))
        else:
            status = _native.cpu().prune_apply(*arguments, torch.get_num_threads())
        _native.raise_for_status(status, "prune_apply_")
        if work is not x:
            x.copy_(work)
    mark_changed(tensors)


def _fake_prune_apply_(tensors: list[torch.Tensor], masks: list[torch.Tensor]) -> None:
    _check_masks(tensors, masks)


def _check_pattern(scores: torch.Tensor, n: int, m: int, dim: int) -> int:
    _check_tensors([scores])
    if not 1 <= n <= m <= _LARGEST_PATTERN:
        raise InvalidArgumentError(f"a pattern has 1 <= n <= m <= {_LARGEST_PATTERN}, got {n}:{m}")
    if not -scores.dim() <= dim < scores.dim():
        raise InvalidArgumentError(f"dim must be an axis of a tensor with {scores.dim()} dimensions, got {dim}")
    return dim % scores.dim()


def _prune_pattern_mask(scores: torch.Tensor, n: int, m: int, dim: int) -> torch.Tensor:
    axis = _check_pattern(scores, n, m, dim)
    shape = list(scores.shape)
    mask = torch.empty(shape, dtype=torch.bool, device=scores.device)
    source = scores if _workable(scores) else scores.resolve_neg().contiguous().clone()
    arguments = (
        source.data_ptr(), math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]), n, m,
        FORMATS[scores.dtype], mask.data_ptr(),
    )  # fmt: skip
    if scores.device.type == "cuda":
        failure = torch.full((1,), -1, dtype=torch.int64, device=scores.device)
        status = _native.cuda().prune_pattern(*arguments, failure.data_ptr(), *cuda_place(scores.device))
        _native.raise_for_status(status, "prune_pattern_mask")
        failed = int(failure.item())
    else:
        status = _native.cpu().prune_pattern(*arguments, torch.get_num_threads())
        failed = status[2] if status[0] == _NON_FINITE else -1
        if failed < 0:
            _native.raise_for_status(status, "prune_pattern_mask")
    if failed >= 0:
        raise _not_a_number("prune_pattern_mask", None, failed)
    return mask


def _fake_prune_pattern_mask(scores: torch.Tensor, n: int, m: int, dim: int) -> torch.Tensor:
    _check_pattern(scores, n, m, dim)
    return torch.empty(scores.shape, dtype=torch.bool, device=scores.device)


implement("prune_mask", _prune_mask, _fake_prune_mask)
implement("prune_project", _prune_project, _fake_prune_project)
implement("prune_project_", _prune_project_, _fake_prune_project_)
implement("prune_apply_", _prune_apply_, _fake_prune_apply_)
implement("prune_pattern_mask", _prune_pattern_mask, _fake_prune_pattern_mask)
