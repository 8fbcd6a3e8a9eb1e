"""Logits and accuracy of a network on records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError


def logits(module: nn.Module, records: Records, batch_size: int = 1024) -> torch.Tensor:
    """The network's logits for every record, in evaluation mode and without gradients.

    Args:
        module: returns logits [n, n_classes]; every submodule's mode is put back afterwards.
        records: n records; they are moved to the module's device batch by batch.
        batch_size: records per forward pass.

    Returns:
        Floating-point [n, n_classes] on the module's device, in record order.

    Raises:
        NonFiniteValueError: a logit is NaN or infinite.
        InvalidArgumentError: the module returns another shape, cannot take float32 records because its parameters have
            another dtype, or ``batch_size`` is below 1.
    """
    if batch_size < 1:
        raise InvalidArgumentError(f"batch_size is at least 1, not {batch_size}")
    parameter = next(module.parameters(), None)
    device = records.x.device if parameter is None else parameter.device
    with evaluating(module), torch.no_grad():
        starts = range(0, len(records), batch_size)
        try:
            result = torch.cat([module(records.x[start : start + batch_size].to(device)) for start in starts])
        except RuntimeError as error:
            if parameter is None or parameter.dtype == records.x.dtype:
                raise
            raise InvalidArgumentError(
                f"{type(module).__name__} has parameters of {parameter.dtype} and does not take records of "
                f"{records.x.dtype} ({error}): give module.float()"
            ) from error
    if result.shape != (len(records), records.n_classes):
        raise InvalidArgumentError(
            f"{type(module).__name__} returned {list(result.shape)} for {records.name!r}; "
            f"expected one logit per record and class, {[len(records), records.n_classes]}"
        )
    if not bool(torch.isfinite(result).all()):
        raise NonFiniteValueError(
            f"{type(module).__name__} returned NaN or infinity for {records.name!r}: "
            "its weights are damaged or its training diverged"
        )
    return result


def accuracy(module: nn.Module, records: Records, batch_size: int = 1024) -> float:
    """The share of records whose largest logit is their label's, in [0, 1]; see :func:`logits`.

    Where several logits tie for the largest, the lowest class counts.
    """
    predicted = logits(module, records, batch_size).argmax(dim=1)
    return (predicted == records.y.to(predicted.device)).double().mean().item()


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every submodule has the mode it had."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
