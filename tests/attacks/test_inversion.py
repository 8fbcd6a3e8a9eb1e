"""Inversion of a layer's representation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from privkernels import data, models, training
from privkernels.attacks.inversion import Inversion, InversionSettings, invert, representation_at
from privkernels.attacks.similarity import psnr, reconstruction_report
from privkernels.data import Records
from privkernels.errors import EmptyDataError, InvalidArgumentError, NonFiniteValueError, UnknownNameError

QUICK = InversionSettings(steps=100)
SHAPE = (1, 8, 8)
DIGITS = data.load("digits")


def make_network() -> nn.Module:
    """Layers 0 and 3 are convolutions, 6 and 8 are dense; 1 works in place; 2 and 4 differ in training mode."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.1),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.Sequential(nn.MaxPool2d(2), nn.Flatten()),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@pytest.fixture(scope="module")
def network() -> nn.Module:
    with models.seeded(0):
        module = make_network()
    config = training.TrainingConfig(epochs=3, batch_size=32, learning_rate=0.05)
    states = training.fit_stacked(
        make_network, module.state_dict(), DIGITS.train, [torch.arange(len(DIGITS.train))], config, [0]
    )
    module.load_state_dict(states[0])
    return module


@pytest.fixture(scope="module")
def originals() -> Records:
    return DIGITS.train.subset(range(8))


def observe(module: nn.Module, layer: str | None, x: Tensor) -> Tensor:
    with torch.no_grad():
        return representation_at(module, layer)(x)


def test_an_invertible_linear_layer_is_inverted() -> None:
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(16, 16)
    with torch.no_grad():
        q, _ = torch.linalg.qr(torch.randn(16, 16, generator=generator))
        layer.weight.copy_(q * torch.linspace(0.8, 1.25, 16))
    x = torch.rand(5, 16, generator=generator)
    found = invert(layer, observe(layer, None, x), (16,))
    assert psnr(found.x, x).min() > 40
    # The search ends early by the relative error, which is then below the tolerance.
    assert found.steps < InversionSettings().steps
    assert found.relative_error.max() < 1e-6
    assert len(found.loss) == 5
    assert found.loss.dtype == found.relative_error.dtype == np.float64


def test_a_first_convolution_gives_more_than_any_other_picture(network: nn.Module, originals: Records) -> None:
    found = invert(network, observe(network, "0", originals.x), SHAPE, layer="0", settings=QUICK)
    report = reconstruction_report(found.x, originals, DIGITS.train, DIGITS.test)
    assert report.n_identified == report.n_beyond_neighbour == 8
    assert (report.distance_to_original < report.distance_to_train).all()
    assert found.x.dtype == torch.float32
    assert 0 <= found.x.min() < found.x.max() <= 1


def test_more_noise_on_the_representation_means_a_lower_psnr(network: nn.Module, originals: Records) -> None:
    clean = observe(network, "0", originals.x)
    noise = clean.std() * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    quality = [
        psnr(invert(network, clean + share * noise, SHAPE, layer="0", settings=QUICK).x, originals.x).mean()
        for share in (0.0, 0.3, 1.0)
    ]
    assert quality[0] > quality[1] + 3
    assert quality[1] > quality[2] + 3


def test_a_deep_layer_tells_less_than_a_shallow_one(network: nn.Module, originals: Records) -> None:
    quality = [
        psnr(invert(network, observe(network, at, originals.x), SHAPE, layer=at, settings=QUICK).x, originals.x).mean()
        for at in ("0", "6", "8")
    ]
    assert quality[0] > quality[1] + 3
    assert quality[1] > quality[2]


def test_a_function_is_as_good_as_a_layer(network: nn.Module, originals: Records) -> None:
    observed = observe(network, "0", originals.x)
    first = invert(network, observed, SHAPE, layer="0", settings=QUICK)
    second = invert(network[0], observed, SHAPE, settings=QUICK)  # type: ignore[index]
    third = invert(lambda x: network[0](x), observed, SHAPE, settings=QUICK)  # type: ignore[index]
    assert first.x.equal(second.x)
    assert first.x.equal(third.x)


