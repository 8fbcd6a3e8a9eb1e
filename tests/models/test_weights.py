from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from privkernels.errors import (
    CorruptFileError,
    FileMissingError,
    MemberMismatchError,
    NonFiniteValueError,
    UnsafeFormatError,
)
from privkernels.models import build, load_weights


def make(seed: int) -> torch.nn.Module:
    return build("mlp-3", input_shape=(4,), n_classes=2, seed=seed)


@pytest.mark.parametrize("from_file", [True, False])
def test_weights_are_copied(tmp_path, from_file) -> None:
    source, target = make(1).state_dict(), make(2)
    if from_file:
        save_file(source, tmp_path / "weights.safetensors")
    assert load_weights(target, tmp_path / "weights.safetensors" if from_file else source) is target
    assert all(torch.equal(tensor, source[name]) for name, tensor in target.state_dict().items())
    target.hidden.weight.data.zero_()
    assert source["hidden.weight"].any()


def test_every_difference_is_listed_and_nothing_is_changed() -> None:
    target = make(2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    tensors = make(1).state_dict()
    del tensors["hidden.bias"]
    tensors["extra"] = torch.zeros(1)
    tensors["output.weight"] = torch.zeros(2, 4)
    tensors["output.bias"] = torch.zeros(2, dtype=torch.float16)
    with pytest.raises(MemberMismatchError) as caught:
        load_weights(target, tensors)
    for part in (
        "missing hidden.bias",
        "unexpected extra",
        "output.weight is torch.float32 [2, 4] instead of torch.float32 [2, 3]",
        "output.bias is torch.float16 [2]",
        "MLP",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(value) -> None:
    target, tensors = make(2), make(1).state_dict()
    before = target.hidden.weight.clone()
    tensors["output.bias"][1] = value
    with pytest.raises(NonFiniteValueError, match=r"output\.bias"):
        load_weights(target, tensors)
    assert torch.equal(target.hidden.weight, before)


def test_files_that_cannot_be_read_are_named(tmp_path) -> None:
    with pytest.raises(FileMissingError, match="nothing"):
        load_weights(make(0), tmp_path / "nothing.safetensors")
    torch.save(make(1).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UnsafeFormatError, match=r"weights\.pt"):
        load_weights(make(0), tmp_path / "weights.pt")
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(CorruptFileError, match="torn"):
        load_weights(make(0), tmp_path / "torn.safetensors")
