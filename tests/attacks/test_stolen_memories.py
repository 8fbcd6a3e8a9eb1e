"""bayes-wb and general-wb."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks import LossThreshold, Shadows
from privkernels.attacks.base import Attack
from privkernels.attacks.internal_influence import internal_influence, layer_input
from privkernels.attacks.proxy import train_proxy
from privkernels.attacks.stolen_memories import BayesWhiteBox, GeneralWhiteBox
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, TooFewRecordsError, UnknownNameError
from privkernels.randomness import Key
from tests.support.membership import Game, train

# Five standard deviations of the AUC of 600 against 600 without a difference.
CHANCE = 5 * math.sqrt(1201 / (12 * 600 * 600))


@pytest.fixture(scope="module")
def bayes(game: Game) -> BayesWhiteBox:
    return BayesWhiteBox().fit(game.attacker)


@pytest.fixture(scope="module")
def general(shadows: Shadows) -> GeneralWhiteBox:
    return GeneralWhiteBox().fit(shadows)


@pytest.fixture(scope="module")
def stranger(game: Game) -> nn.Module:
    """A network that was trained on half of the attacker's records; members and non-members are alike to it."""
    return train(game.attacker.subset(range(0, 597, 2)), game.config, seed=9)


def auc(attack: Attack, game: Game, target: nn.Module) -> float:
    scores = [attack.score(target, part) for part in (game.members, game.nonmembers)]
    return float(roc_auc_score(np.repeat([1, 0], [len(part) for part in scores]), np.concatenate(scores)))


def test_the_displacement_of_a_linear_network_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    target, proxy = nn.Linear(2, 3), nn.Linear(2, 3)
    with torch.no_grad():
        target.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]]))
        target.bias.copy_(torch.tensor([0.5, 0.0, -1.0]))
        proxy.weight.copy_(torch.tensor([[0.5, 1.0], [1.0, -2.0], [0.0, 0.5]]))
        proxy.bias.copy_(torch.tensor([0.0, 0.25, 1.0]))
    monkeypatch.setattr("privkernels.attacks.stolen_memories.train_proxy", lambda *_: proxy)
    public = Records(torch.rand(30, 2), torch.arange(30) % 3, 3, "public")
    records = Records(torch.tensor([[1.0, 2.0], [-1.0, 4.0]]), torch.tensor([0, 2]), 3, "two")
    # (1 - 0.5) * 1 + (2 - 1) * 2 + (0.5 - 0) and (3 - 0) * -1 + (0.5 - 0.5) * 4 + (-1 - 1).
    logit = BayesWhiteBox(quantity="logit").fit(public).score(target, records)
    np.testing.assert_allclose(logit, [3.0, -5.0], rtol=1e-6)
    # Logits of target and proxy: 5.5, -2, 3 and 2.5, -2.75, 2; then 7.5, -4, -2 and 3.5, -8.75, 3.
    expected = [
        (5.5 - np.logaddexp.reduce([5.5, -2, 3])) - (2.5 - np.logaddexp.reduce([2.5, -2.75, 2])),
        (-2 - np.logaddexp.reduce([7.5, -4, -2])) - (3 - np.logaddexp.reduce([3.5, -8.75, 3])),
    ]
    probability = BayesWhiteBox().fit(public).score(target, records)
    np.testing.assert_allclose(probability, expected, rtol=1e-6)


def test_the_displacement_is_that_of_influences(game: Game, bayes: BayesWhiteBox) -> None:
    # (w - w~) . h + (b - b~), integrated, against the difference of outputs.
    some = game.members.subset(range(50))
    scores = bayes.score(game.target, some)
    proxy = train_proxy(game.target, "output", game.attacker, Key.from_seed(0).derive("proxy/output"))
    h = layer_input(game.target, "output", some.x)
    (w, b), (v, c) = (
        internal_influence(network, "output", h, some.x, some.y, "log-probability", 200)
        for network in (game.target, proxy)
    )
    np.testing.assert_allclose(((w - v) * h).sum(1) + b - c, scores, atol=2e-3)


