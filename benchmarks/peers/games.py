"""The targets: small networks trained on halves of a pool, beside an attacker's shadow models on other halves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

from benchmarks.peers.formulas import Bools
from privkernels import data, models
from privkernels.attacks import Shadows, target_logits, train_shadows
from privkernels.attacks.base import Array, true_class_margin
from privkernels.data import Records
from privkernels.randomness import Key
from privkernels.training import TrainingConfig


@dataclass(frozen=True, eq=False)
class View:
    """One target, the records to score with the truth about them, and what the attacker has.

    Attributes:
        member: bool [n]; which of ``records`` the target was trained on.
        population: records that neither the target nor a shadow model was trained on.
    """

    target: nn.Module
    records: Records
    member: Bools
    shadows: Shadows
    population: Records

    def margins(self, records: Records) -> tuple[Array, Array]:
        """Of the target [n] and of the shadow models [S, n]."""
        own = true_class_margin(target_logits(self.target, records), records.y)
        return own, self.shadows.margins(records)

    @property
    def scored(self) -> tuple[Array, Array, Bools]:
        """Margins of the target and of the shadow models, and which of these were trained on what."""
        return *self.margins(self.records), self.shadows.trained_on(self.records)

    def few(self, count: int) -> View:
        """The first ``count`` members and non-members."""
        rows = np.concatenate([np.flatnonzero(which)[:count] for which in (self.member, ~self.member)])
        return View(self.target, self.records.subset(rows.tolist()), self.member[rows], self.shadows, self.population)


def noisy_digits() -> Records:
    """All digits, a fifth of the labels replaced at random."""
    digits = data.load("digits")
    x, y = (torch.cat([getattr(part, name) for part in (digits.train, digits.test)]) for name in "xy")
    rng = np.random.default_rng(0)
    wrong = torch.from_numpy(rng.random(len(y)) < 0.2)
    return Records(x, torch.where(wrong, torch.from_numpy(rng.integers(0, 10, len(y))), y), 10, "noisy digits")


def diabetes() -> Records:
    """scikit-learn's diabetes: 10 standardised columns, and whether the progression is above the median."""
    x, progression = load_diabetes(return_X_y=True)
    y = torch.from_numpy((progression > np.median(progression)).astype(np.int64))
    return Records(torch.from_numpy((x * np.sqrt(len(x))).astype(np.float32)), y, 2, "diabetes")


def play(records: Records, n_pool: int, epochs: int, n_targets: int, n_shadows: int) -> list[View]:
    """Train targets and shadow models on halves of ``n_pool`` records; the others are the population."""
    order = np.random.default_rng(Key.from_seed(0).seed_for("pool")).permutation(len(records)).tolist()
    pool, population = records.subset(order[:n_pool]), records.subset(order[n_pool:])

    def make_model() -> nn.Module:
        return models.build("mlp-32", input_shape=tuple(records.x.shape[1:]), n_classes=records.n_classes)

    config = TrainingConfig(epochs=epochs, batch_size=32, learning_rate=0.1)
    everyone = train_shadows(make_model, pool, config, 2 * n_targets + n_shadows)
    # A target is one of a pair; the other, which tells all about it, is not used.
    shadows = everyone.select(range(2 * n_targets, len(everyone)))
    targets = range(0, 2 * n_targets, 2)
    return [View(everyone.model(target), pool, everyone.inside[target], shadows, population) for target in targets]
