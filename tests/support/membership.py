"""A small membership game: networks, members, non-members and an attacker's own records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from privkernels import data, models, training
from privkernels.attacks import Attack, Shadows


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


@dataclass(frozen=True)
class Repetition:
    """Two targets that differ in how often they were trained on ``records``: once, and eight times per epoch."""

    records: data.Records
    once: nn.Module
    often: nn.Module

    def share_raised(self, attack: Attack) -> float:
        """Share of the records that score higher where the target has seen them more often.

        For an attack that sees nothing, at least 24 of 30 have probability 0.0007.
        """
        often, once = (attack.score(target, self.records) for target in (self.often, self.once))
        return float((often > once).mean())


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


def area(attack: Attack, target: nn.Module, game: Game) -> float:
    """AUC of members against non-members. Where there is nothing to find its standard deviation is 0.0167."""
    truth = np.repeat([1, 0], [len(game.members), len(game.nonmembers)])
    return float(roc_auc_score(truth, attack.score(target, game.candidates)))


# A null AUC of 600 members and 600 non-members stays within five standard deviations of 0.5.
FIVE_SIGMA = 0.084


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


def margin_target(margins: npt.NDArray[np.float64]) -> nn.Module:
    """A network that has margin ``margins[i]`` on record i of :func:`numbered` with label 0 of two classes."""
    logits = torch.zeros(len(margins), 2, dtype=torch.float64)
    logits[:, 0] = torch.from_numpy(margins)
    return table_target(logits)


class MarginShadows(Shadows):
    """Shadows without models: margins of numbered records are looked up in those of the pool."""

    def margins(self, records: data.Records, transform: object = None) -> npt.NDArray[np.float64]:
        return super().margins(self.pool)[:, records.x[:, 0].long().numpy()]


def margin_shadows(margins: npt.NDArray[np.float64], inside: npt.NDArray[np.bool_]) -> Shadows:
    """Shadows with ``margins`` [S, n] on their pool: numbered records, all of label 0 of two classes."""
    n_shadows, n = margins.shape
    pool = numbered([0] * n, 2)
    return MarginShadows(
        lambda: nn.Linear(1, 2),
        pool,
        inside,
        tuple(Path(f"shadow-{number}") for number in range(n_shadows)),
        tuple(number // 2 for number in range(n_shadows)),
        training.TrainingConfig(),
        _margins={(pool.fingerprint(), None): margins},
    )


@dataclass(frozen=True)
class GaussianWorld:
    """Normal margins of known means, and one target drawn from them: the best attack is known.

    Attributes:
        shadows: margins N(mean_in or mean_out, 1) per record, in complementary pairs.
        target: drawn likewise.
        inside: bool [n]; the target's members.
        optimum: the exact log-likelihood ratio, [n].
    """

    shadows: Shadows
    target: nn.Module
    inside: npt.NDArray[np.bool_]
    optimum: npt.NDArray[np.float64]

    @classmethod
    def draw(cls, seed: int, n: int, n_shadows: int, shift: float = 1.5) -> GaussianWorld:
        """Means of OUT margins are N(0, 3^2); those of IN margins are 0 to 2 ``shift`` higher, uniformly."""
        rng = np.random.default_rng(seed)
        mean_out = 3.0 * rng.standard_normal(n)
        mean_in = mean_out + 2.0 * shift * rng.random(n)
        first = rng.random((n_shadows // 2, n)) < 0.5
        inside = np.stack([first, ~first], axis=1).reshape(n_shadows, n)
        margins = np.where(inside, mean_in, mean_out) + rng.standard_normal((n_shadows, n))
        member = rng.random(n) < 0.5
        phi = np.where(member, mean_in, mean_out) + rng.standard_normal(n)
        optimum = ((phi - mean_out) ** 2 - (phi - mean_in) ** 2) / 2.0
        return cls(margin_shadows(margins, inside), margin_target(phi), member, optimum)