def test_a_later_layer_in_place_does_not_change_what_is_seen(network: nn.Module, originals: Records) -> None:
    assert observe(network, "0", originals.x).min() < 0, "layer 1 is a ReLU in place"
    assert observe(network, "1", originals.x).min() == 0
    assert observe(network, "5.1", originals.x).shape == (8, 256)
    assert observe(network, None, originals.x).equal(observe(network, "8", originals.x))


def test_the_network_stays_as_it_was(network: nn.Module, originals: Records) -> None:
    network.train()
    network[3].eval()  # type: ignore[index]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    states = [part.training for part in network.modules()], torch.get_rng_state()
    invert(network, observe(network, "4", originals.x), SHAPE, layer="4", settings=InversionSettings(steps=3))
    assert [part.training for part in network.modules()] == states[0]
    assert torch.get_rng_state().equal(states[1]), "dropout is off and no global generator is used"
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(before[name].equal(value) for name, value in network.state_dict().items())
    assert not network[0]._forward_hooks  # type: ignore[index]


def test_records_do_not_influence_each_other(network: nn.Module, originals: Records) -> None:
    observed = observe(network, "3", originals.x)
    other = observed.clone()
    other[1:] *= 3
    settings = InversionSettings(steps=50)
    first, second = (invert(network, rows, SHAPE, layer="3", settings=settings) for rows in (observed, other))
    torch.testing.assert_close(first.x[0], second.x[0], rtol=0, atol=1e-4)
    assert (first.x[1] - second.x[1]).abs().max() > 0.01


def test_the_seed_decides_everything(network: nn.Module, originals: Records) -> None:
    observed = observe(network, "8", originals.x)
    settings = InversionSettings(steps=20, jitter=1, restarts=2)
    first, again, other = (
        invert(network, observed, SHAPE, layer="8", settings=settings, seed=seed) for seed in (1, 1, 2)
    )
    assert first.x.equal(again.x)
    assert not first.x.equal(other.x)
    still = invert(network, observed, SHAPE, layer="8", settings=InversionSettings(steps=20, restarts=2), seed=1)
    assert not first.x.equal(still.x), "jitter shifts"


def test_restarts_keep_the_lowest_loss_of_each_record(network: nn.Module, originals: Records) -> None:
    observed = observe(network, "8", originals.x)
    seen: list[tuple[int, int, str]] = []
    one, three = (
        invert(
            network,
            observed,
            SHAPE,
            layer="8",
            settings=InversionSettings(steps=30, restarts=restarts, learning_rates=(0.1,)),
            progress=lambda *step: seen.append(step),
        )
        for restarts in (1, 3)
    )
    assert (three.loss <= one.loss).all()
    assert (three.loss < one.loss).any()
    assert seen[0] == (1, 30, "inversion 1")
    assert seen[-1] == (30, 30, "inversion 3")
    # What is said of x is true of x.
    error = (observe(network, "8", three.x) - observed).square().sum(1) / observed.square().sum(1)
    np.testing.assert_allclose(three.relative_error, error.double().numpy(), rtol=1e-3)
    assert (three.loss >= three.relative_error).all()


def test_of_several_learning_rates_each_record_keeps_its_best_search(network: nn.Module, originals: Records) -> None:
    observed = observe(network, "6", originals.x)
    rates = (0.02, 0.3)

    def search(*chosen: float) -> Inversion:
        settings = InversionSettings(steps=60, learning_rates=chosen)
        return invert(network, observed, SHAPE, layer="6", settings=settings)

    low, high, both = search(0.02), search(0.3), search(*rates)
    # Both searches start at one point, so they are those of each rate alone.
    assert (low.loss != high.loss).all()
    np.testing.assert_array_equal(both.loss, np.minimum(low.loss, high.loss))
    for found, a, b in zip(both.x, low.x, high.x, strict=True):
        assert found.equal(a) or found.equal(b)


