"""SGD and Adam on a stack of members, where some members may sit out a step.

torch.optim counts steps per tensor, so on a stacked tensor it cannot leave one member out; with
unequal subset sizes that is needed at the end of an epoch. The arithmetic is torch.optim's.
"""

from __future__ import annotations

from typing import Protocol

import torch

from privkernels.training.config import TrainingConfig

# A boolean index would copy even where all rows are chosen; slice(None) does not.
Rows = torch.Tensor | slice


class StackedOptimizer(Protocol):
    """Updates the rows of a parameter matrix."""

    def step(self, parameters: torch.Tensor, gradients: torch.Tensor, rows: Rows, rate: float) -> None:
        """Update ``parameters[rows]`` in place with ``gradients[rows]``; both are [members, N]."""


def make_optimizer(config: TrainingConfig, parameters: torch.Tensor) -> StackedOptimizer:
    """The optimiser of ``config`` for ``parameters`` [members, N], its state at zero."""
    if config.optimizer == "sgd":
        return _SGD(config, parameters)
    return _Adam(config, parameters)


class _SGD:
    """torch.optim.SGD with dampening 0. Its first velocity is the gradient, momentum * 0 + gradient."""

    def __init__(self, config: TrainingConfig, parameters: torch.Tensor) -> None:
        self.momentum, self.weight_decay = config.momentum, config.weight_decay
        self.velocity = torch.zeros_like(parameters) if config.momentum else None

    def step(self, parameters: torch.Tensor, gradients: torch.Tensor, rows: Rows, rate: float) -> None:
        update = gradients[rows]
        if self.weight_decay:
            update = update.add(parameters[rows], alpha=self.weight_decay)
        if self.velocity is not None:
            update = self.velocity[rows].mul_(self.momentum).add_(update)
            self.velocity[rows] = update
        parameters[rows] = parameters[rows].sub_(update, alpha=rate)


class _Adam:
    """torch.optim.Adam with betas (0.9, 0.999), eps 1e-8, a step count per member."""

    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, config: TrainingConfig, parameters: torch.Tensor) -> None:
        self.weight_decay = config.weight_decay
        self.mean = torch.zeros_like(parameters)
        self.square = torch.zeros_like(parameters)
        # float64, as torch.optim computes the bias corrections with Python floats.
        self.steps = torch.zeros(len(parameters), 1, dtype=torch.float64, device=parameters.device)

    def step(self, parameters: torch.Tensor, gradients: torch.Tensor, rows: Rows, rate: float) -> None:
        gradient = gradients[rows]
        if self.weight_decay:
            gradient = gradient.add(parameters[rows], alpha=self.weight_decay)
        mean = self.mean[rows].lerp_(gradient, 1 - self.betas[0])
        square = self.square[rows].mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        steps = self.steps[rows] + 1
        self.mean[rows], self.square[rows], self.steps[rows] = mean, square, steps
        scale = (rate / (1 - self.betas[0] ** steps)).to(mean.dtype)
        root = (1 - self.betas[1] ** steps).sqrt().to(mean.dtype)
        parameters[rows] = parameters[rows].sub_(scale * mean / (square.sqrt() / root).add_(self.eps))
