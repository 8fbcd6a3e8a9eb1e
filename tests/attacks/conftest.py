"""Fixtures of the attack tests."""

from __future__ import annotations

import pytest

from privkernels.attacks import ShadowModelAttack
from tests.support.membership import Game, play


@pytest.fixture(scope="session")
def game() -> Game:
    return play()


@pytest.fixture(scope="session")
def fitted(game: Game) -> ShadowModelAttack:
    return ShadowModelAttack(game.make_model, game.config, n_shadows=8).fit(game.attacker)
