"""The stacked optimisers against torch.optim, one instance per member."""

from __future__ import annotations

import pytest
import torch

from privkernels.training import TrainingConfig
from privkernels.training.optimizers import make_optimizer

CONFIGS = [
    TrainingConfig(optimizer="sgd", momentum=0.0),
    TrainingConfig(optimizer="sgd", momentum=0.9),
    TrainingConfig(optimizer="sgd", momentum=0.9, weight_decay=0.1),
    TrainingConfig(optimizer="adam"),
    TrainingConfig(optimizer="adam", weight_decay=0.1),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.optimizer}-{c.momentum}-{c.weight_decay}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_members_step_as_if_alone(config: TrainingConfig, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    members, size, steps = 3, 7, 12
    matrix = torch.randn(members, size, generator=generator, dtype=dtype)
    alone = [torch.nn.Parameter(row.clone()) for row in matrix]
    kind = torch.optim.SGD if config.optimizer == "sgd" else torch.optim.Adam
    extra = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    optimizers = [kind([row], lr=0.1, weight_decay=config.weight_decay, **extra) for row in alone]
    stacked = make_optimizer(config, matrix)
    for step in range(steps):
        gradients = torch.randn(members, size, generator=generator, dtype=dtype)
        rate = 0.1 / (step + 1)
        # Member 1 sits out every third step, member 2 every second; in some steps all take part.
        active = torch.tensor([True, step % 3 != 0, step % 2 != 0])
        rows = slice(None) if active.all() else active.nonzero()[:, 0]
        stacked.step(matrix, gradients, rows, rate)
        for row, gradient, optimizer, takes_part in zip(alone, gradients, optimizers, active, strict=True):
            if takes_part:
                optimizer.param_groups[0]["lr"] = rate
                row.grad = gradient.clone()
                optimizer.step()
    expected = torch.stack([row.detach() for row in alone])
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(matrix, expected, **tolerance)


@pytest.mark.parametrize("config", CONFIGS[1:4:2], ids=lambda c: c.optimizer)
def test_gradients_are_left_alone(config: TrainingConfig) -> None:
    gradients = torch.ones(2, 3)
    optimizer = make_optimizer(config, matrix := torch.zeros(2, 3))
    for _ in range(3):
        optimizer.step(matrix, gradients, slice(None), 0.1)
    assert torch.equal(gradients, torch.ones(2, 3))