def test_no_further_search_where_every_record_is_found() -> None:
    seen: list[str] = []
    found = invert(
        nn.Identity(), torch.rand(2, 3, generator=torch.Generator().manual_seed(0)), (3,),
        settings=InversionSettings(restarts=3), progress=lambda done, total, what: seen.append(what),
    )  # fmt: skip
    assert found.relative_error.max() < InversionSettings().tolerance
    assert set(seen) == {"inversion 1"}


def test_the_search_begins_at_start(network: nn.Module, originals: Records) -> None:
    start = DIGITS.test.x.mean(dim=0)
    settings = InversionSettings(steps=1, learning_rates=(1e-6,))
    observed = observe(network, "6", originals.x)
    found = invert(network, observed, SHAPE, layer="6", start=start, settings=settings)
    assert (found.x - start).abs().max() <= 0.05 + 1e-4, "noise a tenth of the range wide"
    assert found.x.min() >= 0
    # The mean of other people's digits helps where the layer leaves much open.
    plain, helped = (
        psnr(invert(network, observed, SHAPE, layer="6", start=at, settings=QUICK).x, originals.x).mean()
        for at in (None, start)
    )
    assert helped > plain + 0.3


def test_the_range_is_kept() -> None:
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)) * 8 - 4
    settings = InversionSettings(low=-2.0, high=5.0)
    found = invert(nn.Identity(), x, (3,), settings=settings)
    torch.testing.assert_close(found.x, x.clamp(-2.0, 5.0), rtol=0, atol=1e-2)


def test_an_observation_of_zeros_has_an_absolute_error() -> None:
    found = invert(nn.Identity(), torch.zeros(2, 3), (3,), settings=QUICK)
    assert found.relative_error.max() < 1e-4
    assert found.x.max() < 0.01


class Awkward(nn.Module):
    """A layer that does not run, and one that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.pair = nn.LSTM(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.pair(x)[0]
        return output


@pytest.mark.parametrize(
    ("error", "words", "change"),
    [
        (UnknownNameError, "has no layer 'nine': choose one of 0, 1", {"layer": "nine"}),
        (InvalidArgumentError, r"\[8, 10\] was observed", {"layer": "7"}),
        (InvalidArgumentError, r"\[8, 10\] was observed", {"layer": "0"}),
        (InvalidArgumentError, "needs a module", {"target": torch.sin}),
        (InvalidArgumentError, "no gradient", {"target": lambda x: torch.ones(8, 10), "layer": None}),
        (InvalidArgumentError, "does not run", {"target": Awkward(), "layer": "unused", "input_shape": (3,)}),
        (InvalidArgumentError, "returns a tuple", {"target": Awkward(), "layer": "pair", "input_shape": (3,)}),
        (InvalidArgumentError, "floating-point", {"observed": torch.zeros(8, 10, dtype=torch.int64)}),
        (EmptyDataError, "no observed", {"observed": torch.zeros(0, 10)}),
        (InvalidArgumentError, r"start has the shape of one record, \[1, 8, 8\]", {"start": torch.zeros(8, 1, 8, 8)}),
        (NonFiniteValueError, "start holds NaN", {"start": torch.full(SHAPE, torch.nan)}),
        (NonFiniteValueError, "observed", {"observed": torch.full((8, 10), torch.nan)}),
        (NonFiniteValueError, "loss", {"target": lambda x: x.flatten(1)[:, :10] * torch.nan, "layer": None}),
    ],
)
def test_what_is_wrong_is_said(network: nn.Module, error: type[Exception], words: str, change: dict[str, Any]) -> None:
    arguments = {"target": network, "observed": torch.ones(8, 10), "input_shape": SHAPE, "layer": "8", **change}
    with pytest.raises(error, match=words):
        invert(**arguments)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 0},
        {"restarts": True},
        {"jitter": -1},
        {"tv_weight": -1.0},
        {"alpha_weight": float("nan")},
        {"learning_rates": (0.1, 0.0)},
        {"learning_rates": ()},
        {"learning_rates": 0.1},
        {"alpha": 0.5},
        {"low": 1.0},
        {"tolerance": float("inf")},
    ],
)
def test_settings_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(change))):
        InversionSettings(**change)