def test_an_unsuspicious_network_is_not_displaced(game: Game) -> None:
    # Its head already is the one that public records lead to.
    proxy = train_proxy(game.target, "output", game.attacker, Key.from_seed(0).derive("proxy/output"))
    scores = BayesWhiteBox().fit(game.attacker).score(proxy, game.members)
    np.testing.assert_allclose(scores, 0.0, atol=0.02)
    assert np.abs(BayesWhiteBox().fit(game.attacker).score(game.target, game.members)).mean() > 0.5


def test_bayes_finds_members_and_beats_the_loss(game: Game, bayes: BayesWhiteBox) -> None:
    # 0.71, and 0.636 for the loss.
    assert auc(bayes, game, game.target) > auc(LossThreshold(), game, game.target) + 0.04
    assert auc(BayesWhiteBox(quantity="logit").fit(game.attacker), game, game.target) > 0.6


def test_layers_count_equally(game: Game) -> None:
    one, other, both = (
        BayesWhiteBox(layers=layers, epochs=5).fit(game.attacker).score(game.target, game.members)
        for layers in (["hidden"], ["output"], ["output", "hidden"])
    )
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-9, atol=1e-12)


def test_general_finds_members_and_beats_the_loss(game: Game, general: GeneralWhiteBox) -> None:
    # 0.71, and 0.636 for the loss.
    assert auc(general, game, game.target) > auc(LossThreshold(), game, game.target) + 0.03


def test_a_stranger_has_no_members(
    game: Game, bayes: BayesWhiteBox, general: GeneralWhiteBox, stranger: nn.Module
) -> None:
    assert abs(auc(bayes, game, stranger) - 0.5) < CHANCE
    assert abs(auc(general, game, stranger) - 0.5) < CHANCE


def test_general_is_calibrated_on_a_shadow_of_other_records(game: Game, general: GeneralWhiteBox) -> None:
    # A model trained as the shadows were, on half as many records as the target.
    inside, outside = game.members.subset(range(298)), game.nonmembers.subset(range(298))
    model = train(inside, game.config, seed=5)
    log_odds = np.concatenate([general.score(model, part) for part in (inside, outside)])
    truth = np.repeat([1, 0], 298)
    order = np.argsort(log_odds)
    for part in np.array_split(order, 4):
        assert abs(expit(log_odds[part]).mean() - truth[part].mean()) < 0.15


