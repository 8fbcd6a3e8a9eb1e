from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from privkernels.data import Records
from privkernels.errors import InvalidArgumentError
from privkernels.models import build
from privkernels.training import TrainingConfig, fit_stacked
from privkernels.training.alone import fit_alone
from privkernels.training.dropout import replace_dropout
from privkernels.training.examine import Examination, examine

RECORDS = Records(torch.rand(12, 6, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 3, 3, "made")
CONFIG = TrainingConfig(epochs=2, batch_size=4)


class Counting(nn.Module):
    """Changes a buffer in place at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        return self.layer(x)


class Replacing(Counting):
    """Puts a new tensor in the buffer's place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps = self.steps + 1
        return self.layer(x)


class FunctionalDropout(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(functional.dropout(x, 0.5, self.training))


class Branching(FunctionalDropout):
    """Looks at the data to decide what to do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if self.layer(x).sum() > 0 else -self.layer(x)


class DropoutTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.dropout = nn.Linear(6, 3), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.layer(self.dropout(x)))


class DropoutAcross(DropoutTwice):
    """Runs dropout on a tensor whose first dimension is not the batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.dropout(x.T).T)


class MixedTypes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(6, 3), nn.Linear(3, 3).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(x).double()).float()


OBSTACLES = [
    (lambda: nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)), r"batch normalisation \(1\)"),
    (Counting, "buffer steps"),
    (Replacing, "buffer steps"),
    (FunctionalDropout, "torch.vmap"),
    (lambda: nn.Sequential(nn.Linear(6, 3), nn.AlphaDropout(0.5)), "torch.vmap"),
    (Branching, "torch.vmap"),
    (DropoutTwice, "must run once"),
    (DropoutAcross, "must run once"),
    (MixedTypes, "dtypes"),
]
IDS = ["batch norm", "buffer", "new buffer", "functional", "alpha", "branch", "twice", "across", "dtypes"]


def look_at(model: nn.Module, records: Records = RECORDS) -> Examination:
    return examine(model, replace_dropout(model.train()), records)


@pytest.mark.parametrize(("make", "says"), OBSTACLES, ids=IDS)
def test_what_cannot_be_stacked_is_said_and_the_other_engine_named(make, says) -> None:
    state = make().state_dict()
    with pytest.raises(InvalidArgumentError, match=says + r'.*engine="processes"'):
        fit_stacked(make, state, RECORDS, [torch.arange(12)], CONFIG, [1])


@pytest.mark.parametrize(("make", "says"), OBSTACLES, ids=IDS)
def test_the_other_engine_trains_it_reproducibly(make, says) -> None:
    state = make().state_dict()
    rng = torch.get_rng_state()
    first, again, other = (fit_alone(make, state, RECORDS, torch.arange(12), CONFIG, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert any(not torch.equal(first[name], state[name]) for name in first)


def test_batch_normalisation_keeps_its_statistics() -> None:
    make = OBSTACLES[0][0]
    state = make().state_dict()
    trained = fit_alone(make, state, RECORDS, torch.arange(12), CONFIG, 1)
    assert trained["1.num_batches_tracked"] == 6
    assert not torch.equal(trained["1.running_mean"], state["1.running_mean"])


def test_a_batch_that_the_network_refuses_is_named() -> None:
    make = OBSTACLES[0][0]
    with pytest.raises(InvalidArgumentError, match=r"member 3 failed on a batch of 1 records.*batch_size"):
        fit_alone(make, make().state_dict(), RECORDS, torch.arange(9), CONFIG, 1, label="member 3")


def test_what_can_be_stacked() -> None:
    for make in (
        lambda: build("mlp", input_shape=(6,), n_classes=3),
        lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.Dropout(0.5), nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 3)), nn.InstanceNorm1d(2), nn.Flatten(), nn.Linear(6, 3)),
    ):
        found = look_at(make())
        assert found.obstacle is None
        assert not found.convolutional
        assert found.activations > 0


def test_the_network_is_left_as_it_was() -> None:
    model = Counting()
    rng = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    look_at(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_sizes_are_counted() -> None:
    records = Records(torch.zeros(2, 1, 28, 28), torch.tensor([0, 1]), 10, "images")
    found = look_at(build("mnist-net"), records)
    assert found.convolutional
    assert found.obstacle is None
    assert found.parameters == 1_199_882
    # Convolutions and their ReLUs, pooling, dropout and flattening, dense, ReLU, dropout, logits.
    assert found.activations == 2 * 32 * 26 * 26 + 2 * 64 * 24 * 24 + 3 * 9216 + 3 * 128 + 10
