"""What both engines share: the network at the common start, and a member's own generators."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.models import load_weights, seeded
from privkernels.randomness import Key

MakeModel = Callable[[], nn.Module]

# Multiplications in a step below which a second thread does not pay (measured: 50 members of 2,410 parameters).
_SMALL = 2**24


@contextlib.contextmanager
def few_threads(work: int) -> Iterator[None]:
    """One thread inside the block if a step is small.

    Handing a small step to other threads and waiting for them costs more than it saves, and many times more on a
    busy machine (34 s against 170 s for the whole demonstration).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if work < _SMALL else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def initialised(make_model: MakeModel, initial_state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The network in training mode, with the common initial parameters and buffers."""
    model = new_model(make_model, seed=0)
    load_weights(model, initial_state)
    return model.train()


def new_model(make_model: MakeModel, seed: int) -> nn.Module:
    """Call the factory under a seed, and see that it gives a network with something to train."""
    with seeded(seed):
        model = make_model()
    if not isinstance(model, nn.Module):
        raise InvalidArgumentError(f"the model factory returned a {type(model).__name__}, not a torch.nn.Module")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidArgumentError(f"{type(model).__name__} has no parameter that can be trained")
    return model


def order_generator(seed: int) -> torch.Generator:
    """The generator of a member's batch order."""
    return Key.from_seed(seed).generator("order")


def dropout_generator(seed: int, layer: str) -> torch.Generator:
    """The generator of a member's masks for one layer.

    One generator per layer, so that the masks do not depend on the order in which layers run.
    """
    return Key.from_seed(seed).generator(f"dropout/{layer}")


def diverged(label: str, what: str) -> NonFiniteValueError:
    """The error for a member whose loss or parameters are no longer finite."""
    return NonFiniteValueError(
        f"the training of {label} diverged: {what} is NaN or infinite; lower the learning rate, "
        "or look for extreme values in the records"
    )


def check_logits(shape: tuple[int, ...], records: int, n_classes: int) -> None:
    """Refuse a network that does not return one logit per record and class."""
    if tuple(shape) != (records, n_classes):
        raise InvalidArgumentError(
            f"the network returned {list(shape)} for {records} records of {n_classes} classes; "
            f"it must return logits {[records, n_classes]}"
        )
