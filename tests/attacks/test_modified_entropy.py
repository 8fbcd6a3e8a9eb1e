"""The modified entropy attack."""

from __future__ import annotations

import json

import mpmath
import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from privkernels.attacks.modified_entropy import ModifiedEntropy, log_modified_entropy
from privkernels.errors import InvalidArgumentError
from tests.support.membership import FIVE_SIGMA, Game, Repetition, area, numbered, table_target


def exact(logits: list[float], label: int) -> float:
    """The definition, with 600 digits."""
    with mpmath.workdps(600):
        weights = [mpmath.exp(value) for value in logits]
        p = [weight / mpmath.fsum(weights) for weight in weights]
        total = -(1 - p[label]) * mpmath.log(p[label])
        total -= mpmath.fsum(p[i] * mpmath.log(1 - p[i]) for i in range(len(p)) if i != label)
        return float(mpmath.log(total))


@pytest.mark.parametrize(
    "logits",
    [
        [0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [3.0, -1.0, 0.5],
        [40.0, 0.0, 39.0],
        [90.0, 0.0, -5.0],
        [600.0, 0.0, 1.0],
        [-36.9, 0.0, 0.0],
        [1e-9, 0.0, 0.0],
    ],
)
def test_it_is_the_definition_to_float64_accuracy(logits: list[float]) -> None:
    for label in range(len(logits)):
        found = log_modified_entropy(np.array([logits]), torch.tensor([label]))[0]
        assert found == pytest.approx(exact(logits, label), rel=1e-13, abs=1e-13)


def test_certainty_in_the_true_class_and_in_another_are_the_two_ends() -> None:
    # Right and sure, right and unsure, wrong and unsure, wrong and sure.
    target = table_target(torch.tensor([[9.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 9.0]]))
    scores = ModifiedEntropy().score(target, numbered([0, 0, 0, 0], 2))
    assert scores.dtype == np.float64
    assert (np.diff(scores) < 0).all()


def test_confident_records_do_not_tie_and_huge_logits_stay_finite() -> None:
    gaps = torch.tensor([20.0, 90.0, 400.0, 900.0, 1e6, 1e30])
    table = torch.stack([gaps, torch.zeros(6)], dim=1)
    for label, sign in ((0, 1), (1, -1)):
        scores = ModifiedEntropy().score(table_target(table), numbered([label] * 6, 2))
        assert np.isfinite(scores).all()
        assert (sign * np.diff(scores) > 0).all()


def test_equal_predictions_tie(game: Game) -> None:
    scores = ModifiedEntropy().score(lambda x: torch.zeros(len(x), 10), game.members)
    assert len(np.unique(scores)) == 1


def test_it_finds_members_of_an_overfitted_network(game: Game) -> None:
    # Measured: 0.637 on this target.
    assert area(ModifiedEntropy(), game.target, game) > 0.61


def test_it_finds_nothing_in_a_network_trained_on_neither(game: Game, stranger: nn.Module) -> None:
    assert abs(area(ModifiedEntropy(), stranger, game) - 0.5) < FIVE_SIGMA


def test_a_record_that_is_there_eight_times_scores_higher(repetition: Repetition) -> None:
    assert repetition.share_raised(ModifiedEntropy()) >= 0.8


def test_one_class_is_refused_and_the_description_is_plain() -> None:
    with pytest.raises(InvalidArgumentError, match="two classes"):
        ModifiedEntropy().score(table_target(torch.zeros(2, 1)), numbered([0, 0], 1))
    attack = clone(ModifiedEntropy(batch_size=7))
    assert json.loads(json.dumps(attack.describe()))["parameters"] == {"batch_size": 7}
    assert attack.access == "outputs"
