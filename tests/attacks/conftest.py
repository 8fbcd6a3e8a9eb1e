"""Fixtures of the attack tests."""

from __future__ import annotations

import pytest

from privkernels.attacks import ShadowModelAttack, Shadows, train_shadows
from tests.support.membership import Game, play


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
