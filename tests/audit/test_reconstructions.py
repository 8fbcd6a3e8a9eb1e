"""Records brought back from layers: shallow layers give them away, and every figure has its control."""

from __future__ import annotations

import dataclasses
import functools
import json

import pytest
import torch
from torch import nn

from privkernels import data, models
from privkernels.attacks.inversion import InversionSettings
from privkernels.audit import Target, reconstruct, reconstructions
from privkernels.audit.intervals import clopper_pearson
from privkernels.audit.reconstructions import Reconstruction
from privkernels.data import Records
from privkernels.errors import InvalidArgumentError, UnknownNameError

QUICK = InversionSettings(steps=60)


@pytest.fixture(scope="module")
def parts() -> tuple[Records, Records]:
    digits = data.load("digits").train
    return digits.subset(range(100)), digits.subset(range(100, 200))


@pytest.fixture(scope="module")
def target() -> Target:
    return Target("untrained", models.build("mnist-net", input_shape=(1, 8, 8), seed=0).eval())


def test_a_shallow_layer_gives_the_records_away_and_the_output_less(
    target: Target, parts: tuple[Records, Records]
) -> None:
    (shallow, deep), panels = reconstruct([target], ["features.0", "output"], *parts, settings=QUICK)
    assert (shallow.target, shallow.layer, shallow.n_records) == ("untrained", "features.0", 8)
    assert shallow.identified.value == 1.0
    assert shallow.identified.low == pytest.approx(0.631, abs=1e-3)
    assert shallow.psnr > shallow.neighbour_psnr + 10
    assert shallow.ssim is not None
    assert shallow.ssim > 0.95
    assert deep.psnr < shallow.psnr - 10
    assert deep.layer == "output"
    # 100 members and 100 non-members, the original among them.
    assert shallow.chance == pytest.approx(1 / 200)
    assert [panel.title for panel in panels] == [
        "untrained, inverted from features.0",
        "untrained, inverted from output",
    ]
    found = torch.as_tensor(panels[0].reconstructions)
    assert torch.allclose(found, torch.as_tensor(panels[0].originals), atol=0.2)
    # The nearest training record of a good reconstruction is the original itself, the nearest held-out one is not.
    assert torch.equal(torch.as_tensor(panels[0].nearest_training), torch.as_tensor(panels[0].originals))
    assert not torch.equal(torch.as_tensor(panels[0].nearest_held_out), torch.as_tensor(panels[0].originals))
    assert Reconstruction.from_dict(shallow.to_dict()) == shallow
    assert "8 of 8" in str(shallow)


def test_pictures_are_searched_with_the_weight_that_does_best(
    parts: tuple[Records, Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Target("t", models.build("linear", input_shape=(1, 8, 8), n_classes=10, seed=0).eval())
    each = [
        reconstruct([network], ["output"], *parts, settings=dataclasses.replace(QUICK, tv_weight=weight))[0][0].psnr
        for weight in (30.0, 0.03)
    ]
    assert each[1] > each[0] + 0.1
    monkeypatch.setattr(reconstructions, "InversionSettings", functools.partial(InversionSettings, steps=QUICK.steps))
    for weights in ((30.0, 0.03), (0.03, 30.0)):
        monkeypatch.setattr(reconstructions, "TV_WEIGHTS", weights)
        (best,), _ = reconstruct([network], ["output"], *parts)
        assert best.psnr == pytest.approx(each[1])
        assert best.identified.value is not None
        # The two share the error of the interval.
        assert best.identified.low == clopper_pearson(round(8 * best.identified.value), 8, 1 - 0.05 / 2)[0]


def test_another_range_of_values_changes_neither_figures_nor_pictures(parts: tuple[Records, Records]) -> None:
    class Normalised(nn.Module):
        """The same network for records in [-1, 3]."""

        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.network((x + 1) / 4)
            return result

    network = models.build("mlp-32", input_shape=(1, 8, 8), n_classes=10, seed=0).eval()
    scaled = [dataclasses.replace(part, x=part.x * 4 - 1) for part in parts]
    (plain,), (shown,) = reconstruct([Target("t", network)], ["output"], *parts, settings=QUICK)
    (other,), (also,) = reconstruct([Target("t", Normalised(network))], ["output"], *scaled, settings=QUICK)
    assert other.psnr == pytest.approx(plain.psnr, abs=0.05)
    assert torch.allclose(torch.as_tensor(also.originals), torch.as_tensor(shown.originals), atol=1e-6)


def test_records_that_are_no_pictures_have_figures_and_no_panel(parts: tuple[Records, Records]) -> None:
    flat = [dataclasses.replace(part, x=part.x.flatten(1)) for part in parts]
    network = models.build("linear", input_shape=(64,), n_classes=10, seed=0).eval()
    figures, panels = reconstruct([Target("t", network)], ["output"], *flat, records=3, settings=QUICK)
    assert panels == []
    assert figures[0].n_records == 3
    assert figures[0].ssim is None


def test_records_that_are_found_exactly_have_finite_figures(parts: tuple[Records, Records]) -> None:
    binary = [dataclasses.replace(part, x=(part.x.flatten(1) > 0.5).float()) for part in parts]
    network = nn.Sequential(nn.Linear(64, 64, bias=False), nn.Linear(64, 10))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(64))
    (found,), _ = reconstruct([Target("t", network)], ["0"], *binary, settings=InversionSettings())
    assert found.psnr == 150.0
    json.dumps(found.to_dict(), allow_nan=False)


def test_what_cannot_be_inverted_is_refused(target: Target, parts: tuple[Records, Records]) -> None:
    with pytest.raises(UnknownNameError, match=r"features\.0"):
        reconstruct([target], ["nothing"], *parts)
    with pytest.raises(InvalidArgumentError, match="function"):
        reconstruct([Target("f", lambda x: x.flatten(1)[:, :10])], ["output"], *parts)
    assert reconstruct([Target("f", lambda x: x.flatten(1)[:, :10])], [], *parts) == ([], [])
