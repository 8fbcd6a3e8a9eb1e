"""Networks cut at a layer, and internal influence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from privkernels.attacks.internal_influence import (
    Quantity,
    chosen_layers,
    internal_influence,
    layer_input,
    logits_from,
    quantity_of,
    weighted_layers,
)
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, UnknownNameError
from privkernels.models import build


class Residual(nn.Module):
    """Around ``middle`` the features pass unchanged; ``twice`` is called two times."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.first = nn.Conv2d(1, 2, 2)
        self.middle = nn.Linear(18, 18)
        self.twice = nn.Linear(18, 18)
        self.narrow = nn.Linear(18, 6)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x)).flatten(1)
        h = h + torch.tanh(self.middle(h))
        logits: Tensor = self.last(torch.tanh(self.narrow(self.twice(self.twice(h)))))
        return logits


@pytest.fixture
def residual() -> nn.Module:
    torch.manual_seed(2)
    return Residual()


@pytest.fixture
def records() -> Records:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(8, 1, 4, 4, generator=generator)
    return Records(x, torch.arange(8) % 3, 3, "pictures")


def test_layers_come_in_the_order_of_the_forward_pass(residual: nn.Module, records: Records) -> None:
    assert weighted_layers(residual, records) == ("first", "middle", "narrow", "last")
    assert chosen_layers(residual, records, None) == ("last",)
    assert chosen_layers(residual, records, ["last", "first"]) == ("first", "last")
    network = build("mnist-net")
    some = Records(torch.rand(2, 1, 28, 28), torch.tensor([0, 1]), 10, "blank")
    assert weighted_layers(network, some) == ("features.0", "features.2", "classifier.1", "classifier.4")


def test_what_enters_a_layer_leads_to_the_same_logits(residual: nn.Module, records: Records) -> None:
    for layer in weighted_layers(residual, records):
        h = layer_input(residual, layer, records.x)
        with torch.no_grad():
            assert torch.equal(logits_from(residual, layer, h, records.x), residual(records.x))
            assert not torch.allclose(logits_from(residual, layer, 2 * h, records.x), residual(records.x))
    assert torch.equal(layer_input(residual, "first", records.x), records.x)


def test_of_a_linear_layer_the_influence_of_the_logit_is_its_weights(residual: nn.Module, records: Records) -> None:
    h = layer_input(residual, "last", records.x)
    w, b = internal_influence(residual, "last", h, records.x, records.y, "logit", steps=3)
    torch.testing.assert_close(w, residual.last.weight.detach().double()[records.y], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(b, residual.last.bias.detach().double()[records.y])


@pytest.mark.parametrize("quantity", ["logit", "log-probability"])
def test_influences_add_up_to_the_output(residual: nn.Module, records: Records, quantity: Quantity) -> None:
    with torch.no_grad():
        expected = quantity_of(residual(records.x), records.y, quantity)
    for layer in weighted_layers(residual, records):
        h = layer_input(residual, layer, records.x)
        w, b = internal_influence(residual, layer, h, records.x, records.y, quantity, steps=400)
        # Above the first layer are kinks, where the integral converges slowly.
        tolerance = 2e-3 if layer == "first" else 2e-5
        torch.testing.assert_close((w * h.flatten(1)).sum(1) + b, expected, rtol=0, atol=tolerance)


def test_the_path_is_averaged_at_the_middles_of_its_steps() -> None:
    # Of a square the gradient is linear along the path, and a single middle is exact.
    class Square(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            values: Tensor = self.inner(x)
            return values**2

    torch.manual_seed(0)
    network, x, y = Square(), torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 0])
    w, b = internal_influence(network, "inner", x, x, y, "logit", steps=1)
    expected = network(x).detach().double()[torch.arange(5), y]
    torch.testing.assert_close((w * x).sum(1) + b, expected, rtol=1e-5, atol=1e-6)


def test_the_log_probability_is_that_of_the_true_class() -> None:
    logits, y = torch.tensor([[1.0, 3.0], [90.0, 0.0]]), torch.tensor([1, 0])
    expected = -torch.nn.functional.cross_entropy(logits.double(), y, reduction="none")
    torch.testing.assert_close(quantity_of(logits, y, "log-probability"), expected)
    assert quantity_of(logits, y, "logit").tolist() == [3.0, 90.0]


def test_the_network_stays_as_it_was(residual: nn.Module, records: Records) -> None:
    residual.train().first.requires_grad_(False)
    h = layer_input(residual, "middle", records.x)
    internal_influence(residual, "middle", h, records.x, records.y, "logit")
    assert residual.training
    assert all(parameter.grad is None for parameter in residual.parameters())
    assert not residual.first.weight.requires_grad
    assert residual.last.weight.requires_grad
    assert not any(part._forward_pre_hooks for part in residual.modules())


def test_unknown_layers_are_refused(residual: nn.Module, records: Records) -> None:
    with pytest.raises(UnknownNameError, match=r"'twice'.*'middle'"):
        chosen_layers(residual, records, ["twice"])
    with pytest.raises(InvalidArgumentError, match="sequence of names"):
        chosen_layers(residual, records, "last")
    with pytest.raises(InvalidArgumentError, match="no layer to cut at"):
        weighted_layers(nn.Flatten(), records)
    with pytest.raises(InvalidArgumentError, match="steps is at least 1"):
        internal_influence(residual, "last", torch.zeros(8, 6), records.x, records.y, "logit", steps=0)
