"""Small networks for any records: one hidden layer, or none."""

from __future__ import annotations

import math

import torch
from torch import nn

from privkernels.errors import InvalidArgumentError
from privkernels.models.network import check_input, check_sizes


class Linear(nn.Module):
    """Multinomial logistic regression on the flattened record, with torch's own initialisation."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int) -> None:
        check_sizes("linear", input_shape, n_classes)
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.output = nn.Linear(math.prod(input_shape), n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, n_classes] of records [n, *input_shape]."""
        check_input(self, x, self.input_shape)
        logits: torch.Tensor = self.output(x.flatten(1))
        return logits


class MLP(nn.Module):
    """One hidden layer of ReLUs on the flattened record, with torch's own initialisation."""

    def __init__(self, input_shape: tuple[int, ...], n_classes: int, hidden: int = 32) -> None:
        check_sizes("mlp", input_shape, n_classes)
        if hidden < 1:
            raise InvalidArgumentError(f"mlp needs at least one hidden unit, not {hidden}")
        super().__init__()
        self.input_shape = tuple(input_shape)
        self.hidden = nn.Linear(math.prod(input_shape), hidden)
        self.output = nn.Linear(hidden, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits [n, n_classes] of records [n, *input_shape]."""
        check_input(self, x, self.input_shape)
        logits: torch.Tensor = self.output(torch.relu(self.hidden(x.flatten(1))))
        return logits
