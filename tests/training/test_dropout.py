from __future__ import annotations

import pytest
import torch
from torch import nn

from privkernels.training.dropout import ReplayedDropout, replace_dropout


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 1.0])
def test_masks_have_the_right_share_and_mean(p: float) -> None:
    mask = ReplayedDropout(p, channels=False).draw((400, 100), generator())
    values = {0.0} if p == 1 else {0.0, 1 / (1 - p)} if p else {1.0}
    assert {round(value, 6) for value in mask.unique().tolist()} == {round(value, 6) for value in values}
    # 40,000 draws: five standard deviations are at most 0.0125.
    assert (mask == 0).float().mean().item() == pytest.approx(p, abs=0.0125)


@pytest.mark.parametrize(("layer", "shape"), [(nn.Dropout1d, (50, 20, 3)), (nn.Dropout2d, (50, 20, 3, 4))])
def test_whole_channels_are_dropped(layer, shape) -> None:
    model = nn.Sequential(layer(0.5))
    replaced = replace_dropout(model)["0"]
    replaced.generator = generator()
    out = model(torch.ones(shape)).flatten(2)
    assert (out == out[:, :, :1]).all()
    assert (out[:, :, 0] == 0).float().mean().item() == pytest.approx(0.5, abs=0.08)


def test_replacing_reaches_nested_shared_and_only_known_layers() -> None:
    shared = nn.Dropout(0.3)
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), shared), shared, nn.AlphaDropout(0.1), nn.Dropout(0.2))
    keys = set(model.state_dict())
    replaced = replace_dropout(model)
    assert {name: layer.p for name, layer in replaced.items()} == {"0.1": 0.3, "3": 0.2}
    assert model[1] is model[0][1] is replaced["0.1"]
    assert isinstance(model[2], nn.AlphaDropout)
    assert set(model.state_dict()) == keys, "masks must not be saved"


def test_a_given_mask_is_used_and_none_in_evaluation() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    replaced = replace_dropout(model)["0"]
    x = torch.rand(3, 4)
    mask = replaced.draw((3, 4), generator())
    out = torch.func.functional_call(model, {"0.mask": mask}, (x,))
    assert torch.equal(out, x * mask)
    assert torch.equal(model.eval()(x), x)


def test_a_part_in_evaluation_mode_stays_so() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    model[1].eval()
    replaced = replace_dropout(model)
    assert [layer.training for layer in replaced.values()] == [True, False]


def test_masks_do_not_touch_the_global_generator() -> None:
    state = torch.get_rng_state()
    ReplayedDropout(0.5, channels=False).draw((10, 10), generator())
    assert torch.equal(torch.get_rng_state(), state)
