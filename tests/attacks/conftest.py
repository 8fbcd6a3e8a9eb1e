"""Fixtures of the attack tests."""

from __future__ import annotations

import pytest
from torch import nn

from privkernels.attacks import ShadowModelAttack, Shadows, train_shadows
from privkernels.training import TrainingConfig
from tests.support.membership import Game, Repetition, play, train


@pytest.fixture(scope="session")
def game() -> Game:
    return play()


@pytest.fixture(scope="session")
def shadows(game: Game) -> Shadows:
    """Shadows on records of the attacker's own."""
    return train_shadows(game.make_model, game.attacker, game.config, 8)


@pytest.fixture(scope="session")
def auditor(game: Game) -> Shadows:
    """Shadows on the members and non-members themselves, as an auditor has them."""
    return train_shadows(game.make_model, game.candidates, game.config, 16)


@pytest.fixture(scope="session")
def fitted(shadows: Shadows) -> ShadowModelAttack:
    return ShadowModelAttack().fit(shadows)


@pytest.fixture(scope="session")
def stranger(game: Game) -> nn.Module:
    """A target trained neither on the members nor on the non-members."""
    return train(game.attacker, game.config, seed=9)


@pytest.fixture(scope="session")
def repetition(game: Game) -> Repetition:
    rows, others = list(range(600, 630)), list(range(300))
    config = TrainingConfig(epochs=30, batch_size=32, learning_rate=0.1)
    once, often = (train(game.candidates.subset(others + rows * times), config, seed=3) for times in (1, 8))
    return Repetition(game.candidates.subset(rows), once, often)
