"""Training one member by itself, with torch.optim: the engine that takes any network."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, PrivkernelsError
from privkernels.models import seeded
from privkernels.randomness import Key
from privkernels.training.common import (
    MakeModel,
    check_logits,
    diverged,
    dropout_generator,
    initialised,
    order_generator,
)
from privkernels.training.config import TrainingConfig
from privkernels.training.dropout import replace_dropout


def fit_alone(
    make_model: MakeModel,
    initial_state: Mapping[str, torch.Tensor],
    records: Records,
    indices: torch.Tensor,
    config: TrainingConfig,
    seed: int,
    label: str = "the member",
) -> dict[str, torch.Tensor]:
    """Train one member from ``initial_state`` on ``records.subset(indices)``.

    The result is that of :func:`privkernels.training.fit_stacked` up to float rounding. Networks
    that fit_stacked refuses work too: batch normalisation, and random draws outside nn.Dropout
    (these come from torch's global generator, seeded here and put back afterwards).

    Args:
        make_model: builds the network; its own initialisation is overwritten.
        initial_state: parameters and buffers to start from.
        records: the records that ``indices`` points into; training runs on their device.
        indices: int64 [k], k >= 1.
        config: epochs, batch size, optimiser.
        seed: batch order and dropout follow from it.
        label: what to call the member in errors.

    Returns:
        The trained state dict, buffers included.

    Raises:
        NonFiniteValueError: the training diverged.
        InvalidArgumentError: the network fails on a batch, or returns no logits [n, n_classes].
    """
    model = initialised(make_model, initial_state).to(records.x.device)
    for name, layer in replace_dropout(model).items():
        layer.generator = dropout_generator(seed, name)
    optimizer = _optimizer(model, config)
    order = order_generator(seed)
    with seeded(Key.from_seed(seed).seed_for("global")):
        for epoch in range(config.epochs):
            for group in optimizer.param_groups:
                group["lr"] = config.rate(epoch)
            shuffled = indices[torch.randperm(len(indices), generator=order)].to(records.x.device)
            total = torch.zeros((), device=records.x.device)
            for start in range(0, len(shuffled), config.batch_size):
                loss = _loss(model, records, shuffled[start : start + config.batch_size], label)
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                total += loss.detach()
            if not torch.isfinite(total):
                raise diverged(label, f"its loss in epoch {epoch + 1}")
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise diverged(label, name)
    return state


def _loss(model: nn.Module, records: Records, rows: torch.Tensor, label: str) -> torch.Tensor:
    try:
        logits = model(records.x[rows])
    except (ValueError, RuntimeError) as error:
        if isinstance(error, PrivkernelsError):
            raise
        # For example batch normalisation, which cannot normalise a last batch of one record.
        raise InvalidArgumentError(
            f"the network of {label} failed on a batch of {len(rows)} records of shape "
            f"{list(records.x.shape[1:])} ({error}): choose a network that fits, or another batch_size"
        ) from error
    check_logits(logits.shape, len(rows), records.n_classes)
    return functional.cross_entropy(logits, records.y[rows])


def _optimizer(model: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            trainable, lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.Adam(trainable, lr=config.learning_rate, weight_decay=config.weight_decay)
