from __future__ import annotations

import pytest
import torch
from torch import nn

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, NonFiniteValueError
from privkernels.inference import accuracy, logits
from privkernels.models import build


def make_records(n: int = 10) -> Records:
    generator = torch.Generator().manual_seed(0)
    return Records(torch.rand(n, 4, generator=generator), torch.arange(n) % 3, 3, "made")


@pytest.mark.parametrize("batch_size", [1, 3, 10, 1024])
def test_logits_do_not_depend_on_the_batch_size(batch_size) -> None:
    network, records = build("mlp", input_shape=(4,), n_classes=3, seed=0), make_records()
    found = logits(network, records, batch_size)
    assert not found.requires_grad
    torch.testing.assert_close(found, network(records.x).detach())


def test_accuracy_is_the_share_of_right_answers() -> None:
    class Fixed(nn.Module):
        """Says class 0 always; it has no parameters."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([1.0, 0.0, 0.0]).repeat(len(x), 1)

    assert accuracy(Fixed(), make_records(10)) == pytest.approx(0.4)


def test_a_tie_goes_to_the_lowest_class() -> None:
    network = build("linear", input_shape=(4,), n_classes=3, seed=0)
    for parameter in network.parameters():
        parameter.data.zero_()
    assert accuracy(network, make_records(10)) == pytest.approx(0.4)


def test_modes_are_put_back_one_by_one_also_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    network.train()
    network[2].eval()
    modes = [part.training for part in network.modules()]
    mean = network[2].running_mean.clone()
    first, second = logits(network, make_records()), logits(network, make_records())
    assert torch.equal(first, second), "dropout was not switched off"
    assert [part.training for part in network.modules()] == modes
    with pytest.raises(RuntimeError):
        logits(network, Records(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64), 3, "wrong"))
    assert [part.training for part in network.modules()] == modes
    assert torch.equal(network[2].running_mean, mean)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_logits_are_refused(value) -> None:
    network = build("linear", input_shape=(4,), n_classes=3, seed=0)
    network.output.bias.data[1] = value
    for function in (logits, accuracy):
        with pytest.raises(NonFiniteValueError, match="Linear returned NaN or infinity for 'made'"):
            function(network, make_records())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_parameters_of_another_dtype_are_named(dtype) -> None:
    network = build("mlp", input_shape=(4,), n_classes=3, seed=0).to(dtype)
    with pytest.raises(InvalidArgumentError, match=f"parameters of {dtype}.*give module.float()"):
        logits(network, make_records())
    assert logits(network.float(), make_records()).shape == (10, 3)


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"\[10, 4\].*\[10, 3\]"):
        logits(build("linear", input_shape=(4,), n_classes=4), make_records())
    with pytest.raises(InvalidArgumentError, match="batch_size"):
        logits(build("linear", input_shape=(4,), n_classes=3), make_records(), batch_size=0)
