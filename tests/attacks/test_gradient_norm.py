"""The gradient norm attack."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from privkernels.attacks.gradient_norm import GradientNorm, gradient_norms
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError, UnknownNameError
from tests.support.membership import Game, train


class Branching(nn.Module):
    """A network whose code looks at values, which vmap cannot follow."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)
        return 2 * logits if float(x.sum()) > 1e9 else logits


def normalised() -> nn.Module:
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(108, 10)
    )


def by_autograd(module: nn.Module, records: Records, prefix: str = "") -> np.ndarray:
    module.eval()
    norms = []
    for x, y in zip(records.x, records.y, strict=True):
        module.zero_grad()
        nn.functional.cross_entropy(module(x[None]).double(), y[None]).backward()
        squares = [p.grad.double().square().sum() for n, p in module.named_parameters() if n.startswith(prefix)]
        norms.append(math.sqrt(sum(squares)))
    module.zero_grad()
    return np.array(norms)


def auc(attack: GradientNorm, game: Game, target: nn.Module) -> float:
    scores = [attack.score(target, part) for part in (game.members, game.nonmembers)]
    return float(roc_auc_score(np.repeat([1, 0], [len(part) for part in scores]), np.concatenate(scores)))


@pytest.mark.parametrize("make", [Game.make_model, normalised], ids=["mlp", "convolution and batch norm"])
def test_it_is_the_norm_that_autograd_finds_record_by_record(game: Game, make: type[nn.Module]) -> None:
    some, module = game.members.subset(range(20)), make()
    np.testing.assert_allclose(gradient_norms(module, some, batch_size=7), by_autograd(module, some), rtol=1e-5)


def test_chosen_layers_alone_count(game: Game) -> None:
    some = game.members.subset(range(20))
    expected = by_autograd(game.target, some, "output.")
    np.testing.assert_allclose(gradient_norms(game.target, some, ["output"]), expected, rtol=1e-5)
    both = np.hypot(expected, by_autograd(game.target, some, "hidden."))
    np.testing.assert_allclose(gradient_norms(game.target, some, ["output", "hidden"]), both, rtol=1e-5)


def test_the_last_layer_by_hand() -> None:
    linear = nn.Linear(2, 3)
    records = Records(torch.tensor([[3.0, 4.0]]), torch.tensor([1]), 3, "one")
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.copy_(torch.log(torch.tensor([0.2, 0.5, 0.3])))
    # |p - onehot| * |(h, 1)|
    expected = math.sqrt(0.04 + 0.25 + 0.09) * math.sqrt(26)
    assert math.isclose(-GradientNorm().score(linear, records)[0], expected, rel_tol=1e-6)


def test_a_network_that_vmap_cannot_take_is_taken_record_by_record(game: Game) -> None:
    some = game.members.subset(range(20))
    expected = gradient_norms(game.target, some)
    np.testing.assert_allclose(gradient_norms(Branching(game.target), some), expected, rtol=1e-5)


def test_confident_records_do_not_tie() -> None:
    linear = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0], [0.0]]))
    records = Records(torch.arange(20.0, 36.0)[:, None], torch.zeros(16, dtype=torch.int64), 2, "confident")
    assert (np.diff(GradientNorm().score(linear, records)) > 0).all()


def test_it_finds_members_of_an_overfitted_network(game: Game) -> None:
    # 0.636 on this target, as the loss.
    assert auc(GradientNorm(), game, game.target) > 0.61


def test_a_stranger_has_no_members(game: Game) -> None:
    stranger = train(game.attacker, game.config, seed=9)
    # Five standard deviations of the AUC of 600 against 600 without a difference.
    assert abs(auc(GradientNorm(), game, stranger) - 0.5) < 5 * math.sqrt(1201 / (12 * 600 * 600))


def test_the_network_stays_as_it_was(game: Game) -> None:
    module = normalised().train()
    module[0].weight.requires_grad_(False)
    module[5].weight.grad = torch.full_like(module[5].weight, 7.0)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    some = game.members.subset(range(20))
    for target in (module, Branching(module)):
        GradientNorm().score(target, some)
    assert module.training
    assert module[1].training
    assert not module[0].weight.requires_grad
    assert module[5].weight.requires_grad
    assert (module[5].weight.grad == 7.0).all()
    assert module[5].bias.grad is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_it_describes_and_clones_itself() -> None:
    attack = clone(GradientNorm(layers=("output",), batch_size=3))
    assert attack.get_params() == {"layers": ("output",), "batch_size": 3}
    assert attack.describe()["name"] == "gradient norm"
    assert attack.access == "weights"


def test_bad_targets_and_layers_are_refused(game: Game) -> None:
    some = game.members.subset(range(3))
    with pytest.raises(InvalidArgumentError, match=r"needs an nn\.Module"):
        GradientNorm().score(lambda x: torch.zeros(len(x), 10), some)
    with pytest.raises(UnknownNameError, match=r"no layer 'out'.*output"):
        GradientNorm(layers=["out"]).score(game.target, some)
    with pytest.raises(InvalidArgumentError, match="sequence of names"):
        GradientNorm(layers="output").score(game.target, some)
    with pytest.raises(InvalidArgumentError, match="no parameters"):
        GradientNorm().score(nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(10)), some)


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    class Root(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).abs().sqrt()

    root = Root(1, 2)
    nn.init.zeros_(root.weight)
    nn.init.zeros_(root.bias)
    with pytest.raises(NonFiniteValueError, match="1 of 1 records"):
        GradientNorm().score(root, Records(torch.ones(1, 1), torch.tensor([0]), 2, "one"))
