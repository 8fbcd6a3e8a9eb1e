"""Shadow models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privkernels.attacks.shadows import train_shadows
from privkernels.errors import InvalidArgumentError, TooFewRecordsError
from privkernels.randomness import Key
from privkernels.training import TrainingConfig
from tests.support.membership import Game

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.1)
KEY = Key.from_seed(3)


def test_pairs_split_the_records_in_complementary_halves(game: Game) -> None:
    shadows = train_shadows(game.make_model, game.attacker, QUICK, 6, KEY)
    n = len(game.attacker)
    assert shadows.inside.shape == (6, n)
    assert (shadows.inside[0::2] ^ shadows.inside[1::2]).all()
    assert set(shadows.inside.sum(axis=1).tolist()) == {n // 2, n - n // 2}
    assert (shadows.inside.sum(axis=0) == 3).all()
    assert not (shadows.inside[0] == shadows.inside[2]).all()


def test_an_odd_number_of_shadows_is_allowed(game: Game) -> None:
    shadows = train_shadows(game.make_model, game.attacker, QUICK, 3, KEY)
    assert shadows.inside.shape[0] == 3
    assert shadows.fidelity.n_models == 3


def test_outputs_are_log_probabilities_of_models_trained_on_their_half(game: Game) -> None:
    shadows = train_shadows(game.make_model, game.attacker, game.config, 2, KEY)
    np.testing.assert_allclose(np.exp(shadows.log_probabilities).sum(axis=2), 1.0, rtol=1e-12)
    right = shadows.log_probabilities.argmax(axis=2) == game.attacker.y.numpy()
    assert right[shadows.inside].mean() > right[~shadows.inside].mean() + 0.1
    assert shadows.fidelity.train_accuracy == right[shadows.inside].mean()
    assert shadows.fidelity.test_accuracy == right[~shadows.inside].mean()


def test_the_key_decides_everything_and_global_generators_stay_as_they_are(game: Game) -> None:
    before = torch.get_rng_state()
    first, again, other = (
        train_shadows(game.make_model, game.attacker, QUICK, 2, key) for key in (KEY, KEY, Key.from_seed(4))
    )
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(first.log_probabilities, again.log_probabilities)
    assert not (first.inside == other.inside).all()


def test_progress_is_reported(game: Game) -> None:
    seen: list[tuple[int, int, str]] = []
    train_shadows(game.make_model, game.attacker, QUICK, 2, KEY, progress=lambda *step: seen.append(step))
    assert seen
    assert seen[-1][0] == seen[-1][1]


def test_too_few_records_and_no_shadow_are_refused(game: Game) -> None:
    with pytest.raises(TooFewRecordsError, match="at least 20"):
        train_shadows(game.make_model, game.attacker.subset(range(19)), QUICK, 2, KEY)
    with pytest.raises(InvalidArgumentError, match="n_shadows=0"):
        train_shadows(game.make_model, game.attacker, QUICK, 0, KEY)
