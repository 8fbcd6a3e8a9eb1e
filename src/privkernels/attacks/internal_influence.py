"""A network cut at one of its layers: what enters the layer, and how much each feature weighs in the output."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, UnknownNameError
from privkernels.inference import evaluating

# What of the output is explained: the true class's logit, or its log-probability.
Quantity = Literal["logit", "log-probability"]


def weighted_layers(module: nn.Module, records: Records) -> tuple[str, ...]:
    """Names of the layers that the network can be cut at, in the order in which a record passes them.

    These are the submodules without children that hold a weight of two or more dimensions (nn.Linear, nn.Conv2d, ...)
    and that a forward pass calls exactly once.

    Raises:
        InvalidArgumentError: there is none.
    """
    calls: list[str] = []
    with contextlib.ExitStack() as hooks:
        for name, layer in module.named_modules():
            if not any(layer.children()) and any(parameter.dim() >= 2 for parameter in layer.parameters()):
                handle = layer.register_forward_pre_hook(lambda _layer, _inputs, name=name: calls.append(name))
                hooks.callback(handle.remove)
        with evaluating(module), torch.no_grad():
            module(records.x[:1].to(device_of(module)))
    found = tuple(name for name in calls if calls.count(name) == 1)
    if not found:
        raise InvalidArgumentError(
            f"{type(module).__name__} has no layer to cut at: no submodule without children that holds a weight matrix "
            "and is called once per forward pass"
        )
    return found


def chosen_layers(module: nn.Module, records: Records, layers: Sequence[str] | None) -> tuple[str, ...]:
    """``layers`` in the order of the forward pass; the last weighted layer where None.

    Raises:
        UnknownNameError: a name that is not among :func:`weighted_layers`.
        InvalidArgumentError: no name, or a string in place of a sequence.
    """
    known = weighted_layers(module, records)
    if layers is None:
        return known[-1:]
    if isinstance(layers, str) or not layers:
        raise InvalidArgumentError(f"layers is a sequence of names, or None for the last layer, not {layers!r}")
    for layer in layers:
        if layer not in known:
            raise UnknownNameError(f"{type(module).__name__} cannot be cut at {layer!r}: it has the layers {known}")
    return tuple(layer for layer in known if layer in layers)


def device_of(module: nn.Module) -> torch.device:
    """The device of the network's parameters."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def layer_input(module: nn.Module, layer: str, x: Tensor) -> Tensor:
    """What enters ``layer`` when the network sees ``x`` [b, ...]: h [b, ...], without gradient."""
    seen: list[Tensor] = []
    handle = module.get_submodule(layer).register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0]))
    try:
        with evaluating(module), torch.no_grad():
            module(x)
    finally:
        handle.remove()
    return seen[0].detach()


def logits_from(module: nn.Module, layer: str, h: Tensor, x: Tensor) -> Tensor:
    """The network's logits [b, classes] on ``x`` when ``h`` enters ``layer`` in place of what would."""

    def replace(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (h, *inputs[1:])

    handle = module.get_submodule(layer).register_forward_pre_hook(replace)
    try:
        with evaluating(module):
            logits: Tensor = module(x)
    finally:
        handle.remove()
    return logits


def quantity_of(logits: Tensor, y: Tensor, quantity: Quantity) -> Tensor:
    """The true class's logit or log-probability, float64 [b]."""
    values = logits.double()
    if quantity == "log-probability":
        values = torch.log_softmax(values, dim=1)
    return values.gather(1, y[:, None])[:, 0]


def check_quantity(quantity: str) -> None:
    """Raises :class:`InvalidArgumentError` unless ``quantity`` is one of :data:`Quantity`."""
    if quantity not in get_args(Quantity):
        raise InvalidArgumentError(f"quantity is one of {', '.join(get_args(Quantity))}, not {quantity!r}")


def internal_influence(
    module: nn.Module, layer: str, h: Tensor, x: Tensor, y: Tensor, quantity: Quantity, steps: int = 10
) -> tuple[Tensor, Tensor]:
    """The network above ``layer`` as a linear model of what enters it, around one record.

    With q(h) the quantity, the weights are its gradient averaged along the straight line from the baseline 0 to h
    (Leino, Sen, Datta, Fredrikson and Li, ITC 2018, with the uniform distribution on that line as distribution of
    interest; Sundararajan, Taly and Yan, ICML 2017):

        w = mean over a in (0, 1) of grad q(a h),     b = q(0),

    so that w . h + b = q(h) up to the error of ``steps`` midpoints; for a linear layer with its logit as quantity,
    w is the row W_y and b its bias, exactly.

    Args:
        h: [b, ...], what enters the layer; see :func:`layer_input`.
        x, y: the records [b, ...] and their classes [b].
        steps: points on the line, at least 1.

    Returns:
        w float64 [b, d], with h flattened to d features, and b float64 [b].
    """
    if steps < 1:
        raise InvalidArgumentError(f"steps is at least 1, got {steps}")
    total = torch.zeros(h.flatten(1).shape, dtype=torch.float64, device=h.device)
    for step in range(steps):
        with torch.enable_grad():
            point = (h * ((step + 0.5) / steps)).requires_grad_()
            value = quantity_of(logits_from(module, layer, point, x), y, quantity).sum()
            total += torch.autograd.grad(value, point)[0].flatten(1).double()
    with torch.no_grad():
        bias = quantity_of(logits_from(module, layer, torch.zeros_like(h), x), y, quantity)
    return total / steps, bias


def batches(records: Records, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """The records, ``size`` at a time, on ``device``."""
    if size < 1:
        raise InvalidArgumentError(f"batch_size is at least 1, not {size}")
    for start in range(0, len(records), size):
        yield records.x[start : start + size].to(device), records.y[start : start + size].to(device)
