"""Dropout whose masks depend on a member's seed and on nothing else."""

from __future__ import annotations

import torch
from torch import nn

# Layers that drop single values, and layers that drop whole channels ([n, channels, ...] inputs).
_VALUES: tuple[type[nn.Module], ...] = (nn.Dropout,)
_CHANNELS: tuple[type[nn.Module], ...] = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


class ReplayedDropout(nn.Module):
    """Stands in for nn.Dropout or nn.Dropout1d/2d/3d during training.

    torch's own dropout draws from the global generator, so under vmap a member's mask would depend
    on the members beside it. Here the mask is drawn from ``generator``, or is given as ``mask``
    (through functional_call, where every member has its own).

    Attributes:
        p: probability that a value (or channel) is set to 0; the others are scaled by 1/(1-p).
        channels: drop whole channels.
        generator: where masks come from; None means that ``mask`` is used.
        uses: how often the layer ran.
        input_shape: the shape of its last input.
    """

    mask: torch.Tensor

    def __init__(self, p: float, channels: bool) -> None:
        super().__init__()
        self.p = p
        self.channels = channels
        self.generator: torch.Generator | None = None
        self.uses = 0
        self.input_shape = torch.Size()
        self.register_buffer("mask", torch.ones(()), persistent=False)

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        """A mask of 0 and 1/(1-p), float32 on the CPU, that broadcasts to inputs of ``shape``."""
        if self.channels:
            shape = (*shape[:2], *(1 for _ in shape[2:]))
        mask = torch.empty(shape).bernoulli_(1 - self.p, generator=generator)
        return mask.div_(1 - self.p) if self.p < 1 else mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``x`` times the mask, in training mode; ``x`` otherwise."""
        if not self.training:
            return x
        self.uses += 1
        self.input_shape = x.shape
        if self.generator is None:
            return x * self.mask
        return x * self.draw(tuple(x.shape), self.generator).to(x)


def replace_dropout(model: nn.Module) -> dict[str, ReplayedDropout]:
    """Put a :class:`ReplayedDropout` in the place of every dropout layer that it can stand in for.

    Layers of other kinds (AlphaDropout, user-defined ones) are left as they are.

    Returns:
        The new layers by their names in ``model``. One layer under two names is listed once.
    """
    replaced: dict[str, ReplayedDropout] = {}
    made: dict[nn.Module, ReplayedDropout] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if type(layer) not in (*_VALUES, *_CHANNELS) or not name:
            continue
        if layer not in made:
            made[layer] = ReplayedDropout(float(layer.p), type(layer) in _CHANNELS)
            made[layer].train(layer.training)
            replaced[name] = made[layer]
        model.set_submodule(name, made[layer])
    return replaced
