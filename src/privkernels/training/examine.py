"""Can members of a network be stacked, and how much memory does one take?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.func import functional_call, vmap

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, PrivkernelsError
from privkernels.models import parameter_count, seeded
from privkernels.training.common import check_logits, dropout_generator
from privkernels.training.dropout import ReplayedDropout

# An odd number that is not 1, so that few dimensions are taken for the batch by chance.
_SAMPLE = 3


@dataclass(frozen=True)
class Examination:
    """What a trial run of a network has shown.

    Attributes:
        obstacle: why members cannot be stacked, as the start of a sentence; None when they can be.
        parameters: numbers to train.
        activations: numbers that the layers put out per record, roughly.
        convolutional: whether there is a convolution.
    """

    obstacle: str | None
    parameters: int
    activations: int
    convolutional: bool


def examine(model: nn.Module, dropouts: Mapping[str, ReplayedDropout], records: Records) -> Examination:
    """Run a copy of ``model`` on a few records and see whether it can be stacked.

    The layers in ``dropouts`` learn their input shapes by it; ``model`` is otherwise unchanged.

    Raises:
        InvalidArgumentError: the network fails on the records, or returns no logits [n, n_classes].
    """
    trial = copy.deepcopy(model)
    sample = records.x[torch.arange(_SAMPLE) % len(records)]
    before = {name: buffer.clone() for name, buffer in trial.named_buffers()}
    for name in dropouts:
        _layer(trial, name).generator = dropout_generator(0, name)
    activations = _run(trial, sample, records.n_classes)
    for name, layer in dropouts.items():
        used = _layer(trial, name)
        layer.uses, layer.input_shape = used.uses, used.input_shape
    return Examination(
        _obstacle(trial, model, dropouts, before, sample),
        parameter_count(model),
        activations,
        any(isinstance(layer, nn.modules.conv._ConvNd) for layer in model.modules()),
    )


def _layer(model: nn.Module, name: str) -> ReplayedDropout:
    layer = model.get_submodule(name)
    assert isinstance(layer, ReplayedDropout)
    return layer


def _run(trial: nn.Module, sample: torch.Tensor, n_classes: int) -> int:
    """One forward pass; returns the numbers per record that the innermost layers put out."""
    total = 0

    def count(_layer: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel()

    hooks = [layer.register_forward_hook(count) for layer in trial.modules() if not any(True for _ in layer.children())]
    try:
        with seeded(0), torch.no_grad():
            logits = trial(sample)
    except PrivkernelsError:
        raise
    except Exception as error:
        # The network is the user's code, and may fail in any way.
        raise InvalidArgumentError(
            f"{type(trial).__name__} failed on records of shape {list(sample.shape[1:])} "
            f"({type(error).__name__}: {error}): choose a network that fits the records"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    check_logits(logits.shape, len(sample), n_classes)
    return total // len(sample)


def _obstacle(
    trial: nn.Module,
    model: nn.Module,
    dropouts: Mapping[str, ReplayedDropout],
    before: Mapping[str, torch.Tensor],
    sample: torch.Tensor,
) -> str | None:
    network = type(model).__name__
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            # Its running statistics change in place, and padded records would enter its means.
            return f"{network} has batch normalisation ({name}), which members cannot share in one stack"
    for name, buffer in trial.named_buffers():
        if name not in before or not torch.equal(buffer, before[name]):
            return f"the buffer {name} of {network} changes during training, which a stack cannot follow"
    for name, dropout in dropouts.items():
        if dropout.uses != 1 or dropout.input_shape[0] != len(sample):
            return (
                f"the dropout layer {name} of {network} must run once per batch, on a tensor whose first "
                "dimension is the batch, to be stacked"
            )
    if len({parameter.dtype for parameter in model.parameters() if parameter.requires_grad}) > 1:
        return f"the parameters of {network} have several dtypes, which do not fit one stack"
    return _try_vmap(model, dropouts, sample)


def _try_vmap(model: nn.Module, dropouts: Mapping[str, ReplayedDropout], sample: torch.Tensor) -> str | None:
    """Run two stacked members; vmap says itself what it cannot do (random draws, data-dependent branches)."""
    stacked = {name: torch.stack([tensor, tensor]) for name, tensor in model.named_parameters()}
    masks = {
        f"{name}.mask": torch.ones(2, *layer.input_shape, device=sample.device) for name, layer in dropouts.items()
    }

    def forward(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = functional_call(model, tensors, (x,))
        return logits

    try:
        with torch.no_grad():
            vmap(forward, in_dims=(0, None), randomness="error")({**stacked, **masks}, sample)
    except PrivkernelsError:
        raise
    except Exception as error:
        # vmap wraps what the network does, so nearly anything may be raised.
        return f"{type(model).__name__} does not run under torch.vmap ({str(error).splitlines()[0]})"
    return None