def test_no_proxy_of_a_shadow_was_trained_on_what_it_judges(shadows: Shadows, monkeypatch: pytest.MonkeyPatch) -> None:
    public: list[Records] = []

    def no_training(target: nn.Module, _layer: str, records: Records, *_: object) -> nn.Module:
        public.append(records)
        return target

    monkeypatch.setattr("privkernels.attacks.stolen_memories.train_proxy", no_training)
    original = GeneralWhiteBox._features
    judged: list[Records] = []

    def recording(self: GeneralWhiteBox, module: nn.Module, proxies: dict[str, nn.Module], records: Records):
        judged.append(records)
        return original(self, module, proxies, records)

    monkeypatch.setattr(GeneralWhiteBox, "_features", recording)
    some = shadows.select([0, 1, 2, 3])
    GeneralWhiteBox(steps=1).fit(some)
    for i, (trained, seen) in enumerate(zip(public, judged, strict=True)):
        assert not set(trained.digests()) & set(seen.digests())
        assert not some.trained_on(trained)[i // 2].any()
    for shadow in range(4):
        assert len(judged[2 * shadow]) + len(judged[2 * shadow + 1]) == len(some.pool)


def test_general_with_two_layers_gives_both_a_say(game: Game, shadows: Shadows) -> None:
    two = GeneralWhiteBox(layers=("output", "hidden"), epochs=2, steps=2).fit(shadows.select([0, 1, 2, 3]))
    assert two.layers_ == ("hidden", "output")
    assert two.meta_model_.coef_.shape == (1, 2)
    assert len(two.attack_models_) == 2
    assert auc(two, game, game.target) > 0.6


def test_convolutions_and_a_last_layer_that_is_not_linear(game: Game) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 10, 6), nn.Flatten(), nn.LogSoftmax(dim=1)
    ).train()
    network[0].requires_grad_(False)
    network[3].weight.grad = torch.full_like(network[3].weight, 7.0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    attack = BayesWhiteBox(epochs=2).fit(game.attacker)
    assert np.isfinite(attack.score(network, game.members)).all()
    assert network.training
    assert [parameter.requires_grad for parameter in network[0].parameters()] == [False, False]
    assert network[3].weight.requires_grad
    assert (network[3].weight.grad == 7.0).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_seed_decides_everything_and_the_batch_nothing(game: Game) -> None:
    def scores(seed: int, records: Records) -> np.ndarray:
        return BayesWhiteBox(layers=["hidden"], epochs=2, seed=seed).fit(game.attacker).score(game.target, records)

    first = scores(1, game.members)
    np.testing.assert_array_equal(first, scores(1, game.members))
    np.testing.assert_allclose(first[:20], scores(1, game.members.subset(range(20))), rtol=1e-4, atol=1e-6)
    assert not np.array_equal(first, scores(2, game.members))


def test_another_target_gets_other_proxies(game: Game, bayes: BayesWhiteBox, stranger: nn.Module) -> None:
    first = bayes.score(game.target, game.members)
    bayes.score(stranger, game.members)
    np.testing.assert_array_equal(bayes.score(game.target, game.members), first)


@pytest.mark.parametrize("make", [BayesWhiteBox, GeneralWhiteBox])
def test_they_describe_and_clone_themselves(make: type[BayesWhiteBox | GeneralWhiteBox]) -> None:
    attack = clone(make(layers=("output",), epochs=7))
    assert attack.get_params()["epochs"] == 7
    description = attack.describe()
    assert description["name"] in ("bayes-wb", "general-wb")
    assert description["parameters"]["quantity"] == "log-probability"
    assert attack.access == "weights"


def test_records_that_proxies_are_trained_on_are_refused(
    game: Game, bayes: BayesWhiteBox, general: GeneralWhiteBox
) -> None:
    mixed = Records(
        torch.cat([game.members.x[:80], game.attacker.x[:20]]),
        torch.cat([game.members.y[:80], game.attacker.y[:20]]),
        10,
        "mixed",
    )
    with pytest.raises(InvalidArgumentError, match="20 of 100 records"):
        bayes.score(game.target, mixed)
    with pytest.raises(InvalidArgumentError, match="100 of 100 records"):
        general.score(game.target, game.attacker.subset(range(100)))


def test_bad_input_is_refused(game: Game, bayes: BayesWhiteBox, shadows: Shadows) -> None:
    def predict(x: Tensor) -> Tensor:
        return torch.zeros(len(x), 10)

    with pytest.raises(InvalidArgumentError, match="not fitted"):
        BayesWhiteBox().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="not fitted"):
        GeneralWhiteBox().score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match=r"needs an nn\.Module"):
        bayes.score(predict, game.members)
    with pytest.raises(TooFewRecordsError, match="at least 20"):
        BayesWhiteBox().fit(game.attacker.subset(range(19)))
    with pytest.raises(InvalidArgumentError, match="log-probability"):
        BayesWhiteBox(quantity="loss").fit(game.attacker)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="'head'"):
        BayesWhiteBox(layers=["head"]).fit(game.attacker).score(game.target, game.members)
    small = game.attacker.subset(game.attacker.y != 3)
    with pytest.raises(TooFewRecordsError, match=r"class\(es\) \[3\]"):
        BayesWhiteBox().fit(small).score(game.target, game.members)
    with pytest.raises(InvalidArgumentError, match="two complementary pairs"):
        GeneralWhiteBox().fit(shadows.select([0, 1]))
