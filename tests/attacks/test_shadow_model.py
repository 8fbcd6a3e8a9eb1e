"""The shadow model attack."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from privkernels.attacks import LossThreshold, ShadowModelAttack, Shadows, train_shadows
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.training import TrainingConfig
from tests.support.membership import Game, train

QUICK = TrainingConfig(epochs=2, batch_size=32, learning_rate=0.1)


def area(attack: Any, target: Any, game: Game) -> float:
    scores = [attack.score(target, part) for part in (game.members, game.nonmembers)]
    return float(roc_auc_score(np.repeat([1, 0], [600, 600]), np.concatenate(scores)))


def quick(game: Game, n_shadows: int, records: Records | None = None) -> Shadows:
    return train_shadows(game.make_model, records or game.attacker, QUICK, n_shadows)


class Recorder:
    """An attack model that keeps what it was fitted on."""

    def __init__(self) -> None:
        self.features = self.inside = np.empty(0)

    def fit(self, features: Any, inside: Any) -> None:
        self.features, self.inside = features, inside

    def predict_proba(self, features: Any) -> Any:
        inside = np.exp(features[:, 0])
        return np.column_stack([1 - inside, inside])


def test_it_beats_the_loss_on_an_overfitted_network(game: Game, fitted: ShadowModelAttack) -> None:
    # 60 records per class are few for an attack model of its own: pooled, the attack is stronger.
    pooled = ShadowModelAttack(min_class_records=500).fit(fitted.shadows_)
    assert sorted(fitted.attack_models_) == list(range(10))
    assert pooled.attack_models_ == {}
    loss = area(LossThreshold(), game.target, game)
    assert area(pooled, game.target, game) > max(0.65, loss)
    assert area(fitted, game.target, game) > 0.62


def test_it_finds_nothing_in_a_network_trained_on_neither(game: Game, fitted: ShadowModelAttack) -> None:
    # Five standard deviations of a null AUC with 600 and 600 records: 5 * 0.0167.
    stranger = train(game.attacker, game.config, seed=9)
    assert abs(area(fitted, stranger, game) - 0.5) < 0.084


def test_one_fit_serves_many_targets_and_does_not_change(game: Game, fitted: ShadowModelAttack) -> None:
    first = fitted.score(game.target, game.members)
    fitted.score(train(game.nonmembers, QUICK, seed=2), game.members)
    np.testing.assert_array_equal(fitted.score(game.target, game.members), first)
    assert first.dtype == np.float64
    assert first.shape == (600,)


def test_a_function_can_be_attacked(game: Game, fitted: ShadowModelAttack) -> None:
    # Log-probabilities from an interface are logits too. Trees may send a rounding to the other side.
    scores = fitted.score(lambda x: torch.log_softmax(game.target(x).double(), 1), game.members)
    assert np.isclose(scores, fitted.score(game.target, game.members), atol=1e-6).mean() > 0.98


def test_every_class_with_enough_records_has_its_own_attack_model(game: Game) -> None:
    models: list[Recorder] = []

    def make(seed: int) -> Recorder:
        models.append(Recorder())
        return models[-1]

    attack = ShadowModelAttack(attack_model=make, min_class_records=1).fit(quick(game, 4))
    counts = torch.bincount(game.attacker.y).tolist()
    assert sorted(attack.attack_models_) == list(range(10))
    assert attack.pooled_classes_ == ()
    assert attack.pooled_model_ is None
    assert [len(model.features) for model in models] == [4 * count for count in counts]
    assert all(model.inside.sum() * 2 == len(model.inside) for model in models)


def test_features_are_the_true_class_then_the_others_in_descending_order(game: Game) -> None:
    model = Recorder()
    ShadowModelAttack(attack_model=lambda seed: model, min_class_records=500).fit(quick(game, 2))
    assert model.features.shape == (2 * len(game.attacker), 10)
    np.testing.assert_allclose(np.exp(model.features).sum(axis=1), 1.0, rtol=1e-12)
    assert (np.diff(model.features[:, 1:], axis=1) <= 0).all()
    # After two epochs many are still wrong: the true class is not always the largest.
    assert 0 < (model.features[:, 0] < model.features[:, 1]).mean() < 1


def test_small_and_absent_classes_share_a_pooled_model(game: Game) -> None:
    y = game.attacker.y
    keep = torch.cat([(y == 3).nonzero()[:5, 0], ((y != 3) & (y != 7)).nonzero()[:, 0]])
    few = game.attacker.subset(keep)
    attack = ShadowModelAttack(min_class_records=20).fit(quick(game, 4, few))
    assert attack.pooled_classes_ == (3, 7)
    assert 3 not in attack.attack_models_
    assert attack.pooled_model_ is not None
    assert any("2 of 10 classes" in note for note in attack.notes())
    assert np.isfinite(attack.score(game.target, game.members)).all()


def test_a_class_that_one_shadow_has_seen_whole_is_pooled(game: Game) -> None:
    y = game.attacker.y
    few = game.attacker.subset(torch.cat([(y == 0).nonzero()[:1, 0], (y != 0).nonzero()[:, 0]]))
    attack = ShadowModelAttack(min_class_records=1).fit(quick(game, 1, few))
    assert 0 in attack.pooled_classes_


def test_two_fits_with_one_seed_agree(game: Game) -> None:
    def perceptron(seed: int) -> MLPClassifier:
        return MLPClassifier((4,), max_iter=20, random_state=seed, tol=0.5)

    trained = quick(game, 2)
    first, again, other = (
        ShadowModelAttack(seed=seed, attack_model=perceptron, min_class_records=500)
        .fit(trained)
        .score(game.target, game.members)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_convergence_warnings_are_recorded_and_do_not_escape(game: Game) -> None:
    attack = ShadowModelAttack(
        min_class_records=20,
        attack_model=lambda seed: MLPClassifier((4,), max_iter=1, random_state=seed),
    )
    attack.fit(quick(game, 2))
    assert len(attack.warnings_) == 10
    assert attack.warnings_[0].startswith("attack model of class 0: ")
    assert attack.notes() == attack.warnings_


def test_other_warnings_do_escape(game: Game) -> None:
    class Complaining(Recorder):
        def fit(self, features: Any, inside: Any) -> None:
            warnings.warn("something is off", UserWarning, stacklevel=1)

    attack = ShadowModelAttack(attack_model=lambda seed: Complaining())
    with pytest.warns(UserWarning, match="something is off"):
        attack.fit(quick(game, 2))


def test_probabilities_of_exactly_zero_and_one_give_finite_scores(game: Game) -> None:
    class Certain(Recorder):
        def predict_proba(self, features: Any) -> Any:
            inside = (features[:, 0] > -0.5).astype(float)
            return np.column_stack([1 - inside, inside])

    attack = ShadowModelAttack(attack_model=lambda seed: Certain())
    scores = attack.fit(quick(game, 2)).score(game.target, game.members)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) == 2


def test_an_attack_model_that_answers_nan_is_refused(game: Game) -> None:
    class Broken(Recorder):
        def predict_proba(self, features: Any) -> Any:
            return np.full((len(features), 2), np.nan)

    attack = ShadowModelAttack(attack_model=lambda seed: Broken())
    with pytest.raises(NonFiniteValueError):
        attack.fit(quick(game, 2)).score(game.target, game.members)


def test_scores_are_log_odds(game: Game) -> None:
    attack = ShadowModelAttack(attack_model=lambda seed: LogisticRegression(max_iter=2000), min_class_records=500)
    attack.fit(quick(game, 2))
    scores = attack.score(game.target, game.members)
    model = attack.pooled_model_
    attack.pooled_model_ = type("Plain", (), {"predict_proba": lambda self, f: model.predict_proba(f)})()
    np.testing.assert_allclose(attack.score(game.target, game.members), scores, rtol=1e-6, atol=1e-6)


def test_fidelity_is_known_after_fitting(game: Game, fitted: ShadowModelAttack) -> None:
    assert ShadowModelAttack().fidelity() is None
    fidelity = fitted.fidelity()
    assert fidelity is not None
    assert fidelity.n_records in (298, 299)
    assert fidelity.train_accuracy > fidelity.test_accuracy > 0.4


def test_wrong_uses_are_named(game: Game, fitted: ShadowModelAttack) -> None:
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        ShadowModelAttack().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="min_class_records"):
        ShadowModelAttack(min_class_records=0).fit(fitted.shadows_)
    eleven = Records(game.members.x, game.members.y, 11, "eleven classes")
    with pytest.raises(InvalidArgumentError, match="10 classes, and the records have 11"):
        fitted.score(game.target, eleven)
