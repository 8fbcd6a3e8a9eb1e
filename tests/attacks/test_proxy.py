"""Proxies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from privkernels.attacks.internal_influence import layer_input
from privkernels.attacks.proxy import softmax_regression, train_proxy
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError, TooFewRecordsError
from privkernels.inference import accuracy, logits
from privkernels.randomness import Key
from tests.support.membership import Game

KEY = Key.from_seed(0)


def test_softmax_regression_reaches_scikit_learns_optimum() -> None:
    rng = np.random.default_rng(0)
    h, y = rng.normal(size=(200, 4)), rng.integers(0, 3, 200)
    found = softmax_regression(h, np.eye(3)[y], 0.1)
    # scikit-learn minimises C times the sum of losses plus half the squared weights.
    known = LogisticRegression(C=1 / (0.1 * 200), tol=1e-10, max_iter=10_000).fit(h, y)
    np.testing.assert_allclose(found[:-1].T, known.coef_, atol=1e-4)
    bias = found[-1] - found[-1].mean()
    np.testing.assert_allclose(bias, known.intercept_ - known.intercept_.mean(), atol=1e-4)


def test_softmax_regression_without_biases_has_none() -> None:
    rng = np.random.default_rng(0)
    found = softmax_regression(rng.normal(size=(50, 4)), np.eye(2)[rng.integers(0, 2, 50)], 0.1, intercept=False)
    assert (found[-1] == 0).all()
    assert (found[:-1] != 0).all()


def test_the_penalty_is_chosen_for_what_is_not_seen(game: Game) -> None:
    # Labels without any relation to the records: the best head hardly looks at the features.
    noise = Records(game.attacker.x, torch.arange(len(game.attacker)) % 10, 10, "noise")
    proxy = train_proxy(game.target, "output", noise, KEY)
    assert proxy.output.weight.norm() < 0.05 * game.target.output.weight.norm()
    taught = train_proxy(game.target, "output", game.attacker, KEY)
    assert taught.output.weight.norm() > 5 * proxy.output.weight.norm()
    assert accuracy(taught, game.nonmembers) > accuracy(game.target, game.nonmembers)


def test_below_the_layer_the_proxy_is_the_target(game: Game) -> None:
    head = train_proxy(game.target, "output", game.attacker, KEY)
    x = game.members.x[:5]
    assert torch.equal(layer_input(head, "output", x), layer_input(game.target, "output", x))
    assert not torch.equal(head.output.weight, game.target.output.weight)
    whole = train_proxy(game.target, "hidden", game.attacker, KEY, epochs=20)
    assert not torch.equal(whole.hidden.weight, game.target.hidden.weight)
    assert accuracy(whole, game.nonmembers) > 0.6


def test_the_first_layers_proxy_owes_the_target_nothing(game: Game) -> None:
    other = Game.make_model()
    ours, theirs = (train_proxy(m, "hidden", game.attacker, KEY, epochs=2) for m in (game.target, other))
    assert torch.equal(logits(ours, game.members), logits(theirs, game.members))


def test_the_key_decides_everything_and_the_target_stays_as_it_was(game: Game) -> None:
    before = torch.get_rng_state()
    state = {name: tensor.clone() for name, tensor in game.target.state_dict().items()}
    first, again, other = (
        train_proxy(game.target, "hidden", game.attacker, key, epochs=2) for key in (KEY, KEY, Key.from_seed(1))
    )
    assert torch.equal(logits(first, game.members), logits(again, game.members))
    assert not torch.equal(logits(first, game.members), logits(other, game.members))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in game.target.state_dict().items())
    assert all(parameter.requires_grad for parameter in game.target.parameters())


def test_statistics_of_batches_stay_and_layers_below_are_frozen(game: Game) -> None:
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 12), nn.BatchNorm1d(12), nn.Linear(12, 10)
    )
    proxy = train_proxy(network, "3", game.attacker, KEY, epochs=3)
    before, after = network.state_dict(), proxy.state_dict()
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert {"0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "4.running_mean"} <= same
    assert not {"3.weight", "5.weight", "4.weight"} & same
    assert not any(parameter.requires_grad for parameter in proxy.parameters())


def test_bad_input_is_refused(game: Game) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(64, 10))

        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) @ self.weight

    with pytest.raises(TooFewRecordsError, match="at least 20"):
        train_proxy(game.target, "output", game.attacker.subset(range(19)), KEY)
    with pytest.raises(InvalidArgumentError, match="at least one epoch"):
        train_proxy(game.target, "hidden", game.attacker, KEY, epochs=0)
    with pytest.raises(InvalidArgumentError, match="reset_parameters"):
        train_proxy(nn.Sequential(Own()), "0", game.attacker, KEY)
    huge = Records(game.attacker.x * 1e38, game.attacker.y, 10, "huge")
    with pytest.raises(NonFiniteValueError):
        train_proxy(game.target, "hidden", huge, KEY, epochs=1)
