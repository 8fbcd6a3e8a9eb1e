"""The neural inference attack."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from privkernels.attacks import Shadows
from privkernels.attacks.neural import InferenceNetwork, NeuralAttack
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from tests.support.membership import FIVE_SIGMA, Game, Repetition, area, numbered, table_target


@pytest.fixture(scope="module")
def attack(shadows: Shadows) -> NeuralAttack:
    """Trained on shadows on the attacker's own records."""
    return NeuralAttack().fit(shadows)


def test_the_network_has_its_layers_and_sees_prediction_and_label() -> None:
    network = InferenceNetwork(10)
    sizes = [(part.in_features, part.out_features) for part in network.modules() if isinstance(part, nn.Linear)]
    assert sizes == [(10, 1024), (1024, 512), (512, 64), (10, 512), (512, 64), (128, 256), (256, 64), (64, 1)]
    predictions, labels = torch.randn(4, 10, requires_grad=True), torch.eye(10)[:4].requires_grad_()
    network(predictions, labels).sum().backward()
    assert predictions.grad.abs().sum() > 0
    assert labels.grad.abs().sum() > 0


def test_it_finds_members_of_an_overfitted_network(game: Game, attack: NeuralAttack) -> None:
    # Measured with 8 shadows on the attacker's own records: 0.640; the loss 0.636.
    assert area(attack, game.target, game) > 0.61


def test_it_finds_nothing_in_a_network_trained_on_neither(
    game: Game, attack: NeuralAttack, stranger: nn.Module
) -> None:
    assert abs(area(attack, stranger, game) - 0.5) < FIVE_SIGMA


def test_a_record_that_is_there_eight_times_scores_higher(attack: NeuralAttack, repetition: Repetition) -> None:
    assert repetition.share_raised(attack) >= 0.8


def test_a_right_and_sure_prediction_scores_higher_than_a_wrong_one(attack: NeuralAttack) -> None:
    table = torch.zeros(2, 10)
    table[0, 3] = table[1, 4] = 12.0
    scores = attack.score(table_target(table), numbered([3, 3], 10))
    assert scores[0] > scores[1]


def test_training_keeps_the_epoch_that_the_held_out_pair_likes_best(attack: NeuralAttack) -> None:
    losses = attack.losses_
    assert len(losses) < attack.epochs, "it stopped early"
    assert len(losses) - 1 - int(np.argmin(losses)) == attack.patience
    assert min(losses) < np.log(2.0), "better than guessing"
    shadows = attack.shadows_
    scores = np.stack([attack.score(shadows.model(shadow), shadows.pool) for shadow in (6, 7)])
    inside = shadows.inside[6:]
    loss = np.logaddexp(0.0, np.where(inside, -scores, scores)).mean()
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_one_fit_serves_many_targets_and_does_not_change(game: Game, attack: NeuralAttack, stranger: nn.Module) -> None:
    first = attack.score(game.target, game.members)
    assert first.dtype == np.float64
    attack.score(stranger, game.members)
    np.testing.assert_array_equal(attack.score(game.target, game.members), first)
    twice = attack.score(game.target, game.members.subset([5, 5]))
    assert twice[0] == twice[1]


def test_the_seed_decides_and_global_generators_stay_as_they_are(game: Game, shadows: Shadows) -> None:
    before = torch.get_rng_state()
    one_pair = shadows.select([0, 1])
    first, again, other = (
        NeuralAttack(epochs=1, seed=seed).fit(one_pair).score(game.target, game.members) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_pair_of_shadows_is_enough_and_noted(shadows: Shadows, attack: NeuralAttack) -> None:
    steps: list[tuple[int, int, str]] = []
    alone = NeuralAttack(epochs=2, inputs="probabilities")
    assert alone.notes() == ()
    alone.fit(shadows.select([0, 1]), progress=lambda *step: steps.append(step))
    assert alone.losses_ == []
    assert "without a held-out pair" in alone.notes()[0]
    assert attack.notes() == ()
    assert [step[:2] for step in steps] == [(1, 2), (2, 2)]


def test_predictions_that_are_certain_give_finite_scores(attack: NeuralAttack) -> None:
    table = torch.zeros(2, 10)
    table[:, 3] = 1e30
    assert np.isfinite(attack.score(table_target(table), numbered([3, 4], 10))).all()


def test_wrong_uses_are_named(game: Game, shadows: Shadows, attack: NeuralAttack) -> None:
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        NeuralAttack().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="inputs is one of ranked, probabilities"):
        NeuralAttack(inputs="logits").fit(shadows)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="patience is at least 1"):
        NeuralAttack(patience=0).fit(shadows)
    eleven = Records(game.members.x, game.members.y, 11, "eleven classes")
    with pytest.raises(InvalidArgumentError, match="10 classes, and the records have 11"):
        attack.score(game.target, eleven)


def test_it_is_an_estimator_with_a_plain_description(attack: NeuralAttack) -> None:
    assert clone(attack).get_params() == attack.get_params()
    description = json.loads(json.dumps(attack.describe()))
    assert description["parameters"]["inputs"] == "ranked"
    assert description["fidelity"]["n_models"] == 8
