"""A small membership game: networks, members, non-members and an attacker's own records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from privkernels import data, models, training


@dataclass(frozen=True)
class Game:
    """Digits with a fifth of the labels replaced at random, so that training records are memorised."""

    members: data.Records
    nonmembers: data.Records
    attacker: data.Records
    target: nn.Module
    config: training.TrainingConfig

    @property
    def candidates(self) -> data.Records:
        """Members, then non-members."""
        x, y = (torch.cat([getattr(part, name) for part in (self.members, self.nonmembers)]) for name in "xy")
        return data.Records(x, y, 10, "candidates")

    @staticmethod
    def make_model() -> nn.Module:
        """An untrained network of the target's architecture."""
        return models.build("mlp-32", input_shape=(1, 8, 8), n_classes=10)


def play(*, epochs: int = 60) -> Game:
    """Train a target on 600 of the 1797 digits."""
    digits = data.load("digits")
    x = torch.cat([digits.train.x, digits.test.x])
    y = torch.cat([digits.train.y, digits.test.y])
    rng = np.random.default_rng(0)
    wrong = torch.from_numpy(rng.random(len(y)) < 0.2)
    y = torch.where(wrong, torch.from_numpy(rng.integers(0, 10, len(y))), y)
    order = torch.from_numpy(rng.permutation(len(y)))
    records = data.Records(x, y, 10, "noisy digits")
    members, nonmembers, attacker = (records.subset(part) for part in (order[:600], order[600:1200], order[1200:]))
    config = training.TrainingConfig(epochs=epochs, batch_size=32, learning_rate=0.1)
    return Game(members, nonmembers, attacker, train(members, config, seed=1), config)


def train(records: data.Records, config: training.TrainingConfig, seed: int) -> nn.Module:
    """A network trained on all of ``records``."""
    with models.seeded(seed):
        model = Game.make_model()
    states = training.fit_stacked(
        Game.make_model, model.state_dict(), records, [torch.arange(len(records))], config, [seed]
    )
    model.load_state_dict(states[0])
    return model


def table_target(logits: torch.Tensor) -> nn.Module:
    """A network that answers record i, whose x is [[i]], with row i of ``logits``."""

    class Table(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return logits[x[:, 0].long()]

    return Table()


def numbered(labels: list[int], n_classes: int, start: int = 0) -> data.Records:
    """Records whose x is their number, for :func:`table_target`."""
    x = torch.arange(start, start + len(labels), dtype=torch.float32)[:, None]
    return data.Records(x, torch.tensor(labels), n_classes, "numbered")
