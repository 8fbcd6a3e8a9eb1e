"""What must hold of any membership attack: noise on the answers lowers it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from privkernels.attacks import RMIA, Attack, LiRA, LossThreshold, ModifiedEntropy, Shadows
from tests.support.membership import FIVE_SIGMA, Game, area

ATTACKS = [LossThreshold(), ModifiedEntropy(), LiRA(mode="online"), LiRA(mode="imputed"), RMIA(mode="online")]


def fitted(attack: Attack, auditor: Shadows) -> Attack:
    return attack.fit(auditor) if hasattr(attack, "fit") else attack


def noisy(game: Game, scale: float) -> object:
    """The target's answers with Gaussian noise, the same for every query of a batch size."""

    def predict(x: Tensor) -> Tensor:
        logits = game.target(x)
        generator = torch.Generator().manual_seed(len(x))
        return logits + scale * torch.randn(logits.shape, generator=generator)

    return predict


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_more_noise_on_the_answers_lowers_an_attack(game: Game, auditor: Shadows, attack: Attack) -> None:
    areas = [area(fitted(attack, auditor), noisy(game, scale), game) for scale in (0.0, 4.0, 100.0)]
    assert areas[0] > areas[1] > areas[2]
    assert abs(areas[2] - 0.5) < FIVE_SIGMA
